//! The functions that other nodes may call here, and nothing else: no code of theirs is run.
//!
//! A call comes in one of three ways, and is answered in the way that it came:
//!
//! | what the caller uses | what comes | how it is answered |
//! | --- | --- | --- |
//! | `:erpc.call`, `:rpc.call` (from OTP 23 on), `multicall` | a spawn request of `erpc:execute_call/4` | by the exit reason of the spawned process |
//! | `:erpc.cast`, `:rpc.cast` | a spawn request of `erpc:execute_cast/3`; OTP 23: a cast to `rex` | not at all |
//! | `Node.spawn` | a spawn request of the function | by its exit: `normal`, or what it failed with |
//! | `erl_call`, C nodes, Jinterface | a message to `rex` | by the message `{rex, Result}` |
//! | `:rpc.block_call` | a call of `rex` | by its reply |
//!
//! `functions` has the table: what is not in it is `undef`, at once and in the shape that each of those callers
//! expects. `deferred` has the answers that come later, `builtin` what this layer can say by itself, `calls` those
//! that call a server, `rex` the server of that name.

pub(crate) mod builtin;
pub mod calls;
pub(crate) mod deferred;
pub(crate) mod exception;
pub(crate) mod functions;
mod process_info;
pub(crate) mod rex;

use std::sync::Arc;

pub use deferred::Deferred;
pub use exception::Exception;
pub use functions::{Answer, Context, FunctionCall, FunctionTable, Functions};
// Hidden: a node has one by itself; tests and fuzz targets of one without a node give it one.
#[doc(hidden)]
pub use rex::Rex;

use deferred::ReturnTo;

use super::Process;
use crate::etf::{Cursor, Pid, TermView, TermWriter, encode};

/// What has become of a process that was asked for.
pub(super) enum Spawned {
    /// It has lived, and ended with this reason, encoded.
    Ended(Pid, Vec<u8>),
    /// It lives until its function has an answer.
    Lives(Arc<Process>),
}

/// A spawn request's function and arguments.
#[derive(Clone, Copy)]
pub(super) struct Mfa<'a> {
    /// An atom.
    pub module: &'a str,
    /// An atom.
    pub function: &'a str,
    /// A list.
    pub arguments: TermView<'a>,
}

/// Carries out a spawn request.
pub(super) fn spawn(mfa: Mfa<'_>, context: &mut Context<'_>) -> Spawned {
    let list = elements(mfa.arguments);
    let (to, called) = match (mfa.module, mfa.function, list.as_deref()) {
        ("erpc", "execute_call", Some([reference, m, f, a])) => {
            (ReturnTo::ErpcCall { reference: reference.bytes().into() }, Some((*m, *f, *a)))
        }
        ("erpc", "execute_cast", Some([m, f, a])) => (ReturnTo::ErpcCast, Some((*m, *f, *a))),
        // erlang:spawn/2 with a function: erlang:apply(Fun, [])
        ("erlang", "apply", Some([fun, a])) if export(*fun).is_none() => {
            let result = Err(exception::of_fun(*fun, *a));
            return Spawned::Ended(context.registry.new_pid().1, ReturnTo::Spawn.reason(result));
        }
        _ => (ReturnTo::Spawn, None),
    };
    let answer = match called {
        Some((m, f, a)) => apply(m, f, a, &to, context),
        None => {
            let (module, function) = (atom(mfa.module), atom(mfa.function));
            let (m, f) = (TermView::parse(&module), TermView::parse(&function));
            match (m, f) {
                (Ok(m), Ok(f)) => apply(m, f, mfa.arguments, &to, context),
                // Our own writer wrote them.
                _ => Answer::Now(Err(Exception::exit(|w| _ = w.atom("system_limit")))),
            }
        }
    };
    match answer {
        Answer::Now(result) => Spawned::Ended(context.registry.new_pid().1, to.reason(result)),
        Answer::Later(process) => Spawned::Lives(process),
    }
}

/// `erlang:apply/3` inside of another: deeper than this is a `badarg`.
const APPLIES_MAX: usize = 8;

