//! Seeing to it that an epmd runs on this machine, as `erl` does when it starts.

use std::fmt;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use smol::process::Command;

use super::client::{EPMD_STEP, EpmdError, local_names};
use crate::config::EpmdConfig;
use crate::within::within;

/// First pause between two looks whether a started epmd answers, doubled each time: ours answers within a few milliseconds.
const LOOK_FIRST: Duration = Duration::from_millis(5);
/// The longest: a person who waits for a start does not notice it.
const LOOK_MAX: Duration = Duration::from_millis(200);

/// How this machine's epmd came to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EpmdStart {
    /// Where it answers.
    pub address: SocketAddr,
    /// Who started it.
    pub starter: EpmdStarter,
}

/// Who started the epmd.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EpmdStarter {
    /// Someone else: it was running.
    Running,
    /// We did, the one of Erlang.
    Erlang,
    /// We did, our own.
    Own,
}

impl fmt::Display for EpmdStarter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Running => "was running",
            Self::Erlang => "started now, Erlang's",
            Self::Own => "started now, kvnode's own",
        })
    }
}

/// Finds the epmd of this machine; where nothing answers and the configuration allows it, starts one: `epmd -daemon` when
/// that is on the `PATH`, else `own` with `epmd --daemon`, where `own` is the configured program if nothing else is said.
///
/// The environment goes to the epmd as it is (`ERL_EPMD_ADDRESS` and the others), with `ERL_EPMD_PORT` set to the
/// configured port.
///
/// # Errors
/// [`EpmdError::Start`] with all that was tried; [`EpmdError::Malformed`] when another program has the port.
pub async fn ensure(epmd: &EpmdConfig, own: Option<&Path>) -> Result<EpmdStart, EpmdError> {
    let silent = match local_names(epmd).await {
        Ok((address, _)) => return Ok(EpmdStart { address, starter: EpmdStarter::Running }),
        Err(error) if error.is_absent() && epmd.start => error,
        Err(error) => return Err(error),
    };
    let mut tried = Vec::new();
    let mut erlangs = Command::new("epmd");
    erlangs.arg("-daemon");
    match start(erlangs, epmd).await {
        Ok(address) => return Ok(EpmdStart { address, starter: EpmdStarter::Erlang }),
        Err(how) => tried.push(format!("`epmd -daemon`: {how}")),
    }
    let Some(own) = own.or(epmd.own_program.as_deref()) else {
        return Err(EpmdError::Start { at: at(&silent, epmd), tried });
    };
    let mut ours = Command::new(own);
    ours.args(["epmd", "--daemon"]);
    match start(ours, epmd).await {
        Ok(address) => Ok(EpmdStart { address, starter: EpmdStarter::Own }),
        Err(how) => {
            tried.push(format!("`{} epmd --daemon`: {how}", own.display()));
            Err(EpmdError::Start { at: at(&silent, epmd), tried })
        }
    }
}

fn at(silent: &EpmdError, epmd: &EpmdConfig) -> String {
    match silent {
        EpmdError::NoAnswer { at, .. } => at.clone(),
        _ => SocketAddr::new(epmd.address, epmd.port).to_string(),
    }
}

/// Runs a command that leaves a daemon behind, and waits until that answers.
async fn start(mut command: Command, epmd: &EpmdConfig) -> Result<SocketAddr, String> {
    command.env("ERL_EPMD_PORT", epmd.port.to_string());
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    // The command itself ends as soon as the daemon is on its own.
    let ended = async {
        let status = command.status().await.map_err(|reason| reason.to_string())?;
        if status.success() { Ok(()) } else { Err(format!("ended with {status}")) }
    };
    within(EPMD_STEP, ended).await.unwrap_or_else(too_late)?;
    let answers = async {
        let mut pause = LOOK_FIRST;
        loop {
            match local_names(epmd).await {
                Ok((address, _)) => return Ok(address),
                Err(error) if !error.is_absent() => return Err(error.to_string()),
                Err(_) => {}
            }
            smol::Timer::after(pause).await;
            pause = (pause * 2).min(LOOK_MAX);
        }
    };
    within(EPMD_STEP, answers).await.unwrap_or_else(too_late)
}

fn too_late<T>() -> Result<T, String> {
    Err(format!("not ready after {} s", EPMD_STEP.as_secs()))
}
