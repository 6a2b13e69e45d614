//! Whether a process on a BEAM is a server of the protocol: one of another kind would end, with what it holds, at the first
//! replicated write, as any `GenServer` does at a message that no clause takes.
//!
//! Asked before anything is sent to it, and in this order, so that the servers of the cluster's own modules are asked
//! nothing more and nobody's function runs without need:
//!
//! 1. its module, by `:proc_lib.translate_initial_call/1`. A process that was not started as OTP starts servers takes any
//!    message;
//! 2. its state, by `:sys.get_state/1`: `%{data: %{}, slaves: []}` is a server of the protocol, whatever its module is called;
//! 3. where the state is too large to be asked for, or the process too busy: what its module makes of a replicated write, in a
//!    process of its own and with a state that is made up.

use super::ANSWER_LIMIT;
use super::keys::{self, KeysError};
use crate::etf::{Pid, TermView};
use crate::node::erpc::ErpcError;
use crate::{Client, Node};

/// Those that are known to be servers of the protocol.
const MODULES: [&str; 2] = ["Elixir.KeyValueStoreReplicated", "Elixir.KeyValueStoreDistributed"];

/// Gives the module of a process that a replicated write would end; `None`: it would not.
///
/// # Errors
/// Its node's: it does not say.
pub(super) async fn foreign_module(
    node: &Node,
    client: &Client,
    slave: &Pid,
) -> Result<Option<String>, ErpcError> {
    let first = |w: &mut crate::etf::TermWriter<'_>| _ = w.pid(slave);
    let first = match client
        .erpc(&slave.node, ("proc_lib", "translate_initial_call"), 1, first, ANSWER_LIMIT)
        .await
    {
        Ok(first) => first,
        // No BEAM: how its processes take messages is for themselves to know.
        Err(ErpcError::Error { .. } | ErpcError::Refused(_) | ErpcError::NotSupported) => return Ok(None),
        Err(error) => return Err(error),
    };
    let Some(module) = server_module(first.view()) else { return Ok(None) };
    if MODULES.contains(&module.as_str()) {
        return Ok(None);
    }
    let foreign = match keys::check_state(node, client, slave).await {
        Ok(()) => false,
        Err(KeysError::Foreign) => true,
        Err(KeysError::Erpc(error)) => return Err(error),
        Err(KeysError::TooLarge(_) | KeysError::NoAnswer) => !takes_writes(client, slave, &module).await?,
    };
    Ok(foreign.then_some(module))
}

/// The module of an OTP process, from its first call; of an `Agent` that of the function that made its state.
fn server_module(first: TermView<'_>) -> Option<String> {
    let [module, _function, _arity] = first.as_tuple::<3>()?;
    // stdlib, proc_lib.erl, translate_initial_call/1: of a process that was not started by it.
    let module = module.as_atom().filter(|module| *module != "proc_lib")?;
    Some(module.to_str().into_owned())
}

/// Whether `handle_cast/2` of this module does with a replicated write what it should.
async fn takes_writes(client: &Client, slave: &Pid, module: &str) -> Result<bool, ErpcError> {
    let cast = |w: &mut crate::etf::TermWriter<'_>| {
        w.tuple(3).atom("replicate_put").atom("key").atom("ok");
        w.map(2).atom("data").map(0).atom("slaves").nil();
    };
    match client.erpc(&slave.node, (module, "handle_cast"), 2, cast, ANSWER_LIMIT).await {
        Ok(answer) => {
            let state = answer.view().as_tuple::<2>().filter(|[noreply, _]| noreply.is_atom("noreply"));
            Ok(state.is_some_and(|[_, state]| keys::count(state) == Some(1)))
        }
        Err(ErpcError::Error { .. } | ErpcError::Throw(_) | ErpcError::Exit(_) | ErpcError::Refused(_)) => {
            Ok(false)
        }
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::etf::encode;

    #[test]
    fn otp_servers_are_told_from_other_processes() {
        let module = |module: &str, function: &str, arity| {
            let first = encode(|w| _ = w.tuple(3).atom(module).atom(function).unsigned(arity));
            server_module(TermView::parse(&first).expect("a term"))
        };
        assert_eq!(module("Elixir.KeyValueStore", "init", 1), Some("Elixir.KeyValueStore".into()));
        assert_eq!(module("supervisor", "Elixir.App", 1), Some("supervisor".into()));
        assert_eq!(module("proc_lib", "init_p", 5), None);
    }
}
