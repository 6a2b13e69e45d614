//! The cookie: the secret that all nodes of a cluster share.

use std::fmt;

use crate::etf::ATOM_CHARS_MAX;

/// Longest cookie, in characters: it is an atom.
pub const COOKIE_CHARACTERS_MAX: usize = ATOM_CHARS_MAX;

/// A cookie of fewer characters is a short one. Those that Erlang makes have 20.
pub const SHORT_BELOW_CHARACTERS: usize = 16;

/// The secret of a cluster. It is never printed: its `Debug` says nothing but that there is one.
#[derive(Clone, PartialEq, Eq)]
pub struct Cookie(String);

impl Cookie {
    /// Takes the text of a cookie as it is. For text that a person typed there is [`Cookie::typed`].
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// Takes the text of a cookie as `erl -setcookie` does.
    ///
    /// # Errors
    /// What a BEAM could not use it for; the fault of the person who typed it. The error does not hold the text.
    pub fn typed(text: &str) -> Result<Self, CookieError> {
        if text.is_empty() {
            return Err(CookieError::Empty);
        }
        if text.chars().count() > COOKIE_CHARACTERS_MAX {
            return Err(CookieError::TooLong);
        }
        if text.chars().any(|character| u8::try_from(character).is_err()) {
            return Err(CookieError::NotLatin1);
        }
        Ok(Self(text.into()))
    }

    /// Whether it has fewer than [`SHORT_BELOW_CHARACTERS`]: such a cookie can be guessed from one handshake that was
    /// overheard.
    pub fn is_short(&self) -> bool {
        self.0.chars().count() < SHORT_BELOW_CHARACTERS
    }

    /// The secret itself, for a client of others that takes digests on its own. Not to be printed.
    pub fn reveal(&self) -> &str {
        &self.0
    }

    /// The answer to a challenge: MD5 of the cookie followed by the challenge in decimal
    /// (erl_dist_protocol, "Distribution Handshake", gen_digest).
    pub fn digest(&self, challenge: u32) -> [u8; 16] {
        // dist_util, gen_digest: a cookie goes into the digest as a list of characters, so as Latin-1. A character
        // past that makes a BEAM fail: there is nothing to agree with, UTF-8 is as good as anything.
        let latin1: Option<Vec<u8>> = self.0.chars().map(|character| u8::try_from(character).ok()).collect();
        let mut text = latin1.unwrap_or_else(|| self.0.clone().into_bytes());
        text.extend_from_slice(challenge.to_string().as_bytes());
        md5::compute(text).0
    }
}

impl fmt::Debug for Cookie {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Cookie(…)")
    }
}

/// Why a text cannot be a cookie. Never holds the text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CookieError {
    /// Nothing in it.
    #[error("a cookie has at least one character")]
    Empty,
    /// Longer than an atom.
    #[error("a cookie has {} characters at most", COOKIE_CHARACTERS_MAX)]
    TooLong,
    /// A character that no BEAM can take a digest of.
    #[error(
        "a cookie cannot have characters past Latin-1 (U+00FF): Erlang's own nodes fail on them; use letters and digits"
    )]
    NotLatin1,
}

#[cfg(test)]
mod tests {
    use super::*;

    // Each digest was computed by OTP 25: erlang:md5([atom_to_list(Cookie) | integer_to_list(Challenge)]).
    #[test]
    fn a_digest_is_the_one_that_otp_computes() {
        let hex =
            |cookie: &str, challenge| format!("{:x}", md5::Digest(Cookie::new(cookie).digest(challenge)));
        assert_eq!(hex("secret", 0), "175ec77a7f63082590987d0d8b051aff");
        assert_eq!(hex("secret", u32::MAX), "5dfd181e69aa587cc812eb333e6536b6");
        assert_eq!(hex("é", 42), "c388f8f178e08cc656e5f853d1931e7f");
    }

    #[test]
    fn a_cookie_that_no_beam_could_use_is_refused() {
        assert!(Cookie::typed("s e c r e t é").is_ok());
        assert_eq!(Cookie::typed(""), Err(CookieError::Empty));
        assert_eq!(Cookie::typed(&"a".repeat(256)), Err(CookieError::TooLong));
        assert_eq!(Cookie::typed("€"), Err(CookieError::NotLatin1));
    }

    #[test]
    fn a_cookie_as_erlang_makes_them_is_not_short() {
        assert!(!Cookie::new("ABCDEFGHIJKLMNOPQRST").is_short());
        assert!(Cookie::new("secret").is_short());
    }

    #[test]
    fn a_cookie_is_not_shown() {
        assert_eq!(format!("{:?}", Cookie::new("secret")), "Cookie(…)");
    }
}
