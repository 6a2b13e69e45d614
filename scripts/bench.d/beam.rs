//! The loads of a BEAM: callers, values, small calls beside large values, casts.

use std::collections::HashMap;
use std::fmt::Display;
use std::time::{Duration, Instant};

use crate::children::{CpuTime, Running, resident_bytes};
use crate::compiled::is_not_installed;
use crate::link::{CREATION, HOST};
use crate::links::COMMAND_MAX;
use crate::report::{Better, Metric, OURS, Table, verdict};
use crate::rounds::Bench;
use crate::servers::{Kind, Lab, Place, Server};
use crate::{Findings, Plan, Result, failure};

const SERVERS: [Kind; 9] = [
    Kind::Kvnode,
    Kind::KvnodeBefore,
    Kind::Genserver,
    Kind::Ets,
    Kind::Cnode,
    Kind::Jinterface,
    Kind::Naive,
    Kind::Parked,
    Kind::Polling,
];
/// Servers that are called, and not asked by `:erpc`.
const CALLED: [Kind; 8] = [
    Kind::Kvnode,
    Kind::KvnodeUnfragmented,
    Kind::Genserver,
    Kind::Cnode,
    Kind::Jinterface,
    Kind::Naive,
    Kind::Parked,
    Kind::Polling,
];
/// Servers whose store is a process with a pid that can be asked for, or that answer for any pid.
const MIXED: [Kind; 6] = [
    Kind::Kvnode,
    Kind::KvnodeBefore,
    Kind::KvnodeUnfragmented,
    Kind::Genserver,
    Kind::Parked,
    Kind::Polling,
];
/// How another kvnode is called that stands beside this one, and what is to be kept of it.
pub const BEFORE: &str = Kind::KvnodeBefore.name();
pub const NOT_WORSE: f64 = 0.97;
/// How long one load may take, whatever it was asked to take.
const LOAD_MAX: Duration = Duration::from_secs(180);

/// A BEAM node that carries loads out.
pub struct Client<'a> {
    lab: &'a Lab,
    running: Running,
    full_name: String,
}

/// The named figures of one load.
pub struct Figures(HashMap<String, f64>);

impl Figures {
    /// Reads a line of `name=number`.
    ///
    /// # Errors
    /// The line says that it failed.
    pub fn read(load: &str, answer: &str) -> Result<Self> {
        if answer.starts_with("error") {
            return Err(failure(format!("{load}: {answer}")));
        }
        let figure = |part: &str| {
            let (name, number) = part.split_once('=')?;
            Some((name.to_owned(), number.parse().ok()?))
        };
        Ok(Self(answer.split(' ').filter_map(figure).collect()))
    }

    /// One of them; NaN when it is not there.
    pub fn of(&self, name: &str) -> f64 {
        self.0.get(name).copied().unwrap_or(f64::NAN)
    }
}

