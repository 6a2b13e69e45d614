//! Where kvnode's processor time goes under load: a sample of its functions by `perf`.

use std::process::{Command, Stdio};
use std::time::Duration;

use crate::children::{Running, on_path};
use crate::native::{Caller, Keys, Request, Until};
use crate::report::Table;
use crate::servers::{Kind, Lab};
use crate::{Findings, Plan, Result, failure};

const KEYS: u64 = 10_000;
const WINDOW: usize = 64;
/// Lines of the report that are shown.
const SHOWN: usize = 30;

/// Samples kvnode for as long as one load lasts, 64 native gets in flight.
pub fn functions(lab: &Lab, plan: &Plan, findings: &mut Findings) -> Result<()> {
    if !on_path("perf") {
        findings.note("no profile: perf is not installed (apt: linux-perf)");
        return Ok(());
    }
    let server = lab.start(Kind::Kvnode)?;
    let mut caller = Caller::connect(&server.endpoint, "profiled")?;
    caller.fill(KEYS)?;
    let data = lab.folder.path().join("perf.data");
    let seconds = plan.time.as_secs_f64().max(0.5).to_string();
    let mut command = Command::new("perf");
    command.args(["record", "-q", "-F", "4999", "-p", &server.id().to_string(), "-o"]).arg(&data);
    command.args(["--", "sleep", &seconds]);
    let mut perf = Running::start("perf", &mut command, lab.folder.path())?;
    // It does not say when it has begun: the load goes on until it ends.
    while !perf.has_ended()? {
        caller.load(
            Request::Get,
            WINDOW,
            Keys::Random(KEYS),
            Until::After(Duration::from_millis(50)),
            false,
        )?;
    }
    let mut command = Command::new("perf");
    command.args([
        "report",
        "--stdio",
        "--no-children",
        "--percent-limit",
        "0.5",
        "--sort",
        "dso,symbol",
        "-i",
    ]);
    let output = command.arg(&data).stdin(Stdio::null()).output()?;
    let report = String::from_utf8_lossy(&output.stdout);
    let lines: Vec<&str> =
        report.lines().filter(|line| !line.trim().is_empty() && !line.starts_with('#')).collect();
    if lines.is_empty() {
        return Err(failure(format!("perf sampled nothing:\n{}", String::from_utf8_lossy(&output.stderr))));
    }
    let mut table = Table::new(format!("kvnode's own time, native get, {WINDOW} in flight, by perf"), &[]);
    for line in lines.iter().take(SHOWN) {
        // Columns that nothing is in.
        table.note(line.trim_end_matches([' ', '-']).trim().to_owned());
    }
    findings.table(table);
    Ok(())
}
