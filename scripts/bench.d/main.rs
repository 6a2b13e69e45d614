//! `scripts/bench`: kvnode measured beside other servers.
//!
//! Every load runs against each server in turn, round after round, so that what else the machine does falls on all of
//! them alike: only ratios within one run mean much, and processor time per call more than calls per second. The
//! tables show medians, the smallest and the largest round in brackets, and how many times better kvnode is, taken
//! round by round.

#![expect(clippy::disallowed_methods, reason = "this measures time")]
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "this prints its findings")]

mod api;
#[path = "../../tests/support/around.rs"]
mod around;
mod beam;
mod calls;
mod children;
mod cluster;
mod compiled;
mod copy;
mod crossing;
mod durable;
mod ends;
mod etcd;
mod flags;
mod floor;
mod hostile;
mod instructions;
mod link;
mod links;
mod memory;
mod naive;
mod native;
mod path;
mod prefix;
mod profile;
mod replication;
mod report;
mod rounds;
mod servers;
mod startup;
mod stats;
mod syscalls;
mod tls;
mod watched;
mod wire;

use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::{Parser, ValueEnum};
use kvnode::distribution::DistributionFlags;
use serde_json::{Value, json};

use report::Table;
use servers::{Kind, Lab};

/// Why a measurement was not made; a text for people.
pub type Failure = Box<dyn std::error::Error + Send + Sync>;
/// What may fail here.
pub type Result<T> = std::result::Result<T, Failure>;

/// A failure with this text.
pub fn failure(text: impl AsRef<str>) -> Failure {
    text.as_ref().into()
}

/// What is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Load {
    /// A BEAM calls: one caller's times, 16, 128 and 1,000 callers
    Beam,
    /// A BEAM puts and gets values of 100 bytes to 16 MiB
    Values,
    /// Small calls of a BEAM's process beside values of 64 MiB of another, on one connection
    Mixed,
    /// A BEAM calls floors that offer monitors and floors that do not
    Flags,
    /// A BEAM casts, and what that leaves in memory
    Casts,
    /// A client that only counts replies: 1, 64 and 1,024 calls in flight, 1 and 4 connections
    Native,
    /// The native client over tables of 1,000 to 10,000,000 keys
    Keys,
    /// Puts while a table grows from nothing to 10,000,000 entries: the slowest of a thousand
    Growth,
    /// Resident bytes per entry, 1,000,000 of a 16-byte key and a 100-byte value
    Memory,
    /// From start to the first answer, the memory of an idle server, and what ten idle peers cost
    Startup,
    /// Writes per second with 0 to 4 slaves, how late slaves are, and how fast one is brought up to date, beside the
    /// Elixir system's own primary and slaves
    Replication,
    /// Many keys in one request, sums, keys that end, and scans, by callers on a BEAM
    Api,
    /// Gets while a million keys end within a second, in memory and on disk; bytes of a deadline. Some minutes
    Ends,
    /// What watchers cost the writers of a store, and how many events a second one is told
    Watched,
    /// Puts that are on disk when they are answered: 1, 16, 128 and 1,000 callers; reads hot and cold; recovery
    Durable,
    /// System calls per call, by strace
    Syscalls,
    /// A good peer's calls while another means harm, side by side with the same calls without
    Hostile,
    /// Instructions per call without sockets, by callgrind, against scripts/bench.d/instructions.txt
    Instructions,
    /// The loads beam, values and mixed over TLS, beside a GenServer over TLS
    Tls,
    /// All of the above
    All,
    /// Large values beside small calls over links of 5 to 1,000 Mbit/s and loopback, and slaves that are brought large values
    /// over them; as root, for network namespaces. Half an hour, and with --quick seven minutes
    Links,
    /// Large values both ways at once, and very many at once, on loopback: what is lost, and what small gets take meanwhile
    Crossing,
    /// A whole copy into a slave on disk that has keys too many: what its :status and /metrics take meanwhile, and its memory
    Copy,
    /// A prefix of 100 keys among 10,000,000 on disk: some minutes, as these are put first
    Prefix,
    /// Stores in etcd, beside stores in memory and etcd without kvnode: gets, puts of 1 to 1,000 callers with one member and with three,
    /// the start with 1,000,000 entries, memory and processor time. Some minutes. (Failover times: scripts/failover.)
    Cluster,
    /// Where kvnode's time goes with 64 calls in flight, by perf
    Profile,
}

const EACH: [Load; 18] = [
    Load::Beam,
    Load::Values,
    Load::Mixed,
    Load::Flags,
    Load::Casts,
    Load::Native,
    Load::Keys,
    Load::Growth,
    Load::Memory,
    Load::Startup,
    Load::Replication,
    Load::Api,
    Load::Watched,
    Load::Durable,
    Load::Syscalls,
    Load::Hostile,
    Load::Instructions,
    Load::Tls,
];
/// Those that are to be asked for: they take long, or what they measure is no figure.
const ASKED_FOR: [Load; 7] =
    [Load::Links, Load::Crossing, Load::Copy, Load::Prefix, Load::Ends, Load::Cluster, Load::Profile];