impl<'a> Client<'a> {
    /// Starts the node. `None`, and a note, where there is no Elixir.
    pub fn start(lab: &'a Lab, findings: &mut Findings) -> Result<Option<Self>> {
        match Self::started(lab) {
            Ok(running) => Ok(Some(Self { lab, running, full_name: String::new() })),
            Err(error) if is_not_installed(&error) => {
                findings.note(format!("no loads of a BEAM: {error}"));
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    fn started(lab: &Lab) -> Result<Running> {
        let mut command = lab.beam("client", "BenchClient.main()")?;
        let running = Running::start("BEAM client", &mut command, lab.folder.path())?;
        running.wait_for("ready")?;
        Ok(running)
    }

    /// Starts a node elsewhere, which evaluates this, for [`Client::command`].
    ///
    /// # Errors
    /// There is no Elixir, or the node has failed.
    pub fn start_at(lab: &'a Lab, expression: &str, place: &Place) -> Result<Self> {
        let (mut command, full_name) = lab.beam_at("client", expression, place)?;
        let running = Running::start("BEAM client", &mut command, lab.folder.path())?;
        running.wait_for("ready")?;
        Ok(Self { lab, running, full_name })
    }

    /// The full name of a node that was started elsewhere.
    pub fn full_name(&self) -> &str {
        &self.full_name
    }

    /// Runs a load of `links.ex`.
    pub fn command(&mut self, load: &str, arguments: &[&dyn Display]) -> Result<Figures> {
        let mut line = load.to_owned();
        for argument in arguments {
            line.push_str(&format!(" {argument}"));
        }
        Figures::read(load, &self.running.ask(&line, COMMAND_MAX)?)
    }

    /// Runs a load of `client.ex` against a server.
    pub fn run(&mut self, load: &str, server: &Server, numbers: &[u64]) -> Result<Figures> {
        let kind = if server.kind == Kind::Ets { "ets" } else { "gen" };
        let mut line = format!("{load} {kind} {}@{HOST}", server.node());
        for number in numbers {
            line.push_str(&format!(" {number}"));
        }
        let answer = match self.running.ask(&line, LOAD_MAX) {
            Ok(answer) => answer,
            Err(error) => {
                // The client has ended, or its late answer would be taken for that to the next question.
                self.running = Self::started(self.lab)?;
                return Err(error);
            }
        };
        Figures::read(load, &answer)
    }

    /// Puts the keys that most loads get.
    pub fn prepare(&mut self, bench: &mut Bench, findings: &mut Findings) {
        bench.ready(findings, |server| match server.kind {
            Kind::Redis => Ok(()),
            _ => self.run("prepare", server, &[]).map(drop),
        });
    }
}

/// Figures of a load and its costs.
struct Measured {
    figures: Figures,
    server_nanos: f64,
    client_nanos: f64,
    rss_megabytes: f64,
}

fn measured(client: &mut Client, load: &str, server: &Server, numbers: &[u64]) -> Result<Measured> {
    let before = (CpuTime::of(server.id())?, CpuTime::of(client.running.id())?);
    let figures = client.run(load, server, numbers)?;
    Ok(Measured {
        figures,
        server_nanos: before.0.nanos_since(server.id())?,
        client_nanos: before.1.nanos_since(client.running.id())?,
        rss_megabytes: resident_bytes(server.id())? as f64 / 1e6,
    })
}

impl Measured {
    fn rate(&self) -> f64 {
        self.figures.of("calls") / self.figures.of("elapsed") * 1e9
    }

    /// Processor time of server and client in microseconds a call.
    fn per_call(&self) -> [f64; 2] {
        let calls = self.figures.of("calls");
        [self.server_nanos / 1e3 / calls, self.client_nanos / 1e3 / calls]
    }
}

/// One caller's times, and many callers' rate.
pub fn calls(lab: &Lab, plan: &Plan, findings: &mut Findings) -> Result<()> {
    let Some(mut client) = Client::start(lab, findings)? else { return Ok(()) };
    let mut bench = Bench::start(lab, plan, &SERVERS, findings);
    client.prepare(&mut bench, findings);
    let metrics: [Metric; 6] = [
        ("p50 µs", Better::Lower),
        ("p99 µs", Better::Lower),
        ("calls/s", Better::Higher),
        ("server CPU µs/call", Better::Lower),
        ("client CPU µs/call", Better::Lower),
        ("RSS MB", Better::Lower),
    ];
    let millis = plan.time.as_millis() as u64;
    let mut table = Table::new("one BEAM caller, gets one after the other", &metrics)
        .expect("p50 µs", BEFORE, NOT_WORSE)
        .expect("p50 µs", "floor, polling", 0.9)
        .expect("p50 µs", "GenServer", 2.0)
        .expect("p50 µs", "C node", 1.0);
    bench.measure(plan, &mut table, |server| {
        let found = measured(&mut client, "seq", server, &[millis])?;
        let [server_cpu, client_cpu] = found.per_call();
        let micros = |name| found.figures.of(name) / 1e3;
        Ok([micros("p50"), micros("p99"), found.rate(), server_cpu, client_cpu, found.rss_megabytes])
    });
    findings.table(table);
    for count in [16, 128, 1000] {
        let mut table = Table::new(format!("{count} BEAM callers, 90% get"), &CALLERS)
            .expect("calls/s", BEFORE, NOT_WORSE)
            .expect("calls/s", "floor, polling", 0.95)
            .expect("calls/s", "GenServer", 1.2);
        if count == 128 {
            table = table.expect("server CPU µs/call", "GenServer", 3.0);
        }
        bench.measure(plan, &mut table, |server| callers(&mut client, server, millis, count));
        findings.table(table);
    }
    Ok(())
}

/// What [`callers`] finds.
pub const CALLERS: [Metric; 4] = [
    ("calls/s", Better::Higher),
    ("server CPU µs/call", Better::Lower),
    ("client CPU µs/call", Better::Lower),
    ("RSS MB", Better::Lower),
];

/// So many BEAM callers at once, for that long.
pub fn callers(client: &mut Client, server: &Server, millis: u64, count: u64) -> Result<[f64; 4]> {
    let found = measured(client, "callers", server, &[millis, count])?;
    let [server_cpu, client_cpu] = found.per_call();
    Ok([found.rate(), server_cpu, client_cpu, found.rss_megabytes])
}

/// Values of four sizes.
pub fn values(lab: &Lab, plan: &Plan, findings: &mut Findings) -> Result<()> {
    let Some(mut client) = Client::start(lab, findings)? else { return Ok(()) };
    let mut bench = Bench::start(lab, plan, &SERVERS, findings);
    client.prepare(&mut bench, findings);
    let millis = plan.time.as_millis() as u64 / plan.pick(2, 1);
    let metrics: [Metric; 6] = [
        ("put MB/s", Better::Higher),
        ("get MB/s", Better::Higher),
        ("put µs", Better::Lower),
        ("get µs", Better::Lower),
        ("server CPU µs/call", Better::Lower),
        ("RSS MB", Better::Lower),
    ];
    for (bytes, shown) in [(100, "100 bytes"), (64 << 10, "64 KiB"), (1 << 20, "1 MiB"), (16 << 20, "16 MiB")]
    {
        let mut table = Table::new(format!("values of {shown}, one BEAM caller"), &metrics);
        if bytes >= 1 << 20 {
            table = table.expect("put MB/s", BEFORE, NOT_WORSE).expect("get MB/s", BEFORE, NOT_WORSE);
            table = table.expect("put MB/s", "floor, parked", 0.9).expect("get MB/s", "floor, parked", 0.9);
        }
        bench.measure(plan, &mut table, |server| {
            let found = measured(&mut client, "values", server, &[millis, bytes])?;
            let each = |time, count| found.figures.of(time) / found.figures.of(count);
            let (put, get) = (each("put_time", "puts"), each("get_time", "gets"));
            let calls = found.figures.of("puts") + found.figures.of("gets") + 2.0;
            let rate = |nanos: f64| bytes as f64 / nanos * 1e3;
            let cpu = found.server_nanos / 1e3 / calls;
            Ok([rate(put), rate(get), put / 1e3, get / 1e3, cpu, found.rss_megabytes])
        });
        findings.table(table);
    }
    Ok(())
}

/// Small calls of one process, beside large values of another on the same connection and to the same server process.
pub fn mixed(lab: &Lab, plan: &Plan, findings: &mut Findings) -> Result<()> {
    let Some(mut client) = Client::start(lab, findings)? else { return Ok(()) };
    let mut bench = Bench::start(lab, plan, &MIXED, findings);
    client.prepare(&mut bench, findings);
    let (bytes, shown): (u64, _) = plan.pick((64 << 20, "64 MiB"), (4 << 20, "4 MiB"));
    // A small call that waits for a large value waits long: it takes time to have many.
    let millis = plan.time.as_millis() as u64 * 2;
    let metrics: [Metric; 7] = [
        ("p99 µs", Better::Lower),
        ("p50 µs", Better::Lower),
        ("slowest µs", Better::Lower),
        ("small calls/s", Better::Higher),
        ("large MB/s", Better::Higher),
        ("server cores", Better::Lower),
        ("client cores", Better::Lower),
    ];
    for (act, shown_act) in [(0, "puts and gets"), (1, "puts"), (2, "gets")] {
        let title = format!(
            "small gets of one BEAM process beside {shown_act} of {shown} of another, one connection"
        );
        let mut table = Table::new(title, &metrics).expect("p99 µs", BEFORE, NOT_WORSE).expect(
            "large MB/s",
            BEFORE,
            NOT_WORSE,
        );
        bench.measure(plan, &mut table, |server| {
            let creation = if server.kind.stores() { 0 } else { u64::from(CREATION) };
            let started = Instant::now();
            let found = measured(&mut client, "mixed", server, &[millis, bytes, act, creation])?;
            let cores = |nanos: f64| nanos / started.elapsed().as_nanos() as f64;
            let micros = |name| found.figures.of(name) / 1e3;
            let moved = found.figures.of("moved") / found.figures.of("moved_time") * 1e3;
            let (server_cores, client_cores) = (cores(found.server_nanos), cores(found.client_nanos));
            Ok([micros("p99"), micros("p50"), micros("max"), found.rate(), moved, server_cores, client_cores])
        });
        findings.table(table);
    }
    Ok(())
}

/// Casts of one process, drained by a get behind them.
pub fn casts(lab: &Lab, plan: &Plan, findings: &mut Findings) -> Result<()> {
    let Some(mut client) = Client::start(lab, findings)? else { return Ok(()) };
    let mut bench = Bench::start(lab, plan, &CALLED, findings);
    client.prepare(&mut bench, findings);
    let count: u64 = plan.pick(200_000, 20_000);
    let metrics: [Metric; 5] = [
        ("casts/s", Better::Higher),
        ("server CPU µs/cast", Better::Lower),
        ("client CPU µs/cast", Better::Lower),
        ("RSS before MB", Better::Lower),
        ("RSS after MB", Better::Lower),
    ];
    let mut table = Table::new(format!("{count} casts of one BEAM process, then a get"), &metrics).expect(
        "casts/s",
        "floor, parked",
        1.0,
    );
    bench.measure(plan, &mut table, |server| {
        let before = resident_bytes(server.id())? as f64 / 1e6;
        let found = measured(&mut client, "casts", server, &[count])?;
        let [server_cpu, client_cpu] = found.per_call();
        Ok([found.rate(), server_cpu, client_cpu, before, found.rss_megabytes])
    });
    if let (Some(before), Some(after)) = (table.median(OURS, 3), table.median(OURS, 4)) {
        let verdict = verdict(after - before < 1.0);
        table.note(format!("kvnode grew by {:.1} MB, expected less than 1: {verdict}", after - before));
    }
    findings.table(table);
    Ok(())
}
