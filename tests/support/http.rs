//! HTTP by hand: what a client says, byte for byte, and what it is answered.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use super::KvNode;

/// An answer.
#[derive(Debug)]
pub struct Answer {
    /// The status code; 0: the connection was closed without an answer.
    pub code: u16,
    /// The lines of the head.
    pub head: String,
    /// What came behind it.
    pub body: String,
}

impl Answer {
    /// The value of a header, by its name in lower case.
    #[track_caller]
    pub fn header(&self, name: &str) -> &str {
        let line = self.head.lines().find_map(|line| {
            let (header, value) = line.split_once(':')?;
            header.eq_ignore_ascii_case(name).then_some(value.trim())
        });
        line.unwrap_or_else(|| panic!("no {name} in {}", self.head))
    }
}

/// Where a node serves its page, as its banner says.
#[track_caller]
pub fn address(node: &KvNode) -> SocketAddr {
    let banner = node.banner();
    let url = banner.split("page      http://").nth(1).and_then(|rest| rest.split('/').next());
    url.and_then(|address| address.parse().ok()).unwrap_or_else(|| panic!("no page in {banner}"))
}

/// A connection that gives up after a while.
pub fn connect(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).expect("it listens");
    stream.set_read_timeout(Some(Duration::from_secs(20))).expect("it is a socket");
    stream
}

/// Sends these bytes, and reads until the other side closes.
pub fn say(address: SocketAddr, bytes: &[u8]) -> Answer {
    let mut stream = connect(address);
    // It may be closed before all is sent.
    let _ = stream.write_all(bytes);
    heard(stream)
}

/// Reads until the other side closes.
pub fn heard(mut stream: TcpStream) -> Answer {
    let mut all = Vec::new();
    // What came before a reset counts.
    let _ = stream.read_to_end(&mut all);
    let text = String::from_utf8(all).expect("it is text");
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or((&text, ""));
    let code = head.split(' ').nth(1).and_then(|code| code.parse().ok()).unwrap_or(0);
    Answer { code, head: head.to_owned(), body: body.to_owned() }
}

/// `GET path`.
pub fn get(address: SocketAddr, path: &str) -> Answer {
    ask(address, "GET", path, "localhost")
}

/// A request of this method, for this host.
pub fn ask(address: SocketAddr, method: &str, path: &str, host: &str) -> Answer {
    say(address, format!("{method} {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n").as_bytes())
}
