//! A node as it is typed: its name, and its port where that is said, `name@host:port`.
//!
//! The port is no part of the name: it says where the node listens, for clusters without epmd and for nodes that their
//! epmd does not know. An IPv6 address with a port stands in brackets, `name@[::1]:4370`, as in a URL.

use std::fmt;
use std::net::Ipv6Addr;
use std::str::FromStr;

use super::node_name::{NodeName, NodeNameError};

/// A node's name, and the port that it listens at where that is known.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct NodeAt {
    /// Its full name.
    pub name: NodeName,
    /// Its port. `None`: epmd knows it, or all nodes of the cluster have one port.
    pub port: Option<u16>,
}

impl NodeAt {
    /// The first node that is named with two different ports.
    pub fn with_two_ports(nodes: &[Self]) -> Option<(&NodeName, [u16; 2])> {
        nodes.iter().enumerate().find_map(|(number, node)| {
            let port = node.port?;
            let other = nodes.iter().take(number).filter(|other| other.name == node.name);
            let other = other.filter_map(|other| other.port).find(|other| *other != port)?;
            Some((&node.name, [other, port]))
        })
    }
}

impl From<NodeName> for NodeAt {
    fn from(name: NodeName) -> Self {
        Self { name, port: None }
    }
}

impl FromStr for NodeAt {
    type Err = NodeAtError;

    /// Reads `name@host` or `name@host:port`.
    fn from_str(typed: &str) -> Result<Self, NodeAtError> {
        let Some((name, place)) = typed.split_once('@') else {
            return Err(NodeAtError::Name(NodeNameError::Form));
        };
        let (host, port) = split_place(place)?;
        let name = NodeName::new(&format!("{name}@{host}")).map_err(NodeAtError::Name)?;
        Ok(Self { name, port })
    }
}

impl fmt::Display for NodeAt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, port } = self;
        match port {
            None => name.fmt(f),
            Some(port) => f.write_str(&with_port(name, port)),
        }
    }
}

/// A node with its port, or with a word that stands for one, as it is typed.
pub fn with_port(name: &NodeName, port: impl fmt::Display) -> String {
    match name.host() {
        host if host.contains(':') => format!("{}@[{host}]:{port}", name.name()),
        _ => format!("{name}:{port}"),
    }
}

/// Splits `host:port`, where the port may be absent.
fn split_place(place: &str) -> Result<(&str, Option<u16>), NodeAtError> {
    if let Some(rest) = place.strip_prefix('[') {
        let Some((host, rest)) = rest.split_once(']').filter(|(host, _)| is_ipv6(host)) else {
            return Err(NodeAtError::Brackets { place: place.to_owned() });
        };
        return match rest.strip_prefix(':') {
            Some(port) => Ok((host, Some(port_of(port)?))),
            None if rest.is_empty() => Ok((host, None)),
            None => Err(NodeAtError::Brackets { place: place.to_owned() }),
        };
    }
    match place.split_once(':') {
        None => Ok((place, None)),
        Some(_) if is_ipv6(place) => Ok((place, None)),
        Some((host, port)) if !port.contains(':') => Ok((host, Some(port_of(port)?))),
        Some(_) => Err(NodeAtError::Brackets { place: place.to_owned() }),
    }
}

/// Splits `NAME:PORT`, a node of this host: the port is absent where no colon stands.
///
/// # Errors
/// What stands behind the colon is no port.
pub fn split_port(typed: &str) -> Result<(&str, Option<u16>), NodeAtError> {
    match typed.rsplit_once(':') {
        None => Ok((typed, None)),
        Some((name, port)) => Ok((name, Some(port_of(port)?))),
    }
}

/// An IPv6 address, perhaps with the zone of a link-local one.
fn is_ipv6(host: &str) -> bool {
    host.split('%').next().is_some_and(|address| address.parse::<Ipv6Addr>().is_ok())
}

