//! The server registered as `rex` (kernel, rpc.erl): calls of C nodes, of Jinterface, and of OTP 23.

use std::sync::Arc;

use super::deferred::{ReturnTo, write_rex};
use super::{Answer, Context, apply};
use crate::etf::{Cursor, TermView, encode};
use crate::process::call_error::write_too_large;
use crate::process::{Caller, ExitSignals, GenServer, SkippedMessage, Turn};

/// The server registered as `rex`.
#[derive(Debug)]
pub struct Rex;

/// Carries out `{Kind, M, F, A, GroupLeader}`; gives `rex`'s answer, if there is one by now. The group leader is for
/// output, and nothing here writes any.
fn execute(
    kinds: &[&str],
    request: TermView<'_>,
    to: impl FnOnce() -> ReturnTo,
    turn: &mut Turn<'_>,
) -> Option<Executed> {
    let [kind, m, f, a, _group_leader] = request.as_tuple::<5>()?;
    if !kinds.iter().any(|known| kind.is_atom(known)) {
        return None;
    }
    let peer: Arc<str> = turn.peer.into();
    let mut context = Context::new(turn.registry, &peer, turn.flags, turn.effects);
    Some(match apply(m, f, a, &to(), &mut context) {
        Answer::Now(result) => Executed::Now(encode(|w| write_rex(w, &result))),
        Answer::Later(_) => Executed::Later,
    })
}

enum Executed {
    Now(Vec<u8>),
    Later,
}

impl Rex {
    /// `{Pid, {sbcast, Name, Message}}` and `{Pid, {send, Name, Message}}`: `rpc:sbcast`, `rpc:server_call`.
    fn pass_on(pid: TermView<'_>, request: TermView<'_>, turn: &mut Turn<'_>) {
        let Some([kind, name, message]) = request.as_tuple::<3>() else { return };
        let with_sender = kind.is_atom("send");
        if !with_sender && !kind.is_atom("sbcast") {
            return;
        }
        let named = name.as_atom().and_then(|name| turn.registry.by_name(&name.to_str()));
        let node = Arc::clone(&turn.registry.node);
        let Some((_, process)) = named else {
            turn.send(pid, |w| {
                w.tuple(3).atom("rex").atom(&node).tuple(2).atom("nonexisting_name").term(name);
            });
            return;
        };
        if let Ok(to) = TermView::parse(&process.pid_bytes) {
            turn.send(to, |w| {
                if with_sender {
                    w.tuple(2).term(pid);
                }
                w.term(message);
            });
        }
        if !with_sender {
            turn.send(pid, |w| {
                w.tuple(3).atom("rex").atom(&node).atom(&node);
            });
        }
    }
}

impl GenServer for Rex {
    fn waits_for_room(&self) -> bool {
        true
    }

    /// A node without it answers no C node any more; nobody starts it again.
    fn exit_signals(&self) -> ExitSignals {
        ExitSignals::Ignore
    }

    fn handle_call(&self, request: TermView<'_>, caller: &Caller<'_>, turn: &mut Turn<'_>) {
        let owned = caller.to_owned(&turn.me.pid);
        match execute(&["call", "block_call"], request, || ReturnTo::RexCall { caller: owned }, turn) {
            Some(Executed::Now(answer)) => turn.reply(caller, |w| {
                w.raw(&answer);
            }),
            Some(Executed::Later) => {}
            None => turn.end_call(caller, |w| {
                w.tuple(2).atom("bad_call").term(request);
            }),
        }
    }

    fn handle_cast(&self, request: TermView<'_>, turn: &mut Turn<'_>) {
        execute(&["cast"], request, || ReturnTo::ErpcCast, turn);
    }

    fn handle_skipped(&self, message: SkippedMessage<'_>, turn: &mut Turn<'_>) {
        // {Pid, {call, M, F, A, …
        let mut cursor = Cursor::new(message.beginning);
        let is_pair = cursor.tuple() == Ok(2);
        let Some(from) = cursor.term().ok().filter(|from| is_pair && from.as_pid().is_some()) else { return };
        if cursor.tuple() != Ok(5) || !cursor.atom().is_ok_and(|kind| kind == "call") {
            return;
        }
        turn.send(from, |w| {
            w.tuple(2).atom("rex").tuple(2).atom("badrpc");
            write_too_large(w, &message.size);
        });
    }

    fn handle_info(&self, message: TermView<'_>, turn: &mut Turn<'_>) {
        // erl_interface, ei_rpc_to(): {Pid, {call, M, F, A, user}}, answered by {rex, Result} to Pid.
        let Some([from, request]) = message.as_tuple::<2>() else { return };
        let Some(pid) = from.as_pid() else { return };
        if request.is_atom("features_request") {
            // kernel, rpc.erl, nodes_observer_loop/1: whether spawn requests of erpc are understood here.
            let node = Arc::clone(&turn.registry.node);
            turn.send(from, |w| {
                w.tuple(3).atom("features_reply").atom(&node).list(1).atom("erpc").nil();
            });
            return;
        }
        match execute(&["call"], request, || ReturnTo::RexMessage { pid: pid.into() }, turn) {
            Some(Executed::Now(answer)) => turn.send(from, |w| {
                w.tuple(2).atom("rex").raw(&answer);
            }),
            Some(Executed::Later) => {}
            None => Self::pass_on(from, request, turn),
        }
    }
}
