//! Replication: what slaves cost their primary, how late they are, and how fast one is brought up to date. Beside kvnode
//! the Elixir system's own primary and slaves, of tests/elixir, in the same rounds.
//!
//! A write counts as replicated when a slave answers with it: after each load a last key is put, which slaves take in
//! order, and each slave is asked until it has that key.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use kvnode::config::EpmdConfig;
use kvnode::etf::{OwnedTerm, TermView, TermWriter};
use kvnode::{Node, ServerRef, block_on};

use crate::children::CpuTime;
use crate::compiled::is_not_installed;
use crate::link::{COOKIE, HOST};
use crate::native::{Caller, Keys, Outcome, Request, Until};
use crate::report::{Better, OURS, Table, verdict};
use crate::servers::{Kind, Lab, STORE, Server};
use crate::{Findings, Plan, Result, failure, stats};

/// How long a slave may take for what it was sent.
const DRAIN_MAX: Duration = Duration::from_secs(120);
/// How long one call of the operator may take.
const CALL_MAX: Duration = Duration::from_secs(30);
/// How often a slave is asked for what it may not have yet.
const LOOK_AGAIN: Duration = Duration::from_micros(50);
/// Keys of the loads.
const KEYS: u64 = 10_000;
/// Numbers of keys that no load uses.
const FRESH: u64 = 1 << 40;

/// A primary and its slaves, as a row of the tables.
struct Row {
    name: &'static str,
    primary: Kind,
    slave: Kind,
    slaves: usize,
}

const fn row(name: &'static str, primary: Kind, slave: Kind, slaves: usize) -> Row {
    Row { name, primary, slave, slaves }
}

const ALONE: &str = "kvnode alone";
const PAIR: &str = OURS;
const ELIXIR_PAIR: &str = "Elixir";

const ROWS: [Row; 11] = [
    row(ALONE, Kind::Kvnode, Kind::Kvnode, 0),
    row(PAIR, Kind::Kvnode, Kind::Kvnode, 1),
    row("kvnode, 2 slaves", Kind::Kvnode, Kind::Kvnode, 2),
    row("kvnode, 4 slaves", Kind::Kvnode, Kind::Kvnode, 4),
    row("kvnode, 1 Elixir slave", Kind::Kvnode, Kind::Replicated, 1),
    row("kvnode, 2 Elixir slaves", Kind::Kvnode, Kind::Replicated, 2),
    row("kvnode, 4 Elixir slaves", Kind::Kvnode, Kind::Replicated, 4),
    row("Elixir alone", Kind::Replicated, Kind::Replicated, 0),
    row(ELIXIR_PAIR, Kind::Replicated, Kind::Replicated, 1),
    row("Elixir, 2 slaves", Kind::Replicated, Kind::Replicated, 2),
    row("Elixir, 4 slaves", Kind::Replicated, Kind::Replicated, 4),
];

const PAIRS: [Row; 3] = [
    row(PAIR, Kind::Kvnode, Kind::Kvnode, 1),
    row("kvnode, Elixir slave", Kind::Kvnode, Kind::Replicated, 1),
    row(ELIXIR_PAIR, Kind::Replicated, Kind::Replicated, 1),
];

/// All of it.
pub fn replication(lab: &Lab, plan: &Plan, findings: &mut Findings) -> Result<()> {
    let operator = Operator::start(lab)?;
    writes(lab, plan, findings, &operator);
    lags(lab, plan, findings, &operator);
    catch_ups(lab, plan, findings, &operator);
    Ok(())
}

/// Calls in flight of the writes.
const WINDOWS: [usize; 2] = [1, 64];

