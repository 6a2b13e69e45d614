//! Large values over links of several rates: whether the connection is kept, and how long small calls on it take meanwhile.
//! Two Elixir GenServers run in kvnode's place, in the same run. The first answers by itself and waits while the link is
//! slow. The second answers each get by a process of its own, which shows what the BEAM's distribution can do.
//!
//! Server and BEAM are on two hosts with a wire between them ([`crate::wire`]), which takes root; without it only what is
//! on loopback is measured, and that is said.

use std::time::Duration;

use crate::beam::{Client, Figures};
use crate::compiled::is_not_installed;
use crate::report::{Better, Metric, OURS, Table};
use crate::servers::{Kind, Lab, Place};
use crate::wire::Wire;
use crate::{Findings, Plan, Result, failure};

const MIB: u64 = 1 << 20;
/// Processes that make small calls all the time.
const SMALLS: u64 = 4;
/// What is measured.
const EXPRESSION: &str = "BenchLinks.main()";

/// A link, and what goes over it.
#[derive(Clone, Copy)]
struct Case {
    /// `None`: loopback.
    megabits: Option<u32>,
    /// What silence is taken for the end.
    ticktime_secs: u32,
    /// Of the one large value that is put or got.
    large_bytes: u64,
    /// Of each of the two values that a slave is brought.
    copied_bytes: u64,
}

impl Case {
    /// In a quick run values are as large as pass in some seconds, and ticks are as much faster: a half-received packet of
    /// 60 MiB is to 60 s what one of 7 s is to 4 s.
    fn new(plan: &Plan, megabits: Option<u32>, ticktime_secs: u32) -> Self {
        let in_secs = |secs: u64| megabits.map_or(u64::MAX, |rate| u64::from(rate) * 125_000 * secs);
        Self {
            megabits,
            ticktime_secs: plan.pick(ticktime_secs, 4),
            large_bytes: (60 * MIB).min(plan.pick(u64::MAX, in_secs(7))),
            copied_bytes: 50_000_000.min(plan.pick(u64::MAX, in_secs(4))),
        }
    }

    fn link(self) -> String {
        self.megabits.map_or_else(|| "loopback".into(), |rate| format!("{rate} Mbit/s"))
    }

    /// What so many bytes may take before they are taken for lost, in milliseconds.
    fn patience(self, bytes: u64) -> u64 {
        30_000 + self.megabits.map_or(0, |rate| bytes * 8 / u64::from(rate) / 1000 * 3)
    }

    fn place(self, wire: Option<&Wire>, host: usize) -> Place {
        let ticks = self.ticktime_secs.to_string();
        Place {
            seat: wire.filter(|_| self.megabits.is_some()).map(|wire| wire.seats()[host].clone()),
            kvnode: vec!["--net-ticktime".into(), ticks.clone()],
            erl: format!("-kernel net_ticktime {ticks}"),
            ..Place::default()
        }
    }

    fn limit(self, wire: Option<&Wire>) -> Result<()> {
        wire.map_or(Ok(()), |wire| wire.limit(self.megabits))
    }

    /// Starts a server and a BEAM that calls it, on the two hosts, with a wire that is fast yet.
    fn pair<'a>(
        self,
        lab: &'a Lab,
        wire: Option<&Wire>,
        kind: Kind,
    ) -> Result<(crate::servers::Server, Client<'a>)> {
        if let Some(wire) = wire {
            wire.limit(None)?;
        }
        let server = lab.start_at(kind, &self.place(wire, 0))?;
        let mut client = Client::start_at(lab, EXPRESSION, &self.place(wire, 1))?;
        client.command("fill", &[&server.full_name(), &self.large_bytes])?;
        Ok((server, client))
    }
}

/// What is found of large values beside small calls.
pub const BESIDE: [Metric; 6] = [
    ("seconds", Better::Lower),
    ("connection kept", Better::Higher),
    ("large lost", Better::Lower),
    ("small p50 ms", Better::Lower),
    ("small worst ms", Better::Lower),
    ("small lost", Better::Lower),
];

