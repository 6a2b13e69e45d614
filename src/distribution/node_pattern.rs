//! Patterns of node names: who may connect.

use std::fmt;
use std::str::FromStr;

use super::NodeName;

/// A pattern of node names: `NAME@HOST`, in both of which `*` stands for any characters, none among them; `HOST` alone,
/// which is `*@HOST`. Hosts are compared as they are written: `10.0.0.*` is no network, and a host by its other name is
/// another host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodePattern {
    name: String,
    host: String,
}

impl NodePattern {
    /// Whether a node is one of those that are meant.
    pub fn matches(&self, node: &NodeName) -> bool {
        fits(&self.name, node.name()) && fits(&self.host, node.host())
    }
}

impl FromStr for NodePattern {
    type Err = NodePatternError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (name, host) = text.split_once('@').unwrap_or(("*", text));
        // What no name has would never fit.
        let plain = |part: &str| {
            !part.is_empty()
                && part.chars().all(|char| char != '@' && !char.is_whitespace() && !char.is_control())
        };
        if plain(name) && plain(host) {
            Ok(Self { name: name.to_owned(), host: host.to_owned() })
        } else {
            Err(NodePatternError)
        }
    }
}

impl fmt::Display for NodePattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.name, self.host)
    }
}

/// A text that is no pattern of node names. The fault of the person who typed it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("write NAME@HOST or HOST, where * stands for any characters, as in *@10.0.0.* or master@myhost")]
pub struct NodePatternError;

/// Whether a text has the parts of a pattern in it, in order. Each part is taken where it first stands, which finds a
/// way whenever there is one: so the work is bounded by the two lengths' product.
fn fits(pattern: &str, text: &str) -> bool {
    let Some((head, rest)) = pattern.split_once('*') else { return pattern == text };
    let Some(mut text) = text.strip_prefix(head) else { return false };
    let mut parts = rest.split('*');
    let tail = parts.next_back().unwrap_or_default();
    for part in parts {
        match text.find(part) {
            Some(at) => text = &text[at + part.len()..],
            None => return false,
        }
    }
    text.ends_with(tail)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matches(pattern: &str, node: &str) -> bool {
        pattern.parse::<NodePattern>().unwrap().matches(&NodeName::new(node).unwrap())
    }

    #[test]
    fn a_star_stands_for_any_characters_of_its_part() {
        assert!(matches("a@h", "a@h") && !matches("a@h", "b@h") && !matches("a@h", "a@hh"));
        assert!(matches("*@h", "anything@h") && !matches("*@h", "a@g"));
        assert!(matches("h", "a@h") && !matches("h", "a@g"));
        assert!(matches("*.example.org", "a@x.example.org") && !matches("*.example.org", "a@example.org"));
        assert!(matches("web*@*.b.*.d", "web7@a.b.c.d") && !matches("web*@*.b.*.d", "we@a.b.c.d"));
        assert!(matches("*@*", "a@h") && matches("**@*", "a@h"));
        assert!(!matches("ab*ba@h", "aba@h"), "head and tail are not the same characters");
        assert!(!matches("*@h", "a@H"), "a host is compared as it is written");
    }

    #[test]
    fn what_could_never_fit_is_no_pattern() {
        for wrong in ["", "@", "a@", "@h", "a@b@c", "a b@h", "a@h\n"] {
            assert!(wrong.parse::<NodePattern>().is_err(), "{wrong:?}");
        }
        assert_eq!("h".parse::<NodePattern>().unwrap().to_string(), "*@h");
    }
}
