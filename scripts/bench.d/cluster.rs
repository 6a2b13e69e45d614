//! Stores in etcd, beside stores in memory and beside etcd without kvnode. Callers of stores are processes of a BEAM; etcd is asked
//! by the client of `src/etcd`, a request for each put and get, by as many tasks as there are callers. All members of etcd are on
//! this machine, with their data in the lab's folder, and sync each write.

use std::path::Path;
use std::time::{Duration, Instant};

use crate::beam::{BEFORE, Figures, NOT_WORSE};
use crate::children::{CpuTime, Running, peak_resident_bytes, resident_bytes};
use crate::compiled::is_not_installed;
use crate::etcd::{self, Found, GET_KEYS, Members};
use crate::link::HOST;
use crate::native::{Caller, VALUE_BYTES};
use crate::replication::{Operator, member, store_of};
use crate::report::{Better, Metric, OURS, Table, verdict};
use crate::rounds::{left_out, measure_rows};
use crate::servers::{Kind, Lab, Place, Server};
use crate::{Findings, Plan, Result, failure};

/// Rows beside kvnode's.
const MEMORY: &str = "kvnode, in memory";
const RAW: &str = "etcd, a raw put";
const PLAIN_PUTS: &str = "etcd, a put each";
const PLAIN_GETS: &str = "etcd, a get each";
const WRITER: &str = "kvnode, which wrote them";
const MEMBER: &str = "etcd, with its mapped file";

/// Gets a second of a store in etcd, of those of one in memory, at least.
const GETS_MIN: f64 = 0.9;
/// Puts a second of 128 callers, of as many unbatched ones, at least.
const PUTS_MIN: f64 = 5.0;
/// The time of a put of one caller, of that of a raw one, at most.
const PUT_TIME_MAX: f64 = 1.3;
/// How long one load may take, whatever it was asked to take.
const LOAD_MAX: Duration = Duration::from_secs(180);
/// Entries that are there before memory is looked at, so that buffers have the size that they have under load.
const BEFORE_ENTRIES: u64 = 1_000;
/// What a folder in memory is: statfs(2), TMPFS_MAGIC.
const TMPFS: u64 = 0x0102_1994;

/// All of it.
pub fn measure(lab: &Lab, plan: &Plan, findings: &mut Findings) -> Result<()> {
    let beams = Beams::start(lab, findings)?;
    for count in [1, 3] {
        let members = match Members::start(lab, count) {
            Ok(members) => members,
            Err(error) if is_not_installed(&error) => {
                findings.note(format!("nothing of stores in etcd: {error}"));
                return Ok(());
            }
            Err(error) => return Err(error),
        };
        if count == 1 {
            findings.note(format!("etcd {}, which syncs each write", etcd::version()?));
            note_folder(lab.folder.path(), findings);
        }
        if let Some(beams) = &beams {
            on_members(lab, plan, beams, &members, findings)?;
        }
    }
    load(lab, plan, findings)?;
    findings.note("how long callers wait when a part dies: scripts/failover");
    Ok(())
}

/// Says so where a sync costs nothing.
fn note_folder(folder: &Path, findings: &mut Findings) {
    if let Ok(found) = rustix::fs::statfs(folder)
        && u64::try_from(found.f_type).is_ok_and(|kind| kind == TMPFS)
    {
        findings.note(format!(
            "{} is in memory, where a sync costs nothing: TMPDIR names a folder on a disk",
            folder.display()
        ));
    }
}

/// How so many members are called in titles.
fn shown(members: &Members) -> String {
    if members.count() == 1 { "one member".to_owned() } else { format!("{} members", members.count()) }
}

/// What is measured in a row: a store, or etcd without one.
enum Subject {
    Store(Server),
    Plain,
}

