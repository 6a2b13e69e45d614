//! Large values in both directions at once, and very many at once, on loopback: what is lost, how long it takes, and what
//! small gets take meanwhile. Beside kvnode Elixir's GenServers in its place, where they do the same.

use crate::beam::Client;
use crate::compiled::is_not_installed;
use crate::links::{BESIDE, beside, first_words};
use crate::report::{Better, OURS, Table};
use crate::servers::{Kind, Lab, Place};
use crate::{Failure, Findings, Plan, Result};

const MIB: u64 = 1 << 20;
const EXPRESSION: &str = "BenchLinks.main()";
/// What stands still is noticed by kvnode after 30 s.
const PATIENCE_MILLIS: u64 = 60_000;
/// The rows of both.
const BOTH: [(&str, Kind); 2] = [(OURS, Kind::Kvnode), ("GenServer", Kind::Replicated)];

/// All of it.
pub fn crossing(lab: &Lab, plan: &Plan, findings: &mut Findings) -> Result<()> {
    for (count, mib, how) in [(1, 30, "before"), (12, 15, "before"), (12, 15, "after")] {
        let shown = if how == "before" { "copied to" } else { "written while in step with" };
        let title = format!(
            "two primaries with a slave each at the other's node: {count} values of {mib} MiB {shown} each other"
        );
        let mut table = Table::new(title, &[("seconds", Better::Lower)]);
        for (name, kind) in BOTH {
            // An Elixir primary does not bring its slave what was there before.
            if how == "after" || kind == Kind::Kvnode {
                row(plan, name, kind, &mut table, findings, || cross(lab, kind, how, count, mib * MIB));
            }
        }
        findings.table(table);
    }
    let metrics = [("seconds", Better::Lower), ("lost of 20", Better::Lower)];
    let mut table =
        Table::new("ten gets and ten puts of 5 MiB at once, through a node that passes them on", &metrics);
    for (name, kind) in BOTH {
        row(plan, name, kind, &mut table, findings, || relay(lab, kind));
    }
    findings.table(table);
    many(lab, plan, findings);
    Ok(())
}

/// Very many at once, and small gets of two processes beside them.
fn many(lab: &Lab, plan: &Plan, findings: &mut Findings) {
    let loads: [(&str, u64, u64); 5] =
        [("gets", 70, 60), ("gets", 300, 10), ("puts", 30, 60), ("puts", 20, 63), ("puts", 60, 30)];
    for (load, count, mib) in loads {
        let title =
            format!("{count} {load} of {mib} MiB at once, one process each, beside small gets of two others");
        let mut table = Table::new(title, &BESIDE);
        for kind in [Kind::Kvnode, Kind::KvnodeBefore, Kind::Spawning, Kind::Genserver] {
            row(plan, kind.name(), kind, &mut table, findings, || {
                let place = Place::default();
                let server = lab.start_at(kind, &place)?;
                let mut client = Client::start_at(lab, EXPRESSION, &place)?;
                let bytes = mib * MIB;
                client.command("fill", &[&server.full_name(), &bytes])?;
                let command: [&dyn std::fmt::Display; 5] =
                    [&server.full_name(), &count, &bytes, &PATIENCE_MILLIS, &2];
                Ok(beside(&client.command(load, &command)?))
            });
        }
        findings.table(table);
    }
}

/// Measures one row in each round.
fn row<const N: usize>(
    plan: &Plan,
    name: &'static str,
    kind: Kind,
    table: &mut Table,
    findings: &mut Findings,
    mut measure: impl FnMut() -> Result<[f64; N]>,
) {
    if plan.servers(&[kind]).is_empty() {
        return;
    }
    for _ in 0..plan.rounds.min(3) {
        match measure() {
            Ok(values) => table.add(name, &values),
            Err(error) if is_not_installed(&error) => {
                return findings.note(format!("{name} is left out: {error}"));
            }
            Err(error) => return table.fail(name, short(&error)),
        }
    }
}

fn short(error: &Failure) -> String {
    first_words(&error.to_string())
}

fn cross(lab: &Lab, kind: Kind, how: &str, count: u64, bytes: u64) -> Result<[f64; 1]> {
    let copy = ["--store", "local:copy"].map(str::to_owned).to_vec();
    let place = Place { kvnode: copy, ..Place::default() };
    let (one, other) = (lab.start_at(kind, &place)?, lab.start_at(kind, &place)?);
    let mut client = Client::start_at(lab, EXPRESSION, &place)?;
    let kind = if kind == Kind::Kvnode { "kvnode" } else { "elixir" };
    let found = client.command(
        "cross",
        &[&how, &kind, &one.full_name(), &other.full_name(), &count, &bytes, &PATIENCE_MILLIS],
    )?;
    Ok([found.of("took") / 1e3])
}

fn relay(lab: &Lab, kind: Kind) -> Result<[f64; 2]> {
    let place = Place::default();
    let (relay, far) = (lab.start_at(kind, &place)?, lab.start_at(kind, &place)?);
    let mut client = Client::start_at(lab, EXPRESSION, &place)?;
    let command: [&dyn std::fmt::Display; 5] =
        [&relay.full_name(), &far.full_name(), &10, &(5 * MIB), &PATIENCE_MILLIS];
    let found = client.command("relayed", &command)?;
    Ok([found.of("took") / 1e3, found.of("lost")])
}
