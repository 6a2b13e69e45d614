//! The native loads: calls in flight, connections, keys, and a table that grows.

use std::thread;

use crate::beam::{BEFORE, NOT_WORSE};
use crate::children::{CpuTime, resident_bytes};
use crate::native::{Caller, Keys, Request, Until, load_all};
use crate::report::{Better, Metric, OURS, Table, verdict};
use crate::rounds::{Bench, measure_each};
use crate::servers::{Kind, Lab, Server};
use crate::{Findings, Plan, Result};

const SERVERS: [Kind; 9] = [
    Kind::Kvnode,
    Kind::KvnodeBefore,
    Kind::Genserver,
    Kind::Cnode,
    Kind::Jinterface,
    Kind::Naive,
    Kind::Parked,
    Kind::Polling,
    Kind::Redis,
];

const METRICS: [Metric; 7] = [
    ("calls/s", Better::Higher),
    ("server CPU µs/call", Better::Lower),
    ("server cores", Better::Lower),
    ("client CPU µs/call", Better::Lower),
    ("p50 µs", Better::Lower),
    ("p99 µs", Better::Lower),
    ("RSS MB", Better::Lower),
];

struct InFlight {
    request: Request,
    window: usize,
    connections: usize,
}

/// Keys in the table of the loads that are not about the number of keys.
const KEYS: u64 = 10_000;

/// 1, 64 and 1,024 calls in flight on one connection, and four connections.
pub fn in_flight(lab: &Lab, plan: &Plan, findings: &mut Findings) -> Result<()> {
    let mut bench = Bench::start(lab, plan, &SERVERS, findings);
    bench.ready(findings, |server| connect(server)?.fill(KEYS).map(drop));
    let loads = [
        (Request::Get, 1, 1),
        (Request::Get, 64, 1),
        (Request::Get, 1024, 1),
        (Request::Put, 64, 1),
        (Request::Put, 1024, 1),
        (Request::Get, 64, 4),
        (Request::Get, 1024, 4),
    ]
    .map(|(request, window, connections)| InFlight { request, window, connections });
    // kvnode's calls/s on one connection, by calls in flight.
    let mut one = Vec::new();
    for load in loads {
        let InFlight { request, window, connections } = load;
        let what = if request == Request::Get { "get" } else { "put" };
        let each =
            if connections == 1 { String::new() } else { format!(" on each of {connections} connections") };
        let title = format!("native {what}, {window} in flight{each}, {KEYS} keys");
        let mut table = Table::new(title, &METRICS).expect("calls/s", BEFORE, NOT_WORSE);
        if connections == 1 && request == Request::Get {
            table = match window {
                64 => table
                    .expect("calls/s", "floor, parked", 0.5)
                    .expect("calls/s", "GenServer", 15.0)
                    .expect("calls/s", "redis", 1.5),
                1024 => table.expect("calls/s", "floor, parked", 0.35).expect("calls/s", "GenServer", 25.0),
                _ => table,
            };
        }
        bench.measure(plan, &mut table, |server| measured(server, connections, request, window, KEYS, plan));
        let medians = [0, 2, 3].map(|column| table.median(OURS, column));
        if let ([Some(rate), Some(server_cores), Some(client_micros)], Request::Get) = (medians, request) {
            if connections == 1 {
                one.push((window, rate));
            } else if let Some((_, one)) = one.iter().find(|(known, _)| *known == window) {
                let (ratio, cores) = (rate / one, server_cores + client_micros * rate / 1e6);
                let full = thread::available_parallelism().map_or(1.0, |cores| cores.get() as f64) * 0.9;
                let verdict = verdict(ratio >= 1.5 || cores >= full);
                table.note(format!(
                    "kvnode: {ratio:.2} of its calls/s on one connection, {cores:.2} cores busy with client and server; \
                     expected 1.5, or all cores: {verdict}"
                ));
            }
        }
        findings.table(table);
    }
    Ok(())
}