/// Writes a second on the primary, and what of that arrives.
fn writes(lab: &Lab, plan: &Plan, findings: &mut Findings, operator: &Operator) {
    let metrics = [
        ("writes/s", Better::Higher),
        ("replicated/s", Better::Higher),
        ("p50 µs", Better::Lower),
        ("p99 µs", Better::Lower),
        ("primary CPU µs/write", Better::Lower),
        ("slaves' CPU µs/write", Better::Lower),
    ];
    let mut tables = WINDOWS.map(|window| {
        let title =
            format!("native puts, {window} in flight, on a primary with its slaves; kvnode has one slave");
        let table = Table::new(title, &metrics);
        // One call at a time measures the way of a call, and not what a slave can take.
        if window == 1 { table } else { table.expect("replicated/s", ELIXIR_PAIR, 3.0) }
    });
    let rows: Vec<&Row> = ROWS.iter().filter(|row| !plan.quick || row.slaves < 2).collect();
    rounds(&rows, plan, plan.pick(plan.rounds, 1), &mut tables, findings, |row| {
        let cluster = Cluster::start(lab, operator, row)?;
        let mut caller = Caller::connect(&cluster.primary.endpoint, "writer")?;
        caller.fill(KEYS)?;
        cluster.drained(&mut caller, 0)?;
        let [one, many] = WINDOWS;
        Ok([cluster.writes(&mut caller, one, plan.time)?, cluster.writes(&mut caller, many, plan.time)?])
    });
    for mut table in tables {
        if let Some(kept) = table.between(PAIR, ALONE, 0) {
            let verdict = verdict(kept.median >= 0.8);
            table.note(format!(
                "with one slave kvnode keeps {:.2} [{:.2}..{:.2}] of its writes/s, expected 0.80: {verdict}",
                kept.median, kept.min, kept.max
            ));
        }
        findings.table(table);
    }
}

/// From the answer to a put until a slave has it.
fn lags(lab: &Lab, plan: &Plan, findings: &mut Findings, operator: &Operator) {
    let metrics = [
        ("p50 µs", Better::Lower),
        ("p99 µs", Better::Lower),
        ("p50 µs under load", Better::Lower),
        ("p99 µs under load", Better::Lower),
        ("writes/s under load", Better::Higher),
    ];
    let per_second = 5_000;
    let title = format!(
        "lag: from the answer to a put until the slave, asked every 50 µs, has it; alone and beside {per_second} puts/s"
    );
    let mut tables = [Table::new(title, &metrics)];
    let rows: Vec<&Row> = PAIRS.iter().collect();
    rounds(&rows, plan, plan.pick(plan.rounds, 1), &mut tables, findings, |row| {
        let cluster = Cluster::start(lab, operator, row)?;
        let mut probe = Probe::connect(&cluster)?;
        let mut idle = probe.lags(plan.time)?;
        let mut loaded = Vec::new();
        let load = paced(&cluster.primary, per_second, || {
            loaded = probe.lags(plan.time)?;
            Ok(())
        })?;
        let micros = |lags: &mut Vec<u32>, part| stats::quantile(lags, part) / 1e3;
        Ok([[
            micros(&mut idle, 0.5),
            micros(&mut idle, 0.99),
            micros(&mut loaded, 0.5),
            micros(&mut loaded, 0.99),
            load.rate(),
        ]])
    });
    tables.into_iter().for_each(|table| findings.table(table));
}

