//! The cookie: the secret that all nodes of a cluster share.

use std::fmt;

/// The secret of a cluster. It is never printed: its `Debug` says nothing but that there is one.
#[derive(Clone, PartialEq, Eq)]
pub struct Cookie(String);

impl Cookie {
    /// Takes the text of a cookie.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The answer to a challenge: MD5 of the cookie followed by the challenge in decimal
    /// (erl_dist_protocol, "Distribution Handshake", gen_digest).
    pub fn digest(&self, challenge: u32) -> [u8; 16] {
        md5::compute(format!("{}{challenge}", self.0)).0
    }
}

impl fmt::Debug for Cookie {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Cookie(…)")
    }
}