/// 64 gets in flight over tables of other sizes.
pub fn keys(lab: &Lab, plan: &Plan, findings: &mut Findings) -> Result<()> {
    let counts: &[u64] =
        plan.pick(&[1_000, 10_000, 1_000_000, 10_000_000][..], &[1_000, 10_000, 300_000][..]);
    let mut bench = Bench::start(lab, plan, &[Kind::Kvnode, Kind::Redis], findings);
    let mut medians = Vec::new();
    for &count in counts {
        let mut table = Table::new(format!("native get, 64 in flight, {count} keys"), &METRICS);
        bench.ready(findings, |server| connect(server)?.fill(count).map(drop));
        bench.measure(plan, &mut table, |server| measured(server, 1, Request::Get, 64, count, plan));
        medians.push((count, table.median(OURS, 0)));
        findings.table(table);
    }
    if let (Some((few, Some(base))), Some((many, Some(rate)))) = (medians.get(1), medians.last()) {
        let ratio = rate / base;
        let verdict = verdict(ratio >= 0.5);
        findings.note(format!(
            "kvnode with {many} keys: {ratio:.2} of its calls/s with {few}, expected 0.5: {verdict}"
        ));
    }
    Ok(())
}

/// Puts, 64 in flight, each with a new key.
pub fn growth(lab: &Lab, plan: &Plan, findings: &mut Findings) -> Result<()> {
    let entries: u64 = plan.pick(10_000_000, 300_000);
    let metrics = [
        ("p99.9 µs", Better::Lower),
        ("p50 µs", Better::Lower),
        ("slowest µs", Better::Lower),
        ("puts/s", Better::Higher),
        ("server CPU µs/put", Better::Lower),
    ];
    let mut table =
        Table::new(format!("puts into a table that grows from 0 to {entries}, 64 in flight"), &metrics);
    let kinds = plan.servers(&[Kind::Kvnode, Kind::Redis, Kind::Polling]);
    measure_each(&kinds, plan.pick(plan.rounds.min(3), 1), &mut table, findings, |kind| {
        let server = lab.start(kind)?;
        let mut caller = connect(&server)?;
        let before = CpuTime::of(server.id())?;
        let mut outcome = caller.load(Request::Put, 64, Keys::InOrder, Until::Calls(entries), true)?;
        let cpu = before.nanos_since(server.id())?;
        let [p999, p50, slowest] = [0.999, 0.5, 1.0].map(|quantile| outcome.quantile_micros(quantile));
        Ok([p999, p50, slowest, outcome.rate(), cpu / 1e3 / outcome.calls as f64])
    });
    findings.table(table);
    Ok(())
}

fn connect(server: &Server) -> Result<Caller> {
    Caller::connect(&server.endpoint, "native")
}

/// Runs a load on that many connections, and takes the costs around it.
///
/// The connections are its own: a connection that is kept and not used while other servers are measured has no task that answers
/// its ticks, and a node closes it after its tick time.
fn measured(
    server: &Server,
    connections: usize,
    request: Request,
    window: usize,
    keys: u64,
    plan: &Plan,
) -> Result<[f64; 7]> {
    let mut callers = (0..connections).map(|_| connect(server)).collect::<Result<Vec<_>>>()?;
    let server_before = CpuTime::of(server.id())?;
    let mut outcome = load_all(&mut callers, request, window, keys, plan.time)?;
    let server_cpu = server_before.nanos_since(server.id())?;
    let calls = outcome.calls as f64;
    let timed = !outcome.latencies.is_empty();
    let mut latency = |quantile| if timed { outcome.quantile_micros(quantile) } else { f64::NAN };
    let (p50, p99) = (latency(0.5), latency(0.99));
    Ok([
        outcome.rate(),
        server_cpu / 1e3 / calls,
        server_cpu / outcome.elapsed.as_nanos() as f64,
        outcome.client_nanos as f64 / 1e3 / calls,
        p50,
        p99,
        resident_bytes(server.id())? as f64 / 1e6,
    ])
}