/// A slave that is added to a primary that is full.
fn catch_ups(lab: &Lab, plan: &Plan, findings: &mut Findings, operator: &Operator) {
    let entries: u64 = plan.pick(1_000_000, 50_000);
    let metrics = [
        ("entries/s", Better::Higher),
        ("seconds", Better::Lower),
        ("get p99 µs before", Better::Lower),
        ("get p99 µs meanwhile", Better::Lower),
        ("primary CPU µs/entry", Better::Lower),
        ("slave CPU µs/entry", Better::Lower),
    ];
    let title = format!("a slave is brought up to date: {entries} entries, beside a lone caller of gets");
    let mut tables = [Table::new(title, &metrics)];
    // The Elixir system's primary does not do that.
    let rows: Vec<&Row> = PAIRS.iter().filter(|row| row.primary == Kind::Kvnode).collect();
    rounds(&rows, plan, plan.pick(plan.rounds.min(3), 1), &mut tables, findings, |row| {
        let mut cluster = Cluster::start(lab, operator, &Row { slaves: 0, ..*row })?;
        let mut caller = Caller::connect(&cluster.primary.endpoint, "filler")?;
        caller.fill(entries)?;
        let mut reader = Caller::connect(&cluster.primary.endpoint, "reader")?;
        let mut get = |until| reader.load(Request::Get, 1, Keys::Random(entries), until, true);
        let mut before = get(Until::After(plan.time))?;
        cluster.slaves.push(lab.start(row.slave)?);
        let slave = &cluster.slaves[0];
        let cpu = (CpuTime::of(cluster.primary.id())?, CpuTime::of(slave.id())?);
        let done = AtomicBool::new(false);
        let (took, mut meanwhile) = thread::scope(|scope| {
            let reading = scope.spawn(|| {
                let mut all = Outcome::default();
                while !done.load(Ordering::Relaxed) {
                    let some = get(Until::Calls(200))?;
                    all.calls += some.calls;
                    all.latencies.extend(some.latencies);
                }
                Ok::<Outcome, crate::Failure>(all)
            });
            let started = Instant::now();
            let added = operator.add_slave(&cluster.primary, slave).and_then(|()| operator.in_step(&cluster));
            let took = started.elapsed();
            done.store(true, Ordering::Relaxed);
            let all = reading.join().unwrap_or_else(|_| Err(failure("a thread of the load failed")))?;
            added.map(|()| (took, all))
        })?;
        let (primary, other) = (cpu.0.nanos_since(cluster.primary.id())?, cpu.1.nanos_since(slave.id())?);
        let mut copy = Caller::connect(&slave.endpoint, "looker")?;
        for number in (0..entries).step_by(entries as usize / 997).chain([entries - 1]) {
            if !copy.has(number)? {
                return Err(failure(format!("the slave is up to date and has no key {number}")));
            }
        }
        let per_entry = |nanos: f64| nanos / 1e3 / entries as f64;
        Ok([[
            entries as f64 / took.as_secs_f64(),
            took.as_secs_f64(),
            before.quantile_micros(0.99),
            meanwhile.quantile_micros(0.99),
            per_entry(primary),
            per_entry(other),
        ]])
    });
    let [mut table] = tables;
    for row in rows {
        if let (Some(before), Some(meanwhile)) = (table.median(row.name, 2), table.median(row.name, 3)) {
            let verdict = verdict(meanwhile <= 2.0 * before);
            let times = meanwhile / before;
            table.note(format!(
                "{}: p99 {times:.2} times what it was, expected 2 at most: {verdict}",
                row.name
            ));
        }
    }
    findings.table(table);
}

/// Measures each row in each round, into all tables at once; each has processes of its own, which end with it.
fn rounds<const TABLES: usize, const N: usize>(
    rows: &[&Row],
    plan: &Plan,
    count: usize,
    tables: &mut [Table; TABLES],
    findings: &mut Findings,
    mut measure: impl FnMut(&Row) -> Result<[[f64; N]; TABLES]>,
) {
    let wanted = |kind: Kind| plan.servers(&[kind]).contains(&kind);
    let mut rows: Vec<&Row> = rows
        .iter()
        .copied()
        .filter(|row| wanted(row.primary) && (row.slaves == 0 || wanted(row.slave)))
        .collect();
    for _ in 0..count {
        rows.retain(|row| match measure(row) {
            Ok(values) => {
                for (table, values) in tables.iter_mut().zip(values) {
                    table.add(row.name, &values);
                }
                true
            }
            Err(error) if is_not_installed(&error) => {
                findings.note(format!("{} is left out: {error}", row.name));
                false
            }
            Err(error) => {
                for table in tables.iter_mut() {
                    table.fail(row.name, &error);
                }
                false
            }
        });
    }
}

/// A primary with slaves that are in step.
struct Cluster {
    primary: Server,
    slaves: Vec<Server>,
}

impl Cluster {
    fn start(lab: &Lab, operator: &Operator, row: &Row) -> Result<Self> {
        let primary = lab.start(row.primary)?;
        let mut slaves = Vec::new();
        for _ in 0..row.slaves {
            let slave = lab.start(row.slave)?;
            operator.add_slave(&primary, &slave)?;
            slaves.push(slave);
        }
        let cluster = Self { primary, slaves };
        if row.primary == Kind::Kvnode {
            operator.in_step(&cluster)?;
        }
        Ok(cluster)
    }

    /// Puts a last key, and waits until each slave has it.
    fn drained(&self, caller: &mut Caller, number: u64) -> Result<()> {
        caller.put(FRESH + number)?;
        for slave in &self.slaves {
            let mut looker = Caller::connect(&slave.endpoint, "looker")?;
            until_it_has(&mut looker, FRESH + number)?;
        }
        Ok(())
    }

