//! System calls per call, counted by `strace -c`.
//!
//! A traced server is many times slower, so that a client which waits for each answer makes it wait more often than
//! it otherwise would: what it does when there is nothing to read shows more than it weighs.

use std::fs;
use std::process::Command;

use rustix::process::Signal;

use crate::beam::Client;
use crate::children::{Running, on_path};
use crate::native::{Caller, Keys, Request, Until};
use crate::report::{Better, Table};
use crate::rounds::Bench;
use crate::servers::{Kind, Lab, Server};
use crate::{Findings, Plan, Result, failure};

const KEYS: u64 = 1000;

/// What kvnode and the parked floor ask of the system for each call.
pub fn per_call(lab: &Lab, plan: &Plan, findings: &mut Findings) -> Result<()> {
    if !on_path("strace") {
        findings.note("no system calls are counted: strace is not installed (apt: strace)");
        return Ok(());
    }
    let metrics = [("system calls/call", Better::Lower), ("calls counted", Better::Higher)];
    let mut bench = Bench::start(lab, plan, &[Kind::Kvnode, Kind::Parked, Kind::Redis], findings);
    for window in [1_u64, 64, 1024] {
        let calls = plan.pick(200_000, 20_000) / if window == 1 { 20 } else { 1 };
        let mut table = Table::new(format!("system calls, native get, {window} in flight"), &metrics);
        for server in &bench.servers {
            let counted = Caller::connect(&server.endpoint, "traced").and_then(|mut caller| {
                caller.fill(KEYS)?;
                traced(lab, server, || {
                    let window = window as usize;
                    caller.load(Request::Get, window, Keys::Random(KEYS), Until::Calls(calls), false)?;
                    Ok(calls as f64)
                })
            });
            add(&mut table, findings, server, counted);
        }
        findings.table(table);
    }
    let Some(mut client) = Client::start(lab, findings)? else { return Ok(()) };
    client.prepare(&mut bench, findings);
    for callers in [1, 128] {
        let mut table = Table::new(format!("system calls, {callers} BEAM callers, 90% get"), &metrics);
        for server in bench.servers.iter().filter(|server| server.kind != Kind::Redis) {
            let millis = plan.time.as_millis() as u64;
            let counted = traced(lab, server, || {
                let figures = client.run("callers", server, &[millis, callers])?;
                Ok(figures.of("calls"))
            });
            add(&mut table, findings, server, counted);
        }
        findings.table(table);
    }
    Ok(())
}

/// How often each system call was made, most often first, while that many calls were made.
type Counted = (Vec<(String, f64)>, f64);

fn add(table: &mut Table, findings: &mut Findings, server: &Server, counted: Result<Counted>) {
    match counted {
        Ok((counts, calls)) => {
            let all: f64 = counts.iter().map(|(_, count)| count).sum();
            table.add(server.kind.name(), &[all / calls, calls]);
            let each: Vec<String> =
                counts.iter().take(6).map(|(name, count)| format!("{name} {:.4}", count / calls)).collect();
            table.note(format!("{}: {}", server.kind, each.join(", ")));
        }
        Err(error) => findings.note(format!("the system calls of {} were not counted: {error}", server.kind)),
    }
}

/// Counts a server's system calls while `load` runs, which tells how many calls it made.
fn traced(lab: &Lab, server: &Server, load: impl FnOnce() -> Result<f64>) -> Result<Counted> {
    let counts = lab.folder.path().join("strace");
    // It says on stderr when it has attached, and stdout is what is waited for here.
    let mut command = Command::new("sh");
    command
        .args(["-c", "exec strace -c -f -p \"$1\" -o \"$2\" 2>&1", "sh", &server.id().to_string()])
        .arg(&counts);
    let strace = Running::start("strace", &mut command, lab.folder.path())?;
    strace
        .wait_for("attached")
        .map_err(|error| failure(format!("{error} (may this user trace processes?)")))?;
    let calls = load()?;
    strace.signal(Signal::INT);
    strace.wait()?;
    // Lines "% time, seconds, usecs/call, calls, [errors,] name" between two rules of dashes.
    let text = fs::read_to_string(counts)?;
    let line = |line: &str| {
        let words: Vec<&str> = line.split_whitespace().collect();
        let count = words.get(3)?.parse::<f64>().ok()?;
        words.first()?.parse::<f64>().ok()?;
        Some(((*words.last()?).to_owned(), count))
    };
    let mut found: Vec<(String, f64)> =
        text.lines().filter_map(line).filter(|(name, _)| name != "total").collect();
    found.sort_by(|(_, one), (_, other)| other.total_cmp(one));
    if found.is_empty() {
        return Err(failure(format!("strace counted nothing:\n{text}")));
    }
    Ok((found, calls))
}
