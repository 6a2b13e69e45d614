//! A slave's greeting, carried out: whether its node is a kvnode, and what its store answers.

use super::ANSWER_LIMIT;
use crate::Client;
use crate::distribution::ServerRef;
use crate::etf::{OwnedTerm, Pid};
use crate::node::erpc::ErpcError;
use crate::process::CallError;
use crate::replica::dialect::{REPLICATION, VERSION};
use crate::replica::{GreetingAnswer, Hello, SlaveName};

/// Greets a store of a kvnode; `names` are those of the store that greets it.
pub(super) async fn greet(client: &Client, at: Pid, hello: &Hello, names: &[SlaveName]) -> GreetingAnswer {
    let not_answered = |error: CallError| GreetingAnswer::None(format!("it does not answer: {error}"));
    let request = match OwnedTerm::write(|w| hello.write(w, names)) {
        Ok(request) => request,
        Err(error) => return not_answered(CallError::Malformed(error)),
    };
    match client.call_term(&ServerRef::Pid(at), request.view(), ANSWER_LIMIT).await {
        Ok(answer) => GreetingAnswer::read(answer.view()),
        Err(CallError::Exit(_)) => GreetingAnswer::NoStore,
        Err(error) => not_answered(error),
    }
}

/// Whether a node is a kvnode whose replication this one speaks. A BEAM says that it has no such function.
pub(super) async fn is_kvnode(client: &Client, node: &str) -> Result<bool, ErpcError> {
    if *node == *client.from_pid().node {
        return Ok(true);
    }
    match client.erpc(node, REPLICATION, 0, |_| {}, ANSWER_LIMIT).await {
        Ok(version) => Ok(version.view().as_unsigned() == Some(VERSION)),
        Err(ErpcError::Error { .. } | ErpcError::Refused(_) | ErpcError::NotSupported) => Ok(false),
        Err(error) => Err(error),
    }
}
