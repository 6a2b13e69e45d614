//! What can be wrong with our own files.

use std::fmt;
use std::io;
use std::path::PathBuf;

/// Why TLS cannot be spoken with the files and options that were given. Whoever runs the node can mend it; the texts
/// say how. None holds anything of a key.
#[derive(Debug)]
#[non_exhaustive]
pub enum TlsError {
    /// A file cannot be read.
    Read {
        /// The file.
        path: PathBuf,
        /// What the system says.
        error: io::Error,
    },
    /// A file holds no certificate in PEM.
    NoCertificate {
        /// The file.
        path: PathBuf,
    },
    /// A certificate cannot be used.
    BadCertificate {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// This node's certificate has expired.
    Expired {
        /// The file.
        path: PathBuf,
    },
    /// This node's certificate is not valid yet.
    NotValidYet {
        /// The file.
        path: PathBuf,
    },
    /// A file holds no private key in PEM.
    NoKey {
        /// The file.
        path: PathBuf,
    },
    /// The private key is encrypted.
    EncryptedKey {
        /// The file.
        path: PathBuf,
    },
    /// The private key is of a kind that cannot be used.
    BadKey {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The private key is not that of the certificate.
    KeyMismatch {
        /// The file of the certificate.
        cert: PathBuf,
        /// The file of the key.
        key: PathBuf,
    },
    /// This program was built without TLS.
    NotBuilt,
    /// A node that others connect to needs a certificate.
    NoCertFile,
    /// The other side's certificate is to be verified, and no CA is named.
    NoCaFile,
    /// The oldest version of TLS is newer than the newest.
    NoVersion,
    /// A file with the options of `-ssl_dist_optfile` is not understood.
    Optfile {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// What is wrong there.
        reason: String,
    },
}

impl fmt::Display for TlsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Read { path, error } => {
                write!(f, "{} cannot be read: {error}; ", path.display())?;
                f.write_str(match error.kind() {
                    io::ErrorKind::NotFound => "look at the path, which is taken from the current folder",
                    io::ErrorKind::PermissionDenied => "let the user that runs this node read it",
                    _ => "give another file",
                })
            }
            Self::NoCertificate { path } => write!(
                f,
                "{} holds no certificate in PEM (-----BEGIN CERTIFICATE-----); give the file that has it",
                path.display()
            ),
            Self::BadCertificate { path, reason } => {
                write!(f, "a certificate in {} cannot be used: {reason}; have another one made", path.display())
            }
            Self::Expired { path } => write!(
                f,
                "the certificate in {} has expired, and nobody would take it: have a new one made",
                path.display()
            ),
            Self::NotValidYet { path } => write!(
                f,
                "the certificate in {} is not valid yet: look at this machine's clock, or have one made that is",
                path.display()
            ),
            Self::NoKey { path } => write!(
                f,
                "{} holds no private key in PEM (-----BEGIN PRIVATE KEY-----); give the file that has it",
                path.display()
            ),
            Self::EncryptedKey { path } => write!(
                f,
                "the private key in {0} is encrypted, which is not read here; make a copy without the password that this \
                 node's user alone can read: openssl pkey -in {0} -out FILE",
                path.display()
            ),
            Self::BadKey { path, reason } => write!(
                f,
                "the private key in {} cannot be used: {reason}; RSA with 2048 bits or more, ECDSA with P-256 or P-384, and \
                 Ed25519 can",
                path.display()
            ),
            Self::KeyMismatch { cert, key } => write!(
                f,
                "the private key in {} is not that of the certificate in {}; give the two that were made together",
                key.display(),
                cert.display()
            ),
            Self::NotBuilt => f.write_str(
                "this program was built without it: build kvnode with its feature tls, which it has by default",
            ),
            Self::NoCertFile => {
                f.write_str("a node needs a certificate to show to those who connect to it: give one by --tls-cert, or by \
                             certfile in the options of the server")
            }
            Self::NoCaFile => f.write_str(
                "to verify the certificates of others, those who may sign them must be known: give their certificates by \
                 --tls-ca, or by cacertfile in the options; or say that nothing is verified (--tls-verify none, \
                 {verify, verify_none})",
            ),
            Self::NoVersion => f.write_str("the oldest version that is spoken is newer than the newest one"),
            Self::Optfile { path, line, reason } => write!(f, "{}, line {line}: {reason}", path.display()),
        }
    }
}

impl std::error::Error for TlsError {}