    /// A row of figures: puts for that long, and until all slaves have them.
    fn writes(&self, caller: &mut Caller, window: usize, time: Duration) -> Result<[f64; 6]> {
        let primary_before = CpuTime::of(self.primary.id())?;
        let slaves_before = self.slaves_cpu()?;
        let started = Instant::now();
        let mut found = caller.load(Request::Put, window, Keys::Random(KEYS), Until::After(time), true)?;
        let primary_nanos = primary_before.nanos_since(self.primary.id())?;
        self.drained(caller, window as u64)?;
        let arrived = started.elapsed();
        let mut slave_nanos = 0.0;
        for (slave, before) in self.slaves.iter().zip(&slaves_before) {
            slave_nanos += before.nanos_since(slave.id())?;
        }
        let writes = found.calls as f64;
        let (p50, p99) = (found.quantile_micros(0.5), found.quantile_micros(0.99));
        let replicated = writes / arrived.as_secs_f64();
        let [primary_cpu, slaves_cpu] = [primary_nanos, slave_nanos].map(|nanos| nanos / 1e3 / writes);
        let none = self.slaves.is_empty();
        let of_slaves = |figure| if none { f64::NAN } else { figure };
        Ok([found.rate(), of_slaves(replicated), p50, p99, primary_cpu, of_slaves(slaves_cpu)])
    }

    fn slaves_cpu(&self) -> Result<Vec<CpuTime>> {
        self.slaves.iter().map(|slave| CpuTime::of(slave.id())).collect()
    }
}

fn until_it_has(caller: &mut Caller, number: u64) -> Result<()> {
    let until = Instant::now() + DRAIN_MAX;
    while !caller.has(number)? {
        if Instant::now() > until {
            return Err(failure("a slave has not been sent what its primary has acknowledged"));
        }
        // Asked all the time, a slave is busy answering: with few processors that keeps it from what is measured.
        thread::sleep(LOOK_AGAIN);
    }
    Ok(())
}

/// A caller of the primary, and one of its slave.
struct Probe {
    primary: Caller,
    slave: Caller,
    next: u64,
}

impl Probe {
    fn connect(cluster: &Cluster) -> Result<Self> {
        let slave = cluster.slaves.first().ok_or_else(|| failure("no slave"))?;
        Ok(Self {
            primary: Caller::connect(&cluster.primary.endpoint, "probe")?,
            slave: Caller::connect(&slave.endpoint, "probe")?,
            next: 2 * FRESH,
        })
    }

    /// Lags of one put after another, in nanoseconds.
    fn lags(&mut self, time: Duration) -> Result<Vec<u32>> {
        let started = Instant::now();
        let mut lags = Vec::new();
        while started.elapsed() < time {
            self.next += 1;
            self.primary.put(self.next)?;
            let answered = Instant::now();
            until_it_has(&mut self.slave, self.next)?;
            lags.push(u32::try_from(answered.elapsed().as_nanos()).unwrap_or(u32::MAX));
        }
        Ok(lags)
    }
}

/// Does `meanwhile` beside so many puts a second.
fn paced(server: &Server, per_second: u64, meanwhile: impl FnOnce() -> Result<()>) -> Result<Outcome> {
    let mut caller = Caller::connect(&server.endpoint, "pacer")?;
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        let load = scope.spawn(|| {
            let started = Instant::now();
            let (batch, mut all) = (5, Outcome::default());
            let pause =
                Duration::from_secs(1) * u32::try_from(batch).unwrap_or(1) / u32::try_from(per_second)?;
            let mut due = started;
            while !done.load(Ordering::Relaxed) {
                let puts = caller.load(
                    Request::Put,
                    usize::try_from(batch)?,
                    Keys::Random(KEYS),
                    Until::Calls(batch),
                    false,
                )?;
                all.calls += puts.calls;
                due += pause;
                thread::sleep(due.saturating_duration_since(Instant::now()));
            }
            all.elapsed = started.elapsed();
            Ok::<Outcome, crate::Failure>(all)
        });
        let done_meanwhile = meanwhile();
        done.store(true, Ordering::Relaxed);
        let load = load.join().unwrap_or_else(|_| Err(failure("a thread of the load failed")))?;
        done_meanwhile.map(|()| load)
    })
}

