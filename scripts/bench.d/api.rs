//! The requests beside get, put and delete: of several keys, sums, keys that end, scans. All callers are processes of a BEAM, but for
//! a native caller, which scans and only counts the entries.

use std::process::Command;
use std::time::{Duration, Instant};

use crate::beam::Figures;
use crate::children::Running;
use crate::compiled::is_not_installed;
use crate::link::HOST;
use crate::replication::{Operator, store_of};
use crate::report::{Better, Metric, OURS, Table, higher, verdict};
use crate::rounds::Bench;
use crate::servers::{Kind, Lab, Server};
use crate::{Findings, Plan, Result, failure};

const SERVERS: [Kind; 3] = [Kind::Kvnode, Kind::ApiGenserver, Kind::ApiEts];
/// Entries of the loads that are not about their number.
const ENTRIES: u64 = 10_000;
/// Keys of a request of several.
const KEYS: u64 = 100;
/// Entries of a page, where a store is scanned as fast as that goes.
const PAGE: u64 = 10_000;
/// And where nothing else is said.
const PAGE_USUAL: u64 = 1_000;
/// How long one load may take, whatever it was asked to take.
const LOAD_MAX: Duration = Duration::from_secs(600);

/// All of them.
pub fn measure(lab: &Lab, plan: &Plan, findings: &mut Findings) -> Result<()> {
    let Some(client) = Client::start(lab, findings)? else { return Ok(()) };
    let mut bench = Bench::start(lab, plan, &SERVERS, findings);
    bench.ready(findings, |server| client.ask(server, "fill", &[ENTRIES]).map(drop));
    many(plan, &client, &mut bench, findings);
    drop(bench);
    writes(lab, plan, &client, findings);
    scans(lab, plan, &client, findings);
    native_scan(lab, plan, &client, findings)
}

/// Requests of a hundred keys beside requests of one.
fn many(plan: &Plan, client: &Client, bench: &mut Bench, findings: &mut Findings) {
    let millis = plan.time.as_millis() as u64;
    let metrics = higher(["keys/s, 100 each", "keys/s, one each"]);
    let mut table = Table::new(format!("one BEAM caller gets {KEYS} keys of {ENTRIES} at once"), &metrics)
        .expect("keys/s, 100 each", Kind::ApiGenserver.name(), 3.0);
    bench.measure(plan, &mut table, |server| {
        let [many, single] =
            [client.ask(server, "many", &[millis, KEYS])?, client.ask(server, "single", &[millis])?];
        Ok([rate(&many), rate(&single)])
    });
    if let (Some(ours), Some(single)) = (table.median(OURS, 0), table.median(Kind::ApiGenserver.name(), 1)) {
        let ratio = ours / single;
        let verdict = verdict(ratio >= 20.0);
        table.note(format!(
            "kvnode: {ratio:.0} times the keys/s of single gets of a GenServer, expected 20: {verdict}"
        ));
    }
    findings.table(table);
}

/// Sums, and puts of what ends, beside puts.
fn writes(lab: &Lab, plan: &Plan, client: &Client, findings: &mut Findings) {
    let millis = plan.time.as_millis() as u64;
    let metrics = higher(["puts/s", "sums/s", "puts with ttl/s", "sums/puts", "ttl/puts"]);
    let mut bench = Bench::start(lab, plan, &[Kind::Kvnode, Kind::ApiGenserver], findings);
    let mut table = Table::new("128 BEAM callers put, add, and put what ends", &metrics);
    bench.measure(plan, &mut table, |server| {
        let of = |request: u64| -> Result<f64> {
            Ok(rate(&client.ask(server, "callers", &[millis, 128, request])?))
        };
        let [puts, sums, ends] = [of(0)?, of(1)?, of(2)?];
        Ok([puts, sums, ends, sums / puts, ends / puts])
    });
    for (column, what, least) in [(3, "sums/s", 0.95), (4, "puts with ttl/s", 0.9)] {
        if let Some(ratio) = table.median(OURS, column) {
            let verdict = verdict(ratio >= least);
            table.note(format!("kvnode: {what} are {ratio:.2} of puts/s, expected {least}: {verdict}"));
        }
    }
    findings.table(table);
}