/// Calls a function of the table; what has no place there, or no shape of a call, is an exception.
pub(super) fn apply(
    m: TermView<'_>,
    f: TermView<'_>,
    a: TermView<'_>,
    to: &ReturnTo,
    context: &mut Context<'_>,
) -> Answer {
    let (mut m, mut f, mut a) = (m, f, a);
    // In a loop, and a short one: each round walks what is left of the arguments.
    for _ in 0..APPLIES_MAX {
        let (Some(module), Some(function)) = (m.as_atom(), f.as_atom()) else {
            return Answer::Now(Err(exception::of_apply(m, f, a)));
        };
        let Some(arguments) = elements(a) else {
            return Answer::Now(Err(exception::of_apply(m, f, a)));
        };
        match (&*module.to_str(), &*function.to_str(), arguments.as_slice()) {
            ("erlang", "apply", [inner_m, inner_f, inner_a]) => (m, f, a) = (*inner_m, *inner_f, *inner_a),
            ("erlang", "apply", [fun, a]) => match export(*fun) {
                Some((inner_m, inner_f)) => return apply_export(inner_m, inner_f, *a, to, context),
                None => return Answer::Now(Err(exception::of_applied_fun(*fun, *a))),
            },
            (module, function, arguments) => {
                let call = FunctionCall::new(module, function, arguments, (m, f, a));
                let answer = context.registry.functions.apply(&call, to, context);
                return match answer {
                    Some(Answer::Now(result)) => Answer::Now(context.decodable(result)),
                    Some(later) => later,
                    None => Answer::Now(Err(Exception::undef(&call))),
                };
            }
        }
    }
    Answer::Now(Err(exception::of_apply(m, f, a)))
}

/// `&Mod.fun/arity`, the only kind of function that means something here.
fn export(fun: TermView<'_>) -> Option<(TermView<'_>, TermView<'_>)> {
    let mut cursor = Cursor::new(fun.bytes().strip_prefix(&[crate::etf::tag::EXPORT_EXT])?);
    Some((cursor.term().ok()?, cursor.term().ok()?))
}

fn apply_export(
    m: TermView<'_>,
    f: TermView<'_>,
    a: TermView<'_>,
    to: &ReturnTo,
    context: &mut Context<'_>,
) -> Answer {
    if f.is_atom("apply") && m.is_atom("erlang") {
        // A function that applies functions that apply functions: nobody needs it.
        return Answer::Now(Err(exception::of_apply(m, f, a)));
    }
    apply(m, f, a, to, context)
}

/// The elements of a proper list of at most 255 elements, in whatever form it came; `None` for anything else.
pub fn elements(list: TermView<'_>) -> Option<Vec<TermView<'_>>> {
    const ARGUMENTS_MAX: usize = 255;
    list.elements(ARGUMENTS_MAX)
}

fn atom(text: &str) -> Vec<u8> {
    encode(|w| {
        w.atom(text);
    })
}

/// `{undef, [{M, F, A, []}]}` and the like: what a process that was spawned with a function ends with.
fn write_error_reason(w: &mut TermWriter<'_>, reason: &[u8], stack: &[u8]) {
    w.tuple(2).raw(reason).raw(stack);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_are_read_from_lists_and_from_strings() {
        let read = |bytes: &[u8]| {
            let elements = elements(TermView::parse(bytes).expect("a term"))?;
            Some(elements.iter().map(|element| element.as_unsigned()).collect::<Vec<_>>())
        };
        assert_eq!(read(&[106]), Some(vec![]));
        assert_eq!(read(&[107, 0, 2, 7, 255]), Some(vec![Some(7), Some(255)]));
        assert_eq!(read(&[108, 0, 0, 0, 1, 97, 7, 106]), Some(vec![Some(7)]));
        assert_eq!(read(&[108, 0, 0, 0, 1, 97, 7, 97, 8]), None, "an improper list");
        assert_eq!(read(&[97, 1]), None);
        assert_eq!(read(&[[107, 1, 0].as_slice(), &[1; 256]].concat()), None, "more than any function takes");
    }
}
