//! gRPC's status: how a call ended, and what that means at etcd.
//!
//! "gRPC over HTTP/2" says where it stands: in the trailers, or in the headers of an answer without a body. The texts are those of
//! `api/v3rpc/rpctypes/error.go` in etcd's repository: its codes alone do not tell a quota from too many requests, nor a
//! leader that is gone from a request that may be done yet.

use hyper::HeaderMap;

use super::Error;

/// Characters of a text that are kept.
const TEXT_CHARS_MAX: usize = 512;

/// How a call ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Status {
    pub(super) code: u32,
    pub(super) text: String,
}

impl Status {
    /// What the headers or trailers say. `None`: nothing.
    pub(super) fn read(headers: &HeaderMap) -> Option<Self> {
        let code = headers.get("grpc-status")?.to_str().ok();
        // "Unknown" for what is none (gRPC, "Status codes and their use").
        let code = code.and_then(|code| code.parse().ok()).unwrap_or(2);
        let text = headers.get("grpc-message").map(|text| decoded(text.as_bytes())).unwrap_or_default();
        Some(Self { code, text })
    }

    pub(super) fn is_ok(&self) -> bool {
        self.code == 0
    }

    /// What it means for a request of so many bytes that was answered so.
    pub(super) fn error(self, bytes: usize) -> Error {
        let Self { code, text } = self;
        let says = |part: &str| text.contains(part);
        match code {
            _ if says("database space exceeded") => Error::NoSpace,
            _ if says("request is too large") || says("received message larger than max") => {
                Error::TooLarge { bytes, bytes_max: None }
            }
            _ if says("too many operations") => Error::TooManyOperations,
            _ if says("required revision has been compacted") => Error::Compacted { revision: None },
            16 => Error::TokenExpired,
            _ if says("user name is empty") || says("revision of auth store is old") => Error::TokenExpired,
            7 => Error::Denied { text },
            _ if says("authentication failed") || says("permission not given") => Error::Denied { text },
            // Before anything is done with the request, as the client says that it wants a leader.
            14 if says("etcdserver: no leader") => Error::LeaderLost,
            _ if says("too many requests") || says("not capable") => Error::unavailable(text),
            // 1 cancelled, 2 unknown, 4 deadline exceeded, 13 internal, 14 unavailable: "leader changed", "request timed
            // out", "server stopped". What was proposed may be committed yet.
            1 | 2 | 4 | 13 | 14 => {
                Error::unknown(if text.is_empty() { format!("code {code}") } else { text })
            }
            _ => Error::Refused { code, text },
        }
    }
}

/// "Percent-Byte-Unencoded / Percent-Byte-Encoded", the bytes being UTF-8. What is neither stays as it is; what could move a
/// terminal's cursor goes.
fn decoded(text: &[u8]) -> String {
    let mut bytes = Vec::with_capacity(text.len().min(4 * TEXT_CHARS_MAX));
    let mut rest = text;
    while let Some((first, behind)) = rest.split_first() {
        let hex = behind.first_chunk::<2>().filter(|_| *first == b'%');
        let byte = hex.and_then(|hex| u8::from_str_radix(str::from_utf8(hex).ok()?, 16).ok());
        bytes.push(byte.unwrap_or(*first));
        rest = if byte.is_some() { behind.get(2..).unwrap_or_default() } else { behind };
        if bytes.len() >= 4 * TEXT_CHARS_MAX {
            break;
        }
    }
    let text = String::from_utf8_lossy(&bytes);
    text.chars().map(|c| if c.is_control() { '?' } else { c }).take(TEXT_CHARS_MAX).collect()
}

#[cfg(test)]
mod tests {
    use hyper::header::HeaderValue;

    use super::*;

    fn read(code: &str, text: &'static str) -> Option<Status> {
        let mut headers = HeaderMap::new();
        headers.insert("grpc-status", HeaderValue::from_str(code).unwrap());
        headers.insert("grpc-message", HeaderValue::from_static(text));
        Status::read(&headers)
    }

    fn error(code: u32, text: &str) -> Error {
        Status { code, text: text.to_owned() }.error(7)
    }

    #[test]
    fn a_status_is_its_code_and_its_text_without_what_could_harm_a_terminal() {
        let status = |code, text: &str| Some(Status { code, text: text.to_owned() });
        assert_eq!(read("0", ""), status(0, ""));
        assert_eq!(read("14", "a%20b %c3%bc 100%"), status(14, "a b ü 100%"));
        assert_eq!(read("5", "%1b[2J%zz%"), status(5, "?[2J%zz%"));
        assert_eq!(read("x", "%ff"), status(2, "\u{fffd}"));
        assert_eq!(read("99999999999", ""), status(2, ""));
        assert_eq!(Status::read(&HeaderMap::new()), None);
        let long: &'static str = "ä".repeat(5000).leak();
        let mut headers = HeaderMap::new();
        headers.insert("grpc-status", HeaderValue::from_static("3"));
        headers.insert("grpc-message", HeaderValue::from_bytes(long.as_bytes()).unwrap());
        assert_eq!(Status::read(&headers).unwrap().text.chars().count(), TEXT_CHARS_MAX);
    }

    #[test]
    fn each_end_of_a_call_is_told_from_the_others() {
        assert_eq!(error(8, "etcdserver: mvcc: database space exceeded"), Error::NoSpace);
        assert_eq!(
            error(3, "etcdserver: request is too large"),
            Error::TooLarge { bytes: 7, bytes_max: None }
        );
        assert_eq!(
            error(8, "grpc: received message larger than max (3 vs. 2)"),
            Error::TooLarge { bytes: 7, bytes_max: None }
        );
        let compacted = "etcdserver: mvcc: required revision has been compacted";
        assert_eq!(error(11, compacted), Error::Compacted { revision: None });
        assert_eq!(error(16, "etcdserver: invalid auth token"), Error::TokenExpired);
        assert_eq!(error(3, "etcdserver: user name is empty"), Error::TokenExpired);
        assert_eq!(error(3, "etcdserver: revision of auth store is old"), Error::TokenExpired);
        let failed = "etcdserver: authentication failed, invalid user ID or password";
        assert!(matches!(error(3, failed), Error::Denied { .. }));
        assert!(matches!(error(7, "etcdserver: permission denied"), Error::Denied { .. }));
        assert_eq!(error(14, "etcdserver: no leader"), Error::LeaderLost);
        assert!(matches!(error(3, "etcdserver: duplicate key given"), Error::Refused { code: 3, .. }));
        assert!(matches!(error(5, "etcdserver: requested lease not found"), Error::Refused { code: 5, .. }));
    }

    #[test]
    fn what_may_have_been_done_is_never_taken_for_what_was_not() {
        for text in
            ["etcdserver: request timed out", "etcdserver: leader changed", "etcdserver: server stopped", ""]
        {
            assert!(error(14, text).is_unknown() && !error(14, text).may_be_asked_again(), "{text}");
        }
        for code in [1, 2, 4, 13] {
            assert!(error(code, "").is_unknown());
        }
        for error in [error(14, "etcdserver: no leader"), error(8, "etcdserver: too many requests")] {
            assert!(!error.is_unknown() && error.may_be_asked_again());
        }
    }
}