type Rows = Vec<(&'static str, Subject)>;

/// Gets and puts of callers, with so many members.
fn on_members(
    lab: &Lab,
    plan: &Plan,
    beams: &Beams<'_>,
    members: &Members,
    findings: &mut Findings,
) -> Result<()> {
    let mut stores: Rows = Vec::new();
    for kind in plan.servers(&[Kind::KvnodeEtcd, Kind::KvnodeBefore]) {
        let place = new_store(lab, members)?;
        let started = lab.start_at(kind, &place).and_then(|server| {
            beams.ready(&server)?;
            Ok(server)
        });
        match started {
            Ok(server) => stores.push((kind.name(), Subject::Store(server))),
            Err(error) => left_out(kind, &error, findings),
        }
    }
    members.prepare()?;
    if members.count() == 1 && !plan.servers(&[Kind::Kvnode]).is_empty() {
        let server = lab.start(Kind::Kvnode)?;
        beams.ready(&server)?;
        stores.push((MEMORY, Subject::Store(server)));
        gets(plan, beams, &stores, findings);
        stores.pop();
    }
    puts(plan, beams, members, &mut stores, findings);
    linearizable_gets(plan, beams, members, stores, findings)
}

/// Where a store of its own in this etcd is served.
fn new_store(lab: &Lab, members: &Members) -> Result<Place> {
    members.place(&format!("bench{}", lab.next_number()))
}

/// What [`called`] finds, beside the rate.
const TIMES: [Metric; 2] = [("p50 µs", Better::Lower), ("p99 µs", Better::Lower)];

fn gets(plan: &Plan, beams: &Beams<'_>, stores: &Rows, findings: &mut Findings) {
    let millis = plan.time.as_millis() as u64;
    let metrics = [("gets/s", Better::Higher), TIMES[0], TIMES[1], ("kvnode CPU µs/get", Better::Lower)];
    for callers in [1, 16] {
        let title = format!("{}: get of {GET_KEYS} keys in etcd, and in memory", of_callers(callers));
        let mut table = Table::new(title, &metrics)
            .expect("gets/s", MEMORY, GETS_MIN)
            .expect("gets/s", BEFORE, NOT_WORSE);
        measure_rows(stores, plan.rounds, &mut table, |subject| {
            let Subject::Store(server) = subject else { return Err(failure("no store")) };
            let before = CpuTime::of(server.id())?;
            let found = beams.run("gets", server, &[millis, callers, GET_KEYS])?;
            let cpu = before.nanos_since(server.id())? / 1e3 / found.of("calls");
            Ok([rate(&found), found.of("p50") / 1e3, found.of("p99") / 1e3, cpu])
        });
        findings.table(table);
    }
}

fn puts(plan: &Plan, beams: &Beams<'_>, members: &Members, rows: &mut Rows, findings: &mut Findings) {
    let millis = plan.time.as_millis() as u64;
    let metrics = both(["puts/s", "kvnode CPU µs/put", "etcd CPU µs/put"]);
    for callers in [1, 16, 128, 1000] {
        let plain = if callers == 1 { RAW } else { PLAIN_PUTS };
        rows.push((plain, Subject::Plain));
        let title =
            format!("{}: put of {VALUE_BYTES} bytes in etcd, {}", of_callers(callers), shown(members));
        let mut table = Table::new(title, &metrics).expect("puts/s", BEFORE, NOT_WORSE);
        if callers == 128 {
            table = table.expect("puts/s", PLAIN_PUTS, PUTS_MIN);
        }
        measure_rows(rows, plan.rounds, &mut table, |subject| {
            called(
                members,
                subject,
                |server| beams.run("puts", server, &[millis, callers]),
                || members.puts(callers as usize, plan.time),
            )
        });
        if let Some(times) = table.between(OURS, RAW, 1) {
            let times = 1.0 / times.median;
            let verdict = verdict(times <= PUT_TIME_MAX);
            table.note(format!(
                "kvnode: {times:.2} times the p50 of a raw put, expected {PUT_TIME_MAX} at most: {verdict}"
            ));
        }
        findings.table(table);
        rows.pop();
    }
}

fn linearizable_gets(
    plan: &Plan,
    beams: &Beams<'_>,
    members: &Members,
    mut rows: Rows,
    findings: &mut Findings,
) -> Result<()> {
    let millis = plan.time.as_millis() as u64;
    let mut taken = Vec::new();
    for (name, subject) in rows.drain(..) {
        let Subject::Store(server) = &subject else { continue };
        if beams.run("takes_linearizable", server, &[])?.of("takes") == 1.0 {
            taken.push((name, subject));
        } else {
            findings.note(format!("{name}: no linearizable gets, whose option it refuses"));
        }
    }
    let mut rows = taken;
    rows.push((PLAIN_GETS, Subject::Plain));
    let metrics = both(["gets/s", "kvnode CPU µs/get", "etcd CPU µs/get"]);
    for callers in [1, 128] {
        let title =
            format!("{}: linearizable get of {GET_KEYS} keys, {}", of_callers(callers), shown(members));
        let mut table = Table::new(title, &metrics).expect("gets/s", BEFORE, NOT_WORSE);
        measure_rows(&rows, plan.rounds, &mut table, |subject| {
            called(
                members,
                subject,
                |server| beams.run("linearizable_gets", server, &[millis, callers, GET_KEYS]),
                || members.gets(callers as usize, plan.time),
            )
        });
        findings.table(table);
    }
    Ok(())
}

/// The metrics of [`called`], with these names for the rate and for what processors take.
fn both([rate, kvnode, etcd]: [&'static str; 3]) -> [Metric; 5] {
    [
        (rate, Better::Higher),
        ("p50 ms", Better::Lower),
        ("p99 ms", Better::Lower),
        (kvnode, Better::Lower),
        (etcd, Better::Lower),
    ]
}

/// Has a store called, or etcd asked, and takes the costs of both around it: those of etcd are of all members together.
fn called(
    members: &Members,
    subject: &Subject,
    store: impl FnOnce(&Server) -> Result<Figures>,
    plain: impl FnOnce() -> Result<Found>,
) -> Result<[f64; 5]> {
    let of_etcd = members.cpu()?;
    match subject {
        Subject::Store(server) => {
            let of_kvnode = CpuTime::of(server.id())?;
            let found = store(server)?;
            let calls = found.of("calls");
            let kvnode = of_kvnode.nanos_since(server.id())? / 1e3 / calls;
            let etcd = members.nanos_since(&of_etcd)? / 1e3 / calls;
            Ok([rate(&found), found.of("p50") / 1e6, found.of("p99") / 1e6, kvnode, etcd])
        }
        Subject::Plain => {
            let mut found = plain()?;
            let etcd = members.nanos_since(&of_etcd)? / 1e3 / found.calls as f64;
            let [p50, p99] = [0.5, 0.99].map(|part| found.quantile_millis(part));
            Ok([found.rate(), p50, p99, f64::NAN, etcd])
        }
    }
}

/// Calls a second.
fn rate(found: &Figures) -> f64 {
    found.of("calls") / found.of("elapsed") * 1e9
}

fn of_callers(count: u64) -> String {
    if count == 1 { "one BEAM caller".to_owned() } else { format!("{count} BEAM callers") }
}

/// The start of a kvnode whose store has many entries, and the memory of an entry.
fn load(lab: &Lab, plan: &Plan, findings: &mut Findings) -> Result<()> {
    if plan.servers(&[Kind::KvnodeEtcd]).is_empty() {
        return Ok(());
    }
    let entries: u64 = plan.pick(1_000_000, 20_000);
    // With nothing of the loads before.
    let members = Members::start(lab, 1)?;
    let memory_metrics = [("bytes/entry", Better::Lower), ("RSS MB", Better::Lower)];
    let title = format!("memory of {entries} entries of a 16-byte key and a {VALUE_BYTES}-byte value");
    let mut memory = Table::new(title, &memory_metrics);
    let place = new_store(lab, &members)?;
    let [writer, member_grown] = {
        let server = lab.start_at(Kind::KvnodeEtcd, &place)?;
        let resident = || Ok([resident_bytes(server.id())?, members.resident_bytes()?]);
        filled(&server, entries, resident)?
    };
    let [in_memory] = {
        let server = lab.start(Kind::Kvnode)?;
        filled(&server, entries, || Ok([resident_bytes(server.id())?]))?
    };
    let empty = {
        let server = lab.start_at(Kind::KvnodeEtcd, &new_store(lab, &members)?)?;
        resident_bytes(server.id())?
    };
    let metrics = [
        ("ready after s", Better::Lower),
        ("entries/s", Better::Higher),
        ("RSS MB", Better::Lower),
        ("RSS MB at most", Better::Lower),
    ];
    let mut table = Table::new(
        format!("start of a kvnode with {entries} entries of {VALUE_BYTES} bytes in etcd"),
        &metrics,
    );
    let operator = Operator::start(lab)?;
    for _ in 0..plan.pick(plan.rounds.min(3), 1) {
        let since = Instant::now();
        let server = lab.start_at(Kind::KvnodeEtcd, &place)?;
        let took = since.elapsed().as_secs_f64();
        let resident = resident_bytes(server.id())?;
        let peak = peak_resident_bytes(server.id())?;
        let there = count(&operator, &server)?;
        // And the key that a caller tries its connection by.
        if there < entries || !Caller::connect(&server.endpoint, "looker")?.has(entries - 1)? {
            return Err(failure(format!("{there} entries of {entries} are there")));
        }
        let [resident_mb, peak_mb] = [resident, peak].map(|bytes| bytes as f64 / 1e6);
        table.add(OURS, &[took, entries as f64 / took, resident_mb, peak_mb]);
        memory.add(OURS, &[(resident as f64 - empty as f64) / entries as f64, resident_mb]);
    }
    memory.add(WRITER, &writer);
    memory.add(MEMORY, &in_memory);
    memory.add(MEMBER, &member_grown);
    findings.table(table);
    findings.table(memory);
    Ok(())
}

/// Puts so many entries. Gives bytes of each that something grew by meanwhile, and its megabytes at the end.
fn filled<const N: usize>(
    server: &Server,
    entries: u64,
    resident: impl Fn() -> Result<[u64; N]>,
) -> Result<[[f64; 2]; N]> {
    let mut caller = Caller::connect(&server.endpoint, "filler")?;
    caller.fill(BEFORE_ENTRIES)?;
    let before = resident()?;
    caller.fill(entries)?;
    let after = resident()?;
    let of = |at: usize| {
        let grown = after[at] as f64 - before[at] as f64;
        [grown / (entries - BEFORE_ENTRIES) as f64, after[at] as f64 / 1e6]
    };
    Ok(std::array::from_fn(of))
}

/// How many entries a store has.
fn count(operator: &Operator, server: &Server) -> Result<u64> {
    let status = operator.status(&store_of(server))?;
    let entries = member(status.view(), "entries").and_then(|entries| entries.as_unsigned());
    entries.ok_or_else(|| failure(format!("a wrong answer: {:?}", status.view())))
}

/// The BEAM that carries the loads out (cluster.ex).
struct Beams<'a> {
    lab: &'a Lab,
    running: std::cell::RefCell<Running>,
}

impl<'a> Beams<'a> {
    /// Starts it. `None`, and a note, where there is no Elixir.
    fn start(lab: &'a Lab, findings: &mut Findings) -> Result<Option<Self>> {
        match Self::started(lab) {
            Ok(running) => Ok(Some(Self { lab, running: running.into() })),
            Err(error) if is_not_installed(&error) => {
                findings.note(format!("no loads of a BEAM: {error}"));
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    fn started(lab: &Lab) -> Result<Running> {
        let mut command = lab.beam("cluster", "BenchCluster.main()")?;
        let running = Running::start("cluster client", &mut command, lab.folder.path())?;
        running.wait_for("ready")?;
        Ok(running)
    }

    /// Puts what is got.
    fn ready(&self, server: &Server) -> Result<()> {
        self.run("ready", server, &[]).map(drop)
    }

    /// Has a load carried out at a store.
    fn run(&self, load: &str, server: &Server, numbers: &[u64]) -> Result<Figures> {
        let numbers: Vec<String> = numbers.iter().map(u64::to_string).collect();
        let line = format!("{load} gen {}@{HOST} {}", server.node(), numbers.join(" "));
        let mut running = self.running.borrow_mut();
        match running.ask(&line, LOAD_MAX) {
            Ok(answer) => Figures::read(load, &answer),
            Err(error) => {
                // A caller that fails ends all of it; and a late answer would be taken for that to the next question.
                *running = Self::started(self.lab)?;
                Err(error)
            }
        }
    }
}
