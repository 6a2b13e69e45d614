//! `net_kernel`: answers `Node.ping` and `:net_adm.ping`.

use super::{Caller, Effects, GenServer};
use crate::etf::TermView;

/// The server registered as `net_kernel` on every node.
#[derive(Debug)]
pub struct NetKernel;

impl GenServer for NetKernel {
    fn handle_call(&self, request: TermView<'_>, caller: &Caller<'_>, effects: &mut Effects<'_>) {
        // kernel, net_adm.erl, ping/1: gen:call({net_kernel, Node}, '$gen_call', {is_auth, node()}, infinity)
        let is_auth = request.as_tuple::<2>().is_some_and(|[tag, _node]| tag.is_atom("is_auth"));
        if is_auth {
            effects.reply(caller, |w| {
                w.atom("yes");
            });
        } else {
            effects.end_call(caller, |w| {
                w.tuple(2).atom("bad_call").term(request);
            });
        }
    }

    fn handle_cast(&self, _request: TermView<'_>, _effects: &mut Effects<'_>) {}
}
