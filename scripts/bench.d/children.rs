//! The processes that are started here: their output, their cost, their end.

use std::collections::HashMap;
use std::ffi::OsString;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Mutex, OnceLock};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, WaitOptions, kill_process, waitpid};

use crate::{Result, failure};

/// How long a process may take for one line of its output.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Everything that runs, for the end by a signal.
static RUNNING: Mutex<Vec<u32>> = Mutex::new(Vec::new());
/// Their folder, likewise.
static FOLDER: OnceLock<PathBuf> = OnceLock::new();

/// A process that was started here. Dropping it kills it, by its id.
pub struct Running {
    label: String,
    child: Child,
    lines: Receiver<String>,
    errors: PathBuf,
    /// Held open for as long as this value lives: the BEAM nodes and the floors end with it.
    pub stdin: Option<ChildStdin>,
}

impl Running {
    /// Starts it. What it says on stderr goes into a file of `folder`, and is shown when it fails.
    pub fn start(label: &str, command: &mut Command, folder: &Path) -> Result<Self> {
        let errors = folder.join(format!("{}.stderr", label.replace([' ', ','], "-")));
        let stderr =
            fs::File::create(&errors).map_err(|error| failure(format!("{}: {error}", errors.display())))?;
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(stderr);
        // Held over the start, so that no signal comes between a process and its entry.
        let mut running = RUNNING.lock().map_err(|_| failure("another thread failed"))?;
        let mut child = command
            .spawn()
            .map_err(|error| failure(format!("{}: {error}", command.get_program().display())))?;
        running.push(child.id());
        drop(running);
        let (sender, lines) = channel();
        let stdout = child.stdout.take().ok_or_else(|| failure("no pipe"))?;
        // Ends with the pipe, and so with the process.
        thread::spawn(move || {
            for line in BufReader::new(stdout).lines() {
                let Ok(line) = line else { break };
                if sender.send(line).is_err() {
                    break;
                }
            }
        });
        let stdin = child.stdin.take();
        Ok(Self { label: label.to_owned(), child, lines, errors, stdin })
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Waits for a line that has this text in it, and returns the line.
    pub fn wait_for(&self, text: &str) -> Result<String> {
        let until = Instant::now() + PATIENCE;
        loop {
            let left = until.saturating_duration_since(Instant::now());
            match self.lines.recv_timeout(left) {
                Ok(line) if line.contains(text) => return Ok(line),
                Ok(_) => {}
                Err(_) => return Err(self.fault(&format!("waited in vain for {text:?}"))),
            }
        }
    }

    /// The next line.
    pub fn line(&self, patience: Duration) -> Result<String> {
        self.lines.recv_timeout(patience).map_err(|_| self.fault("no answer"))
    }

    /// Says a line to it.
    pub fn say(&self, line: &str) -> Result<()> {
        let mut stdin = self.stdin.as_ref().ok_or_else(|| failure("no pipe"))?;
        stdin.write_all(format!("{line}\n").as_bytes())?;
        Ok(stdin.flush()?)
    }

    /// Writes a line to the process, and gives the next line that the process writes.
    pub fn ask(&self, line: &str, patience: Duration) -> Result<String> {
        self.say(line)?;
        self.line(patience)
    }

    /// What it has said on stderr so far.
    pub fn said(&self) -> Result<String> {
        Ok(fs::read_to_string(&self.errors)?)
    }

    /// Sends a signal.
    pub fn signal(&self, signal: Signal) {
        send(self.child.id(), signal);
    }

    /// Whether it has ended.
    pub fn has_ended(&mut self) -> Result<bool> {
        Ok(self.child.try_wait()?.is_some())
    }

    /// Waits until it has ended by itself or by a signal, and forgets it.
    pub fn wait(mut self) -> Result<()> {
        self.stdin = None;
        self.child.wait().map_err(|error| failure(format!("{}: {error}", self.label)))?;
        Ok(())
    }

    /// An error that shows what it said last.
    pub fn fault(&self, what: &str) -> crate::Failure {
        let said = fs::read_to_string(&self.errors).unwrap_or_default();
        let tail: Vec<&str> = said.lines().rev().take(8).collect();
        let tail: Vec<&str> = tail.into_iter().rev().collect();
        failure(format!("{}: {what}\n{}", self.label, tail.join("\n")).trim_end())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
        if let Ok(mut running) = RUNNING.lock() {
            running.retain(|id| *id != self.child.id());
        }
    }
}

/// Kills all that still runs, and removes their folder: what a signal or the watchdog does before this process ends.
fn end_all() {
    // Held to the end, so that nothing more is started.
    let Ok(running) = RUNNING.lock() else { return };
    for pid in running.iter().filter_map(|id| pid_of(*id)) {
        let _ = kill_process(pid, Signal::KILL);
        // A thread that waits for it elsewhere may have been faster.
        let _ = waitpid(Some(pid), WaitOptions::empty());
    }
    if let Some(folder) = FOLDER.get() {
        let _ = fs::remove_dir_all(folder);
    }
    std::process::exit(130);
}

fn pid_of(id: u32) -> Option<Pid> {
    i32::try_from(id).ok().and_then(Pid::from_raw)
}

fn send(id: u32, signal: Signal) {
    if let Some(pid) = pid_of(id) {
        // Gone already is as good.
        let _ = kill_process(pid, signal);
    }
}

/// Processor time that each thread of a process has used, in nanoseconds.
///
/// By thread, because what one has used is out of the account when it has ended: a sum could shrink.
pub struct CpuTime(HashMap<OsString, u64>);

impl CpuTime {
    /// Until now. The scheduler's own account where the kernel keeps one; else the one of the clock tick, a hundredth
    /// of a second.
    pub fn of(id: u32) -> Result<Self> {
        let gone = || failure(format!("process {id} is gone"));
        let mut threads = HashMap::new();
        for task in fs::read_dir(format!("/proc/{id}/task")).map_err(|_| gone())?.flatten() {
            // A thread may end between the list and here.
            let Ok(stat) = fs::read_to_string(task.path().join("schedstat")) else { continue };
            if let Some(nanos) = stat.split(' ').next().and_then(|nanos| nanos.parse().ok()) {
                threads.insert(task.file_name(), nanos);
            }
        }
        if threads.is_empty() {
            let stat = fs::read_to_string(format!("/proc/{id}/stat")).map_err(|_| gone())?;
            // proc(5): the name in parentheses may hold anything; utime and stime are fields 14 and 15.
            let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
            let ticks = |at: usize| fields.get(at).and_then(|ticks| ticks.parse::<u64>().ok()).unwrap_or(0);
            threads.insert(OsString::new(), (ticks(11) + ticks(12)) * 10_000_000);
        }
        Ok(Self(threads))
    }

