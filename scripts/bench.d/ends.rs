//! Keys that end: what a million of them that end within a second cost others, and what a deadline takes of memory.

use std::time::Duration;

use crate::api::Client;
use crate::children::resident_bytes;
use crate::native::{Caller, Keys, Request, Until};
use crate::report::{Better, Metric, OURS, Table, verdict};
use crate::rounds::measure_each;
use crate::servers::{Kind, Lab};
use crate::stats::quantile;
use crate::{Findings, Plan, Result, failure};

/// How long another call may take beside them, in milliseconds.
const CALL_MS_MAX: f64 = 10.0;
/// What a deadline may take beside a pair, in bytes.
const DEADLINE_BYTES_MAX: f64 = 16.0;
/// Keys that stay, which are asked for meanwhile.
const STAY: u64 = 1_000;
/// From the first end to when all are gone, and more.
const GONE_AFTER: Duration = Duration::from_secs(5);

/// Gets beside the end of very many keys; and the memory of a deadline.
pub fn measure(lab: &Lab, plan: &Plan, findings: &mut Findings) -> Result<()> {
    let Some(client) = Client::start(lab, findings)? else { return Ok(()) };
    beside(lab, plan, &client, findings);
    memory(lab, plan, &client, findings);
    Ok(())
}

fn beside(lab: &Lab, plan: &Plan, client: &Client, findings: &mut Findings) {
    let entries: u64 = plan.pick(1_000_000, 20_000);
    // So long they take to be put, at most.
    let millis: u64 = plan.pick(60_000, 3_000);
    let metrics: [Metric; 4] = [
        ("alone: p99.9 ms", Better::Lower),
        ("slowest", Better::Lower),
        ("beside: p99.9 ms", Better::Lower),
        ("slowest", Better::Lower),
    ];
    let title = format!("a get after the other, while {entries} keys end within a second");
    let mut table = Table::new(title, &metrics);
    let kinds = plan.servers(&[Kind::Kvnode, Kind::KvnodeDurable]);
    measure_each(&kinds, plan.pick(plan.rounds.min(3), 1), &mut table, findings, |kind| {
        let server = lab.start(kind)?;
        let mut caller = Caller::connect(&server.endpoint, "asker")?;
        caller.fill(STAY)?;
        let left = client.ask(&server, "fill_ends", &[entries, millis])?.of("left");
        if left <= 0.0 {
            return Err(failure(format!("{entries} keys were not put within {millis} ms")));
        }
        let mut gets = |time| -> Result<[f64; 2]> {
            let mut found =
                caller.load(Request::Get, 1, Keys::Random(STAY), Until::After(time), true)?.latencies;
            Ok([0.999, 1.0].map(|part| quantile(&mut found, part) / 1e6))
        };
        let [alone, alone_slowest] = gets(Duration::from_nanos(left as u64))?;
        let [beside, beside_slowest] = gets(GONE_AFTER)?;
        let there = client.ask(&server, "count", &[])?.of("calls");
        // And what the caller has put to see that it is answered.
        if there > (STAY + 1) as f64 {
            return Err(failure(format!("{there} keys are left")));
        }
        Ok([alone, alone_slowest, beside, beside_slowest])
    });
    for kind in kinds {
        if let Some(slowest) = table.median(kind.name(), 3) {
            let verdict = verdict(slowest <= CALL_MS_MAX);
            table.note(format!("{kind}: {slowest:.2} ms, expected {CALL_MS_MAX} at most: {verdict}"));
        }
    }
    findings.table(table);
}

fn memory(lab: &Lab, plan: &Plan, client: &Client, findings: &mut Findings) {
    let entries: u64 = plan.pick(1_000_000, 50_000);
    let metrics: [Metric; 3] =
        [("bytes/entry", Better::Lower), ("with a deadline", Better::Lower), ("more", Better::Lower)];
    let mut table = Table::new(format!("{entries} entries of a pair and a 100-byte value"), &metrics);
    measure_each(
        &plan.servers(&[Kind::Kvnode]),
        plan.pick(plan.rounds.min(3), 1),
        &mut table,
        findings,
        |kind| {
            let per_entry = |millis: u64| -> Result<f64> {
                let server = lab.start(kind)?;
                // So that what a connection takes is there before.
                client.ask(&server, "fill", &[10_000])?;
                let before = resident_bytes(server.id())?;
                client.ask(&server, "fill_ends", &[entries, millis])?;
                Ok((resident_bytes(server.id())? as f64 - before as f64) / entries as f64)
            };
            let (without, with) = (per_entry(0)?, per_entry(3_600_000)?);
            Ok([without, with, with - without])
        },
    );
    if let Some(more) = table.median(OURS, 2) {
        let verdict = verdict(more <= DEADLINE_BYTES_MAX);
        table.note(format!("kvnode: {more:.1} bytes more, expected {DEADLINE_BYTES_MAX} at most: {verdict}"));
    }
    findings.table(table);
}
