//! Names of nodes, and what makes one valid.
//!
//! Pure rules, taken from what `net_kernel` (create_name), `dist_util` (is_node_name) and `inet_tcp_dist` (splitnode)
//! check. Finding the name of this host is not done here: `epmd::host` asks the system.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use crate::etf::ATOM_CHARS_MAX;

/// Longest name of a node, in characters: it is an atom.
pub const NODE_NAME_CHARACTERS_MAX: usize = ATOM_CHARS_MAX;

/// The full name of a node, `name@host`. Cheap to clone.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NodeName(Arc<str>);

impl NodeName {
    /// Takes the name of any node, `name@host`.
    ///
    /// As wide as the handshake of a BEAM is (one `@` with something on both sides, the length of an atom): C nodes and
    /// other foreign nodes name themselves more freely than `erl` does. Control characters are refused, since names
    /// are shown in terminals and logs.
    ///
    /// # Errors
    /// What a node would refuse the name for; the fault of the party that gave it.
    pub fn new(full: &str) -> Result<Self, NodeNameError> {
        let (name, host) = full.split_once('@').ok_or(NodeNameError::Form)?;
        if name.is_empty() || host.is_empty() {
            return Err(NodeNameError::Form);
        }
        if host.contains('@') {
            return Err(NodeNameError::ManyAts);
        }
        if let Some(character) = full.chars().find(|character| character.is_control()) {
            return Err(NodeNameError::Control { character });
        }
        let characters = full.chars().count();
        if characters > NODE_NAME_CHARACTERS_MAX {
            return Err(NodeNameError::TooLong { characters });
        }
        Ok(Self(full.into()))
    }

    /// Makes the name of a node that is to be started, by the rules that `erl` has for `-sname` and `-name`.
    ///
    /// # Errors
    /// The rule that the name breaks; the fault of the person who typed it.
    pub fn own(kind: NameKind, name: &str, host: &str) -> Result<Self, NodeNameError> {
        // net_kernel, valid_name_head: "^[0-9A-Za-z_\\-]+$".
        if name.is_empty() {
            return Err(NodeNameError::NameEmpty);
        }
        let valid = |character: char| character.is_ascii_alphanumeric() || matches!(character, '_' | '-');
        if let Some(character) = name.chars().find(|&character| !valid(character)) {
            return Err(NodeNameError::NameCharacter { character });
        }
        if host.contains('@') {
            return Err(NodeNameError::ManyAts);
        }
        // net_kernel, validate_hostname: "^[!-ÿ]*$".
        if let Some(character) =
            host.chars().find(|character| !('!'..='ÿ').contains(character) || character.is_control())
        {
            return Err(NodeNameError::HostCharacter { character });
        }
        let full = Self::new(&format!("{name}@{host}"))?;
        if kind.admits(host) {
            return Ok(full);
        }
        Err(match kind {
            NameKind::Short => NodeNameError::HostNotShort { host: host.into() },
            NameKind::Long => NodeNameError::HostNotLong { host: host.into() },
        })
    }

    /// The whole name.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// What stands before the `@`.
    pub fn name(&self) -> &str {
        self.0.split_once('@').map_or("", |(name, _)| name)
    }

    /// What stands after the `@`.
    pub fn host(&self) -> &str {
        self.0.split_once('@').map_or("", |(_, host)| host)
    }

    /// The text, shared.
    pub fn shared(&self) -> Arc<str> {
        Arc::clone(&self.0)
    }

    /// Whether this node and another may be of one kind. Nodes with short names and nodes with long names do not
    /// connect to each other (`inet_tcp_dist`, splitnode): that is said best before it is tried.
    pub fn can_talk_to(&self, other: &Self) -> bool {
        [NameKind::Short, NameKind::Long]
            .iter()
            .any(|kind| kind.admits(self.host()) && kind.admits(other.host()))
    }
}

impl AsRef<str> for NodeName {
    fn as_ref(&self) -> &str {
        self.as_str()
    }
}

impl fmt::Display for NodeName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for NodeName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Splits what stands behind `-sname` or `-name` as `erl` does: the host is absent when there is no `@`, or nothing
/// after it.
pub fn split_typed(typed: &str) -> (&str, Option<&str>) {
    match typed.split_once('@') {
        Some((name, host)) => (name, Some(host).filter(|host| !host.is_empty())),
        None => (typed, None),
    }
}

/// Whether the names of a cluster's nodes carry full host names. All nodes of a cluster must agree.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NameKind {
    /// `-sname`: hosts without a dot.
    Short,
    /// `-name`: hosts with a domain, or IP addresses.
    Long,
}

impl NameKind {
    /// Whether a node of this kind connects to a node on that host (`inet_tcp_dist`, splitnode).
    ///
    /// `erl -name a@b` starts, for only connecting is checked; no node with long names can connect to it, and it to
    /// none of its own kind, so here it is not taken for a long name. An IPv6 address such as `::1` is of both kinds.
    pub fn admits(self, host: &str) -> bool {
        match self {
            Self::Short => !host.contains('.'),
            Self::Long => host.contains('.') || host.parse::<IpAddr>().is_ok(),
        }
    }
}

