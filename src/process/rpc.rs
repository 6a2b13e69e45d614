//! The functions that other nodes may call here, and nothing else: no code is run for anybody.
//!
//! Calls come as spawn requests of `erpc:execute_call/4` (`:erpc.call`, and `:rpc.call` from OTP 23 on) or as
//! messages to `rex` (C nodes). A function that is not in the table is `undef`, in the shape that `erpc.erl`
//! gives to it, so that no caller waits for its time-out.

use std::sync::Arc;

use super::{Caller, Effect, Effects, ExitSignals, GenServer, Process, Registry};
use crate::dist::Outbound;
use crate::etf::{Cursor, Pid, TermView, TermWriter, encode};

/// What a function may touch.
pub struct Context<'a> {
    /// Our processes.
    pub registry: &'a Registry,
    /// The calling node.
    pub peer: &'a Arc<str>,
    /// What is to happen elsewhere.
    pub later: &'a mut Vec<Effect>,
}

/// A process that was asked for, and has ended by now.
pub(super) struct Spawned {
    /// Its exit reason, encoded.
    pub reason: Vec<u8>,
}

/// Carries out a spawn request of `module:function` with a list of arguments.
pub(super) fn spawned(
    module: &str,
    function: &str,
    arguments: TermView<'_>,
    context: &mut Context<'_>,
) -> Spawned {
    let list = elements(arguments);
    let reason = match (module, function, list.as_deref()) {
        ("erpc", "execute_call", Some([reference, m, f, a])) => execute_call(*reference, *m, *f, *a, context),
        ("erpc", "execute_cast", Some([m, f, a])) => {
            apply(*m, *f, *a, context);
            encode(|w| {
                w.atom("normal");
            })
        }
        _ => encode(|w| {
            // What the error of a process that calls an undefined function looks like from outside.
            w.tuple(2).atom("undef").list(1).tuple(4).atom(module).atom(function).term(arguments).nil().nil();
        }),
    };
    Spawned { reason }
}

/// kernel, erpc.erl, execute_call/4: the exit reason carries the result.
fn execute_call(
    reference: TermView<'_>,
    m: TermView<'_>,
    f: TermView<'_>,
    a: TermView<'_>,
    context: &mut Context<'_>,
) -> Vec<u8> {
    let result = apply(m, f, a, context);
    encode(|w| match result {
        Some(value) => {
            w.tuple(3).term(reference).atom("return").raw(&value);
        }
        None => {
            w.tuple(4).term(reference).atom("error").atom("undef");
            w.list(1).tuple(4).term(m).term(f).term(a).nil().nil();
        }
    })
}

/// The value of a function of the table, encoded; `None`: there is no such function.
fn apply(m: TermView<'_>, f: TermView<'_>, a: TermView<'_>, context: &mut Context<'_>) -> Option<Vec<u8>> {
    let (module, function) = (m.as_atom()?.to_str(), f.as_atom()?.to_str());
    let arguments = elements(a)?;
    match (&*module, &*function, arguments.as_slice()) {
        ("global", "whereis_name", [name]) => Some(whereis_name(*name, context.registry)),
        ("global", "resolve_it", [_method, name, one, other]) => resolve(*name, *one, *other, context),
        ("erlang", "whereis", [name]) => Some(whereis(*name, context.registry)),
        ("erlang", "node", []) => Some(encode(|w| {
            w.atom(&context.registry.node);
        })),
        _ => None,
    }
}

/// `erlang:whereis/1`: how a slave that is named `{name, node}` is found.
fn whereis(name: TermView<'_>, registry: &Registry) -> Vec<u8> {
    let process = name.as_atom().and_then(|name| registry.by_name(&name.to_str()));
    pid_or_undefined(process.map(|(_, process)| process))
}

fn pid_or_undefined(process: Option<Arc<Process>>) -> Vec<u8> {
    encode(|w| {
        match process {
            Some(process) => w.pid(&process.pid),
            None => w.atom("undefined"),
        };
    })
}

/// `global:whereis_name/1` for the names that are ours to hold: how nodes without a BEAM between them find each
/// other's stores.
fn whereis_name(name: TermView<'_>, registry: &Registry) -> Vec<u8> {
    pid_or_undefined(name.as_atom().and_then(|name| registry.by_global_name(&name.to_str())))
}

