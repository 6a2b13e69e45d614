//! `kvnode doctor`: why a node cannot be connected to, or how the etcd of stores is, step by step, and what to do.

#[cfg(feature = "etcd")]
mod etcd;
mod node;

use clap::Args;
use serde_json::{Value, json};

use super::engine::EtcdArgs;
use super::find::FindArgs;
use super::tls::TlsArgs;
use super::{CliError, ask, print};
use crate::block_on;
use node::Way;

/// Milliseconds that two clocks may differ before it is said.
const CLOCKS_MAX_MS: i64 = 2_000;
const EXAMPLES: &str = "\
EXAMPLES
  $ kvnode doctor master@myhost
  ok    name       master@myhost is a short name
  ok    host       myhost is 192.0.2.7
  ok    epmd       myhost:4369 answers and knows master, slave1
  ok    registered master listens at 192.0.2.7:41235
  ok    port       192.0.2.7:41235 takes connections
  FAIL  cookie     master@myhost has another cookie than we
        to do      start both with the same cookie: --cookie here, ...

  $ kvnode doctor --etcd http://a:2379,http://b:2379,http://c:2379
  ok    member     http://a:2379 is etcd 3.5.16, leads, term 3, index 41
  FAIL  member     http://b:2379 does not answer: ... Connection refused
        to do      nothing listens there: start that member, see its ...";

#[derive(Args)]
#[command(before_help = EXAMPLES)]
pub(super) struct DoctorArgs {
    /// The node that cannot be connected to, as it calls itself: NAME@HOST. With :PORT behind it, it is looked for at that
    /// port, and epmd is not asked
    #[arg(value_name = "NODE", required_unless_present = "etcd")]
    node: Option<String>,
    /// The secret of the cluster [default: KVNODE_COOKIE of the environment, else the cookie file]
    #[arg(long, value_name = "TEXT")]
    cookie: Option<String>,
    /// Print JSON, for scripts: {"checks": [{"check", "ok", "found", "todo", "note"}]}
    #[arg(long, help_heading = "Output")]
    json: bool,
    #[command(flatten)]
    find: FindArgs,
    #[command(flatten)]
    tls: TlsArgs,
    #[command(flatten)]
    etcd: EtcdArgs,
}

/// One line of the report.
struct Check {
    name: &'static str,
    found: String,
    /// What to do about it. `None`: nothing, it is as it should be.
    todo: Option<String>,
    /// What it means, where nothing is to be done and it is good to know.
    note: Option<String>,
}

impl Check {
    fn text(&self) -> String {
        let Self { name, found, todo, note } = self;
        let mark = match (todo, note) {
            (Some(_), _) => "FAIL",
            (None, Some(_)) => "note",
            (None, None) => "ok  ",
        };
        let todo = todo.iter().map(|todo| format!("      to do      {todo}\n"));
        let note = note.iter().map(|note| format!("      meaning    {note}\n"));
        std::iter::once(format!("{mark}  {name:<10} {found}\n")).chain(todo).chain(note).collect()
    }
}

struct Report {
    checks: Vec<Check>,
    /// Each check is printed when it is done: some take seconds.
    prints: bool,
    /// What the first line that could not be printed failed with.
    unprinted: Result<(), CliError>,
}

/// The checks end here: what comes after needs what has failed.
struct Failed;

impl Report {
    fn good(&mut self, name: &'static str, found: impl Into<String>) {
        self.add(Check { name, found: found.into(), todo: None, note: None });
    }

    fn noted(&mut self, name: &'static str, found: impl Into<String>, note: impl Into<String>) {
        self.add(Check { name, found: found.into(), todo: None, note: Some(note.into()) });
    }

    fn bad(&mut self, name: &'static str, found: impl Into<String>, todo: impl Into<String>) -> Failed {
        self.add(Check { name, found: found.into(), todo: Some(todo.into()), note: None });
        Failed
    }

    fn add(&mut self, check: Check) {
        if self.prints && self.unprinted.is_ok() {
            self.unprinted = print(&check.text());
        }
        self.checks.push(check);
    }

    fn is_good(&self) -> bool {
        self.checks.iter().all(|check| check.todo.is_none())
    }

    fn json(&self) -> Value {
        let checks = self.checks.iter().map(|check| {
            let Check { name, found, todo, note } = check;
            json!({ "check": name, "ok": todo.is_none(), "found": found, "todo": todo, "note": note })
        });
        json!({ "ok": self.is_good(), "checks": checks.collect::<Vec<Value>>() })
    }
}

pub(super) fn main(args: DoctorArgs) -> Result<(), CliError> {
    let mut report = Report { checks: Vec::new(), prints: !args.json, unprinted: Ok(()) };
    // How far they come is in the report.
    let mut whom = Vec::new();
    if let Some(typed) = &args.node {
        let find = args.find.find()?;
        let target = ask::target("NODE", typed)?;
        let way = Way { port: find.port("NODE", &target)?, find };
        let _end = block_on(node::examine(&mut report, &target, &args, &way));
        whom.push(target.to_string());
    }
    if args.etcd.is_given() {
        examine_etcd(&mut report, &args.etcd)?;
        whom.push("etcd".to_owned());
    }
    if args.json {
        print(&format!("{}\n", report.json()))?;
    }
    std::mem::replace(&mut report.unprinted, Ok(()))?;
    if report.is_good() {
        return Ok(());
    }
    let mut failed: Vec<&str> =
        report.checks.iter().filter(|check| check.todo.is_some()).map(|check| check.name).collect();
    failed.dedup();
    Err(CliError::CannotRun(format!(
        "{}: {} not as it should be; see above",
        whom.join(" and "),
        failed.join(" and ")
    )))
}

#[cfg(feature = "etcd")]
fn examine_etcd(report: &mut Report, args: &EtcdArgs) -> Result<(), CliError> {
    let config = args.etcd()?;
    let _end = block_on(etcd::examine(report, &config));
    Ok(())
}

#[cfg(not(feature = "etcd"))]
fn examine_etcd(_: &mut Report, _: &EtcdArgs) -> Result<(), CliError> {
    Err(CliError::cannot_run(crate::program::StartError::WithoutEtcd))
}

#[expect(clippy::disallowed_methods, reason = "clocks are compared")]
fn now_ms() -> i64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}