/// All entries of a large store, and gets beside that.
fn scans(lab: &Lab, plan: &Plan, client: &Client, findings: &mut Findings) {
    let entries: u64 = plan.pick(1_000_000, 50_000);
    let millis = plan.time.as_millis() as u64;
    let metrics: [Metric; 4] = [
        ("entries/s", Better::Higher),
        ("get p99 µs alone", Better::Lower),
        ("get p99 µs beside", Better::Lower),
        ("times", Better::Lower),
    ];
    for kinds in [&[Kind::Kvnode, Kind::ApiEts][..], &[Kind::KvnodeDurable]] {
        let mut bench = Bench::start(lab, plan, kinds, findings);
        bench.ready(findings, |server| client.ask(server, "fill", &[entries]).map(drop));
        let place = if kinds.len() > 1 { "in memory" } else { "on disk" };
        let mut table = Table::new(
            format!(
                "a BEAM scans {entries} entries of 100 bytes {place}, {PAGE} a page, {PAGE_USUAL} beside gets"
            ),
            &metrics,
        );
        bench.measure(plan, &mut table, |server| {
            let scan = client.ask(server, "scan", &[PAGE])?;
            if scan.of("calls") != entries as f64 {
                return Err(failure(format!("{} entries of {entries} have come", scan.of("calls"))));
            }
            let gets = client.ask(server, "beside", &[millis, PAGE_USUAL])?;
            let [alone, beside] = [gets.of("alone") / 1e3, gets.of("beside") / 1e3];
            Ok([rate(&scan), alone, beside, beside / alone])
        });
        if let (Some(rate), Some(times)) = (table.median(OURS, 0), table.median(OURS, 3)) {
            let (fast, calm) = (verdict(rate >= 300_000.0), verdict(times <= 2.0));
            table.note(format!("kvnode: {:.2} million entries/s, expected 0.3: {fast}", rate / 1e6));
            table.note(format!(
                "kvnode: p99 of gets beside it {times:.1} times that alone, expected 2 at most: {calm}"
            ));
        }
        findings.table(table);
    }
}

/// All entries of a large store, by a client that looks at nothing but the cursors.
fn native_scan(lab: &Lab, plan: &Plan, client: &Client, findings: &mut Findings) -> Result<()> {
    let entries: u64 = plan.pick(1_000_000, 50_000);
    let operator = Operator::start(lab)?;
    let mut bench = Bench::start(lab, plan, &[Kind::Kvnode], findings);
    bench.ready(findings, |server| client.ask(server, "fill", &[entries]).map(drop));
    let metrics = higher(["entries/s"]);
    let mut table =
        Table::new(format!("a native client scans {entries} entries of 100 bytes, {PAGE} a page"), &metrics);
    bench.measure(plan, &mut table, |server| {
        let since = Instant::now();
        let found = operator.scan(&store_of(server), PAGE)?;
        let took = since.elapsed().as_secs_f64();
        if found != entries {
            return Err(failure(format!("{found} entries of {entries} have come")));
        }
        Ok([entries as f64 / took])
    });
    if let Some(rate) = table.median(OURS, 0) {
        let verdict = verdict(rate >= 1_500_000.0);
        table.note(format!("kvnode: {:.2} million entries/s, expected 1.5: {verdict}", rate / 1e6));
    }
    findings.table(table);
    Ok(())
}

/// Calls a second.
pub fn rate(found: &Figures) -> f64 {
    found.of("calls") / found.of("elapsed") * 1e9
}

/// The BEAM that carries these loads out (api.ex).
pub struct Client(Running);

impl Client {
    /// Starts one; `None`: what it needs is not installed, as is noted.
    pub fn start(lab: &Lab, findings: &mut Findings) -> Result<Option<Self>> {
        let mut command: Command = match lab.beam("api", "BenchApi.main()") {
            Ok(command) => command,
            Err(error) if is_not_installed(&error) => {
                findings.note(format!("no loads of a BEAM: {error}"));
                return Ok(None);
            }
            Err(error) => return Err(error),
        };
        let client = Running::start("api client", &mut command, lab.folder.path())?;
        client.wait_for("ready")?;
        Ok(Some(Self(client)))
    }

    /// Has it carry a load out.
    pub fn ask(&self, server: &Server, load: &str, numbers: &[u64]) -> Result<Figures> {
        self.begin(server, load, numbers)?;
        self.end(load)
    }

    /// Has it begin a load.
    pub fn begin(&self, server: &Server, load: &str, numbers: &[u64]) -> Result<()> {
        let kind = if server.kind == Kind::ApiEts { "ets" } else { "gen" };
        let numbers: Vec<String> = numbers.iter().map(u64::to_string).collect();
        self.0.say(&format!("{load} {kind} {}@{HOST} {}", server.node(), numbers.join(" ")))
    }

    /// Waits for the end of what it has begun.
    pub fn end(&self, load: &str) -> Result<Figures> {
        Figures::read(load, &self.0.line(LOAD_MAX)?)
    }
}
