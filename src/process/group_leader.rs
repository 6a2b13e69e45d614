//! The group leader of functions that are called on other nodes: what they print comes here (stdlib, "The Erlang I/O
//! Protocol"). Without an answer a function that prints would wait for ever.

use super::Turn;
use crate::etf::tag::{BINARY_EXT, INTEGER_EXT, LIST_EXT, NIL_EXT, SMALL_INTEGER_EXT, STRING_EXT};
use crate::etf::{OwnedTerm, TermView};

/// Lists in each other, of what is printed: deeper ones are not read.
const DEPTH_MAX: usize = 64;
/// Requests in each other: `io` puts one into another, and nothing puts two.
const REQUESTS_DEPTH_MAX: usize = 4;

/// What a function has printed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Printed {
    /// This text.
    Text(String),
    /// What a function of its node gives: `io_lib:format/2` mostly.
    Call {
        /// The module.
        module: String,
        /// The function.
        function: String,
        /// A list.
        arguments: OwnedTerm,
    },
}

/// What is answered to a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reply {
    Done,
    /// There is no input here.
    Eof,
    /// `{:error, reason}`
    Error(&'static str),
}

/// Answers a message where it is `{:io_request, from, reply_as, request}` of the peer itself, and gives what is printed to
/// `print`; whether it was one.
pub(super) fn handle(message: TermView<'_>, turn: &mut Turn<'_>, print: impl FnMut(Printed)) -> bool {
    let Some([kind, from, reply_as, request]) = message.as_tuple::<4>() else { return false };
    if !kind.is_atom("io_request") || from.as_pid().is_none_or(|from| from.node != *turn.peer) {
        return false;
    }
    let reply = carry_out(request, print);
    turn.send(from, |w| {
        w.tuple(3).atom("io_reply").term(reply_as);
        match reply {
            Reply::Done => w.atom("ok"),
            Reply::Eof => w.atom("eof"),
            Reply::Error(reason) => w.tuple(2).atom("error").atom(reason),
        };
    });
    true
}

/// The requests, one after another, up to the first that fails.
fn carry_out(request: TermView<'_>, mut print: impl FnMut(Printed)) -> Reply {
    let mut waiting = vec![(0, request)];
    while let Some((depth, request)) = waiting.pop() {
        let several = request.as_tuple::<2>().filter(|[kind, _]| kind.is_atom("requests"));
        let reply = match several {
            Some([_, requests]) => match elements(requests) {
                Some(requests) if depth < REQUESTS_DEPTH_MAX => {
                    waiting.extend(requests.into_iter().rev().map(|request| (depth + 1, request)));
                    Reply::Done
                }
                _ => Reply::Error("request"),
            },
            None => one(request, &mut print),
        };
        if reply != Reply::Done {
            return reply;
        }
    }
    Reply::Done
}

fn one(request: TermView<'_>, print: &mut impl FnMut(Printed)) -> Reply {
    let mut cursor = request.cursor();
    let Ok(arity) = cursor.tuple() else { return Reply::Error("request") };
    let Ok(kind) = cursor.atom() else { return Reply::Error("request") };
    match (kind.as_bytes(), arity) {
        (b"put_chars", 2 | 3) => {
            let encoded = request.as_tuple::<3>();
            let text = match encoded {
                Some([_, encoding, chars]) => text(chars, encoding.is_atom("latin1")),
                None => request.as_tuple::<2>().and_then(|[_, chars]| text(chars, true)),
            };
            let Some(text) = text else { return Reply::Error("put_chars") };
            print(Printed::Text(text));
            Reply::Done
        }
        (b"put_chars", 4 | 5) => {
            let called = match request.as_tuple::<5>() {
                Some([_, _encoding, module, function, arguments]) => Some([module, function, arguments]),
                None => request
                    .as_tuple::<4>()
                    .map(|[_, module, function, arguments]| [module, function, arguments]),
            };
            let Some([module, function, arguments]) = called else { return Reply::Error("put_chars") };
            let (Some(module), Some(function)) = (module.as_atom(), function.as_atom()) else {
                return Reply::Error("put_chars");
            };
            let arguments = OwnedTerm::from(arguments);
            print(Printed::Call {
                module: module.to_str().into(),
                function: function.to_str().into(),
                arguments,
            });
            Reply::Done
        }
        (b"get_chars" | b"get_line" | b"get_until" | b"get_password", _) => Reply::Eof,
        _ => Reply::Error("enotsup"),
    }
}