/// Why a name is not one of a node.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NodeNameError {
    /// Not of the form `name@host`.
    #[error("a node's name is written name@host")]
    Form,
    /// More than one `@`.
    #[error("a node's name has one @, between name and host")]
    ManyAts,
    /// A control character, which is not shown as it is.
    #[error("it has the control character {}", .character.escape_unicode())]
    Control {
        /// The character.
        character: char,
    },
    /// Longer than an atom.
    #[error(
        "it has {characters} characters, and a node's name is an atom: {} at most",
        NODE_NAME_CHARACTERS_MAX
    )]
    TooLong {
        /// How long it is.
        characters: usize,
    },
    /// Nothing before the `@`.
    #[error("nothing stands before the @")]
    NameEmpty,
    /// A character that `erl` does not take before the `@`.
    #[error(
        "before the @ only the letters A-Z and a-z, digits, _ and - are allowed, and it has '{}'",
        .character.escape_debug()
    )]
    NameCharacter {
        /// The first of them.
        character: char,
    },
    /// A character that `erl` does not take after the `@`.
    #[error("a host name cannot have '{}'", .character.escape_debug())]
    HostCharacter {
        /// The first of them.
        character: char,
    },
    /// A host with a dot in a short name.
    #[error(
        "the host \"{host}\" has a dot, and a short name's host has none: use --name for it, on all nodes of the cluster"
    )]
    HostNotShort {
        /// The host.
        host: String,
    },
    /// A host without a dot that is no IP address, in a long name.
    #[error(
        "the host \"{host}\" has no domain and is no IP address, so that no node with a long name connects to it \
         (\"Hostname {host} is illegal\"): write the domain too, or use --sname on all nodes of the cluster"
    )]
    HostNotLong {
        /// The host.
        host: String,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    fn short(name: &str, host: &str) -> Result<NodeName, NodeNameError> {
        NodeName::own(NameKind::Short, name, host)
    }

    fn long(name: &str, host: &str) -> Result<NodeName, NodeNameError> {
        NodeName::own(NameKind::Long, name, host)
    }

    #[test]
    fn a_name_has_one_at_with_something_on_both_sides() {
        let name = NodeName::new("slave1@host").unwrap();
        assert_eq!((name.as_str(), name.name(), name.host()), ("slave1@host", "slave1", "host"));
        for bad in ["", "a", "@", "a@", "@h"] {
            assert_eq!(NodeName::new(bad), Err(NodeNameError::Form), "{bad}");
        }
        assert_eq!(NodeName::new("a@b@c"), Err(NodeNameError::ManyAts));
    }

    #[test]
    fn a_foreign_node_may_have_a_name_that_erl_would_not_take_for_itself() {
        for good in ["a.b@c", "c node@h", "é@h"] {
            assert!(NodeName::new(good).is_ok(), "{good}");
            let (name, host) = good.split_once('@').unwrap();
            assert!(matches!(short(name, host), Err(NodeNameError::NameCharacter { .. })), "{good}");
        }
        assert_eq!(NodeName::new("a\u{1b}[2J@h"), Err(NodeNameError::Control { character: '\u{1b}' }));
        assert_eq!(NodeName::new("a@h\u{9b}"), Err(NodeNameError::Control { character: '\u{9b}' }));
    }

    #[test]
    fn a_name_is_as_long_as_an_atom_at_most() {
        assert!(NodeName::new(&format!("{}@h", "é".repeat(253))).is_ok());
        assert_eq!(
            NodeName::new(&format!("{}@h", "é".repeat(254))),
            Err(NodeNameError::TooLong { characters: 256 })
        );
        assert!(long(&"a".repeat(246), "h.exampl").is_ok());
        assert_eq!(long(&"a".repeat(247), "h.exampl"), Err(NodeNameError::TooLong { characters: 256 }));
    }

    #[test]
    fn an_own_name_follows_the_rules_of_erl() {
        assert_eq!(short("a-B_9", "vm").unwrap().as_str(), "a-B_9@vm");
        assert_eq!(short("a", "hé").unwrap().as_str(), "a@hé");
        assert_eq!(long("a", "127.0.0.1").unwrap().as_str(), "a@127.0.0.1");
        assert_eq!(long("a", "::1").unwrap().as_str(), "a@::1");
        assert_eq!(long("x", ".a").unwrap().as_str(), "x@.a");
        assert_eq!(short("", "h"), Err(NodeNameError::NameEmpty));
        assert_eq!(short("a.b", "c"), Err(NodeNameError::NameCharacter { character: '.' }));
        assert_eq!(short("a$b", "c"), Err(NodeNameError::NameCharacter { character: '$' }));
        assert_eq!(short("a", "h h"), Err(NodeNameError::HostCharacter { character: ' ' }));
        assert_eq!(short("a", "b@c"), Err(NodeNameError::ManyAts));
        assert_eq!(short("a", "b.c"), Err(NodeNameError::HostNotShort { host: "b.c".into() }));
        assert_eq!(long("a", "b"), Err(NodeNameError::HostNotLong { host: "b".into() }));
    }

    #[test]
    fn what_is_typed_may_lack_the_host() {
        assert_eq!(split_typed("a"), ("a", None));
        assert_eq!(split_typed("a@"), ("a", None));
        assert_eq!(split_typed("a@b"), ("a", Some("b")));
        assert_eq!(split_typed("a@b@c"), ("a", Some("b@c")));
        assert_eq!(split_typed("@h"), ("", Some("h")));
    }

    #[test]
    fn nodes_of_different_kinds_cannot_talk() {
        let node = |full| NodeName::new(full).unwrap();
        assert!(node("a@x").can_talk_to(&node("b@y")));
        assert!(node("a@x.y").can_talk_to(&node("b@10.0.0.1")));
        assert!(!node("a@x").can_talk_to(&node("b@x.y")));
        assert!(!node("a@127.0.0.1").can_talk_to(&node("b@localhost")));
        assert!(node("a@::1").can_talk_to(&node("b@x")));
        assert!(node("a@::1").can_talk_to(&node("b@x.y")));
    }
}
