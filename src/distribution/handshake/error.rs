//! Why a handshake ended without a connection, by whose fault it is.
//!
//! Whatever the fault, what follows is the same: [`HandshakeError::farewell`] is sent, the socket closed, the error
//! logged or shown. No text holds a cookie, and text of a peer is escaped and cut.

use std::fmt;

use super::{PACKET_BYTES_MAX, wire};
use crate::distribution::node_name::NodeNameError;
use crate::distribution::{DistributionFlags, NodeName};

/// The message that a side of the handshake waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Phase {
    /// The server waits for `send_name`.
    Name,
    /// The server has said `alive` and waits for `true` or `false`.
    AliveAnswer,
    /// The server got an old `send_name` and waits for its second half.
    Complement,
    /// The server has sent its challenge and waits for the answer and the other's challenge.
    ChallengeReply,
    /// The client has sent its name and waits for the status.
    Status,
    /// The client waits for the challenge.
    Challenge,
    /// The client has answered the challenge and waits for the answer to its own.
    ChallengeAck,
}

impl Phase {
    /// The word of erl_dist_protocol for the message.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Name => "send_name",
            Self::AliveAnswer => "answer to `alive`",
            Self::Complement => "send_complement",
            Self::ChallengeReply => "send_challenge_reply",
            Self::Status => "send_status",
            Self::Challenge => "send_challenge",
            Self::ChallengeAck => "send_challenge_ack",
        }
    }
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The other side, as far as is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Whom {
    /// A peer that connected and has not sent a name.
    Stranger,
    /// It connected and wants to be given a name; its host, as it says.
    Nameless(String),
    /// It connected and claims this name; nothing of it is proved.
    Claimant(NodeName),
    /// We dialled it.
    Dialled(NodeName),
}

impl fmt::Display for Whom {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Stranger => f.write_str("a connecting node"),
            Self::Nameless(host) => write!(f, "a nameless node of host {}", shown(host)),
            Self::Claimant(name) => write!(f, "a node that calls itself {name}"),
            Self::Dialled(name) => write!(f, "{name}"),
        }
    }
}

/// How bytes can be wrong.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Malformed {
    /// A packet of no bytes.
    #[error("it is empty")]
    Empty,
    /// A packet that ends within a field.
    #[error("it ends too early")]
    Short,
    /// A packet with bytes behind its last field, where none may be.
    #[error("{bytes} bytes follow its end")]
    Long {
        /// How many.
        bytes: usize,
    },
    /// A packet longer than [`PACKET_BYTES_MAX`].
    #[error("it announces {bytes} bytes, and at most {} are taken", PACKET_BYTES_MAX)]
    Oversized {
        /// The length that it announced.
        bytes: usize,
    },
    /// Another message than the due one.
    #[error("it begins with byte {tag}, which is another message or none at all")]
    Tag {
        /// Its first byte.
        tag: u8,
    },
    /// A given name that is not UTF-8.
    #[error("the name in it is not UTF-8")]
    NotUtf8,
    /// A name that no node has.
    #[error("the name {} in it is no node's: {error}", shown(.name))]
    Name {
        /// The name as sent.
        name: String,
        /// What is wrong with it.
        error: NodeNameError,
    },
    /// A host that no node has, in a request for a name.
    #[error("the host {} in it is none", shown(.host))]
    Host {
        /// The host as sent.
        host: String,
    },
    /// A name was given whose host is not ours.
    #[error("the name {} in it has another host than ours", shown(.name))]
    OtherHost {
        /// The name as sent.
        name: String,
    },
}

/// Why a node may not connect here. It is told `not_allowed` whatever the reason; the log of this side has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
#[non_exhaustive]
pub enum Unwelcome {
    /// This node is about to end.
    #[error("this node is about to end; it may try again when this one is back")]
    Stopping,
    /// One of the two names is short and the other long: such nodes do not connect to each other (`inet_tcp_dist`,
    /// splitnode).
    #[error(
        "its name is {}, ours are {}; start all nodes of a cluster with short names (--sname here, -sname there), or \
         all with long ones (--name, -name)",
        length_word(*.theirs_is_long),
        length_word(!*.theirs_is_long)
    )]
    NameKinds {
        /// Whether the long one is theirs.
        theirs_is_long: bool,
    },
    /// It is none of those that may be connected with (`--allow`).
    #[error("it is not among --allow; add its name there if it is to connect, and start this node again")]
    NotListed,
    /// As many nodes are connected as may be.
    #[error(
        "{peers_max} nodes are connected, and more are not taken; disconnect some, or raise Limits::peers_max"
    )]
    Crowded {
        /// How many.
        peers_max: usize,
    },
    /// It wants a name, and none fits before its host.
    #[error("no name fits before its host; give it a name, or its host a shorter one")]
    HostTooLong,
}