/// Measures kvnode beside other servers: the same load against each, in interleaved rounds.
///
/// Figures are medians with the smallest and the largest round; `kvnode/it` tells how many times better kvnode is by
/// the first column, round by round. Only ratios of one run mean much on a machine that others use too. Where the
/// environment's KVNODE_BEFORE names another kvnode, as the one of before a change, it stands beside this one.
#[derive(Parser)]
#[command(name = "scripts/bench", bin_name = "scripts/bench")]
struct Cli {
    /// What to measure
    #[arg(value_enum, default_value = "all")]
    loads: Vec<Load>,
    /// Less of everything, and about a minute for all
    #[arg(long)]
    quick: bool,
    /// Rounds of each load [default: 5, and 2 with --quick]
    #[arg(long)]
    rounds: Option<usize>,
    /// Milliseconds of each load in each round [default: 1000, and 25 with --quick]
    #[arg(long)]
    milliseconds: Option<u64>,
    /// Entries that are copied, of the load copy
    #[arg(long, default_value_t = 20_000_000, value_parser = clap::value_parser!(u64).range(1..))]
    entries: u64,
    /// One JSON document in place of the tables
    #[arg(long)]
    json: bool,
    /// Only these servers
    #[arg(long, value_enum, value_delimiter = ',')]
    servers: Vec<Kind>,
    /// Writes the instruction counts that were found to scripts/bench.d/instructions.txt
    #[arg(long)]
    update: bool,
    /// How cargo starts a benchmark.
    #[arg(long, hide = true)]
    bench: bool,
}

/// How much is measured.
pub struct Plan {
    /// Rounds of each load.
    pub rounds: usize,
    /// How long one load takes, where it is not a number of calls.
    pub time: Duration,
    /// Less of everything.
    pub quick: bool,
    /// Entries that are copied.
    pub entries: u64,
    /// Instruction counts are to be written down.
    pub update: bool,
    /// Everything is measured, as far as what it takes is installed.
    pub all: bool,
    only: Vec<Kind>,
}

impl Plan {
    /// The wanted ones of these servers.
    fn servers(&self, all: &[Kind]) -> Vec<Kind> {
        let wanted = |kind: &Kind| self.only.is_empty() || self.only.contains(kind);
        all.iter().copied().filter(|kind| kind.is_named() && wanted(kind)).collect()
    }

    /// One number in a full run, another in a quick one.
    pub const fn pick<T: Copy>(&self, full: T, quick: T) -> T {
        if self.quick { quick } else { full }
    }
}

/// What was found, beside the tables.
#[derive(Default)]
pub struct Findings {
    tables: Vec<Table>,
    notes: Vec<String>,
    failures: Vec<String>,
    took: Vec<(String, Duration)>,
    /// By which way what follows is measured, if not as it says.
    over: Option<&'static str>,
    json: bool,
    /// Something is worse than it may be, or could not be measured.
    pub failed: bool,
}

impl Findings {
    /// What follows is measured by another way.
    pub const fn set_over(&mut self, way: Option<&'static str>) {
        self.over = way;
    }

    /// Adds a finished table, and shows it.
    pub fn table(&mut self, mut table: Table) {
        if let Some(way) = self.over {
            table.over(way, &tls::EXPECTED);
        }
        if !self.json {
            print!("{}", table.text());
        }
        for failure in table.failures() {
            self.failed = true;
            self.failures.push(failure);
        }
        self.tables.push(table);
    }

    /// Adds a line of text, once.
    pub fn note(&mut self, text: impl Into<String>) {
        let text = text.into();
        if !self.notes.contains(&text) {
            if !self.json {
                println!("  note: {text}");
            }
            self.notes.push(text);
        }
    }

    /// Adds something that could not be measured, though all that it takes is here.
    pub fn fail(&mut self, text: impl Into<String>) {
        let text = text.into();
        if !self.json {
            println!("  FAILED: {text}");
        }
        self.failed = true;
        self.failures.push(text);
    }

    /// What was expected and not reached, and what failed, once more; and what took how long.
    fn print_end(&self) {
        let of_tables = self.tables.iter().flat_map(|table| table.verdicts());
        let verdicts: Vec<String> = of_tables.chain(self.notes.iter().cloned()).collect();
        let missed: Vec<&String> = verdicts.iter().filter(|line| line.ends_with("MISSED")).collect();
        let reached = verdicts.iter().filter(|line| line.ends_with("reached")).count();
        if missed.len() + reached > 0 {
            println!("\n{reached} of {} expectations reached", missed.len() + reached);
        }
        for line in missed {
            println!("  {line}");
        }
        if !self.failures.is_empty() {
            println!("\n{} FAILED", self.failures.len());
        }
        for line in &self.failures {
            println!("  {line}");
        }
        let all: Duration = self.took.iter().map(|(_, took)| *took).sum();
        let each: Vec<String> =
            self.took.iter().map(|(load, took)| format!("{load} {:.0}", took.as_secs_f64())).collect();
        println!("\n{:.0} seconds: {}", all.as_secs_f64(), each.join(", "));
    }