/// Character data as text (stdlib, unicode, `chardata()`); `None`: it is none.
pub fn text(chars: TermView<'_>, latin1: bool) -> Option<String> {
    let mut text = String::new();
    // What is still to be read, the next last.
    let mut waiting = vec![(0, chars)];
    while let Some((depth, chars)) = waiting.pop() {
        match chars.tag() {
            NIL_EXT => {}
            BINARY_EXT if latin1 => text.extend(chars.as_binary()?.iter().map(|byte| char::from(*byte))),
            BINARY_EXT => text.push_str(&String::from_utf8_lossy(chars.as_binary()?)),
            SMALL_INTEGER_EXT | INTEGER_EXT => {
                text.push(char::from_u32(chars.as_unsigned()?.try_into().ok()?)?)
            }
            // The tag and a length in 16 bits, and then the characters.
            STRING_EXT => text.extend(chars.bytes().get(3..)?.iter().map(|byte| char::from(*byte))),
            LIST_EXT if depth < DEPTH_MAX => {
                let mut parts = elements(chars)?;
                parts.reverse();
                waiting.extend(parts.into_iter().map(|part| (depth + 1, part)));
            }
            _ => return None,
        }
    }
    Some(text)
}

/// The elements of a list, and its tail where that is not `[]`.
fn elements(list: TermView<'_>) -> Option<Vec<TermView<'_>>> {
    let mut cursor = list.cursor();
    let len = cursor.list().ok()?;
    let mut elements = Vec::new();
    for _ in 0..len {
        elements.push(cursor.term().ok()?);
    }
    if len > 0 {
        let tail = cursor.term().ok()?;
        if !tail.is_nil() {
            elements.push(tail);
        }
    }
    Some(elements)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::etf::text::parse;

    fn carried_out(request: &str) -> (Reply, Vec<Printed>) {
        let term = parse(request, None).unwrap();
        let mut printed = Vec::new();
        (carry_out(term.view(), |text| printed.push(text)), printed)
    }

    fn text(text: &str) -> Printed {
        Printed::Text(text.into())
    }

    #[test]
    fn what_is_printed_is_read_as_the_io_protocol_has_it() {
        assert_eq!(carried_out("{:put_chars, :unicode, \"hé\\n\"}"), (Reply::Done, vec![text("hé\n")]));
        assert_eq!(carried_out("{:put_chars, :latin1, <<233>>}"), (Reply::Done, vec![text("é")]));
        assert_eq!(
            carried_out("{:put_chars, :unicode, [104, ~c\"i\", [\"!\" | \"?\"], 233, 8364]}"),
            (Reply::Done, vec![text("hi!?é€")])
        );
        assert_eq!(
            carried_out("{:requests, [{:put_chars, :unicode, \"a\"}, {:put_chars, :unicode, \"b\"}]}"),
            (Reply::Done, vec![text("a"), text("b")])
        );
        let format = carried_out("{:put_chars, :unicode, :io_lib, :format, [~c\"~p\", [1]]}");
        let arguments = parse("[~c\"~p\", [1]]", None).unwrap();
        let call = Printed::Call { module: "io_lib".into(), function: "format".into(), arguments };
        assert_eq!(format, (Reply::Done, vec![call]));
    }

    #[test]
    fn a_reader_is_at_the_end_and_the_rest_is_refused() {
        assert_eq!(carried_out("{:get_line, :unicode, \"? \"}"), (Reply::Eof, vec![]));
        assert_eq!(carried_out("{:getopts}"), (Reply::Error("enotsup"), vec![]));
        assert_eq!(carried_out(":getopts"), (Reply::Error("request"), vec![]));
        assert_eq!(carried_out("{:put_chars, :unicode, :a}"), (Reply::Error("put_chars"), vec![]));
        assert_eq!(carried_out("{:put_chars, :unicode, [-1]}"), (Reply::Error("put_chars"), vec![]));
        let failed =
            carried_out("{:requests, [{:put_chars, :unicode, \"a\"}, :x, {:put_chars, :unicode, \"b\"}]}");
        assert_eq!(failed, (Reply::Error("request"), vec![text("a")]));
        let deep =
            format!("{{:put_chars, :unicode, {}{}}}", "[1, ".repeat(100), "1".to_owned() + &"]".repeat(100));
        assert_eq!(carried_out(&deep).0, Reply::Error("put_chars"));
    }
}
