//! Whether another implementation's client gets in: the crate erl_rpc, which was written by others, from the same
//! documents. What both get into, clients in other languages get into as well; where ours alone does, the node asks for
//! something that ours happens to have.
//!
//! It has no time-outs of its own, and no TLS. It is given the address that was found, as it would ask the epmd at
//! port 4369 and no other, and knows a host by DNS alone.

use std::fmt;
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::panic::AssertUnwindSafe;
use std::time::Duration;

use erl_dist::handshake::{HandshakeError, HandshakeStatus};
use erl_dist::term::{List, Term};
use erl_rpc::{CallError, ConnectError, RpcClient, RunError};
use smol::Timer;
use smol::future::FutureExt;

use crate::distribution::{Cookie, DistributionFlags, NodeName};

/// What it says about a node.
pub(super) enum Opinion {
    /// It was not asked.
    NotAsked(&'static str),
    /// It got in.
    GetsIn {
        /// The name that the node has given it.
        as_name: String,
        /// What the node answered.
        answer: String,
    },
    /// It did not.
    Refused(Refusal),
}

/// Why it did not get in, or got no answer.
pub(super) enum Refusal {
    /// The handshake's `not_allowed`.
    NotAllowed,
    /// The connection was closed in the handshake.
    Closed,
    /// The node gives no names, as OTP before 23.
    GivesNoName,
    /// It took too long.
    TimedOut(Duration),
    /// It got in, and the call failed.
    Call(String),
    /// Anything else.
    Other(String),
}

/// Asks a node by erl_rpc, within a time.
pub(super) async fn ask(target: &NodeName, at: SocketAddr, cookie: &Cookie, time: Duration) -> Opinion {
    if !cookie.reveal().is_ascii() {
        return Opinion::NotAsked("it takes letters of a cookie beyond ASCII for others than Erlang does");
    }
    let late = async {
        Timer::after(time).await;
        Err(Refusal::TimedOut(time))
    };
    // It panics at what it does not expect, as eetf does.
    let asked = AssertUnwindSafe(call(target, at, cookie)).catch_unwind();
    let asked = async { asked.await.unwrap_or_else(|_| Err(Refusal::Other("its client fails".to_owned()))) };
    match asked.or(late).await {
        Ok((as_name, answer)) => Opinion::GetsIn { as_name, answer },
        Err(refusal) => Opinion::Refused(refusal),
    }
}

/// The name that it was given, and what `erlang:node/0` is.
async fn call(target: &NodeName, at: SocketAddr, cookie: &Cookie) -> Result<(String, String), Refusal> {
    // Of the name it uses no more than the host, to connect to.
    let name = format!("{}@{}", target.name(), at.ip());
    let client = RpcClient::connect_with_port(&name, at.port(), cookie.reveal()).await?;
    let as_name = printable(&client.local_node().name);
    let mut handle = client.handle();
    let asked =
        async { handle.call("erlang".into(), "node".into(), List::nil()).await.map_err(Refusal::from) };
    let ended = async {
        Err(match client.run().await {
            Ok(()) => Refusal::Call("its client has ended".to_owned()),
            Err(error) => error.into(),
        })
    };
    // An answer that has come is one, whatever ends behind it.
    match asked.or(ended).await? {
        Term::Atom(node) => Ok((as_name, printable(&node.name))),
        other => Ok((as_name, printable(&other))),
    }
}

/// A node may call itself anything, and a terminal shows it.
fn printable(what: &impl fmt::Display) -> String {
    const CHARACTERS_MAX: usize = 300;
    what.to_string().chars().take(CHARACTERS_MAX).flat_map(char::escape_debug).collect()
}

impl From<ConnectError> for Refusal {
    fn from(error: ConnectError) -> Self {
        match error {
            ConnectError::HandshakeError(HandshakeError::NotAllowed)
            | ConnectError::UnexpectedHandshakeStatus { status: HandshakeStatus::NotAllowed } => {
                Self::NotAllowed
            }
            ConnectError::UnexpectedHandshakeStatus { .. } => Self::GivesNoName,
            ConnectError::HandshakeError(HandshakeError::Io(error))
                if matches!(
                    error.kind(),
                    ErrorKind::UnexpectedEof | ErrorKind::ConnectionReset | ErrorKind::BrokenPipe
                ) =>
            {
                Self::Closed
            }
            error => Self::Other(printable(&error)),
        }
    }
}

impl From<RunError> for Refusal {
    fn from(error: RunError) -> Self {
        Self::Call(printable(&error))
    }
}

impl From<CallError> for Refusal {
    fn from(error: CallError) -> Self {
        Self::Call(printable(&error))
    }
}

impl Opinion {
    /// What was found.
    pub(super) fn found(&self) -> String {
        match self {
            Self::NotAsked(why) => format!("not asked: {why}"),
            Self::GetsIn { as_name, answer } => format!(
                "another implementation's client gets in too, by the name {as_name} that it was given; erlang:node/0 \
                 answers it {answer}"
            ),
            Self::Refused(refusal) => {
                format!("another implementation's client {refusal}, where ours gets in")
            }
        }
    }

