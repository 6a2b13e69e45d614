//! Functions that call a server and give its answer: `GenServer.call/3` and its relations, `net_adm:ping/1`.

use std::time::Duration;

use super::{Answer, Context, Exception, FunctionCall, Functions};
use crate::distribution::{Outbound, ServerRef};
use crate::etf::{OwnedTerm, TermView, TermWriter, encode};
use crate::process::{CallError, Effect, OutgoingCall};

/// `GenServer.call/2`'s time-out.
pub const DEFAULT_TIMEOUT: Duration = Duration::from_millis(DEFAULT_TIMEOUT_MS);
const DEFAULT_TIMEOUT_MS: u64 = 5000;

/// Has a server called and gives its answer, as `GenServer.call/3` does: where there is none, the function exits with
/// `{Reason, MFA}`, where `mfa` writes `{Module, Function, Arguments}`.
pub fn call_server(
    call: &FunctionCall<'_>,
    to: ServerRef,
    request: OwnedTerm,
    timeout: Duration,
    mfa: impl FnOnce(&mut TermWriter<'_>),
    context: &mut Context<'_>,
) -> Answer {
    let mfa = encode(mfa);
    then(call, to, request, timeout, context, move |answer| match answer {
        Ok(reply) => Ok(reply.into_bytes()),
        Err(error) => Err(Exception::exit(|w| {
            w.tuple(2);
            error.write_reason(w);
            w.raw(&mfa);
        })),
    })
}

/// Has a server called, and gives what `result` makes of it.
fn then(
    call: &FunctionCall<'_>,
    to: ServerRef,
    request: OwnedTerm,
    timeout: Duration,
    context: &mut Context<'_>,
    result: impl FnOnce(Result<OwnedTerm, CallError>) -> Result<Vec<u8>, Exception> + Send + 'static,
) -> Answer {
    let (deferred, answer) = match context.defer(call) {
        Ok(deferred) => deferred,
        Err(answer) => return answer,
    };
    context.later.push(Effect::Call(Box::new(OutgoingCall {
        from: deferred.pid().clone(),
        to,
        request,
        timeout,
        on_behalf_of: context.peer.clone(),
        done: Box::new(move |answer| deferred.answer(result(answer))),
    })));
    answer
}

/// `GenServer`, `gen_server` and `net_adm`.
#[derive(Debug)]
pub struct Calls;

impl Functions for Calls {
    fn apply(&self, call: &FunctionCall<'_>, context: &mut Context<'_>) -> Option<Answer> {
        Some(match (call.module, call.function, call.arguments) {
            ("Elixir.GenServer", "call", [to, request]) => elixir_call(call, *to, *request, None, context),
            ("Elixir.GenServer", "call", [to, request, timeout]) => {
                elixir_call(call, *to, *request, Some(*timeout), context)
            }
            ("gen_server", "call", [to, request]) => erlang_call(call, *to, *request, None, context),
            ("gen_server", "call", [to, request, timeout]) => {
                erlang_call(call, *to, *request, Some(*timeout), context)
            }
            ("Elixir.GenServer" | "gen_server", "cast", [to, request]) => cast(call, *to, *request, context),
            ("net_adm", "ping", [node]) | ("Elixir.Node", "ping", [node]) => ping(call, *node, context),
            _ => return None,
        })
    }
}

/// Milliseconds or `infinity`.
fn read_timeout(term: Option<TermView<'_>>) -> Option<Duration> {
    match term {
        None => Some(DEFAULT_TIMEOUT),
        Some(term) if term.is_atom("infinity") => Some(Duration::MAX),
        Some(term) => term.as_unsigned().map(Duration::from_millis),
    }
}

fn elixir_call(
    call: &FunctionCall<'_>,
    to: TermView<'_>,
    request: TermView<'_>,
    timeout: Option<TermView<'_>>,
    context: &mut Context<'_>,
) -> Answer {
    let (Some(server), Some(limit)) = (ServerRef::read(to), read_timeout(timeout)) else {
        return Answer::raise(Exception::function_clause(call));
    };
    let mfa = |w: &mut TermWriter<'_>| {
        w.tuple(3).atom("Elixir.GenServer").atom("call").list(3).term(to).term(request);
        match timeout {
            Some(timeout) => w.term(timeout),
            None => w.unsigned(DEFAULT_TIMEOUT_MS),
        };
        w.nil();
    };
    call_server(call, server, request.into(), limit, mfa, context)
}

fn erlang_call(
    call: &FunctionCall<'_>,
    to: TermView<'_>,
    request: TermView<'_>,
    timeout: Option<TermView<'_>>,
    context: &mut Context<'_>,
) -> Answer {
    let (m, f, a) = call.terms();
    let mfa = |w: &mut TermWriter<'_>| _ = w.tuple(3).term(m).term(f).term(a);
    let (Some(server), Some(limit)) = (ServerRef::read(to), read_timeout(timeout)) else {
        // stdlib, gen_server.erl, call/2: whatever gen:call/3 raises is an exit of the caller's.
        return Answer::raise(Exception::exit(|w| {
            w.tuple(2).tuple(2).atom("function_clause").nil();
            mfa(w);
        }));
    };
    call_server(call, server, request.into(), limit, mfa, context)
}

fn cast(
    call: &FunctionCall<'_>,
    to: TermView<'_>,
    request: TermView<'_>,
    context: &mut Context<'_>,
) -> Answer {
    let Some(server) = ServerRef::read(to) else { return Answer::raise(Exception::function_clause(call)) };
    let write = |w: &mut TermWriter<'_>| _ = w.tuple(2).atom("$gen_cast").term(request);
    let from = context.registry.new_pid().1;
    let mut frames = Outbound::default();
    match server {
        ServerRef::Pid(pid) => {
            frames.send(&pid, write);
            context.later.push(Effect::Send { node: pid.node, frames, answers: None });
        }
        ServerRef::Local(name) => {
            frames.reg_send(&from, &name, write);
            context.later.push(Effect::Send { node: context.registry.node.clone(), frames, answers: None });
        }
        ServerRef::Remote { name, node } => {
            frames.reg_send(&from, &name, write);
            context.later.push(Effect::Send { node, frames, answers: None });
        }
        ServerRef::Global(name) => {
            let to = ServerRef::Global(name);
            context.later.push(Effect::SendTo { from, to, message: encode(write) });
        }
    }
    Answer::value(|w| _ = w.atom("ok"))
}

/// kernel, net_adm.erl, ping/1: `{is_auth, node()}` asked of the other node's `net_kernel`.
fn ping(call: &FunctionCall<'_>, node: TermView<'_>, context: &mut Context<'_>) -> Answer {
    let Some(node) = node.as_atom() else { return Answer::raise(Exception::function_clause(call)) };
    let to = ServerRef::remote("net_kernel", &node.to_str());
    let own = context.registry.node.clone();
    let Ok(request) = OwnedTerm::write(|w| _ = w.tuple(2).atom("is_auth").atom(&own)) else {
        return Answer::raise(Exception::system_limit(call));
    };
    then(call, to, request, Duration::MAX, context, |answer| {
        let pong = answer.is_ok_and(|answer| answer.view().is_atom("yes"));
        Ok(OwnedTerm::atom(if pong { "pong" } else { "pang" }).into_bytes())
    })
}
