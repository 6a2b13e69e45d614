//! What a few keys of very many cost, where they are neighbours in the order of keys: a prefix of a store on disk.

use crate::api::Client;
use crate::report::{Better, Metric, OURS, Table, verdict};
use crate::rounds::Bench;
use crate::servers::{Kind, Lab};
use crate::{Findings, Plan, Result};

/// Keys of a prefix.
const GROUP: u64 = 100;
/// How long it may take, in milliseconds.
const LEAST_MS: f64 = 2.0;

/// A prefix among 10,000,000 keys.
pub fn measure(lab: &Lab, plan: &Plan, findings: &mut Findings) -> Result<()> {
    let entries: u64 = plan.pick(10_000_000, 20_000);
    let millis = plan.time.as_millis() as u64;
    let Some(client) = Client::start(lab, findings)? else { return Ok(()) };
    let mut bench = Bench::start(lab, plan, &[Kind::KvnodeDurable], findings);
    bench.ready(findings, |server| client.ask(server, "fill_groups", &[entries, GROUP]).map(drop));
    let metrics: [Metric; 3] =
        [("scans/s", Better::Higher), ("p50 ms", Better::Lower), ("p99 ms", Better::Lower)];
    let mut table = Table::new(
        format!("a BEAM scans a prefix of {GROUP} keys among {entries} on disk, any of them"),
        &metrics,
    );
    bench.measure(plan, &mut table, |server| {
        let found = client.ask(server, "prefix", &[millis, entries, GROUP])?;
        Ok([found.of("calls") / found.of("elapsed") * 1e9, found.of("p50") / 1e6, found.of("p99") / 1e6])
    });
    if let Some(p50) = table.median(OURS, 1) {
        table.note(format!("kvnode: {p50:.2} ms, expected {LEAST_MS} at most: {}", verdict(p50 <= LEAST_MS)));
    }
    findings.table(table);
    Ok(())
}
