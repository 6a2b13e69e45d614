//! System messages (stdlib, `sys.erl`): `{system, {Pid, Tag}, Request}`.

use super::{Caller, Effects};
use crate::etf::TermView;

/// Answers a system message. None is served yet: the request ends at once, by the monitor that every caller of
/// `sys` sets, with a reason that names it.
pub(super) fn handle(request: TermView<'_>, caller: &Caller<'_>, effects: &mut Effects<'_>) {
    effects.end_call(caller, |w| {
        w.tuple(2).atom("bad_call").tuple(2).atom("system").term(request);
    });
}
