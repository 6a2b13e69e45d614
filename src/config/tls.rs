//! What a node needs to speak TLS: the files, and which certificates it believes.

use std::path::PathBuf;

/// TLS as Erlang's distribution does it (`-proto_dist inet_tls`; "Using TLS for Erlang Distribution", ssl User's
/// Guide). With it a node speaks TLS with every other one, as a BEAM does: those that do not are not let in.
///
/// A node has two parts in it: it is the server of those that connect to it and the client of those that it connects
/// to. A BEAM may treat the two differently, and so can this.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsConfig {
    /// For nodes that connect to this one.
    pub server: TlsSide,
    /// For nodes that this one connects to.
    pub client: TlsSide,
}

/// What is shown to the other side, and what is wanted of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsSide {
    /// This node's certificate, PEM, followed by those between it and the CA where there are some: `certfile`. The
    /// server needs it; a client without one cannot show one to a server that asks.
    pub cert_file: Option<PathBuf>,
    /// Its private key, PEM, not encrypted: `keyfile`. `None`: it stands in the file of the certificate.
    pub key_file: Option<PathBuf>,
    /// The certificates of the CAs that may sign the other side's, PEM: `cacertfile`.
    pub ca_file: Option<PathBuf>,
    /// What is wanted of the other side's certificate.
    pub verify: TlsVerify,
    /// How many certificates may stand at most between the other side's own and one of [`ca_file`](Self::ca_file), where it
    /// is verified: `depth`. `None`: 6, as rustls has it, which is the most in any case.
    pub depth_max: Option<u8>,
    /// The oldest version of TLS that is spoken.
    pub version_min: TlsVersion,
    /// The newest version of TLS that is spoken.
    pub version_max: TlsVersion,
}

/// What is wanted of the other side's certificate.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
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
        Self::both(TlsSide {
            cert_file: Some(cert_file.into()),
            key_file: Some(key_file.into()),
            ca_file: Some(ca_file.into()),
            ..TlsSide::default()
        })
    }

    /// The same for both parts.
    pub fn both(side: TlsSide) -> Self {
        Self { server: side.clone(), client: side }
    }
}