const fn length_word(is_long: bool) -> &'static str {
    if is_long { "long" } else { "short" }
}

/// What ended the handshake.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Fault {
    /// Theirs: bytes that are no message of the handshake.
    Malformed(Malformed),
    /// Theirs: a status that does not exist, or not here.
    UnknownStatus(String),
    /// The address is wrong: another node answers there than the dialled one.
    OtherName(String),
    /// Nothing in common: they lack flags that we need.
    TooOld {
        /// The flags.
        lacks: DistributionFlags,
    },
    /// Their digest is not that of our cookie: they have another one, or none.
    WrongCookie,
    /// Theirs, or that of another peer at the same address: so many wrong digests came from there that this one was not
    /// looked at.
    TooManyTries,
    /// They closed the connection when they had our digest, which is what a node does whose cookie is another.
    CookieRefused,
    /// They said `not_allowed`.
    NotAllowed,
    /// We said `not_allowed`: the shell's decision ([`super::Standing::Refused`]), and its reason.
    Refused(Unwelcome),
    /// They claim our own name.
    OwnName,
    /// Both sides dialled at once, and the other connection is the one that goes on. No failure of anything.
    Simultaneous,
    /// The name is connected already, and the side that dialled said that it is not to be replaced.
    AlreadyConnected,
    /// They closed the connection.
    Closed,
    /// They sent nothing in time.
    TimedOut,
}

impl From<Malformed> for Fault {
    fn from(malformed: Malformed) -> Self {
        Self::Malformed(malformed)
    }
}

/// The end of a handshake without a connection.
///
/// `Display` says what happened, to whom, and what to do next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HandshakeError {
    /// The other side.
    pub whom: Whom,
    /// Which message was waited for.
    pub phase: Phase,
    /// What ended it.
    pub fault: Fault,
}

impl HandshakeError {
    /// What the other side is to be told before the socket is closed, if anything: the packet with its length.
    pub fn farewell(&self) -> Option<Vec<u8>> {
        match (&self.fault, self.phase) {
            (Fault::TooOld { .. } | Fault::Refused(_) | Fault::OwnName, Phase::Name) => {
                Some(wire::status("not_allowed"))
            }
            (Fault::Simultaneous, Phase::Name) => Some(wire::status("nok")),
            (Fault::AlreadyConnected, Phase::Status) => Some(wire::status("false")),
            _ => None,
        }
    }
}

