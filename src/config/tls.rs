//! What a node needs to speak TLS: the files, and which certificates it believes.

use std::path::PathBuf;

/// TLS as Erlang's distribution does it (`-proto_dist inet_tls`; "Using TLS for Erlang Distribution", ssl User's
/// Guide). With it a node speaks TLS with every other one, as a BEAM does: those that do not are not let in.
///
/// A node has two parts in it: it is the server of those that connect to it and the client of those that it connects
/// to. A BEAM may treat the two differently, and so can this.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct TlsConfig {
    /// For nodes that connect to this one.
    pub server: TlsSide,
    /// For nodes that this one connects to.
    pub client: TlsSide,
}

/// What is shown to the other side, and what is wanted of it.
///
/// ```
/// use kvnode::config::{TlsConfig, TlsSide, TlsVerify};
///
/// // Those that connect need no certificate.
/// let server = TlsSide::default().with_cert_file("node.pem").with_ca_file("ca.pem").with_verify(TlsVerify::PeerIfGiven);
/// let client = TlsSide::default().with_ca_file("ca.pem");
/// let tls = TlsConfig::both(server).with_client(client);
/// # assert_eq!(tls.client.cert_file, None);
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct TlsSide {
    /// This node's certificate, PEM, followed by those between it and the CA where there are some: `certfile`. The
    /// server needs it; a client without one cannot show one to a server that asks. The default is none.
    pub cert_file: Option<PathBuf>,
    /// Its private key, PEM, not encrypted: `keyfile`. `None`, the default: it stands in the file of the
    /// certificate.
    pub key_file: Option<PathBuf>,
    /// The certificates of the CAs that may sign the other side's, PEM: `cacertfile`. The default is none.
    pub ca_file: Option<PathBuf>,
    /// What is wanted of the other side's certificate. The default is [`TlsVerify::Peer`].
    pub verify: TlsVerify,
    /// How many certificates may stand at most between the other side's own and one of [`ca_file`](Self::ca_file), where it
    /// is verified: `depth`. `None`, the default: 6, as rustls has it, which is the most in any case.
    pub depth_max: Option<u8>,
    /// The oldest version of TLS that is spoken. The default is 1.2.
    pub version_min: TlsVersion,
    /// The newest version of TLS that is spoken. The default is 1.3.
    pub version_max: TlsVersion,
}

/// What is wanted of the other side's certificate.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum TlsVerify {
    /// The peer must have a certificate that a CA of ours has signed, and a dialled peer one for its host: `verify_peer`, for
    /// the server with `{fail_if_no_peer_cert, true}`.
    #[default]
    Peer,
    /// As [`Peer`](Self::Peer), but a peer that connects may come without a certificate: `verify_peer` with
    /// `{fail_if_no_peer_cert, false}`.
    PeerIfGiven,
    /// No certificate is verified: `verify_none`. An eavesdropper reads nothing, but the peer has not proved its name: only
    /// the cookie tells that it belongs to the cluster.
    None,
}

/// A version of TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum TlsVersion {
    /// `'tlsv1.2'`: what OTP 25 speaks between nodes unless its options say more.
    Tls12,
    /// `'tlsv1.3'`
    Tls13,
}

impl Default for TlsSide {
    /// No files, [`TlsVerify::Peer`] at any depth, TLS 1.2 and 1.3.
    fn default() -> Self {
        Self {
            cert_file: None,
            key_file: None,
            ca_file: None,
            verify: TlsVerify::Peer,
            depth_max: None,
            version_min: TlsVersion::Tls12,
            version_max: TlsVersion::Tls13,
        }
    }
}

impl TlsConfig {
    /// The same for both parts: this certificate with this key, and of the other side a certificate that this CA has signed.
    pub fn new(
        cert_file: impl Into<PathBuf>,
        key_file: impl Into<PathBuf>,
        ca_file: impl Into<PathBuf>,
    ) -> Self {
        Self::both(TlsSide::default().with_cert_file(cert_file).with_key_file(key_file).with_ca_file(ca_file))
    }

    /// The same for both parts.
    pub fn both(side: TlsSide) -> Self {
        Self { server: side.clone(), client: side }
    }
}

impl TlsSide {
    /// The same, with this certificate.
    #[must_use]
    pub fn with_cert_file(self, file: impl Into<PathBuf>) -> Self {
        Self { cert_file: Some(file.into()), ..self }
    }

    /// The same, with the key in this file.
    #[must_use]
    pub fn with_key_file(self, file: impl Into<PathBuf>) -> Self {
        Self { key_file: Some(file.into()), ..self }
    }

    /// The same, with the CAs in this file.
    #[must_use]
    pub fn with_ca_file(self, file: impl Into<PathBuf>) -> Self {
        Self { ca_file: Some(file.into()), ..self }
    }

    /// The same, with so many certificates between the other side's and a CA at most.
    #[must_use]
    pub fn with_depth_max(self, certificates: u8) -> Self {
        Self { depth_max: Some(certificates), ..self }
    }
}

with_each! { TlsSide:
    with_verify = verify: TlsVerify,
    with_version_min = version_min: TlsVersion,
    with_version_max = version_max: TlsVersion,
}

with_each! { TlsConfig:
    with_server = server: TlsSide,
    with_client = client: TlsSide,
}