    /// What the process has used since then, in nanoseconds; without threads that have ended meanwhile.
    pub fn nanos_since(&self, id: u32) -> Result<f64> {
        let now = Self::of(id)?;
        let used = |(thread, nanos): (&OsString, &u64)| {
            nanos.saturating_sub(self.0.get(thread).copied().unwrap_or(0))
        };
        Ok(now.0.iter().map(used).sum::<u64>() as f64)
    }
}

/// Processor time of the calling thread, in nanoseconds; 0 where the kernel keeps no such account.
pub fn own_thread_nanos() -> u64 {
    let stat = fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    stat.split(' ').next().and_then(|nanos| nanos.parse().ok()).unwrap_or(0)
}

/// Resident memory of a process, in bytes.
pub fn resident_bytes(id: u32) -> Result<u64> {
    memory(id, "VmRSS:")
}

/// The most that it had so far.
pub fn peak_resident_bytes(id: u32) -> Result<u64> {
    memory(id, "VmHWM:")
}

fn memory(id: u32, which: &str) -> Result<u64> {
    let status = fs::read_to_string(format!("/proc/{id}/status"))
        .map_err(|_| failure(format!("process {id} is gone")))?;
    let kib = status
        .lines()
        .find_map(|line| line.strip_prefix(which))
        .and_then(|rest| rest.trim().trim_end_matches("kB").trim().parse::<u64>().ok());
    kib.map(|kib| kib * 1024).ok_or_else(|| failure(format!("process {id} has no {which}")))
}

/// Whether a program is on the PATH.
pub fn on_path(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|folder| folder.join(program).is_file())
}

/// How long all measurements together may take.
const RUN_MAX: Duration = Duration::from_secs(3600);

/// Sees to it that nothing outlives this process when it is told to end, or when it takes too long.
pub fn end_with_this_process(folder: &Path) {
    // There is one folder.
    let _ = FOLDER.set(folder.to_owned());
    use async_signal::{Signal as Told, Signals};
    use smol::future::FutureExt;
    use smol::stream::StreamExt;
    thread::spawn(|| {
        let told = async {
            // Where signals cannot be had, what they do remains as it is.
            match Signals::new([Told::Term, Told::Int, Told::Hup]) {
                Ok(mut signals) => drop(signals.next().await),
                Err(_) => std::future::pending().await,
            }
        };
        let late = async {
            smol::Timer::after(RUN_MAX).await;
            eprintln!("scripts/bench: over its time");
        };
        smol::block_on(told.or(late));
        end_all();
    });
}
