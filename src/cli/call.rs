//! `kvnode call` and `cast`: any request, to any GenServer.

use clap::Args;

use super::ask::{AskArgs, Session, ToArgs};
use super::{CliError, answer, term};

const CALL_EXAMPLES: &str = "\
EXAMPLES
  $ kvnode call '{:get, :nombre}' --to global:slave1
  \"Mafalda\"
  $ kvnode call :value --node counter@myhost --to local:counter

A GenServer that has no clause for a request ends, and its state with it. Of the modules KeyValueStore, \
KeyValueStoreReplicated and KeyValueStoreDistributed each knows {:get, k}, {:put, k, v}, {:delete, k}, and the latter two \
{:add_slave, s}.";

const CAST_EXAMPLES: &str = "\
EXAMPLES
  $ kvnode cast '{:replicate_put, :nombre, \"Mafalda\"}' --to global:slave1

Nobody answers a cast: that it was sent is all that is known.";

#[derive(Args)]
#[command(before_help = CALL_EXAMPLES)]
pub(super) struct CallArgs {
    /// A term in Elixir's syntax
    #[arg(value_name = "REQUEST", allow_negative_numbers = true)]
    request: String,
    #[command(flatten)]
    to: ToArgs,
    #[command(flatten)]
    ask: AskArgs,
}

#[derive(Args)]
#[command(before_help = CAST_EXAMPLES)]
pub(super) struct CastArgs {
    /// A term in Elixir's syntax
    #[arg(value_name = "REQUEST", allow_negative_numbers = true)]
    request: String,
    #[command(flatten)]
    to: ToArgs,
    #[command(flatten)]
    ask: AskArgs,
}

pub(super) fn call(args: CallArgs) -> Result<(), CliError> {
    let to = args.to.name()?;
    let early = term::read_early("REQUEST", &args.request)?;
    let answer = args.ask.with_session(async |session: &Session| {
        let request = term::read_late(early, "REQUEST", &args.request, session)?;
        let called =
            session.node.client().call_term(&session.server(&to), request.view(), session.time).await;
        called.map_err(|error| session.failed(&to, &error))
    })?;
    answer::show(answer.view(), args.ask.form())
}

pub(super) fn cast(args: CastArgs) -> Result<(), CliError> {
    let to = args.to.name()?;
    let early = term::read_early("REQUEST", &args.request)?;
    args.ask.with_session(async |session: &Session| {
        let request = term::read_late(early, "REQUEST", &args.request, session)?;
        let client = session.node.client();
        let cast = client.cast(&session.server(&to), |w| _ = w.term(request.view())).await;
        cast.map_err(|error| session.failed(&to, &error))
    })
}