/// Those of a load, in the order of [`BESIDE`].
pub fn beside(figures: &Figures) -> [f64; 6] {
    let of = |name| figures.of(name);
    [of("took") / 1e3, of("kept"), of("lost"), of("p50"), of("worst"), of("small_lost")]
}

/// All of it.
pub fn links(lab: &Lab, plan: &Plan, findings: &mut Findings) -> Result<()> {
    let wire = match Wire::lay(lab) {
        Ok(wire) => Some(wire),
        Err(error) if is_not_installed(&error) => {
            findings.note(format!("only loopback: {error}"));
            None
        }
        Err(error) => return Err(error),
    };
    let mut cases = vec![Case::new(plan, None, 60)];
    if wire.is_some() {
        let rates = [(1000, 60), (80, 60), (40, 60), (40, 4), (5, 60)];
        let quick = |(rate, secs): &(u32, u32)| !plan.quick || *secs != 4 || *rate != 40;
        cases.extend(
            rates.iter().filter(|of| quick(of)).map(|(rate, secs)| Case::new(plan, Some(*rate), *secs)),
        );
    }
    let mut ratios = Vec::new();
    for case in cases {
        let shown = format!("{}, net_ticktime {} s", case.link(), case.ticktime_secs);
        let mib = case.large_bytes as f64 / MIB as f64;
        for (load, what) in [("gets", "a get"), ("puts", "a put")] {
            let title = format!("{what} of {mib:.1} MiB beside small gets of {SMALLS} processes: {shown}");
            let mut table = Table::new(title, &BESIDE);
            each(
                plan,
                case,
                &[Kind::Kvnode, Kind::KvnodeBefore, Kind::Spawning, Kind::Genserver],
                &mut table,
                findings,
                |kind| beside_large(lab, wire.as_ref(), case, kind, load),
            );
            for other in [Kind::Spawning, Kind::Genserver].map(Kind::name) {
                ratios.push((format!("{other}: {what} of {mib:.1} MiB, {shown}"), ratio(&table, other)));
            }
            findings.table(table);
        }
        let size = case.copied_bytes as f64 / 1e6;
        let title = format!(
            "a slave is brought two values of {size:.1} MB beside small calls to its primary: {shown}"
        );
        let mut table = Table::new(title, &COPIED);
        for row in COPIES {
            if !plan.servers(&[row.primary]).is_empty() {
                copied(lab, wire.as_ref(), case, row, &mut table, findings);
            }
        }
        ratios.push((
            format!("{ELIXIR}: two values of {size:.1} MB to a slave, {shown}"),
            ratio(&table, ELIXIR),
        ));
        findings.table(table);
    }
    summary(&ratios, findings);
    Ok(())
}

/// Measures each kind in each round; what fails is in the table.
fn each(
    plan: &Plan,
    case: Case,
    kinds: &[Kind],
    table: &mut Table,
    findings: &mut Findings,
    mut measure: impl FnMut(Kind) -> Result<[f64; 6]>,
) {
    let slow = case.megabits.is_some_and(|rate| rate < 1000);
    crate::rounds::measure_each(
        &plan.servers(kinds),
        if slow { 1 } else { plan.rounds.min(3) },
        table,
        findings,
        &mut measure,
    );
}

fn beside_large(lab: &Lab, wire: Option<&Wire>, case: Case, kind: Kind, load: &str) -> Result<[f64; 6]> {
    let (server, mut client) = case.pair(lab, wire, kind)?;
    case.limit(wire)?;
    let patience = case.patience(case.large_bytes);
    let figures = client.command(load, &[&server.full_name(), &1, &case.large_bytes, &patience, &SMALLS])?;
    Ok(beside(&figures))
}

/// A primary and a slave on two hosts. Small calls come from the BEAM that the slave is in, or through the kvnode that it
/// is in: by the connection that the values go by.
#[derive(Clone, Copy)]
struct Copy {
    name: &'static str,
    primary: Kind,
    slave: Kind,
    /// Whether the values are there before the slave is added: an Elixir primary does not bring those.
    how: &'static str,
}