/// `global:resolve_it/4`: clusters with different holders of a name have met, and a BEAM asks who keeps it.
///
/// Like `global:random_notify_name/3` nobody is killed and the loser is told; but the winner is the same
/// whichever side is asked: the pid whose node sorts first. A pid of ours that has ended loses.
fn resolve(
    name: TermView<'_>,
    one: TermView<'_>,
    other: TermView<'_>,
    context: &mut Context<'_>,
) -> Option<Vec<u8>> {
    let (first, second) = (Pid::from(one.as_pid()?), Pid::from(other.as_pid()?));
    let order = |pid: &Pid| {
        let ours = *pid.node == *context.registry.node;
        let ended = ours && !context.registry.by_owned_pid(pid).is_some_and(|process| process.is_alive());
        (ended, Arc::clone(&pid.node), pid.serial, pid.id)
    };
    let (winner, loser) = if order(&first) <= order(&second) { (one, second) } else { (other, first) };
    if *loser.node == *context.registry.node {
        if let Some(name) = name.as_atom() {
            context.later.push(Effect::GlobalNameLost { name: name.to_str().into() });
        }
    } else {
        let mut frames = Outbound::default();
        frames.send(&loser, |w| {
            w.tuple(2).atom("global_name_conflict").term(name);
        });
        context.later.push(Effect::Send { node: loser.node, frames });
    }
    Some(winner.bytes().to_vec())
}

/// The elements of a proper list; `None` for anything else, and for a list longer than any function takes.
fn elements(list: TermView<'_>) -> Option<Vec<TermView<'_>>> {
    const ARGUMENTS_MAX: usize = 255;
    let mut cursor: Cursor<'_> = list.cursor();
    let len = cursor.list().ok().filter(|&len| len <= ARGUMENTS_MAX)?;
    let elements: Option<Vec<_>> = (0..len).map(|_| cursor.term().ok()).collect();
    (len == 0 || cursor.term().is_ok_and(TermView::is_nil)).then_some(elements?)
}

/// The server registered as `rex`: calls of C nodes, and `rpc:cast` of OTP 23.
#[derive(Debug)]
pub struct Rex;

impl Rex {
    /// `{call, M, F, A, GroupLeader}`: the answer, as kernel, rpc.erl gives it.
    fn call(request: TermView<'_>, effects: &mut Effects<'_>) -> Option<Vec<u8>> {
        let [call, m, f, a, _group_leader] = request.as_tuple::<5>()?;
        if !call.is_atom("call") && !call.is_atom("cast") {
            return None;
        }
        let peer: Arc<str> = effects.peer.into();
        let mut context = Context { registry: effects.registry, peer: &peer, later: effects.later };
        Some(apply(m, f, a, &mut context).unwrap_or_else(|| {
            encode(|w| {
                w.tuple(2).atom("badrpc").tuple(2).atom("EXIT").tuple(2).atom("undef");
                w.list(1).tuple(4).term(m).term(f).term(a).nil().nil();
            })
        }))
    }
}

impl GenServer for Rex {
    fn exit_signals(&self) -> ExitSignals {
        ExitSignals::Ignore
    }

    fn handle_call(&self, request: TermView<'_>, caller: &Caller<'_>, effects: &mut Effects<'_>) {
        match Self::call(request, effects) {
            Some(answer) => effects.reply(caller, |w| {
                w.raw(&answer);
            }),
            None => effects.end_call(caller, |w| {
                w.tuple(2).atom("bad_call").term(request);
            }),
        }
    }

    fn handle_cast(&self, request: TermView<'_>, effects: &mut Effects<'_>) {
        Self::call(request, effects);
    }

    fn handle_info(&self, message: TermView<'_>, effects: &mut Effects<'_>) {
        // erl_interface, ei_rpc_to(): {Pid, {call, M, F, A, user}}, answered by {rex, Result} to Pid.
        let Some([pid, request]) = message.as_tuple::<2>() else { return };
        if let Some(answer) = Self::call(request, effects) {
            effects.send(pid, |w: &mut TermWriter<'_>| {
                w.tuple(2).atom("rex").raw(&answer);
            });
        }
    }
}
