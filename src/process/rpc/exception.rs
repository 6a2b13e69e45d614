//! What a function of ours raises, in the shapes that a BEAM gives to exceptions.

use super::FunctionCall;
use crate::etf::{OwnedTerm, TermView, TermWriter, encode};

/// Why a function gave no value: what `catch` would see where it ran.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Exception {
    /// `error`: the fault of the arguments, or of what the function stands on.
    Error {
        /// The reason, encoded.
        reason: Vec<u8>,
        /// The stacktrace, encoded: a list of `{Module, Function, ArgumentsOrArity, Info}`.
        stack: Vec<u8>,
    },
    /// `exit`, with the reason, encoded.
    Exit(Vec<u8>),
    /// `throw`, with the value, encoded.
    Throw(Vec<u8>),
    /// The process that ran it was ended with this reason, encoded: what a link does on a BEAM.
    Signal(Vec<u8>),
}

impl Exception {
    /// There is no such function.
    pub fn undef(call: &FunctionCall<'_>) -> Self {
        Self::error(call, |w| _ = w.atom("undef"))
    }

    /// An argument is none that the function takes, as a built-in function says it.
    pub fn badarg(call: &FunctionCall<'_>) -> Self {
        Self::of_bif(call, "badarg")
    }

    /// As [`badarg`](Self::badarg), raised by the built-in function of module `erlang` that the called one calls or is.
    pub(crate) fn badarg_of(function: &str, call: &FunctionCall<'_>) -> Self {
        let calls = call.module != "erlang";
        let stack = encode(|w| {
            w.list(1 + usize::from(calls)).tuple(4).atom("erlang").atom(function).term(call.terms().2);
            write_error_info(w);
            if calls {
                let arity = call.arguments.len() as u64;
                w.tuple(4).atom(call.module).atom(call.function).unsigned(arity).nil();
            }
            w.nil();
        });
        Self::Error { reason: OwnedTerm::atom("badarg").into_bytes(), stack }
    }

    /// The system cannot give what was asked for, as a built-in function says it.
    pub fn notsup(call: &FunctionCall<'_>) -> Self {
        Self::of_bif(call, "notsup")
    }

    /// No clause of the function takes these arguments, as a function written in Erlang or Elixir says it.
    pub fn function_clause(call: &FunctionCall<'_>) -> Self {
        Self::error(call, |w| _ = w.atom("function_clause"))
    }

    /// Too much of it: a bound of ours.
    pub fn system_limit(call: &FunctionCall<'_>) -> Self {
        Self::error(call, |w| _ = w.atom("system_limit"))
    }

    /// Elixir's `ArgumentError` with a message.
    pub fn argument_error(call: &FunctionCall<'_>, message: &str) -> Self {
        Self::error(call, |w| Self::write_argument_error(w, message))
    }

    /// The reason of that.
    pub(crate) fn write_argument_error(w: &mut TermWriter<'_>, message: &str) {
        w.map(3).atom("__struct__").atom("Elixir.ArgumentError");
        w.atom("__exception__").atom("true").atom("message").binary(message.as_bytes());
    }

    /// `error` with a reason, raised in the called function.
    pub fn error(call: &FunctionCall<'_>, reason: impl FnOnce(&mut TermWriter<'_>)) -> Self {
        let stack = encode(|w| write_stack_of(w, call, |w| _ = w.nil()));
        Self::Error { reason: encode(reason), stack }
    }

    /// `exit` with a reason.
    pub fn exit(reason: impl FnOnce(&mut TermWriter<'_>)) -> Self {
        Self::Exit(encode(reason))
    }

    fn of_bif(call: &FunctionCall<'_>, reason: &str) -> Self {
        let stack = encode(|w| write_stack_of(w, call, write_error_info));
        Self::Error { reason: OwnedTerm::atom(reason).into_bytes(), stack }
    }
}

/// `[{error_info, #{module => erl_erts_errors}}]`: by it `erl` and `iex` find out which argument was wrong.
fn write_error_info(w: &mut TermWriter<'_>) {
    w.list(1).tuple(2).atom("error_info").map(1).atom("module").atom("erl_erts_errors").nil();
}

/// A stacktrace of one entry: `{Module, Function, Arguments, Info}` of the called function.
fn write_stack_of(w: &mut TermWriter<'_>, call: &FunctionCall<'_>, info: impl FnOnce(&mut TermWriter<'_>)) {
    let (m, f, a) = call.terms();
    w.list(1).tuple(4).term(m).term(f).term(a);
    info(w);
    w.nil();
}

/// What was to be called is none of module, function and list: `apply/3` itself says so.
pub(super) fn of_apply(m: TermView<'_>, f: TermView<'_>, a: TermView<'_>) -> Exception {
    let stack = encode(|w| {
        w.list(1).tuple(4).atom("erlang").atom("apply").list(3).term(m).term(f).term(a).nil();
        write_error_info(w);
        w.nil();
    });
    Exception::Error { reason: OwnedTerm::atom("badarg").into_bytes(), stack }
}

/// A function of somebody's own module, which is not here: `{Fun, Arguments, []}` is how a BEAM without the module
/// names it.
pub(super) fn of_fun(fun: TermView<'_>, arguments: TermView<'_>) -> Exception {
    let stack = encode(|w| {
        w.list(1).tuple(3).term(fun).term(arguments).nil().nil();
    });
    Exception::Error { reason: OwnedTerm::atom("undef").into_bytes(), stack }
}

/// As [`of_fun`], where `apply/2` was called with it.
pub(super) fn of_applied_fun(fun: TermView<'_>, arguments: TermView<'_>) -> Exception {
    let stack = encode(|w| {
        w.list(2).tuple(3).term(fun).term(arguments).nil();
        w.tuple(4).atom("erlang").atom("apply").integer(2).nil().nil();
    });
    Exception::Error { reason: OwnedTerm::atom("undef").into_bytes(), stack }
}