const ELIXIR: &str = "Elixir";
const COPIES: [Copy; 4] = [
    Copy { name: "kvnode to kvnode", primary: Kind::Kvnode, slave: Kind::Kvnode, how: "before" },
    Copy { name: "kvnode to Elixir", primary: Kind::Kvnode, slave: Kind::Replicated, how: "before" },
    Copy { name: OURS, primary: Kind::Kvnode, slave: Kind::Replicated, how: "after" },
    Copy { name: ELIXIR, primary: Kind::Replicated, slave: Kind::Replicated, how: "after" },
];
const COPIED: [Metric; 4] = [
    ("seconds", Better::Lower),
    ("small p50 ms", Better::Lower),
    ("small worst ms", Better::Lower),
    ("small lost", Better::Lower),
];

fn copied(lab: &Lab, wire: Option<&Wire>, case: Case, row: Copy, table: &mut Table, findings: &mut Findings) {
    match copy(lab, wire, case, row) {
        Ok((values, error)) => {
            table.add(row.name, &values);
            if let Some(error) = error {
                table.note(format!("{}: {error}", row.name));
            }
        }
        Err(error) if is_not_installed(&error) => findings.note(format!("{} is left out: {error}", row.name)),
        Err(error) => table.fail(row.name, error),
    }
}

fn copy(lab: &Lab, wire: Option<&Wire>, case: Case, row: Copy) -> Result<([f64; 4], Option<crate::Failure>)> {
    if let Some(wire) = wire {
        wire.limit(None)?;
    }
    let [here, there] = [case.place(wire, 0), case.place(wire, 1)];
    let primary = lab.start_at(row.primary, &here)?;
    let mut operator = Client::start_at(lab, EXPRESSION, &here)?;
    operator.command("fill", &[&primary.full_name(), &1])?;
    let mut beside = Client::start_at(lab, EXPRESSION, &there)?;
    let mut kvnode = None;
    let (slave, relay) = if row.slave == Kind::Kvnode {
        let slave = kvnode.insert(lab.start_at(Kind::Kvnode, &there)?).full_name().to_owned();
        (slave.clone(), slave)
    } else {
        beside.command("store", &[])?;
        (beside.full_name().to_owned(), "none".to_owned())
    };
    case.limit(wire)?;
    beside.command("beside", &[&primary.full_name(), &relay, &SMALLS])?;
    let kind = if row.primary == Kind::Kvnode { "kvnode" } else { "elixir" };
    let patience = case.patience(2 * case.copied_bytes);
    let copied = operator
        .command("copy", &[&row.how, &kind, &primary.full_name(), &slave, &2, &case.copied_bytes, &patience]);
    let smalls = beside.command("besides", &[])?;
    let of = |name| smalls.of(name);
    let (took, error) = match copied {
        Ok(figures) => (figures.of("took") / 1e3, None),
        Err(error) => (f64::NAN, Some(failure(first_words(&error.to_string())))),
    };
    Ok(([took, of("p50"), of("worst"), of("small_lost")], error))
}

/// What a failure of a BEAM begins with.
pub fn first_words(text: &str) -> String {
    text.chars().take(160).collect()
}

/// How many times better than the other one is, of time, median and worst of small calls.
fn ratio(table: &Table, other: &str) -> [f64; 3] {
    let at = |name| table.column(name).and_then(|column| table.between(OURS, other, column));
    ["seconds", "small p50 ms", "small worst ms"].map(|name| at(name).map_or(f64::NAN, |found| found.median))
}

/// One table of all ratios.
fn summary(ratios: &[(String, [f64; 3])], findings: &mut Findings) {
    findings.note("how many times better kvnode is: the large one's time, small p50, small worst");
    for (load, of) in ratios {
        let [time, p50, worst] =
            of.map(|ratio| if ratio.is_finite() { format!("{ratio:.2}") } else { "-".into() });
        findings.note(format!("{time:>6} {p50:>6} {worst:>6}  {load}"));
    }
}

/// How long one command of a BEAM of this load may take.
pub const COMMAND_MAX: Duration = Duration::from_secs(700);
