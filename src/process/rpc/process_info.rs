//! `erlang:process_info/1,2` and `Process.info/1,2`, as far as a process of ours has what they ask for.
//!
//! A server of ours shows itself as a `gen_server` that waits for its next message, which is what it is to its callers.
//! What only a process of a BEAM has (heaps, reductions, a group leader) is no item here: it is left out of the list, and
//! asked for by name it is `badarg` like any item that there is not.

use std::sync::Arc;

use super::builtin::write_list;
use super::{Answer, Exception, FunctionCall, elements};
use crate::etf::{TermView, TermWriter, encode};
use crate::process::{ExitSignals, Process, Registry};

/// In the order in which a BEAM lists them. `registered_name` is left out of a list where there is none.
const ITEMS: [&str; 10] = [
    "registered_name",
    "current_function",
    "initial_call",
    "status",
    "message_queue_len",
    "dictionary",
    "trap_exit",
    "error_handler",
    "priority",
    "suspending",
];

/// Items that only a call for them gives, as on a BEAM.
const ASKED_FOR: [&str; 2] = ["messages", "current_stacktrace"];

/// The process whose items are asked for: `Err` where none of this node is meant.
fn process_of(
    call: &FunctionCall<'_>,
    pid: TermView<'_>,
    registry: &Registry,
) -> Result<Option<Arc<Process>>, Answer> {
    match pid.as_pid() {
        Some(pid) if pid.node == *registry.node => Ok(registry.by_pid(&pid)),
        _ => Err(badarg(call)),
    }
}

fn badarg(call: &FunctionCall<'_>) -> Answer {
    Answer::raise(Exception::badarg_of("process_info", call))
}

/// `process_info(Pid)`
pub(super) fn all(call: &FunctionCall<'_>, pid: TermView<'_>, dead: &str, registry: &Registry) -> Answer {
    let process = match process_of(call, pid, registry) {
        Ok(process) => process,
        Err(answer) => return answer,
    };
    let Some(process) = process else { return Answer::value(|w| _ = w.atom(dead)) };
    let mut len = 0;
    let items = encode(|w| {
        for item in ITEMS {
            let has_none = item == "registered_name" && registry.local_names_of(process.id).is_empty();
            if !has_none {
                len += 1;
                write_item(w, item, &process, registry);
            }
        }
    });
    Answer::value(|w| write_list(w, len, |w| _ = w.raw(&items)))
}

/// `process_info(Pid, Item)` and `process_info(Pid, Items)`
pub(super) fn some(
    call: &FunctionCall<'_>,
    pid: TermView<'_>,
    items: TermView<'_>,
    dead: &str,
    registry: &Registry,
) -> Answer {
    let known =
        |item: TermView<'_>| ITEMS.iter().chain(&ASKED_FOR).find(|known| item.is_atom(known)).copied();
    let process = match process_of(call, pid, registry) {
        Ok(process) => process,
        Err(answer) => return answer,
    };
    if let Some(item) = known(items) {
        let Some(process) = process else { return Answer::value(|w| _ = w.atom(dead)) };
        let unnamed = item == "registered_name" && registry.local_names_of(process.id).is_empty();
        return Answer::value(|w| match (unnamed, dead) {
            // erlang:process_info/2: "an empty list" for a process without a name; Process.info/2 makes a pair of it.
            (true, "undefined") => _ = w.nil(),
            _ => write_item(w, item, &process, registry),
        });
    }
    let Some(items) =
        elements(items).and_then(|items| items.into_iter().map(known).collect::<Option<Vec<_>>>())
    else {
        return badarg(call);
    };
    let Some(process) = process else { return Answer::value(|w| _ = w.atom(dead)) };
    Answer::value(|w| {
        write_list(w, items.len(), |w| items.iter().for_each(|item| write_item(w, item, &process, registry)));
    })
}

/// `{Item, Value}`
fn write_item(w: &mut TermWriter<'_>, item: &str, process: &Process, registry: &Registry) {
    w.tuple(2).atom(item);
    match item {
        "registered_name" => match registry.local_names_of(process.id).iter().min() {
            Some(name) => _ = w.atom(name),
            None => _ = w.nil(),
        },
        "current_function" => _ = w.tuple(3).atom("gen_server").atom("loop").integer(7),
        "initial_call" => _ = w.tuple(3).atom("proc_lib").atom("init_p").integer(5),
        "status" => _ = w.atom("waiting"),
        "message_queue_len" => _ = w.unsigned(process.server.messages_waiting() as u64),
        "dictionary" => {
            // stdlib, proc_lib.erl, init_p/5
            w.list(1)
                .tuple(2)
                .atom("$initial_call")
                .tuple(3)
                .atom(process.server.module())
                .atom("init")
                .integer(1);
            w.nil();
        }
        "trap_exit" => {
            _ = w.atom(if process.server.exit_signals() == ExitSignals::Trap { "true" } else { "false" });
        }
        "error_handler" => _ = w.atom("error_handler"),
        "priority" => _ = w.atom("normal"),
        "current_stacktrace" => {
            w.list(1).tuple(4).atom("gen_server").atom("loop").integer(7).nil().nil();
        }
        // suspending, messages
        _ => _ = w.nil(),
    }
}
