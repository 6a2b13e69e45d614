//! Why a call of ours has no answer, in the words of `GenServer.call`'s exits.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::Outcome;
use crate::distribution::TooLarge;
use crate::etf::{ConvertError, OwnedTerm, TermError, TermWriter};

/// Why a call, a cast or a message of ours did not do what it was for. It prints as Elixir prints the exit.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum CallError {
    /// Nobody has that name or pid. The called side's matter, or a wrong name.
    NoProcess,
    /// The connection to this node is lost, or could not be set up. Whether the request was handled is not known.
    NodeDown(Arc<str>),
    /// No answer came in time. Whether the request was handled is not known.
    Timeout,
    /// The called process ended with this reason before it had answered: its fault.
    Exit(OwnedTerm),
    /// So much waits for this node ([`Limits::outbound_bytes_max`](crate::config::Limits::outbound_bytes_max)) that there was no room
    /// for more. More is sent than the network and the node take; nothing was sent.
    Busy {
        /// The node.
        node: Arc<str>,
        /// How long this has waited for room: [`Limits::output_stall_max`](crate::config::Limits::output_stall_max), or not at all where
        /// that was not asked for.
        waited: Duration,
    },
    /// What was to be sent is no term: our misuse.
    Malformed(TermError),
    /// What was to be sent cannot be written as a term: our misuse.
    Unwritable(ConvertError),
    /// The answer is not what it was to be read as: the called side's fault, or of the Rust type that does not say
    /// what the protocol says.
    Unreadable(ConvertError),
    /// What was to be sent has terms in it that this node is too old to decode: to send them would cost the
    /// connection.
    Undecodable(Arc<str>),
    /// The answer is over a bound of this node, and was not received. The request was handled.
    TooLarge(TooLarge),
    /// This node ends, or has ended.
    Stopped,
}

impl CallError {
    /// How a wait that was not ended by an answer ends the call. `node`: where the process lives.
    pub(crate) fn of(outcome: Outcome, node: &Arc<str>) -> Result<OwnedTerm, Self> {
        match outcome {
            Outcome::Replied(reply) => Ok(reply),
            Outcome::NoConnection => Err(Self::NodeDown(Arc::clone(node))),
            Outcome::TooLarge(size) => Err(Self::TooLarge(size)),
            Outcome::Down(reason) | Outcome::Refused(reason) => {
                let reason = OwnedTerm::parse(reason).map_err(Self::Malformed)?;
                // stdlib, gen.erl, do_call/4: 'DOWN' with noconnection becomes {nodedown, Node}
                Err(if reason.view().is_atom("noproc") {
                    Self::NoProcess
                } else if reason.view().is_atom("noconnection") {
                    Self::NodeDown(Arc::clone(node))
                } else {
                    Self::Exit(reason)
                })
            }
        }
    }

    /// Writes the reason that a `GenServer.call` on a BEAM exits with, without the call that stands around it.
    pub fn write_reason(&self, w: &mut TermWriter<'_>) {
        match self {
            Self::NoProcess => w.atom("noproc"),
            Self::NodeDown(node) => w.tuple(2).atom("nodedown").atom(node),
            Self::Timeout => w.atom("timeout"),
            Self::Exit(reason) => w.term(reason.view()),
            Self::Busy { node, .. } => w.tuple(2).atom("nosuspend").atom(node),
            Self::Malformed(_) | Self::Undecodable(_) | Self::Unwritable(_) | Self::Unreadable(_) => {
                w.atom("badarg")
            }
            Self::TooLarge(size) => {
                write_too_large(w, size);
                w
            }
            Self::Stopped => w.atom("shutdown"),
        };
    }
}

impl fmt::Display for CallError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // elixir, exception.ex, format_exit_reason
        match self {
            Self::NoProcess => f.write_str(
                "no process: the process is not alive or there's no process currently associated with the given name",
            ),
            Self::NodeDown(node) => write!(f, "no connection to {node}"),
            Self::Timeout => f.write_str("time out"),
            Self::Exit(reason) if reason.view().is_atom("normal") => f.write_str("normal"),
            Self::Exit(reason) if reason.view().is_atom("shutdown") => f.write_str("shutdown"),
            Self::Exit(reason) if reason.view().is_atom("killed") => f.write_str("killed"),
            // What a kvnode's server does not know it refuses without an end of its own; gen_server.erl ends with it.
            Self::Exit(reason) if reason.view().as_tuple::<2>().is_some_and(|[what, _]| what.is_atom("bad_call")) => {
                write!(f, "it knows no such request: {reason:?}; a kvnode's server goes on, a GenServer has ended with it")
            }
            Self::Exit(reason) => match limit_text(reason) {
                Some(text) => write!(f, "the call was ended: {text}"),
                None => write!(f, "the process ended: {reason:?}"),
            },
            Self::Busy { node, waited: Duration::ZERO } => {
                write!(f, "so much waits for {node} that there is no room for more")
            }
            Self::Busy { node, waited } => {
                let waited = waited.as_secs_f64();
                write!(f, "so much waits for {node} that there was no room for more within {waited} s")
            }
            Self::Malformed(error) => write!(f, "what was to be sent is no term: {error}"),
            Self::Unwritable(error) => write!(f, "what was to be sent cannot be written as a term: {error}"),
            Self::Unreadable(error) => write!(f, "the answer cannot be read: {error}"),
            Self::Undecodable(node) => {
                write!(f, "{node} runs an OTP version that cannot decode what was to be sent")
            }
            Self::TooLarge(size) => write!(f, "the answer was not taken here: {size}"),
            Self::Stopped => f.write_str("this node has ended"),
        }
    }
}

impl std::error::Error for CallError {}

/// The reason with which something ends that is over a bound: `{:system_limit, text}`.
pub(crate) fn write_too_large(w: &mut TermWriter<'_>, size: &TooLarge) {
    w.tuple(2).atom("system_limit").binary(size.to_string().as_bytes());
}

/// The text in `{:system_limit, text}`, by which a kvnode ends a call that is over one of its bounds, without an end of its
/// own.
fn limit_text(reason: &OwnedTerm) -> Option<&str> {
    let [what, text] = reason.view().as_tuple::<2>()?;
    if what.is_atom("system_limit") { str::from_utf8(text.as_binary()?).ok() } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::etf::encode;

    #[test]
    fn ends_are_told_apart_as_gen_tells_them() {
        let node: Arc<str> = "m@h".into();
        let down = |text: &str| Outcome::Down(OwnedTerm::atom(text).into_bytes());
        let of = |outcome| CallError::of(outcome, &node).expect_err("no answer");
        assert_eq!(of(down("noproc")), CallError::NoProcess);
        assert_eq!(of(down("noconnection")), CallError::NodeDown("m@h".into()));
        assert_eq!(of(Outcome::NoConnection), CallError::NodeDown("m@h".into()));
        assert_eq!(of(down("boom")), CallError::Exit(OwnedTerm::atom("boom")));
        assert_eq!(CallError::of(Outcome::Replied(OwnedTerm::atom("x")), &node), Ok(OwnedTerm::atom("x")));
        let busy = |waited| CallError::Busy { node: Arc::clone(&node), waited }.to_string();
        assert_eq!(busy(Duration::ZERO), "so much waits for m@h that there is no room for more");
        let late = "so much waits for m@h that there was no room for more within 2.5 s";
        assert_eq!(busy(Duration::from_millis(2500)), late);
        let reason = encode(|w| CallError::NodeDown(node).write_reason(w));
        assert_eq!(reason, encode(|w| _ = w.tuple(2).atom("nodedown").atom("m@h")));
    }
}
