//! A whole copy into a slave on disk that has keys which its primary has not: how soon the slave answers `:status` and
//! `/metrics` while the copy comes and while its end looks through all that is there, whether the connection between the two
//! stands all the while, and what memory that takes.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use kvnode::etf::OwnedTerm;

use crate::children::peak_resident_bytes;
use crate::native::{Caller, Keys, Request, Until};
use crate::replication::{Operator, member, store_of};
use crate::report::{Better, Table};
use crate::servers::{Kind, Lab, Place, Server, free_port, page};
use crate::{Findings, Plan, Result, failure, stats};

/// Seconds after which a silent node is down: less than the end of a large copy takes.
const NET_TICKTIME_SECS: u64 = 4;
/// How often the slave is asked.
const ASK_EVERY: Duration = Duration::from_millis(20);
/// How late an answer may be, in milliseconds.
const LATE_MS: f64 = 100.0;
/// How long the copy may take.
const COPY_MAX: Duration = Duration::from_secs(2400);
/// Of so many entries that the primary has the slave has one more that it has not.
const ONE_MORE_OF: u64 = 5;
/// The number of the first key that the primary has not.
const REST_FROM: u64 = 1 << 40;
/// Keys of one load.
const CHUNK: u64 = 1_000_000;
/// What is looked at one by one afterwards.
const LOOKED_AT: u64 = 997;

/// When something was asked for, and how long its answer took.
type Asked = (Instant, Duration);

/// The copy of `plan.entries` entries.
pub fn large(lab: &Lab, plan: &Plan, findings: &mut Findings) -> Result<()> {
    let (entries, rest) = (plan.entries, plan.entries / ONE_MORE_OF);
    let http = free_port()?;
    let place = |more: &[String]| {
        let ticktime = ["--net-ticktime".to_owned(), NET_TICKTIME_SECS.to_string()];
        Place { kvnode: ticktime.iter().chain(more).cloned().collect(), ..Place::default() }
    };
    let primary = lab.start_at(Kind::Kvnode, &place(&[]))?;
    let slave = lab.start_at(
        Kind::KvnodeDurable,
        &place(&["--http".into(), http.to_string(), "--sync".into(), "interval:100".into()]),
    )?;
    fill(&primary, 0, entries)?;
    fill(&slave, REST_FROM, rest)?;
    let operator = Operator::start(lab)?;
    let (done, store) = (AtomicBool::new(false), store_of(&slave));
    let (statuses, pages) = (Mutex::default(), Mutex::default());
    let status = || operator.status(&store).map(|_| ());
    let page = || metrics(http);
    let started = Instant::now();
    let (sent, over) = thread::scope(|scope| {
        let asking =
            [scope.spawn(|| asked(&done, &statuses, status)), scope.spawn(|| asked(&done, &pages, page))];
        let copied = operator.add_slave(&primary, &slave).and_then(|()| copied(&operator, &primary, &slave));
        done.store(true, Ordering::Relaxed);
        for asking in asking {
            asking.join().unwrap_or_else(|_| Err(failure("a thread that asks failed")))?;
        }
        copied
    })?;
    let title = format!(
        "a slave on disk with {rest} keys that its primary has not gets a copy of {entries} entries, and is asked every 20 ms"
    );
    let metrics = [("p50 ms", Better::Lower), ("p99 ms", Better::Lower), ("worst ms", Better::Lower)];
    let mut table = Table::new(title, &metrics);
    let mut worst: f64 = 0.0;
    for (name, all) in [(":status", statuses), ("/metrics", pages)] {
        let all: Vec<Asked> = all.into_inner().map_err(|_| failure("a thread that asks failed"))?;
        let at_end = all.iter().filter(|(asked, took)| *asked + *took >= sent).copied().collect();
        for (name, all) in [(name, all), (end_of(name), at_end)] {
            let figures = figures(&all);
            table.add(name, &figures);
            worst = worst.max(figures[2]);
        }
    }
    let (took, end) = ((over - started).as_secs_f64(), (over - sent).as_secs_f64());
    table.note(format!(
        "the copy took {took:.1} s, of which {end:.1} s at its end; ticktime {NET_TICKTIME_SECS} s"
    ));
    let memory = peak_resident_bytes(slave.id())? as f64 / 1e6;
    table.note(format!("the slave had {memory:.0} MB of memory at most"));
    let verdict = if worst <= LATE_MS { "reached" } else { "MISSED" };
    table.note(format!("the latest answer came after {worst:.0} ms, expected {LATE_MS} at most: {verdict}"));
    findings.table(table);
    check(&operator, &primary, &slave, entries, rest)
}

