//! TLS between nodes, as Erlang's `-proto_dist inet_tls` speaks it.
//!
//! The side that connects is the client of TLS, and names the host of the node that it wants (SNI); where it verifies,
//! that host must be in the certificate. Inside is the same protocol as over TCP, but the lengths of the handshake's
//! packets have four bytes ([`Lengths`](crate::distribution::handshake::Lengths)). See `inet_tls_dist.erl` in the application
//! ssl, and "Using TLS for Erlang Distribution" in its User's Guide.
//!
//! Sessions are not resumed. TLS 1.2 is never renegotiated here: a BEAM that wants to, after 2^28 records, is
//! connected anew.

//!
//! Without the feature `tls` there is a type `Tls` that no value can be of (`absent.rs`), so that nothing else has to
//! know.

#[cfg(not(feature = "tls"))]
mod absent;
mod error;
mod fault;
#[cfg(feature = "tls")]
mod files;
#[cfg(feature = "tls")]
mod optfile;
#[cfg(feature = "tls")]
mod session;
#[cfg(feature = "tls")]
mod socket;
#[cfg(feature = "tls")]
mod term_text;
#[cfg(feature = "tls")]
mod verify;

#[cfg(not(feature = "tls"))]
pub use absent::read_optfile;
#[cfg(not(feature = "tls"))]
pub(in crate::node) use absent::{Tls, TlsSocket};
pub use error::TlsError;
pub use fault::TlsFault;
#[cfg(feature = "tls")]
pub use optfile::read_optfile;
#[cfg(feature = "tls")]
pub(in crate::node) use session::Tls;
#[cfg(feature = "tls")]
pub(in crate::node) use socket::TlsSocket;

use crate::distribution::handshake::{Fault, HandshakeError, Malformed, Phase};

/// The beginning of a ClientHello, read as the length of a packet: a record of type 22, version 3.x
/// (RFC 8446, section 5.1).
const HELLO_AS_LENGTH: usize = 0x1603;
/// The same of an alert: type 21.
const ALERT_AS_LENGTH: usize = 0x1503;

/// Whether a handshake without TLS failed because the peer that connected speaks TLS.
pub(in crate::node) fn is_hello(error: &HandshakeError) -> bool {
    error.phase == Phase::Name && length(error) == Some(HELLO_AS_LENGTH)
}

/// Whether a handshake without TLS failed because the dialled node answers in TLS.
pub(in crate::node) fn is_alert(error: &HandshakeError) -> bool {
    error.phase == Phase::Status && length(error) == Some(ALERT_AS_LENGTH)
}

fn length(error: &HandshakeError) -> Option<usize> {
    match error.fault {
        Fault::Malformed(Malformed::Oversized { bytes }) => Some(bytes),
        _ => None,
    }
}
