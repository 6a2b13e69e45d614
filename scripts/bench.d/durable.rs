//! Stores on disk: each put is there after a power cut when it is answered. All callers are processes of a BEAM.

use std::process::Command;
use std::time::{Duration, Instant};

use crate::beam::Figures;
use crate::children::Running;
use crate::compiled::is_not_installed;
use crate::link::HOST;
use crate::report::{Better, Metric, Table, verdict};
use crate::rounds::Bench;
use crate::servers::{Endpoint, Kind, Lab, Server};
use crate::{Findings, Plan, Result};

const SERVERS: [Kind; 4] = [Kind::KvnodeDurable, Kind::Dets, Kind::Mnesia, Kind::RedisDurable];
/// How long one load may take, whatever it was asked to take.
const LOAD_MAX: Duration = Duration::from_secs(180);
/// What the start of a store with 1,000,000 entries of 100 bytes may take, in seconds.
const RECOVERY_SECS_MAX: f64 = 2.0;

/// Pairs of a put of several, and how many times as many such pairs are put in a second as single ones, at least.
const PAIRS: u64 = 100;
const TIMES_MIN: f64 = 10.0;

/// Puts by many callers, gets, and the start of a large store.
pub fn measure(lab: &Lab, plan: &Plan, findings: &mut Findings) -> Result<()> {
    let mut command: Command = match lab.beam("durable", "BenchDurable.main()") {
        Ok(command) => command,
        Err(error) if is_not_installed(&error) => {
            findings.note(format!("no durable loads: {error}"));
            return Ok(());
        }
        Err(error) => return Err(error),
    };
    let client = Running::start("durable client", &mut command, lab.folder.path())?;
    client.wait_for("ready")?;
    let mut bench = Bench::start(lab, plan, &SERVERS, findings);
    bench.ready(findings, |server| ask(&client, server, "ready", &[]).map(drop));
    puts(plan, &client, &mut bench, findings);
    gets(plan, &client, &mut bench, findings);
    drop(bench);
    puts_of_many(lab, plan, &client, findings);
    recovery(lab, plan, &client, findings)
}

fn puts(plan: &Plan, client: &Running, bench: &mut Bench, findings: &mut Findings) {
    let millis = plan.time.as_millis() as u64;
    let metrics: [Metric; 4] = [
        ("puts/s", Better::Higher),
        ("p50 ms", Better::Lower),
        ("p99 ms", Better::Lower),
        ("slowest ms", Better::Lower),
    ];
    for callers in [1, 16, 128, 1000] {
        let mut table = Table::new(format!("{callers} BEAM callers put 100 bytes, synced"), &metrics);
        if callers == 128 {
            table = table.expect("puts/s", "redis, always", 1.0).expect("puts/s", ":dets, synced", 5.0);
        }
        bench.measure(plan, &mut table, |server| {
            let found = ask(client, server, "puts", &[millis, callers])?;
            let rate = found.of("calls") / found.of("elapsed") * 1e9;
            Ok([rate, found.of("p50") / 1e6, found.of("p99") / 1e6, found.of("max") / 1e6])
        });
        findings.table(table);
    }
}

/// Puts of a hundred pairs beside puts of one.
fn puts_of_many(lab: &Lab, plan: &Plan, client: &Running, findings: &mut Findings) {
    let millis = plan.time.as_millis() as u64;
    let metrics: [Metric; 4] = [
        ("pairs/s", Better::Higher),
        ("p99 ms", Better::Lower),
        ("one by one/s", Better::Higher),
        ("times", Better::Higher),
    ];
    let mut bench = Bench::start(lab, plan, &[Kind::KvnodeDurable, Kind::RedisDurable], findings);
    let mut table = Table::new(format!("16 BEAM callers put {PAIRS} pairs at once, synced"), &metrics)
        .expect("pairs/s", Kind::RedisDurable.name(), 1.0);
    bench.measure(plan, &mut table, |server| {
        let many = ask(client, server, "puts_many", &[millis, 16, PAIRS])?;
        let single = ask(client, server, "puts", &[millis, 16])?;
        let rate = |found: &Figures, each: f64| found.of("calls") * each / found.of("elapsed") * 1e9;
        let (many_rate, rate) = (rate(&many, PAIRS as f64), rate(&single, 1.0));
        Ok([many_rate, many.of("p99") / 1e6, rate, many_rate / rate])
    });
    if let Some(times) = table.median(crate::report::OURS, 3) {
        let verdict = verdict(times >= TIMES_MIN);
        table.note(format!("kvnode: {times:.1} times single puts, expected {TIMES_MIN}: {verdict}"));
    }
    findings.table(table);
}

