//! `kvnode epmd`: the habits of Erlang's epmd program.

use std::net::IpAddr;

use clap::Args;

use super::log::{self, LogArgs};
use super::{CliError, print};
use crate::config::EpmdConfig;
use crate::epmd::client::{kill, local_names};
use crate::epmd::daemon::{Daemon, DaemonConfig};
use crate::epmd::{detach, environment};

/// Runs, asks or ends an epmd, as Erlang's own epmd program does.
///
/// Without --daemon it runs in the foreground until it is killed.
#[derive(Args)]
pub(super) struct EpmdArgs {
    /// Leave it running in the background, and return when it answers
    #[arg(long, conflicts_with_all = ["names", "kill"])]
    daemon: bool,
    /// Show the nodes that are registered with the epmd that runs
    #[arg(long, conflicts_with = "kill")]
    names: bool,
    /// End the epmd that runs; refused while nodes are registered
    #[arg(long)]
    kill: bool,
    /// The port [default: ERL_EPMD_PORT, else 4369]
    #[arg(long, value_name = "PORT", value_parser = clap::value_parser!(u16).range(1..))]
    port: Option<u16>,
    /// An address to listen on, beside the loopback; repeatable. 0.0.0.0 is all. Without any, other machines
    /// are not served [default: ERL_EPMD_ADDRESS, else this machine only]
    #[arg(long, value_name = "ADDR", value_delimiter = ',', conflicts_with_all = ["names", "kill"])]
    address: Vec<IpAddr>,
    /// Let it be killed while nodes are registered, and nodes be stopped, by programs of this machine
    /// [ERL_EPMD_RELAXED_COMMAND_CHECK]
    #[arg(long, conflicts_with_all = ["names", "kill"])]
    relaxed_command_check: bool,
    #[command(flatten)]
    log: LogArgs,
    /// Be the process that is left behind.
    #[arg(long, hide = true)]
    detached: bool,
}

pub(super) fn main(args: EpmdArgs) -> Result<(), CliError> {
    let port = args.port.map_or_else(environment::epmd_port, Ok).map_err(CliError::usage)?;
    let epmd = EpmdConfig { port, ..EpmdConfig::default() };
    if args.names {
        return names(&epmd);
    }
    if args.kill {
        return end(&epmd);
    }
    let addresses = if args.address.is_empty() {
        environment::epmd_addresses().map_err(CliError::usage)?
    } else {
        args.address
    };
    let relaxed_command_check =
        args.relaxed_command_check || std::env::var_os("ERL_EPMD_RELAXED_COMMAND_CHECK").is_some();
    let config = DaemonConfig { port, addresses, relaxed_command_check };
    if args.detached {
        detach::own_session().map_err(CliError::cannot_run)?;
        Daemon::bind(&config).map_err(CliError::cannot_run)?.run();
        return Ok(());
    }
    if args.daemon {
        return leave_behind(&epmd, &config);
    }
    log::init(&args.log);
    let daemon = Daemon::bind(&config).map_err(|error| match smol::block_on(local_names(&epmd)) {
        Ok((at, _)) => {
            CliError::cannot_run(format!("an epmd is running at {at} already; nothing needs to be done"))
        }
        Err(_) => CliError::cannot_run(error),
    })?;
    for address in daemon.addresses() {
        tracing::info!(%address, "epmd listens");
    }
    daemon.run();
    tracing::info!("ended by a kill request");
    Ok(())
}

/// As `epmd -daemon`, fine with one that runs already.
fn leave_behind(epmd: &EpmdConfig, config: &DaemonConfig) -> Result<(), CliError> {
    if smol::block_on(local_names(epmd)).is_ok() {
        return Ok(());
    }
    let program = std::env::current_exe()
        .map_err(|reason| CliError::cannot_run(format!("the path of this program is unknown: {reason}")))?;
    smol::block_on(detach::spawn(&program, config)).map_err(CliError::cannot_run)?;
    Ok(())
}

fn names(epmd: &EpmdConfig) -> Result<(), CliError> {
    let (_, names) = smol::block_on(local_names(epmd)).map_err(CliError::cannot_run)?;
    let mut text = format!("epmd: up and running on port {} with data:\n", epmd.port);
    for (name, port) in names {
        text.push_str(&format!("name {name} at port {port}\n"));
    }
    print(&text)
}

fn end(epmd: &EpmdConfig) -> Result<(), CliError> {
    match smol::block_on(kill(epmd)).map_err(CliError::cannot_run)?.as_str() {
        "OK" => print("Killed\n"),
        _ => Err(CliError::cannot_run(format!(
            "the epmd on port {} was not killed, for nodes are registered with it; end them first (kvnode epmd --names \
             shows them)",
            epmd.port
        ))),
    }
}
