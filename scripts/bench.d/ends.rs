//! Keys that end: what a million of them that end within a second cost others, and what a deadline takes of memory.

use std::time::{Duration, Instant};

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
/// How often it is looked whether all are gone, and how long that may take.
const LOOK_EVERY: Duration = Duration::from_secs(1);
const GONE_WITHIN: Duration = Duration::from_secs(90);

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
    let metrics: [Metric; 5] = [
        ("alone: p99.9 ms", Better::Lower),
        ("slowest", Better::Lower),
        ("beside: p99.9 ms", Better::Lower),
        ("slowest", Better::Lower),
        ("gone after s", Better::Lower),
    ];
    for (kind, place) in [(Kind::Kvnode, "in memory"), (Kind::KvnodeDurable, "on disk")] {
        let title = format!("a get after the other, while {entries} keys {place} end within a second");
        let mut table = Table::new(title, &metrics);
        measure_each(
            &plan.servers(&[kind]),
            plan.pick(plan.rounds.min(3), 1),
            &mut table,
            findings,
            |kind| {
                let server = lab.start(kind)?;
                let mut caller = Caller::connect(&server.endpoint, "asker")?;
                caller.fill(STAY)?;
                let left = client.ask(&server, "fill_ends", &[entries, millis])?.of("left");
                if left <= 0.0 {
                    return Err(failure(format!("{entries} keys were not put within {millis} ms")));
                }
                let mut gets = |time| -> Result<Vec<u32>> {
                    Ok(caller.load(Request::Get, 1, Keys::Random(STAY), Until::After(time), true)?.latencies)
                };
                let of = |mut found: Vec<u32>| [0.999, 1.0].map(|part| quantile(&mut found, part) / 1e6);
                let [alone, alone_slowest] = of(gets(Duration::from_nanos(left as u64))?);
                let (since, mut found) = (Instant::now(), Vec::new());
                loop {
                    found.extend(gets(LOOK_EVERY)?);
                    // And what the caller has put to see that it is answered.
                    let there = client.ask(&server, "count", &[])?.of("calls");
                    if there <= (STAY + 1) as f64 {
                        break;
                    }
                    if since.elapsed() > GONE_WITHIN {
                        return Err(failure(format!("{there} keys are left")));
                    }
                }
                let gone = since.elapsed().as_secs_f64();
                let [beside, beside_slowest] = of(found);
                Ok([alone, alone_slowest, beside, beside_slowest, gone])
            },
        );
        if let Some(slowest) = table.median(OURS, 3) {
            let verdict = verdict(slowest <= CALL_MS_MAX);
            table.note(format!("kvnode: {slowest:.2} ms {place}, expected {CALL_MS_MAX} at most: {verdict}"));
        }
        findings.table(table);
    }
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
