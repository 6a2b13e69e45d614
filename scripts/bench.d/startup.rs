//! From the start to the first answer, and what a server costs that has nothing to do.

use std::thread;
use std::time::{Duration, Instant};

use crate::children::{CpuTime, resident_bytes};
use crate::native::Caller;
use crate::report::{Better, Table};
use crate::rounds::{Bench, measure_each};
use crate::servers::{Kind, Lab};
use crate::{Findings, Plan, Result};

const SERVERS: [Kind; 8] = [
    Kind::Kvnode,
    Kind::Genserver,
    Kind::Cnode,
    Kind::Jinterface,
    Kind::Naive,
    Kind::Parked,
    Kind::Polling,
    Kind::Redis,
];
/// Connections of the idle server.
const PEERS: usize = 10;

/// Starts each server anew in each round, with epmd running, and calls it as soon as it says that it is ready.
pub fn startup(lab: &Lab, plan: &Plan, findings: &mut Findings) -> Result<()> {
    let metrics = [
        ("first answer ms", Better::Lower),
        ("RSS then MB", Better::Lower),
        ("RSS idle, 10 peers MB", Better::Lower),
        ("idle CPU, 10 peers %", Better::Lower),
    ];
    let mut table = Table::new("start, and idle", &metrics);
    // What has to be compiled is, and each program is in the page cache, once it has been started.
    let kinds: Vec<Kind> =
        Bench::start(lab, plan, &SERVERS, findings).servers.iter().map(|server| server.kind).collect();
    measure_each(&kinds, plan.rounds, &mut table, findings, |kind| {
        let started = Instant::now();
        let server = lab.start(kind)?;
        let first = Caller::connect(&server.endpoint, "idle")?;
        let answered = started.elapsed();
        let resident = resident_bytes(server.id())?;
        let mut peers = vec![first];
        for _ in 1..PEERS {
            peers.push(Caller::connect(&server.endpoint, "idle")?);
        }
        let (before, since) = (CpuTime::of(server.id())?, Instant::now());
        // To do nothing for a while is what is measured.
        thread::sleep(plan.pick(Duration::from_secs(2), Duration::from_millis(100)));
        let idle = before.nanos_since(server.id())? / since.elapsed().as_nanos() as f64;
        let resident_idle = resident_bytes(server.id())?;
        Ok([answered.as_secs_f64() * 1e3, resident as f64 / 1e6, resident_idle as f64 / 1e6, idle * 100.0])
    });
    for (column, what, most) in [(0, "first answer", 15.0), (1, "resident then", 6.0), (3, "idle CPU", 0.5)] {
        if let Some(found) = table.median(crate::report::OURS, column) {
            let verdict = if found <= most { "reached" } else { "MISSED" };
            let unit = ["ms", "MB", "MB", "%"][column];
            findings.note(format!("kvnode, {what}: {found:.2} {unit}, expected at most {most}: {verdict}"));
        }
    }
    findings.table(table);
    Ok(())
}