fn port_of(typed: &str) -> Result<u16, NodeAtError> {
    // Digits alone: Rust's parser takes a plus sign too.
    let digits = typed.bytes().all(|byte| byte.is_ascii_digit());
    let port = typed.parse().ok().filter(|port| digits && *port != 0);
    port.ok_or_else(|| NodeAtError::Port { typed: typed.to_owned() })
}

/// Why something typed is no node with a port.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum NodeAtError {
    /// The name is none.
    Name(NodeNameError),
    /// The port is none.
    Port {
        /// What stands behind the colon.
        typed: String,
    },
    /// An IPv6 address and a port cannot be told apart.
    Brackets {
        /// What stands behind the `@`.
        place: String,
    },
}

impl fmt::Display for NodeAtError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(error) => write!(f, "not a node name: {error}"),
            Self::Port { typed } if typed.is_empty() => f.write_str(
                "no port stands behind the colon; write it, as in name@host:4370, or leave the colon out",
            ),
            Self::Port { typed } => write!(
                f,
                "\"{}\" is no port: behind the host and a colon stands a number from 1 to 65535, as in name@host:4370",
                typed.escape_debug()
            ),
            Self::Brackets { place } => write!(
                f,
                "\"{}\" is neither a host nor a host with a port: an IPv6 address with a port stands in brackets, as in \
                 name@[::1]:4370",
                place.escape_debug()
            ),
        }
    }
}

impl std::error::Error for NodeAtError {}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(typed: &str) -> Result<(String, Option<u16>), NodeAtError> {
        typed.parse::<NodeAt>().map(|node| (node.name.to_string(), node.port))
    }

    #[test]
    fn the_port_stands_behind_the_host() {
        for (typed, name, port) in [
            ("a@b", "a@b", None),
            ("a@b:4370", "a@b", Some(4370)),
            ("a@b.example.org:1", "a@b.example.org", Some(1)),
            ("a@127.0.0.1:65535", "a@127.0.0.1", Some(65535)),
            ("a@::1", "a@::1", None),
            // An address, all of it.
            ("a@::1:4370", "a@::1:4370", None),
            ("a@fe80::1%eth0", "a@fe80::1%eth0", None),
            ("a@[::1]:4370", "a@::1", Some(4370)),
            ("a@[::1]", "a@::1", None),
        ] {
            assert_eq!(read(typed).unwrap(), (name.to_owned(), port), "{typed}");
        }
    }

    #[test]
    fn what_is_no_port_is_refused() {
        for port in ["", "0", "70000", "abc", "+1", "-1", " 1", "4370/"] {
            let error = Err(NodeAtError::Port { typed: port.to_owned() });
            assert_eq!(read(&format!("a@b:{port}")), error, "{port}");
        }
        for place in ["1:2:3:4", "[::1", "[::1]4370", "[b]:1", "[]:1", "b:1:2"] {
            let error = Err(NodeAtError::Brackets { place: place.to_owned() });
            assert_eq!(read(&format!("a@{place}")), error, "{place}");
        }
        assert_eq!(read("a:4370"), Err(NodeAtError::Name(NodeNameError::Form)));
        assert_eq!(read("a@:4370"), Err(NodeAtError::Name(NodeNameError::Form)));
    }

    #[test]
    fn it_is_shown_as_it_is_typed() {
        for typed in ["a@b", "a@b:4370", "a@[::1]:4370", "a@::1"] {
            assert_eq!(typed.parse::<NodeAt>().unwrap().to_string(), typed);
        }
    }

    #[test]
    fn a_node_has_one_port() {
        let nodes =
            |typed: &[&str]| typed.iter().map(|typed| typed.parse().unwrap()).collect::<Vec<NodeAt>>();
        assert_eq!(NodeAt::with_two_ports(&nodes(&["a@b:1", "a@b", "c@b:2", "a@b:1"])), None);
        let two = nodes(&["a@b:1", "c@b:2", "a@b:3"]);
        assert_eq!(NodeAt::with_two_ports(&two).unwrap().1, [1, 3]);
    }
}
