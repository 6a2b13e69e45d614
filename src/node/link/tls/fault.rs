//! What can go wrong with another node.

use std::io;

#[cfg(feature = "tls")]
use futures_rustls::rustls::{AlertDescription, CertificateError, Error, InvalidMessage, OtherError};

#[cfg(feature = "tls")]
use super::verify::TooDeep;

/// Why there is no TLS with a node. The texts say what to do, on which side.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TlsFault {
    /// They speak the distribution's protocol without TLS.
    #[error(
        "it does not speak TLS, and this node does: start that one with -proto_dist inet_tls, or this one without --tls"
    )]
    Plain,
    /// They closed the connection without having said anything.
    #[error("it closed the connection without a word")]
    Silence,
    /// They closed the connection in the handshake of TLS.
    #[error(
        "it closed the connection in the handshake of TLS; its log says why, unless it does not speak TLS (-proto_dist \
         inet_tls)"
    )]
    Closed,
    /// They closed the connection right after it.
    #[error(
        "it closed the connection after the handshake of TLS: most likely it does not take this node's certificate; its \
         log says why"
    )]
    ClosedAfterwards,
    /// They did not go on in time.
    #[error("it did not go on in time; a node that does not speak TLS (-proto_dist inet_tls) does that")]
    TimedOut,
    /// Their certificate is signed by nobody that we know.
    #[error(
        "its certificate is signed by none of our CAs: add the certificate of the one that signed it to the file of \
         --tls-ca (cacertfile), or have its certificate signed by one of ours"
    )]
    UnknownCa,
    /// Their certificate has expired.
    #[error("its certificate has expired: that node needs a new one")]
    Expired,
    /// Their certificate is not valid yet.
    #[error("its certificate is not valid yet: look at the clocks of both machines")]
    NotValidYet,
    /// Their certificate is for other hosts than the dialled one.
    #[error(
        "its certificate is not for this host{}: that node needs one with the host of its node name as subjectAltName \
         (DNS:HOST)",
        but_for(.presented)
    )]
    OtherName {
        /// What it is for, as it says; empty where that is not known.
        presented: Vec<String>,
    },
    /// More certificates stand between theirs and one of a CA of ours than may
    /// ([`TlsSide::depth_max`](crate::config::TlsSide::depth_max)).
    #[error(
        "its certificate is signed by none of our CAs with at most {depth_max} more between: allow more by the option \
         depth, or add the certificate of one of those between to cacertfile"
    )]
    TooDeep {
        /// How many may.
        depth_max: u8,
    },
    /// They sent no certificate.
    #[error(
        "it has shown no certificate, and this node wants one: give it certfile and keyfile in the options of its client \
         part, or start this node with --tls-verify peer-if-given"
    )]
    NoCertificate,
    /// Their certificate cannot be taken for another reason.
    #[error(
        "its certificate cannot be taken ({0}): that node needs another one, of version 3 and of no CA, that may be a \
         client's and a server's where it says what for"
    )]
    BadCertificate(String),
    /// They refuse us: the alert of TLS.
    #[error("it refuses: {0}; its log says more")]
    Refused(String),
    /// They do not trust the CA that signed our certificate, or have no use for it.
    #[error(
        "it does not take this node's certificate: {0}; give one by --tls-cert that a CA of its cacertfile has signed \
         and that is for this node's host"
    )]
    RefusedCertificate(String),
    /// No version or algorithm in common.
    #[error(
        "no version or algorithm in common: {0}; this node speaks TLS 1.2 and 1.3, as far as its options let it, with \
         AEAD ciphers and forward secrecy"
    )]
    Incompatible(String),
    /// They broke the protocol.
    #[error("it broke the protocol of TLS: {0}")]
    Protocol(String),
    /// A host whose name no certificate can be for.
    #[error("no certificate can be for the host {0}: it is neither a name nor an address")]
    HostName(String),
    /// The socket failed.
    #[error("connection failed: {0}")]
    Io(io::Error),
}

fn but_for(presented: &[String]) -> String {
    match presented {
        [] => String::new(),
        names => format!(" but for {}", names.join(", ").escape_debug()),
    }
}

impl TlsFault {
    /// Whether it only was looked whether the port is open.
    pub(in crate::node) const fn is_silence(&self) -> bool {
        matches!(self, Self::Silence)
    }
}

#[cfg(not(feature = "tls"))]
impl TlsFault {
    /// No stream is one of TLS.
    pub(in crate::node) const fn of_stream(_error: &io::Error) -> Option<Self> {
        None
    }
}

#[cfg(feature = "tls")]
impl TlsFault {
    /// Of an error in the handshake.
    pub(super) fn of_handshake(error: io::Error) -> Self {
        if let Some(fault) = Self::of_stream(&error) {
            return fault;
        }
        match error.kind() {
            io::ErrorKind::UnexpectedEof => Self::Closed,
            _ => Self::Io(error),
        }
    }

    /// Of an error of the stream, where it is one of TLS.
    pub(in crate::node) fn of_stream(error: &io::Error) -> Option<Self> {
        error.get_ref()?.downcast_ref::<Error>().map(Self::of_tls)
    }

    pub(super) fn of_tls(error: &Error) -> Self {
        match error {
            Error::InvalidCertificate(error) => Self::of_certificate(error),
            Error::NoCertificatesPresented => Self::NoCertificate,
            Error::InvalidMessage(InvalidMessage::InvalidContentType) => Self::Plain,
            Error::PeerIncompatible(_) => Self::Incompatible(error.to_string()),
            Error::AlertReceived(alert) => Self::of_alert(*alert),
            error => Self::Protocol(error.to_string()),
        }
    }

    fn of_certificate(error: &CertificateError) -> Self {
        match error {
            CertificateError::UnknownIssuer => Self::UnknownCa,
            CertificateError::Expired | CertificateError::ExpiredContext { .. } => Self::Expired,
            CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => Self::NotValidYet,
            CertificateError::NotValidForName => Self::OtherName { presented: Vec::new() },
            CertificateError::NotValidForNameContext { presented, .. } => {
                Self::OtherName { presented: presented.clone() }
            }
            CertificateError::Other(OtherError(other))
                if let Some(error) = other.downcast_ref::<TooDeep>() =>
            {
                Self::TooDeep { depth_max: error.depth_max }
            }
            error => Self::BadCertificate(error.to_string()),
        }
    }

    fn of_alert(alert: AlertDescription) -> Self {
        // RFC 8446, section 6.2.
        use AlertDescription as Alert;
        let said = format!("{alert:?}");
        match alert {
            Alert::UnknownCA
            | Alert::BadCertificate
            | Alert::UnsupportedCertificate
            | Alert::CertificateRevoked
            | Alert::CertificateExpired
            | Alert::CertificateUnknown
            | Alert::CertificateRequired
            | Alert::AccessDenied => Self::RefusedCertificate(said),
            Alert::HandshakeFailure | Alert::ProtocolVersion | Alert::InsufficientSecurity => {
                Self::Incompatible(said)
            }
            _ => Self::Refused(said),
        }
    }
}