impl fmt::Display for HandshakeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { whom, phase, fault } = self;
        match fault {
            Fault::Malformed(malformed) => write!(
                f,
                "{whom} sent no valid {phase}: {malformed}; see that it is an Erlang node and that both sides speak \
                 the distribution protocol with TLS or both without"
            ),
            Fault::UnknownStatus(status) => write!(
                f,
                "{whom} answered with the status {}, which is not known here; see that it is an Erlang node",
                shown(status)
            ),
            Fault::OtherName(name) => write!(
                f,
                "{whom} was dialled, and the node there calls itself {}; dial it by that name, or find the port of \
                 {whom} (epmd -names on its machine, where there is an epmd)",
                shown(name)
            ),
            Fault::TooOld { lacks } => write!(
                f,
                "{whom} is too old or too simple to be connected to: it lacks {lacks}; bring it to OTP 23 or later"
            ),
            Fault::WrongCookie => write!(
                f,
                "{whom} was refused: its cookie is not ours; start both nodes with the same cookie (--cookie here, \
                 -setcookie or ~/.erlang.cookie there)"
            ),
            Fault::TooManyTries => write!(
                f,
                "{whom} was refused without a look at its digest: too many wrong ones come from its address; let it try again \
                 later, and see who else is there"
            ),
            Fault::CookieRefused => write!(
                f,
                "{whom} closed the connection when it had our digest: it most likely has another cookie; start both \
                 nodes with the same cookie (--cookie here, -setcookie or ~/.erlang.cookie there)"
            ),
            Fault::NotAllowed => write!(
                f,
                "{whom} does not allow this node to connect; see its log for the flags that it misses here, and what \
                 net_kernel:allow/1 was called with there"
            ),
            Fault::Refused(why) => write!(f, "{whom} was refused: {why}"),
            Fault::OwnName => {
                write!(f, "{whom} was refused: that is this node's own name; rename one of the two")
            }
            Fault::Simultaneous => write!(
                f,
                "{whom} and this node dialled each other at once, and the other connection goes on; nothing to be done"
            ),
            Fault::AlreadyConnected => write!(
                f,
                "{whom} is connected already, and the old connection was kept; where it is dead, dial again"
            ),
            Fault::Closed => write!(f, "{whom} closed the connection {}", closed_hint(*phase)),
            Fault::TimedOut => write!(
                f,
                "{whom} sent nothing in time, its {phase} was due; see that it is an Erlang node, that it is not overloaded, and \
                 that no firewall stands between"
            ),
        }
    }
}

impl std::error::Error for HandshakeError {}

fn closed_hint(phase: Phase) -> &'static str {
    match phase {
        Phase::Name => "before it said its name; nothing to be done, unless a node cannot connect",
        Phase::AliveAnswer => {
            "when it heard that it is connected already; it will use the old connection or try again"
        }
        Phase::Complement | Phase::ChallengeReply => {
            "when it had our challenge; see its log: most likely it dialled this node by another name, or misses flags"
        }
        Phase::Status => {
            "when it had our name; see its log, and that it is an Erlang node of OTP 23 or later with the same kind of \
             name (short or long), and that both nodes speak TLS or neither does"
        }
        Phase::Challenge => "before it sent its challenge; see its log, and try again",
        Phase::ChallengeAck => "when it had our digest; see that both nodes have the same cookie",
    }
}

/// Text of a peer for a person's eyes: quoted, escaped, and cut.
fn shown(text: &str) -> String {
    const CHARACTERS_MAX: usize = 80;
    let cut: String = text.chars().take(CHARACTERS_MAX).collect();
    let more = if cut.len() < text.len() { "…" } else { "" };
    format!("\"{}\"{more}", cut.escape_debug())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_error_says_who_and_what_to_do() {
        let name = NodeName::new("b@host").unwrap();
        let faults = [
            Fault::Malformed(Malformed::Empty),
            Fault::UnknownStatus("x".into()),
            Fault::OtherName("c@host".into()),
            Fault::TooOld { lacks: DistributionFlags::UTF8_ATOMS },
            Fault::WrongCookie,
            Fault::TooManyTries,
            Fault::CookieRefused,
            Fault::NotAllowed,
            Fault::Refused(Unwelcome::Stopping),
            Fault::Refused(Unwelcome::NameKinds { theirs_is_long: true }),
            Fault::Refused(Unwelcome::NotListed),
            Fault::Refused(Unwelcome::Crowded { peers_max: 3 }),
            Fault::Refused(Unwelcome::HostTooLong),
            Fault::OwnName,
            Fault::Simultaneous,
            Fault::AlreadyConnected,
            Fault::Closed,
            Fault::TimedOut,
        ];
        for fault in faults {
            let error = HandshakeError { whom: Whom::Dialled(name.clone()), phase: Phase::Status, fault };
            let text = error.to_string();
            assert!(text.starts_with("b@host ") && text.contains("; "), "{text}");
        }
    }

    #[test]
    fn text_of_a_peer_is_escaped_and_cut() {
        assert_eq!(shown("a\n\x1b\"b"), r#""a\n\u{1b}\"b""#);
        assert_eq!(shown(&"é".repeat(81)), format!("\"{}\"…", "é".repeat(80)));
        assert_eq!(shown(&"é".repeat(80)), format!("\"{}\"", "é".repeat(80)));
    }
}
