//! What `:sys.get_status/1` gives, in the shape that it and observer print.

use std::sync::Arc;

use crate::etf::TermWriter;
use crate::etf::tag::STRING_EXT;
use crate::process::Process;

/// sys.erl, get_status, and gen_server.erl, format_status: `{status, Pid, {module, gen_server}, [PDict, SysState,
/// Parent, Debug, Misc]}`.
pub(super) fn write(w: &mut TermWriter<'_>, process: &Process, names: &[Arc<str>], state: &[u8]) {
    let status = if process.is_suspended() { "suspended" } else { "running" };
    w.tuple(4).atom("status").pid(&process.pid).tuple(2).atom("module").atom("gen_server");
    w.list(5);
    // The process dictionary, with what proc_lib.erl puts there: tools read the server's module from it.
    w.list(2).tuple(2).atom("$initial_call").tuple(3).atom(process.server.module()).atom("init").integer(1);
    w.tuple(2).atom("$ancestors").nil().nil();
    // A process that was started by none is its own parent (gen.erl, start without a link).
    w.atom(status).pid(&process.pid).nil();
    w.list(3);
    w.tuple(2).atom("header");
    charlist(w, &header(process, names));
    w.tuple(2).atom("data").list(3);
    entry(w, "Status").atom(status);
    entry(w, "Parent").pid(&process.pid);
    entry(w, "Logged events").nil().nil();
    w.tuple(2).atom("data").list(1);
    entry(w, "State").raw(state).nil();
    w.nil().nil();
}

/// gen.erl, format_status_header.
fn header(process: &Process, names: &[Arc<str>]) -> String {
    let name = names.first().map_or_else(
        || format!("<{}.{}.{}>", process.pid.id, process.pid.serial, process.pid.creation),
        ToString::to_string,
    );
    format!("Status for generic server {name}")
}

fn entry<'w, 'a>(w: &'w mut TermWriter<'a>, label: &str) -> &'w mut TermWriter<'a> {
    w.tuple(2);
    charlist(w, label);
    w
}

/// A list of code points, as a BEAM writes it.
fn charlist(w: &mut TermWriter<'_>, text: &str) {
    let latin1: Option<Vec<u8>> = text.chars().map(|c| u8::try_from(c).ok()).collect();
    match latin1.map(|bytes| (u16::try_from(bytes.len()), bytes)) {
        Some((Ok(len), bytes)) if len > 0 => {
            w.raw(&[STRING_EXT]).raw(&len.to_be_bytes()).raw(&bytes);
        }
        _ => {
            w.list(text.chars().count());
            for c in text.chars() {
                w.integer(i64::from(u32::from(c)));
            }
            w.nil();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::etf::encode;

    #[test]
    fn text_is_written_as_a_list_of_code_points() {
        assert_eq!(encode(|w| charlist(w, "ab")), [107, 0, 2, b'a', b'b']);
        assert_eq!(encode(|w| charlist(w, "ÿ")), [107, 0, 1, 255]);
        assert_eq!(encode(|w| charlist(w, "Ā")), [108, 0, 0, 0, 1, 98, 0, 0, 1, 0, 106]);
        assert_eq!(encode(|w| charlist(w, "")), [106]);
    }
}
