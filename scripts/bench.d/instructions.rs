//! Instructions per call, counted by callgrind: the same on a busy machine as on a quiet one.

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use crate::children::on_path;
use crate::report::{Better, Table};
use crate::{Findings, Plan, Result, failure, path};

/// The operations of `path.rs`.
const OPERATIONS: [&str; 4] = ["get", "put", "call", "alias"];
/// How many batches the shorter run makes; the longer makes twice as many.
const BATCHES: u64 = 40;
/// How much over the committed figure is too much.
const GROWTH_MAX: f64 = 1.10;

/// Counts each operation, and compares with what is committed.
pub fn per_call(plan: &Plan, findings: &mut Findings) -> Result<()> {
    if !on_path("valgrind") {
        // Asked for by name it is a check, and one that is not made has not passed.
        findings.failed |= !plan.all;
        findings.note("no instructions are counted: valgrind is not installed (apt: valgrind)");
        return Ok(());
    }
    let committed = committed()?;
    let mut table = Table::new(
        "instructions through Inbound, Peer, KeyValueServer, Outbound, by callgrind",
        &[("instructions/call", Better::Lower), ("committed", Better::Lower)],
    );
    let mut lines = String::new();
    for operation in OPERATIONS {
        // What does not depend on the number of calls falls out.
        let (short, long) = (count(operation, BATCHES)?, count(operation, 2 * BATCHES)?);
        let found = (long - short) as f64 / path::calls(BATCHES) as f64;
        let before = committed.iter().find(|(name, _)| name == operation).map(|(_, figure)| *figure);
        table.add(operation, &[found, before.unwrap_or(f64::NAN)]);
        lines.push_str(&format!("{operation} {found:.0}\n"));
        match before {
            Some(before) if found > before * GROWTH_MAX => {
                findings.failed |= !plan.update;
                table.note(format!(
                    "{operation}: {:.0}% over the committed figure: TOO MUCH",
                    (found / before - 1.0) * 100.0
                ));
            }
            Some(before) if found * GROWTH_MAX < before => {
                table.note(format!(
                    "{operation}: {:.0}% under the committed figure: commit the new one (--update)",
                    (1.0 - found / before) * 100.0
                ));
            }
            Some(_) => {}
            None => table.note(format!("{operation}: nothing is committed yet (--update)")),
        }
    }
    findings.table(table);
    if plan.update {
        let head: String =
            text()?.lines().filter(|line| line.starts_with('#')).map(|line| format!("{line}\n")).collect();
        fs::write(file(), head + &lines)?;
    }
    Ok(())
}

fn file() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("scripts/bench.d/instructions.txt")
}

fn text() -> Result<String> {
    Ok(fs::read_to_string(file())?)
}

fn committed() -> Result<Vec<(String, f64)>> {
    let text = text()?;
    let line = |line: &str| {
        let (name, figure) = line.split_once(' ')?;
        Some((name.to_owned(), figure.parse().ok()?))
    };
    Ok(text.lines().filter(|line| !line.starts_with('#')).filter_map(line).collect())
}

/// Instructions of one run of `path.rs`.
fn count(operation: &str, batches: u64) -> Result<u64> {
    let mut command = Command::new("valgrind");
    command.args(["--tool=callgrind", "--callgrind-out-file=/dev/null"]).arg(std::env::current_exe()?);
    command.args(["path", operation, &batches.to_string()]).stdin(Stdio::null());
    let output = command.output()?;
    let said = String::from_utf8_lossy(&output.stderr);
    let collected = said.lines().find_map(|line| line.split("Collected :").nth(1)?.trim().parse().ok());
    match collected {
        Some(collected) if output.status.success() => Ok(collected),
        _ => Err(failure(format!("callgrind failed:\n{said}"))),
    }
}
