//! Leaving our own epmd behind: a process in a session of its own, which outlives the process that started it.

use std::io::{self, Read};
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use super::client::{EPMD_STEP, local_names};
use super::daemon::DaemonConfig;
use crate::config::EpmdConfig;
use crate::within::within;

/// The argument that tells a process to be the daemon: `kvnode epmd --detached …`.
pub const DETACHED: &str = "--detached";
/// Pause between two looks at a daemon that starts.
const LOOK: Duration = Duration::from_millis(10);
/// What is read of a daemon's complaint, in bytes.
const COMPLAINT_BYTES_MAX: u64 = 4096;

/// Starts a daemon and waits until it answers.
///
/// It runs the given program with `epmd --detached`, nothing open but a pipe for a complaint at its start, and `/` as its
/// folder; it is to call [`own_session`] first.
///
/// # Errors
/// It could not be started, or ended, or does not answer.
pub async fn spawn(program: &Path, config: &DaemonConfig) -> Result<SocketAddr, DetachError> {
    let mut command = Command::new(program);
    command.args(["epmd", DETACHED, "--port", &config.port.to_string()]);
    // An empty list is said too: the environment is not to speak again.
    let addresses: Vec<String> = config.addresses.iter().map(IpAddr::to_string).collect();
    command.env("ERL_EPMD_ADDRESS", addresses.join(","));
    if config.relaxed_command_check {
        command.arg("--relaxed-command-check");
    }
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).current_dir("/");
    let mut child = command.spawn().map_err(DetachError::Start)?;
    let epmd = EpmdConfig { port: config.port, ..EpmdConfig::default() };
    let answers = async {
        loop {
            if let Ok((address, _)) = local_names(&epmd).await {
                return Ok(address);
            }
            if let Some(status) = child.try_wait().map_err(DetachError::Start)? {
                let complaint = complaint(&mut child);
                let complaint =
                    if complaint.is_empty() { format!("it ended with {status}") } else { complaint };
                return Err(DetachError::Ended { complaint });
            }
            smol::Timer::after(LOOK).await;
        }
    };
    within(EPMD_STEP, answers).await.unwrap_or(Err(DetachError::Silent))
}

fn complaint(child: &mut Child) -> String {
    let mut bytes = Vec::new();
    if let Some(pipe) = child.stderr.take() {
        // What cannot be read was not said.
        let _ = pipe.take(COMPLAINT_BYTES_MAX).read_to_end(&mut bytes);
    }
    let text = String::from_utf8_lossy(&bytes);
    text.trim().trim_start_matches("kvnode: ").to_owned()
}

/// Puts this process into a session of its own, away from the terminal that it was started at.
///
/// # Errors
/// It leads a group of processes already: it was not started by [`spawn`].
pub fn own_session() -> io::Result<()> {
    rustix::process::setsid()?;
    Ok(())
}

/// Why no daemon was left behind.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DetachError {
    /// The program could not be run.
    #[error("cannot start the epmd: {0}")]
    Start(io::Error),
    /// It ended.
    #[error("{complaint}")]
    Ended {
        /// What it said.
        complaint: String,
    },
    /// It runs and does not answer.
    #[error(
        "the epmd was started and does not answer after {} s; run it with `kvnode epmd` and see what it says",
        EPMD_STEP.as_secs()
    )]
    Silent,
}
