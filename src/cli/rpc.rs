//! `kvnode rpc` and `ping`: functions of another node, and whether it is there.

use std::future::Future;
use std::io::Write;
use std::pin::pin;
use std::time::Duration;

use clap::Args;
use serde_json::json;
use smol::future::FutureExt;

use super::ask::{AskArgs, Session};
use super::{CliError, answer, print, server_name, term};
use crate::etf::{OwnedTerm, TermView, TermWriter, from_term};
use crate::node::erpc::ErpcError;
use crate::node::printed::{Printed, text};

const RPC_EXAMPLES: &str = "\
EXAMPLES
  $ kvnode rpc :lists :reverse '[[1, 2, 3]]' --node master@myhost
  [3, 2, 1]
  $ kvnode rpc System version --node master@myhost
  \"1.18.3\"

What the function prints is printed here; input it has none.";

const PING_EXAMPLES: &str = "\
EXAMPLES
  $ kvnode ping --node master@myhost
  pong from master@myhost in 0.4 ms";

/// What was printed and is not shown yet.
const PRINTED_MAX: usize = 4096;
/// How long the text of what was printed may take.
const STEP: Duration = Duration::from_secs(5);

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
        let client = session.node.client();
        let called = client.erpc(
            node,
            (&module, &function),
            arguments.len(),
            |w| arguments.iter().for_each(|argument| _ = w.term(argument.view())),
            session.time,
        );
        let called = printing(session, args.ask.json, called).await;
        called.map_err(|error| {
            let called_as = mfa(&module, &function, arguments.len());
            let function = format!("{called_as} on {node}");
            match error {
                ErpcError::Timeout => CliError::Timeout(format!("{function} gave no value in time")),
                ErpcError::NoConnection => CliError::CannotRun(format!("{function}: {error}")),
                // Or what it calls is there no more than it.
                ErpcError::Error { reason, stack }
                    if reason.view().is_atom("undef")
                        && undefined(stack.view()).is_none_or(|undefined| undefined == called_as) =>
                {
                    CliError::Failed(format!("there is no {function}"))
                }
                ErpcError::Error { reason, stack } if reason.view().is_atom("undef") => {
                    let undefined = undefined(stack.view()).unwrap_or_default();
                    CliError::Failed(format!("{function} raised undef: there is no {undefined}"))
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

/// Does `work`, a call of a function, and prints what that prints: as an rpc of a BEAM does, to the terminal of the caller. To
/// stderr where stdout is to have nothing but JSON.
async fn printing<T>(session: &Session, json: bool, work: impl Future<Output = T>) -> T {
    let (tell, told) = smol::channel::bounded(PRINTED_MAX);
    session.node.print_to(Box::new(move |printed| {
        // More at once than a person reads.
        _ = tell.try_send(printed);
    }));
    let show = async |printed: Printed| {
        let text = match printed {
            Printed::Text(text) => Some(text),
            Printed::Call { module, function, arguments } => {
                let arguments = from_term::<Vec<OwnedTerm>>(arguments.view()).unwrap_or_default();
                let write = |w: &mut TermWriter<'_>| {
                    arguments.iter().for_each(|argument| _ = w.term(argument.view()));
                };
                let (client, node) = (session.node.client(), &session.connected.name);
                let value = client.erpc(node, (&module, &function), arguments.len(), write, STEP).await;
                value.ok().and_then(|chars| text(chars.view(), false))
            }
        };
        let text = text.unwrap_or_else(|| "(what it printed could not be read)\n".to_owned());
        if json {
            _ = std::io::stderr().write_all(text.as_bytes());
        } else {
            // The reader that has closed stdout is told by what comes last.
            _ = print(&text);
        }
    };
    let mut work = pin!(work);
    let done = loop {
        let next = async { told.recv().await.map_or_else(|_| Err(None), |printed| Err(Some(printed))) };
        // What is begun to be shown is shown, also where the value comes meanwhile.
        match async { Ok(work.as_mut().await) }.or(next).await {
            Ok(done) => break done,
            Err(Some(printed)) => show(printed).await,
            Err(None) => break work.await,
        }
    };
    // All that it printed came before its value.
    while let Ok(printed) = told.try_recv() {
        show(printed).await;
    }
    done
}

/// A function as Elixir shows it, but for quotes.
fn mfa(module: &str, function: &str, arity: usize) -> String {
    format!("{}.{function}/{arity}", server_name::shown(module))
}

/// The function on top of a stack: where `undef` was raised, the one that is not there. (erlang, "Stack-Back Traces")
fn undefined(stack: TermView<'_>) -> Option<String> {
    let mut cursor = stack.cursor();
    let 1.. = cursor.list().ok()? else { return None };
    let [module, function, arity, _location] = cursor.term().ok()?.as_tuple::<4>()?;
    let arity = match arity.as_unsigned() {
        Some(arity) => usize::try_from(arity).ok()?,
        // The arguments.
        None => from_term::<Vec<OwnedTerm>>(arity).ok()?.len(),
    };
    Some(mfa(&module.as_atom()?.to_str(), &function.as_atom()?.to_str(), arity))
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
    let request = |w: &mut TermWriter<'_>| _ = w.tuple(2).atom("is_auth").atom(own);
    let answer = session.node.client().call(&session.server(&to), request, session.time).await;
    let answer = answer.map_err(|error| session.failed(&to, &error))?;
    if !answer.view().is_atom("yes") {
        return Err(CliError::Failed(format!("{} answers a ping with {answer:?}", session.connected.name)));
    }
    Ok(asked.elapsed().as_secs_f64() * 1000.0)
}