const fn end_of(name: &'static str) -> &'static str {
    match name.as_bytes() {
        b":status" => ":status at the end",
        _ => "/metrics at the end",
    }
}

fn fill(server: &Server, from: u64, entries: u64) -> Result<()> {
    let mut caller = Caller::connect(&server.endpoint, "filler")?;
    let mut filled = 0;
    while filled < entries {
        let some = CHUNK.min(entries - filled);
        caller.load(Request::Put, 1024, Keys::From(from + filled), Until::Calls(some), false)?;
        filled += some;
    }
    Ok(())
}

/// Asks again and again until it is done.
fn asked(done: &AtomicBool, all: &Mutex<Vec<Asked>>, mut ask: impl FnMut() -> Result<()>) -> Result<()> {
    let mut due = Instant::now();
    while !done.load(Ordering::Relaxed) {
        let asked = Instant::now();
        ask()?;
        all.lock().map_err(|_| failure("another thread failed"))?.push((asked, asked.elapsed()));
        due = (due + ASK_EVERY).max(Instant::now());
        thread::sleep(due.saturating_duration_since(Instant::now()));
    }
    Ok(())
}

/// Reads the page of metrics.
fn metrics(port: u16) -> Result<()> {
    let answer = page(port, "/metrics")?;
    if answer.starts_with("HTTP/1.1 200") && answer.contains("kvnode_store_entries") {
        return Ok(());
    }
    Err(failure(format!("no metrics: {answer:.200}")))
}

/// Waits until the slave has all. Gives when everything was sent to it, and when that was in.
fn copied(operator: &Operator, primary: &Server, slave: &Server) -> Result<(Instant, Instant)> {
    let (until, store) = (Instant::now() + COPY_MAX, store_of(primary));
    let (mut sent, mut done_before) = (None, 0);
    loop {
        let status = operator.status(&store)?;
        let now = Instant::now();
        match slave_state(&status)? {
            State::InStep => return Ok((sent.unwrap_or(now), now)),
            State::Copying { done, total } => {
                if done < done_before {
                    return Err(failure("the copy has begun anew"));
                }
                done_before = done;
                if done >= total && total > 0 {
                    sent.get_or_insert(now);
                }
            }
            // All of it is sent, and is not in yet.
            State::Behind => _ = sent.get_or_insert(now),
            State::Other(shown) if now > until => {
                return Err(failure(format!("it is not copied to: {shown}")));
            }
            State::Other(_) => {}
        }
        let lost =
            slave.running.said()?.lines().find(|line| line.contains("primary lost")).map(str::to_owned);
        if let Some(lost) = lost {
            return Err(failure(format!("the connection did not stand: {lost}")));
        }
        thread::sleep(ASK_EVERY);
    }
}

/// How a primary shows its slave.
enum State {
    InStep,
    /// In step, but for what is on its way.
    Behind,
    Copying {
        done: u64,
        total: u64,
    },
    Other(String),
}

fn slave_state(status: &OwnedTerm) -> Result<State> {
    let read = || {
        let mut slaves = member(status.view(), "slaves")?.cursor();
        (slaves.list().ok()? == 1).then_some(())?;
        let state = member(slaves.term().ok()?, "state")?;
        if let Some([kind, lag]) = state.as_tuple::<2>()
            && kind.is_atom("in_step")
        {
            return Some(if lag.as_unsigned() == Some(0) { State::InStep } else { State::Behind });
        }
        if let Some([kind, done, total]) = state.as_tuple::<3>()
            && kind.is_atom("copying")
        {
            return Some(State::Copying { done: done.as_unsigned()?, total: total.as_unsigned()? });
        }
        Some(State::Other(format!("{state:?}")))
    };
    read().ok_or_else(|| failure(format!("a wrong answer: {:?}", status.view())))
}

fn figures(all: &[Asked]) -> [f64; 3] {
    let micros = |(_, took): &Asked| u32::try_from(took.as_micros()).unwrap_or(u32::MAX);
    let mut all: Vec<u32> = all.iter().map(micros).collect();
    [0.5, 0.99, 1.0].map(|part| stats::quantile(&mut all, part) / 1e3)
}

/// That the slave has what the primary has, and nothing else.
fn check(operator: &Operator, primary: &Server, slave: &Server, entries: u64, rest: u64) -> Result<()> {
    let count = |server: &Server| -> Result<Option<u64>> {
        Ok(member(operator.status(&store_of(server))?.view(), "entries")
            .and_then(|entries| entries.as_unsigned()))
    };
    let (here, there) = (count(primary)?, count(slave)?);
    if here != there || here.is_none_or(|here| here < entries) {
        return Err(failure(format!("the primary has {here:?} entries, and the slave {there:?}")));
    }
    let mut looker = Caller::connect(&slave.endpoint, "looker")?;
    let step = |all: u64| usize::try_from((all / LOOKED_AT).max(1)).unwrap_or(1);
    for number in (0..entries).step_by(step(entries)) {
        if !looker.has(number)? {
            return Err(failure(format!("the slave is up to date and has no key {number}")));
        }
    }
    for number in (REST_FROM..REST_FROM + rest).step_by(step(rest)) {
        if looker.has(number)? {
            return Err(failure(format!("the slave is up to date and has the key {number}")));
        }
    }
    Ok(())
}
