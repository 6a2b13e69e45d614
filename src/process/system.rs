//! System messages (stdlib, `sys.erl`): `{system, {Pid, Tag}, Request}`, which every OTP process answers.
//!
//! They are answered for every [`GenServer`](super::GenServer) alike, also while it is suspended. The shapes are those
//! of `sys.erl` and `gen_server.erl`; what a debug function would do (trace, log, statistics) is accepted and not done.

mod status;

use super::gen_server::ExitSignals;
use super::{Caller, Dispatch, Effect, OwnedCaller, Process, Registry, Turn, exits};
use crate::distribution::DistributionFlags;
use crate::etf::tag::{NEW_FLOAT_EXT, NIL_EXT};
use crate::etf::{TermView, TermWriter, Traits, encode, key};

/// Answers a system message. `state_bytes_max`: the largest state that is shown whole.
pub(super) fn handle(
    request: TermView<'_>,
    caller: &Caller<'_>,
    turn: &mut Turn<'_>,
    state_bytes_max: usize,
) {
    let process = turn.me;
    let status = request.is_atom("get_status");
    if status || request.is_atom("get_state") {
        let (caller, flags) = (caller.to_owned(&process.pid), turn.flags);
        let asked = StateRequest { caller, status, flags, bytes_max: state_bytes_max };
        if process.server.ask_state(asked).is_none() {
            return;
        }
    }
    if request.is_atom("get_state") {
        let state = state(turn, state_bytes_max);
        // sys.erl: `State` up to OTP 25, `{ok, State}` from 26 on. What the caller runs is for the shell to find out.
        turn.effects.push(Effect::ReplyState { caller: caller.to_owned(&process.pid), state });
    } else if request.is_atom("get_status") {
        let state = state(turn, state_bytes_max);
        let names = turn.registry.names_of(process);
        turn.reply(caller, |w| status::write(w, process, &names, &state));
    } else if request.is_atom("suspend") {
        process.set_suspended(true);
        reply_ok(caller, turn);
    } else if request.is_atom("resume") {
        if process.set_suspended(false) {
            turn.effects.push(Effect::Resumed(process.id));
        }
        reply_ok(caller, turn);
    } else {
        compound(request, caller, turn);
    }
}

fn compound(request: TermView<'_>, caller: &Caller<'_>, turn: &mut Turn<'_>) {
    let pair = request.as_tuple::<2>();
    let [kind, argument] = pair.unwrap_or([request; 2]);
    let change_code = request.as_tuple::<4>().is_some_and(|[kind, ..]| kind.is_atom("change_code"));
    if pair.is_some() && kind.is_atom("terminate") {
        terminate(argument, caller, turn);
    } else if pair.is_some() && kind.is_atom("debug") {
        turn.reply(caller, |w| debug(w, argument));
    } else if pair.is_some() && kind.is_atom("replace_state") {
        // The function's code is not here: what a GenServer gives on a node without the module of the function.
        turn.reply(caller, |w| {
            w.tuple(2).atom("error").tuple(3).atom("callback_failed");
            w.tuple(2).atom("gen_server").atom("system_replace_state").tuple(2).atom("error").atom("undef");
        });
    } else if change_code && turn.me.is_suspended() {
        reply_ok(caller, turn);
    } else {
        // sys.erl, do_cmd, last clause. Change of code is for suspended processes only.
        turn.reply(caller, |w| {
            w.tuple(2).atom("error").tuple(2).atom("unknown_system_msg").term(request);
        });
    }
}

fn terminate(reason: TermView<'_>, caller: &Caller<'_>, turn: &mut Turn<'_>) {
    let refused = match exits::check_reason(reason) {
        Err(_) => Some("badarg"),
        Ok(()) if turn.me.server.exit_signals() == ExitSignals::Ignore => Some("not_allowed"),
        Ok(()) => None,
    };
    if let Some(why) = refused {
        // proc_lib.erl, stop/3, has no clause for an answer but `ok`.
        return turn.end_call(caller, |w| {
            w.atom(why);
        });
    }
    reply_ok(caller, turn);
    if !turn.me.server.stop(reason) {
        turn.exit(|w| {
            w.term(reason);
        });
    }
}

fn reply_ok(caller: &Caller<'_>, turn: &mut Turn<'_>) {
    turn.reply(caller, |w| {
        w.atom("ok");
    });
}

/// sys.erl, debug_cmd.
fn debug(w: &mut TermWriter<'_>, what: TermView<'_>) {
    let [kind, argument] = what.as_tuple::<2>().unwrap_or([what; 2]);
    let kind = kind.as_atom().map(|kind| kind.to_str().into_owned()).unwrap_or_default();
    let is_pair = what.tuple_arity() == Some(2);
    let get = argument.is_atom("get");
    match (kind.as_str(), is_pair) {
        ("log", true) if get => w.tuple(2).atom("ok").nil(),
        ("statistics", true) if get => w.tuple(2).atom("ok").atom("no_statistics"),
        // No file is ever written for a caller.
        ("log_to_file", true) if !argument.is_atom("false") => w.tuple(2).atom("error").atom("open_file"),
        ("trace" | "log" | "log_to_file" | "statistics" | "install" | "remove", true)
        | ("no_debug", false) => w.atom("ok"),
        _ => w.atom("unknown_debug"),
    };
}

/// The server's state, encoded, in a form that the node of `turn` can read.
fn state(turn: &Turn<'_>, bytes_max: usize) -> Vec<u8> {
    let write = |bytes_max: usize| encode(|w| turn.me.server.state(w, bytes_max));
    let whole = write(bytes_max);
    if is_readable(&whole, turn.flags) {
        return whole;
    }
    let summary = write(0);
    if is_readable(&summary, turn.flags) { summary } else { vec![NIL_EXT] }
}

/// A question for a state that its server answers later: `:sys.get_state/1` or `:sys.get_status/1`.
#[derive(Debug)]
pub struct StateRequest {
    caller: OwnedCaller,
    /// The status is asked for, of which the state is a part.
    status: bool,
    /// Of the node that asks.
    flags: DistributionFlags,
    bytes_max: usize,
}

impl StateRequest {
    /// Answers with the state of `process`, an encoded term, or gives what is to be done for it. A state that is too
    /// large to be shown is `%{bytes: n}`, and one that the asking node could not read is `nil`.
    pub fn answer(
        self,
        process: &Process,
        registry: &Registry,
        dispatch: &dyn Dispatch,
        state: &[u8],
    ) -> Option<Effect> {
        let state = if state.len() > self.bytes_max {
            encode(|w| _ = w.map(1).atom("bytes").unsigned(state.len() as u64))
        } else if is_readable(state, self.flags) {
            state.to_vec()
        } else {
            encode(|w| _ = w.atom("nil"))
        };
        if !self.status {
            return Some(Effect::ReplyState { caller: self.caller, state });
        }
        let names = registry.names_of(process);
        self.caller.reply(dispatch, |w| status::write(w, process, &names, &state));
        None
    }
}

/// Whether a node that offers these flags can read a term; that it is one is asked too, since a server of any kind wrote it.
fn is_readable(state: &[u8], flags: DistributionFlags) -> bool {
    let Ok(term) = TermView::parse(state) else { return false };
    if term.traits().contains(Traits::MAP) {
        // To OTP 25 the two zeros are one key, and a map that has both is no term.
        let negative_zero = [NEW_FLOAT_EXT, 0x80, 0, 0, 0, 0, 0, 0, 0];
        if state.windows(negative_zero.len()).any(|window| window == negative_zero)
            || key::check_maps(term).is_err()
        {
            return false;
        }
    }
    flags.can_decode(term.traits())
}