fn gets(plan: &Plan, client: &Running, bench: &mut Bench, findings: &mut Findings) {
    let millis = plan.time.as_millis() as u64;
    let metrics: [Metric; 3] =
        [("gets/s", Better::Higher), ("p50 µs", Better::Lower), ("p99 µs", Better::Lower)];
    let mut table = Table::new("16 BEAM callers get of 1,000 keys, hot", &metrics);
    bench.measure(plan, &mut table, |server| {
        let found = ask(client, server, "gets", &[millis, 16, 1000])?;
        let rate = found.of("calls") / found.of("elapsed") * 1e9;
        Ok([rate, found.of("p50") / 1e3, found.of("p99") / 1e3])
    });
    findings.table(table);
}

/// A store with many entries: its start after a kill, and gets of keys that nobody has read since.
fn recovery(lab: &Lab, plan: &Plan, client: &Running, findings: &mut Findings) -> Result<()> {
    let entries: u64 = plan.pick(1_000_000, 20_000);
    let data = lab.folder.path().join("many");
    let server = lab.start_with(Kind::KvnodeDurable, Some(data.clone()))?;
    ask(client, &server, "fill", &[entries])?;
    drop(server);
    let metrics: [Metric; 3] =
        [("first answer s", Better::Lower), ("cold gets/s", Better::Higher), ("cold p99 µs", Better::Lower)];
    let mut table = Table::new(format!("start after kill -9, {entries} entries of 100 bytes"), &metrics);
    for _ in 0..plan.rounds {
        let since = Instant::now();
        let server = lab.start_with(Kind::KvnodeDurable, Some(data.clone()))?;
        ask(client, &server, "check", &[entries])?;
        let took = since.elapsed().as_secs_f64();
        let found = ask(client, &server, "gets", &[plan.time.as_millis() as u64, 16, entries])?;
        let rate = found.of("calls") / found.of("elapsed") * 1e9;
        table.add(server.kind.name(), &[took, rate, found.of("p99") / 1e3]);
    }
    if let Some(found) = table.median(crate::report::OURS, 0) {
        let verdict = verdict(found <= RECOVERY_SECS_MAX);
        table.note(format!("first answer {found:.2} s, expected at most {RECOVERY_SECS_MAX}: {verdict}"));
    }
    findings.table(table);
    Ok(())
}

/// Has the client, or the server where it is its own client, carry a load out.
fn ask(client: &Running, server: &Server, load: &str, numbers: &[u64]) -> Result<Figures> {
    let (running, at) = match (&server.endpoint, server.kind) {
        (_, Kind::Dets) => (&server.running, "dets local".to_owned()),
        (_, Kind::Mnesia) => (&server.running, "mnesia local".to_owned()),
        (Endpoint::Redis { port }, _) => (client, format!("redis {port}")),
        (Endpoint::Node { name, .. }, _) => (client, format!("gen {name}@{HOST}")),
    };
    let numbers: Vec<String> = numbers.iter().map(u64::to_string).collect();
    let line = format!("{load} {at} {}", numbers.join(" "));
    Figures::read(load, &running.ask(&line, LOAD_MAX)?)
}
