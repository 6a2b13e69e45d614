//! What can be wrong with our own files.

use std::io;
use std::path::PathBuf;

/// Why TLS cannot be spoken with the files and options that were given. The node's operator can mend it; the texts
/// say how. None holds anything of a key.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TlsError {
    /// A file cannot be read.
    #[error("{path} cannot be read: {error}; {}", advice(.error))]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system says.
        error: io::Error,
    },
    /// A file holds no certificate in PEM.
    #[error("{path} holds no certificate in PEM (-----BEGIN CERTIFICATE-----); give the file that has it")]
    NoCertificate {
        /// The file.
        path: PathBuf,
    },
    /// A certificate cannot be used.
    #[error("a certificate in {path} cannot be used: {reason}; have another one made")]
    BadCertificate {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// This node's certificate has expired.
    #[error("the certificate in {path} has expired, and nobody would take it: have a new one made")]
    Expired {
        /// The file.
        path: PathBuf,
    },
    /// This node's certificate is not valid yet.
    #[error(
        "the certificate in {path} is not valid yet: look at this machine's clock, or have one made that is"
    )]
    NotValidYet {
        /// The file.
        path: PathBuf,
    },
    /// A file holds no private key in PEM.
    #[error("{path} holds no private key in PEM (-----BEGIN PRIVATE KEY-----); give the file that has it")]
    NoKey {
        /// The file.
        path: PathBuf,
    },
    /// The private key is encrypted.
    #[error(
        "the private key in {path} is encrypted, which is not read here; make a copy without the password that this \
         node's user alone can read: openssl pkey -in {path} -out FILE"
    )]
    EncryptedKey {
        /// The file.
        path: PathBuf,
    },
    /// The private key is of a kind that cannot be used.
    #[error(
        "the private key in {path} cannot be used: {reason}; RSA with 2048 bits or more, ECDSA with P-256 or P-384, and \
         Ed25519 can"
    )]
    BadKey {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The private key is not that of the certificate.
    #[error(
        "the private key in {key} is not that of the certificate in {cert}; give the two that were made together"
    )]
    KeyMismatch {
        /// The file of the certificate.
        cert: PathBuf,
        /// The file of the key.
        key: PathBuf,
    },
    /// This program was built without TLS.
    #[error("this program was built without it: build kvnode with its feature tls, which it has by default")]
    NotBuilt,
    /// A node that others connect to needs a certificate.
    #[error(
        "a node needs a certificate to show to those who connect to it: give one by --tls-cert, or by certfile in the \
         options of the server"
    )]
    NoCertFile,
    /// The other side's certificate is to be verified, and no CA is named.
    #[error(
        "to verify the certificates of others, those who may sign them must be known: give their certificates by \
         --tls-ca, or by cacertfile in the options; or say that nothing is verified (--tls-verify none, \
         {{verify, verify_none}})"
    )]
    NoCaFile,
    /// The oldest version of TLS is newer than the newest.
    #[error("the oldest version that is spoken is newer than the newest one")]
    NoVersion,
    /// A file with the options of `-ssl_dist_optfile` is not understood.
    #[error("{path}, line {line}: {reason}")]
    Optfile {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// What is wrong there.
        reason: String,
    },
}

fn advice(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::NotFound => "look at the path, which is taken from the current folder",
        io::ErrorKind::PermissionDenied => "let the user that runs this node read it",
        _ => "give another file",
    }
}
