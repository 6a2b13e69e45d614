//! The functions that the table of processes answers by itself: which processes live here, under which names.

use std::sync::Arc;

use super::process_info;
use super::{Answer, Context, Exception, FunctionCall, Functions};
use crate::distribution::Outbound;
use crate::etf::{Pid, TermView, TermWriter};
use crate::process::{Effect, Process, Registry};

/// What every node can say of its processes.
#[derive(Debug)]
pub struct Builtin;

impl Functions for Builtin {
    fn apply(&self, call: &FunctionCall<'_>, context: &mut Context<'_>) -> Option<Answer> {
        let registry = context.registry;
        Some(match (call.module, call.function, call.arguments) {
            ("erlang", "node", []) | ("Elixir.Node", "self", []) => {
                Answer::value(|w| _ = w.atom(&registry.node))
            }
            ("erlang", "is_alive", []) | ("Elixir.Node", "alive?", []) => {
                Answer::value(|w| _ = w.atom("true"))
            }
            ("erlang", "whereis", [name]) => whereis(call, *name, "undefined", registry),
            ("Elixir.Process", "whereis", [name]) => whereis(call, *name, "nil", registry),
            ("erlang", "is_process_alive", [pid]) | ("Elixir.Process", "alive?", [pid]) => {
                is_alive(call, *pid, registry)
            }
            ("erlang", "processes", []) | ("Elixir.Process", "list", []) => {
                let all = registry.processes();
                Answer::value(|w| {
                    write_list(w, all.len(), |w| all.iter().for_each(|p| _ = w.raw(&p.pid_bytes)))
                })
            }
            ("erlang", "registered", []) | ("Elixir.Process", "registered", []) => names(&registry.names()),
            ("erlang", "process_info", [pid]) => process_info::all(call, *pid, "undefined", registry),
            ("Elixir.Process", "info", [pid]) => process_info::all(call, *pid, "nil", registry),
            ("erlang", "process_info", [pid, items]) => {
                process_info::some(call, *pid, *items, "undefined", registry)
            }
            ("Elixir.Process", "info", [pid, items]) => {
                process_info::some(call, *pid, *items, "nil", registry)
            }
            ("global", "whereis_name", [name]) => {
                let process = name.as_atom().and_then(|name| registry.by_global_name(&name.to_str()));
                pid_or(process.as_ref(), "undefined")
            }
            ("global", "registered_names", []) => {
                let held: Vec<Arc<str>> = registry.global_names().into_iter().map(|(name, _)| name).collect();
                names(&held)
            }
            ("global", "resolve_it", [_method, name, one, other]) => resolve(*name, *one, *other, context)
                .unwrap_or_else(|| Answer::raise(Exception::function_clause(call))),
            _ => return None,
        })
    }
}

/// A proper list of `len` elements, which `elements` writes.
pub(crate) fn write_list(w: &mut TermWriter<'_>, len: usize, elements: impl FnOnce(&mut TermWriter<'_>)) {
    w.list(len);
    elements(w);
    w.nil();
}

fn names(names: &[Arc<str>]) -> Answer {
    Answer::value(|w| write_list(w, names.len(), |w| names.iter().for_each(|name| _ = w.atom(name))))
}

/// `erlang:whereis/1`, `Process.whereis/1`
fn whereis(call: &FunctionCall<'_>, name: TermView<'_>, nobody: &str, registry: &Registry) -> Answer {
    let Some(name) = name.as_atom() else {
        return Answer::raise(Exception::badarg_of("whereis", call));
    };
    let process = registry.by_name(&name.to_str()).map(|(_, process)| process);
    pid_or(process.as_ref(), nobody)
}

fn pid_or(process: Option<&Arc<Process>>, nobody: &str) -> Answer {
    Answer::value(|w| match process {
        Some(process) => _ = w.raw(&process.pid_bytes),
        None => _ = w.atom(nobody),
    })
}

/// `erlang:is_process_alive/1`, `Process.alive?/1`: of processes of this node alone.
fn is_alive(call: &FunctionCall<'_>, pid: TermView<'_>, registry: &Registry) -> Answer {
    match pid.as_pid() {
        Some(pid) if pid.node == *registry.node => {
            let alive = registry.by_pid(&pid).is_some_and(|process| process.is_alive());
            Answer::value(|w| _ = w.atom(if alive { "true" } else { "false" }))
        }
        _ => Answer::raise(Exception::badarg_of("is_process_alive", call)),
    }
}

/// `global:resolve_it/4`: clusters with different holders of a name have met, and a BEAM asks which of them keeps it.
///
/// As with `global:random_notify_name/3` no process is killed, and the loser is told; but the winner is the same
/// whichever side is asked: the pid whose node sorts first. A pid of ours that has ended loses.
fn resolve(
    name: TermView<'_>,
    one: TermView<'_>,
    other: TermView<'_>,
    context: &mut Context<'_>,
) -> Option<Answer> {
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
        context.later.push(Effect::Send { node: loser.node, frames, answers: None });
    }
    Some(Answer::Now(Ok(winner.bytes().to_vec())))
}