    fn document(&self, plan: &Plan) -> Value {
        let tables: Vec<Value> = self.tables.iter().map(Table::json).collect();
        let seconds: serde_json::Map<String, Value> =
            self.took.iter().map(|(load, took)| (load.clone(), json!(took.as_secs_f64()))).collect();
        json!({
            "rounds": plan.rounds,
            "milliseconds": plan.time.as_millis() as u64,
            "processors": processors(),
            "load_average": load_average(),
            "failed": self.failed,
            "failures": self.failures,
            "notes": self.notes,
            "seconds": seconds,
            "tables": tables,
        })
    }
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().collect();
    let role = match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        // What this program starts itself as.
        [_, "floor", name, epmd_port, poll_micros, monitors] => {
            let monitoring = DistributionFlags::DIST_MONITOR.union(DistributionFlags::DIST_MONITOR_NAME);
            let withheld = if monitors == "monitored" { DistributionFlags::NONE } else { monitoring };
            match (epmd_port.parse(), poll_micros.parse()) {
                (Ok(epmd_port), Ok(micros)) => {
                    let flags =
                        DistributionFlags::OFFERED.difference(withheld.union(DistributionFlags::FRAGMENTS));
                    floor::main(name, epmd_port, Duration::from_micros(micros), flags)
                }
                _ => Err(failure("floor NAME EPMD_PORT POLL_MICROSECONDS monitored|unmonitored")),
            }
        }
        [_, "naive", name, epmd_port] => match epmd_port.parse() {
            Ok(epmd_port) => naive::main(name, epmd_port),
            Err(_) => Err(failure("naive NAME EPMD_PORT")),
        },
        [_, "path", operation, count] => path::main(operation, count),
        _ => return measure(&Cli::parse()),
    };
    match role {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("scripts/bench: {error}");
            ExitCode::FAILURE
        }
    }
}

fn processors() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// The system's own, over a minute, when this is asked.
fn load_average() -> String {
    let text = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split(' ').next().unwrap_or_default().to_owned()
}

fn measure(cli: &Cli) -> ExitCode {
    let plan = Plan {
        rounds: cli.rounds.unwrap_or(if cli.quick { 2 } else { 5 }).max(1),
        time: Duration::from_millis(cli.milliseconds.unwrap_or(if cli.quick { 25 } else { 1000 })),
        quick: cli.quick,
        entries: cli.entries,
        update: cli.update,
        all: cli.loads.contains(&Load::All),
        only: cli.servers.clone(),
    };
    let mut findings = Findings { json: cli.json, ..Findings::default() };
    if !cli.json {
        println!(
            "{} rounds on {} processors; load average {}: what else runs here is in these figures",
            plan.rounds,
            processors(),
            load_average()
        );
    }
    match Lab::new() {
        Ok(lab) => {
            let each = EACH.into_iter().filter(|load| plan.all || cli.loads.contains(load));
            let asked_for = ASKED_FOR.into_iter().filter(|load| cli.loads.contains(load));
            for load in each.chain(asked_for) {
                let name =
                    load.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default();
                let started = Instant::now();
                if let Err(error) = carry_out(load, &lab, &plan, &mut findings) {
                    findings.fail(format!("{name}: {error}"));
                }
                findings.took.push((name, started.elapsed()));
            }
        }
        Err(error) => findings.fail(error.to_string()),
    }
    if cli.json {
        println!("{:#}", findings.document(&plan));
    } else {
        findings.print_end();
    }
    if findings.failed { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

fn carry_out(load: Load, lab: &Lab, plan: &Plan, findings: &mut Findings) -> Result<()> {
    match load {
        Load::Beam => beam::calls(lab, plan, findings),
        Load::Values => beam::values(lab, plan, findings),
        Load::Mixed => beam::mixed(lab, plan, findings),
        Load::Flags => flags::monitors(lab, plan, findings),
        Load::Casts => beam::casts(lab, plan, findings),
        Load::Native => calls::in_flight(lab, plan, findings),
        Load::Keys => calls::keys(lab, plan, findings),
        Load::Growth => calls::growth(lab, plan, findings),
        Load::Memory => memory::per_entry(lab, plan, findings),
        Load::Startup => startup::startup(lab, plan, findings),
        Load::Replication => replication::replication(lab, plan, findings),
        Load::Api => api::measure(lab, plan, findings),
        Load::Watched => watched::measure(lab, plan, findings),
        Load::Prefix => prefix::measure(lab, plan, findings),
        Load::Ends => ends::measure(lab, plan, findings),
        Load::Durable => durable::measure(lab, plan, findings),
        Load::Syscalls => syscalls::per_call(lab, plan, findings),
        Load::Hostile => hostile::attacks(lab, plan, findings),
        Load::Instructions => instructions::per_call(plan, findings),
        Load::Tls => tls::tls(lab, plan, findings),
        Load::Links => links::links(lab, plan, findings),
        Load::Crossing => crossing::crossing(lab, plan, findings),
        Load::Cluster => cluster::measure(lab, plan, findings),
        Load::Copy => copy::large(lab, plan, findings),
        Load::Profile => profile::functions(lab, plan, findings),
        Load::All => Ok(()),
    }
}
