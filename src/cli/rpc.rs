//! `kvnode rpc` and `ping`: functions of another node, and whether it is there.

use clap::Args;
use serde_json::json;

use super::ask::{AskArgs, Session};
use super::{CliError, answer, print, server_name, term};
use crate::etf::{OwnedTerm, from_term};
use crate::node::erpc::ErpcError;

const RPC_EXAMPLES: &str = "\
EXAMPLES
  $ kvnode rpc :lists :reverse '[[1, 2, 3]]' --node master@myhost
  [3, 2, 1]
  $ kvnode rpc System version --node master@myhost
  \"1.18.3\"";

const PING_EXAMPLES: &str = "\
EXAMPLES
  $ kvnode ping --node master@myhost
  pong from master@myhost in 0.4 ms";

#[derive(Args)]
#[command(before_help = RPC_EXAMPLES)]
pub(super) struct RpcArgs {
    /// The module: lists or :lists, Enum
    #[arg(value_name = "MODULE")]
    module: String,
    /// The function
    #[arg(value_name = "FUNCTION")]
    function: String,
    /// The list of its arguments, in Elixir's syntax
    #[arg(value_name = "ARGUMENTS", default_value = "[]")]
    arguments: String,
    #[command(flatten)]
    ask: AskArgs,
}

#[derive(Args)]
#[command(before_help = PING_EXAMPLES)]
pub(super) struct PingArgs {
    #[command(flatten)]
    ask: AskArgs,
}

pub(super) fn rpc(args: RpcArgs) -> Result<(), CliError> {
    let name = |what: &str, typed: &str| {
        server_name::atom(typed).map_err(|reason| CliError::usage(format!("{what} {typed}: {reason}")))
    };
    let module = name("MODULE", &args.module)?;
    // A function is no module, also where it begins with a capital letter.
    let function = args.function.strip_prefix(':').unwrap_or(&args.function).to_owned();
    let listed = |term: &OwnedTerm| {
        from_term::<Vec<OwnedTerm>>(term.view()).map_err(|_| {
            CliError::usage(
                "ARGUMENTS is a list, as in '[1, :two]'; for a single argument write '[argument]'",
            )
        })
    };
    let early = term::read_early("ARGUMENTS", &args.arguments)?;
    if let Some(term) = &early {
        listed(term)?;
    }
    let answer = args.ask.with_session(async |session: &Session| {
        let arguments = listed(&term::read_late(early, "ARGUMENTS", &args.arguments, session)?)?;
        let node = &session.connected.name;
        let called = session
            .node
            .client()
            .erpc(
                node,
                (&module, &function),
                arguments.len(),
                |w| arguments.iter().for_each(|argument| _ = w.term(argument.view())),
                session.time,
            )
            .await;
        called.map_err(|error| {
            let function =
                format!("{}.{function}/{} on {node}", server_name::shown(&module), arguments.len());
            match error {
                ErpcError::Timeout => CliError::Timeout(format!("{function} gave no value in time")),
                ErpcError::NoConnection => CliError::CannotRun(format!("{function}: {error}")),
                ErpcError::Error { reason, .. } if reason.view().is_atom("undef") => {
                    CliError::Failed(format!("there is no {function}"))
                }
                ErpcError::Error { reason, .. } => {
                    CliError::Failed(format!("{function} raised {}", answer::text(reason.view())))
                }
                error => CliError::Failed(format!("{function}: {error}")),
            }
        })
    })?;
    answer::show(answer.view(), args.ask.form())
}

pub(super) fn ping(args: PingArgs) -> Result<(), CliError> {
    let (node, millis) = args.ask.with_session(async |session: &Session| {
        let millis = round_trip(session).await?;
        Ok((session.connected.name.to_string(), millis))
    })?;
    if args.ask.json {
        return print(&format!("{}\n", json!({ "node": node, "round_trip_ms": millis })));
    }
    print(&format!("pong from {node} in {millis:.1} ms\n"))
}

/// Milliseconds of a question that every node answers (kernel, net_kernel.erl, `is_auth`), as `Node.ping/1` asks it.
///
/// # Errors
/// It is not answered so.
#[expect(clippy::disallowed_methods, reason = "a round trip is a time")]
pub(super) async fn round_trip(session: &Session) -> Result<f64, CliError> {
    let to = crate::config::ServerName::Local("net_kernel".into());
    let asked = std::time::Instant::now();
    let own = session.node.name().as_str();
    let request = |w: &mut crate::etf::TermWriter<'_>| _ = w.tuple(2).atom("is_auth").atom(own);
    let answer = session.node.client().call(&session.server(&to), request, session.time).await;
    let answer = answer.map_err(|error| session.failed(&to, &error))?;
    if !answer.view().is_atom("yes") {
        return Err(CliError::Failed(format!("{} answers a ping with {answer:?}", session.connected.name)));
    }
    Ok(asked.elapsed().as_secs_f64() * 1000.0)
}
