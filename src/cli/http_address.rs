//! `--http`: an address to listen at, of which the host may be left out.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

/// `8080` and `:8080` are that port of the loopback.
pub(super) fn parse(typed: &str) -> Result<SocketAddr, String> {
    if let Ok(address) = typed.parse() {
        return Ok(address);
    }
    let port = typed.strip_prefix(':').unwrap_or(typed);
    match port.parse() {
        Ok(port) => Ok(SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port)),
        Err(_) => Err("write PORT, which is one of this machine alone, or ADDRESS:PORT, as in 0.0.0.0:8080 or [::]:8080".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_a_host_it_is_the_loopback() {
        for (typed, address) in [
            ("8080", "127.0.0.1:8080"),
            (":8080", "127.0.0.1:8080"),
            ("0.0.0.0:80", "0.0.0.0:80"),
            ("[::1]:80", "[::1]:80"),
        ] {
            assert_eq!(parse(typed).unwrap().to_string(), address);
        }
        for wrong in ["", ":", "myhost:80", "1.2.3.4", "65536", "-1", "[::]"] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }
}