/// A node of this process, which tells primaries of their slaves.
pub struct Operator(Arc<Node>);

impl Operator {
    pub fn start(lab: &Lab) -> Result<Self> {
        let epmd = EpmdConfig::default().with_port(lab.epmd_port).with_start(false);
        let name = format!("operator{}@{HOST}", lab.next_number());
        Ok(Self(Node::builder(&name).cookie(COOKIE).epmd(epmd).outgoing_only().start()?))
    }

    /// `:status`
    pub fn status(&self, store: &ServerRef) -> Result<OwnedTerm> {
        Ok(block_on(self.0.client().call(store, |w| _ = w.atom("status"), CALL_MAX))?)
    }

    /// `{:add_slave, {:kv, node}}`
    pub fn add_slave(&self, primary: &Server, slave: &Server) -> Result<()> {
        let slave = full_name(slave);
        let answer = block_on(self.0.client().call(
            &store_of(primary),
            |w| _ = w.tuple(2).atom("add_slave").tuple(2).atom(STORE).atom(&slave),
            CALL_MAX,
        ))?;
        if answer.view().is_atom("ok") { Ok(()) } else { Err(wrong(answer.view())) }
    }

    /// Reads all entries of a store, page by page, and looks at nothing but how many came and where the next page begins.
    pub fn scan(&self, store: &ServerRef, limit: u64) -> Result<u64> {
        let (mut found, mut cursor) = (0, None::<Vec<u8>>);
        loop {
            let request = |w: &mut TermWriter<'_>| {
                w.tuple(2).atom("scan").list(2 + usize::from(cursor.is_some()));
                w.tuple(2).atom("limit").unsigned(limit).tuple(2).atom("bytes").unsigned(4 << 20);
                if let Some(cursor) = &cursor {
                    w.tuple(2).atom("cursor").raw(cursor);
                }
                w.nil();
            };
            let answer = block_on(self.0.client().call(store, request, CALL_MAX))?;
            let [entries, next] = answer.view().as_tuple().ok_or_else(|| wrong(answer.view()))?;
            found += entries.cursor().list().map_or(0, |count| count as u64);
            if next.is_atom("done") {
                return Ok(found);
            }
            cursor = Some(next.bytes().to_vec());
        }
    }

    /// Waits until a kvnode says that all its slaves have everything.
    fn in_step(&self, cluster: &Cluster) -> Result<()> {
        let until = Instant::now() + DRAIN_MAX;
        loop {
            let status = self.status(&store_of(&cluster.primary))?;
            if slaves_in_step(status.view()).ok_or_else(|| wrong(status.view()))? == cluster.slaves.len() {
                return Ok(());
            }
            if Instant::now() > until {
                let shown = format!("{:?}", status.view());
                return Err(failure(format!("slaves are not brought up to date: {shown}")));
            }
            thread::sleep(Duration::from_millis(2));
        }
    }
}

/// How many slaves in `%{slaves: [%{state: state}]}` have everything.
fn slaves_in_step(status: TermView<'_>) -> Option<usize> {
    let mut slaves = member(status, "slaves")?.cursor();
    let mut count = 0;
    for _ in 0..slaves.list().ok()? {
        if let Some([state, lag]) = member(slaves.term().ok()?, "state")?.as_tuple::<2>() {
            count += usize::from(state.is_atom("in_step") && lag.as_unsigned() == Some(0));
        }
    }
    Some(count)
}

/// What a map has under an atom.
pub fn member<'a>(map: TermView<'a>, name: &str) -> Option<TermView<'a>> {
    let mut cursor = map.cursor();
    for _ in 0..cursor.map().ok()? {
        let (key, value) = (cursor.term().ok()?, cursor.term().ok()?);
        if key.is_atom(name) {
            return Some(value);
        }
    }
    None
}

fn full_name(server: &Server) -> String {
    format!("{}@{HOST}", server.node())
}

/// Its store.
pub fn store_of(server: &Server) -> ServerRef {
    ServerRef::remote(STORE, &full_name(server))
}

fn wrong(answer: impl fmt::Debug) -> crate::Failure {
    failure(format!("a wrong answer: {answer:?}"))
}
