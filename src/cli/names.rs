//! `kvnode names`: what epmd and `:global` know.

use clap::Args;
use serde_json::{Value, json};

use super::ask::{AskArgs, Session};
use super::{CliError, answer, print};
use crate::block_on;
use crate::config::EpmdConfig;
use crate::epmd::client::{local_names, lookup};
use crate::etf::{OwnedTerm, from_term};

/// Names whose pid is asked for: each is a call, and all of them have the time of one command.
const ASKED_MAX: usize = 1000;

const EXAMPLES: &str = "\
EXAMPLES
  $ kvnode names
  epmd at 127.0.0.1:4369
    master  port 41235
    slave1  port 40123, hidden

  global names at slave1@myhost
    :slave1  #PID<slave1@myhost.3.0>";

#[derive(Args)]
#[command(before_help = EXAMPLES)]
pub(super) struct NamesArgs {
    /// Only the nodes that epmd knows
    #[arg(long, conflicts_with = "node")]
    epmd_only: bool,
    #[command(flatten)]
    ask: AskArgs,
}

/// A node that epmd knows.
struct Listed {
    name: String,
    port: u16,
    hidden: bool,
}

pub(super) fn main(args: NamesArgs) -> Result<(), CliError> {
    let find = args.ask.find.find()?;
    let (at, nodes) = match find.epmd() {
        Some(epmd) => block_on(listed(epmd)).map(|(at, nodes)| (Some(at), nodes))?,
        None if args.epmd_only => {
            return Err(CliError::usage(
                "--epmd-only: no epmd is asked (--epmd none); leave one of the two out",
            ));
        }
        None => (None, Vec::new()),
    };
    let mut report = json!({
        "epmd": at,
        "nodes": nodes.iter().map(|node| json!({ "name": node.name, "port": node.port, "hidden": node.hidden }))
            .collect::<Vec<Value>>(),
    });
    let mut text = match &at {
        Some(at) => format!("epmd at {at}\n"),
        None => "no epmd is asked\n".to_owned(),
    };
    let width = nodes.iter().map(|node| node.name.chars().count()).max().unwrap_or_default();
    for node in &nodes {
        let hidden = if node.hidden { ", hidden" } else { "" };
        text.push_str(&format!("  {:<width$}  port {}{hidden}\n", node.name, node.port));
    }
    if nodes.is_empty() && at.is_some() {
        text.push_str("  no nodes\n");
    }
    // Without a node to ask there is epmd's part, which needs no cookie.
    let ask = args.ask.node.is_some() || at.is_none() || nodes.iter().filter(|node| node.hidden).count() == 1;
    if ask && !args.epmd_only {
        let (node, names) = args.ask.with_session(global_names)?;
        text.push_str(&format!("\nglobal names at {node}\n"));
        let width = names.iter().map(|(name, _)| name.chars().count()).max().unwrap_or_default();
        for (name, pid) in &names {
            text.push_str(&format!("  {name:<width$}  {pid}\n"));
        }
        if names.is_empty() {
            text.push_str("  no names\n");
        }
        let names: Vec<Value> = names.iter().map(|(name, pid)| json!({ "name": name, "pid": pid })).collect();
        report["global"] = json!({ "node": node, "names": names });
    }
    if args.ask.json { print(&format!("{report}\n")) } else { print(&text) }
}

async fn listed(epmd: &EpmdConfig) -> Result<(String, Vec<Listed>), CliError> {
    let (at, names) = local_names(epmd).await.map_err(CliError::cannot_run)?;
    let mut nodes = Vec::new();
    for (name, port) in names {
        let found = lookup(&at.ip().to_string(), at.port(), &name).await.ok().flatten();
        // Any program that can reach epmd can register any bytes.
        let name = name.escape_debug().to_string();
        nodes.push(Listed { name, port, hidden: found.is_some_and(|found| found.hidden) });
    }
    nodes.sort_by(|one, other| one.name.cmp(&other.name));
    Ok((at.to_string(), nodes))
}

/// The names in `:global` and their pids, as the node knows them.
async fn global_names(session: &Session) -> Result<(String, Vec<(String, String)>), CliError> {
    let node = &session.connected.name;
    let client = session.node.client();
    let failed = |error| CliError::Failed(format!("{node} does not tell its global names: {error}"));
    let names =
        client.erpc(node, ("global", "registered_names"), 0, |_| (), session.time).await.map_err(failed)?;
    let names = from_term::<Vec<OwnedTerm>>(names.view())
        .map_err(|_| CliError::Failed(format!("{node} gave no list of its global names: {names:?}")))?;
    let mut found = Vec::new();
    for name in names.iter().take(ASKED_MAX) {
        let argument = |w: &mut crate::etf::TermWriter<'_>| _ = w.term(name.view());
        let pid = client.erpc(node, ("global", "whereis_name"), 1, argument, session.time).await;
        let pid = pid.map_err(failed)?;
        found.push((answer::text(name.view()), answer::text(pid.view())));
    }
    found.sort();
    Ok((node.to_string(), found))
}