    /// What that means; `None` where there is nothing to say about it.
    pub(super) fn meaning(&self, target: &NodeName) -> Option<String> {
        let Self::Refused(refusal) = self else { return None };
        Some(match refusal {
            Refusal::NotAllowed => format!(
                "{target} lets in certain names alone (net_kernel:allow/1, kvnode --allow), and this client has none of its \
                 own: it asks for one, which the node makes, at the host localhost. Such clients are shut out; nodes with a \
                 name that is allowed are not"
            ),
            Refusal::GivesNoName => format!(
                "{target} gives no names to nodes that ask for one, as OTP does from 23 on: a client needs a name of its own"
            ),
            Refusal::Closed => format!(
                "see the log of {target}: this client asks for a name at the host localhost, and of our flags it lacks {}; \
                 one of these is what the node wants otherwise",
                lacking()
            ),
            Refusal::TimedOut(_) => {
                format!("see whether {target} is overloaded; another try may find it quicker")
            }
            Refusal::Call(_) => format!(
                "calls by spawn_request of erpc:execute_call/4 are not answered by {target} as OTP answers them: clients that \
                 call so get nothing from it"
            ),
            Refusal::Other(_) => {
                format!("clients other than kvnode and BEAMs may not get into {target}; see its log")
            }
        })
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotAllowed => f.write_str("is told not_allowed"),
            Self::Closed => f.write_str("has its connection closed in the handshake"),
            Self::GivesNoName => f.write_str("is given no name"),
            Self::TimedOut(time) => write!(f, "has no answer within {} s", time.as_secs_f32()),
            Self::Call(why) => write!(f, "is not answered when it asks for erlang:node/0 ({why})"),
            Self::Other(why) => write!(f, "does not get in ({why})"),
        }
    }
}

/// Flags that we offer and erl_rpc does not (its `connect_with_port`).
fn lacking() -> DistributionFlags {
    use erl_dist::DistributionFlags as Theirs;
    let more = [Theirs::NAME_ME, Theirs::SPAWN, Theirs::DIST_MONITOR, Theirs::DIST_MONITOR_NAME];
    let offered = more.into_iter().fold(Theirs::default(), |flags, flag| flags | flag);
    DistributionFlags::OFFERED.difference(DistributionFlags::from_bits(offered.bits()))
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};

    use super::*;

    #[test]
    fn what_is_told_is_printable_and_has_an_end() {
        assert_eq!(printable(&"a\u{1b}[31m@h"), "a\\u{1b}[31m@h");
        assert_eq!(printable(&"a".repeat(1000)).len(), 300);
    }

    #[test]
    fn the_flags_that_it_lacks_are_none_that_otp_wants_of_all() {
        let lacks = lacking();
        assert!(
            lacks.contains(DistributionFlags::ALIAS) && lacks.contains(DistributionFlags::FRAGMENTS),
            "{lacks}"
        );
        for wanted in [DistributionFlags::SPAWN, DistributionFlags::V4_NC, DistributionFlags::BIG_CREATION] {
            assert!(!lacks.contains(wanted), "{lacks}");
        }
    }

    /// What is said of a program that accepts a connection and does this with it.
    fn asked(cookie: &str, serve: impl FnOnce(TcpStream) + Send + 'static) -> (String, Option<String>) {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port is free");
        let at = listener.local_addr().expect("it is bound");
        // It waits for a connection that may not come; the test does not wait for it.
        std::thread::spawn(move || listener.accept().map(|(socket, _)| serve(socket)));
        let name = NodeName::new("a@h").expect("a name");
        let opinion = crate::block_on(ask(&name, at, &Cookie::new(cookie), Duration::from_millis(500)));
        (opinion.found(), opinion.meaning(&name))
    }

    #[test]
    fn what_keeps_it_out_is_told_and_what_that_means() {
        use std::io::{Read, Write};

        let (found, meaning) = asked("c", |mut socket| _ = socket.read(&mut [0; 64]));
        assert!(found.contains("has its connection closed in the handshake, where ours gets in"), "{found}");
        assert!(
            meaning
                .is_some_and(|text| text.contains("the log of a@h") && text.contains("it lacks UNICODE_IO"))
        );
        let (found, meaning) =
            asked("c", |mut socket| while socket.read(&mut [0; 64]).is_ok_and(|len| len > 0) {});
        assert!(found.contains("has no answer within 0.5 s"), "{found}");
        assert!(meaning.is_some_and(|text| text.contains("overloaded")));
        let says = |status: &'static str| {
            asked("c", move |mut socket| {
                _ = socket.read(&mut [0; 64]);
                let len = (status.len() as u16).to_be_bytes();
                _ = socket.write_all(&[&len[..], status.as_bytes()].concat());
                while socket.read(&mut [0; 64]).is_ok_and(|len| len > 0) {}
            })
        };
        let (found, meaning) = says("snot_allowed");
        assert!(found.contains("is told not_allowed"), "{found}");
        assert!(meaning.is_some_and(|text| text.contains("kvnode --allow")));
        // As OTP 22.
        let (found, meaning) = says("sok");
        assert!(found.contains("is given no name"), "{found}");
        assert!(meaning.is_some_and(|text| text.contains("from 23 on")));
        let (found, meaning) = says("sodd\u{1b}[31m");
        assert!(found.contains("does not get in (") && !found.contains('\u{1b}'), "{found}");
        assert!(meaning.is_some());
    }

    #[test]
    fn a_cookie_that_it_would_take_for_another_is_not_tried() {
        let (found, meaning) = asked("é", |_| {});
        assert!(found.starts_with("not asked: it takes letters of a cookie"), "{found}");
        assert!(meaning.is_none());
    }
}
