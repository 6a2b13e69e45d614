//! What watchers cost the writers of a store, and how many events a second one watcher is told. Writers and watchers are processes of two
//! BEAMs.

use crate::api::{Client, rate};
use crate::report::{OURS, Table, higher, verdict};
use crate::rounds::Bench;
use crate::servers::{Kind, Lab};
use crate::{Findings, Plan, Result, failure};

/// Watchers, with the part of their rate that writers keep at least.
const WATCHERS: [(u64, f64); 3] = [(1, 0.9), (10, 0.7), (100, 0.3)];
/// Callers that put.
const CALLERS: u64 = 16;
/// Entries that are put while one watcher keeps up: less than a store's backlog.
const CHUNK: u64 = 50_000;
/// Events a second that a single watcher is told, at least.
const EVENTS_MIN: f64 = 200_000.0;

/// Writers beside watchers, and the events of one watcher.
pub fn measure(lab: &Lab, plan: &Plan, findings: &mut Findings) -> Result<()> {
    let (Some(writers), Some(watchers)) = (Client::start(lab, findings)?, Client::start(lab, findings)?)
    else {
        return Ok(());
    };
    let mut bench = Bench::start(lab, plan, &[Kind::Kvnode], findings);
    beside(plan, [&writers, &watchers], &mut bench, findings);
    events(plan, [&writers, &watchers], &mut bench, findings);
    Ok(())
}

fn beside(plan: &Plan, [writers, watchers]: [&Client; 2], bench: &mut Bench, findings: &mut Findings) {
    let millis = plan.time.as_millis() as u64;
    let metrics = higher(["puts/s alone", "beside 1", "part", "beside 10", "part", "beside 100", "part"]);
    let title = format!("{CALLERS} BEAM callers put, watched by 1, 10 and 100 processes of another BEAM");
    let mut table = Table::new(title, &metrics);
    let mut overrun = 0.0;
    bench.measure(plan, &mut table, |server| {
        let puts = || -> Result<f64> { Ok(rate(&writers.ask(server, "callers", &[millis, CALLERS, 0])?)) };
        let alone = puts()?;
        let mut row = [alone; 7];
        for (at, (count, _)) in WATCHERS.into_iter().enumerate() {
            watchers.ask(server, "watch", &[count])?;
            let beside = puts()?;
            (row[1 + 2 * at], row[2 + 2 * at]) = (beside, beside / alone);
            overrun += watchers.ask(server, "unwatch", &[])?.of("overrun");
        }
        Ok(row)
    });
    for (at, (count, least)) in WATCHERS.into_iter().enumerate() {
        if let Some(part) = table.median(OURS, 2 + 2 * at) {
            let verdict = verdict(part >= least);
            table
                .note(format!("kvnode: {part:.2} of its puts/s beside {count}, expected {least}: {verdict}"));
        }
    }
    // A watcher that is dropped costs nothing from then on.
    table.note(format!("{overrun} watchers were dropped, expected 0: {}", verdict(overrun == 0.0)));
    findings.table(table);
}

fn events(plan: &Plan, [writers, watchers]: [&Client; 2], bench: &mut Bench, findings: &mut Findings) {
    let chunks: u64 = plan.pick(20, 2);
    let title = format!("one process of another BEAM is told of {} puts", chunks * CHUNK);
    let mut table = Table::new(title, &higher(["events/s"]));
    bench.measure(plan, &mut table, |server| {
        watchers.ask(server, "watch", &[1])?;
        let (mut told, mut nanos) = (0.0, 0.0);
        for _ in 0..chunks {
            // Both at once: it is told while they are put.
            watchers.begin(server, "told", &[CHUNK])?;
            writers.ask(server, "fill", &[CHUNK])?;
            let found = watchers.end("told")?;
            told += found.of("calls");
            nanos += found.of("elapsed");
        }
        let left = watchers.ask(server, "unwatch", &[])?;
        if left.of("overrun") > 0.0 || told < (chunks * CHUNK) as f64 {
            return Err(failure(format!("it was told of {told} puts of {}", chunks * CHUNK)));
        }
        Ok([told / nanos * 1e9])
    });
    if let Some(found) = table.median(OURS, 0) {
        table.note(format!(
            "kvnode: {found:.0} events/s, expected {EVENTS_MIN}: {}",
            verdict(found >= EVENTS_MIN)
        ));
    }
    findings.table(table);
}
