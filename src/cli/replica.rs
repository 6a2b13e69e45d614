//! `kvnode status`, `promote`, `remove-slave`: a store and its slaves.

use std::fmt::Write as _;
use std::time::Duration;

use clap::Args;
use smol::Timer;

use super::answer::Form;
use super::ask::{AskArgs, Session, ToArgs};
use super::client::slave_name;
use super::store::{Store, request, with_store};
use super::term::names_processes;
use super::{CliError, answer, print};
use crate::etf::{OwnedTerm, Pid, TermView};
use crate::node::functions::since_epoch;
use crate::within::within;

/// After a promotion it is looked so often which slaves have answered.
const SETTLED_PAUSE: Duration = Duration::from_millis(50);
/// And for so long at most.
const SETTLED_LIMIT: Duration = Duration::from_secs(2);

const STATUS_EXAMPLES: &str = "\
EXAMPLES
  $ kvnode status --node master@myhost --to global:master
  role      primary
  entries   1000000
  ...
  $ kvnode status --json | jq -r '.value.slaves[].state'";

const PROMOTE_EXAMPLES: &str = "\
EXAMPLES
  $ kvnode promote --node slave1@myhost --to global:slave1
  :ok
  term      1
  former    master@myhost
  missing   nothing that is known
  names     global:master
  ...

The slave becomes the primary: it takes the other slaves along, wherever they are, and the global names of the old primary as \
soon as these are free. The old primary becomes its slave when it is back, and drops what the new one does not have.";

const REMOVE_SLAVE_EXAMPLES: &str = "\
EXAMPLES
  $ kvnode remove-slave global:slave2 --node master@myhost --to global:master
  :ok";

#[derive(Args)]
#[command(before_help = STATUS_EXAMPLES)]
pub(super) struct StatusArgs {
    #[command(flatten)]
    to: ToArgs,
    #[command(flatten)]
    ask: AskArgs,
}

#[derive(Args)]
#[command(before_help = PROMOTE_EXAMPLES)]
pub(super) struct PromoteArgs {
    /// Where an election decides (--elect of kvnode): be the primary all the same, without waiting for what other slaves have, which may be
    /// lost. It is within 4 s, or not at all
    #[arg(long)]
    force: bool,
    #[command(flatten)]
    to: ToArgs,
    #[command(flatten)]
    ask: AskArgs,
}

#[derive(Args)]
#[command(before_help = REMOVE_SLAVE_EXAMPLES)]
pub(super) struct RemoveSlaveArgs {
    /// The slave, as it was added: global:NAME, or local:NAME on the node of the store; NAME alone is global; or a term, as in
    /// {NAME, :NODE}, or as kvnode status shows it
    #[arg(value_name = "SLAVE")]
    slave: String,
    #[command(flatten)]
    to: ToArgs,
    #[command(flatten)]
    ask: AskArgs,
}

pub(super) fn status(args: StatusArgs) -> Result<(), CliError> {
    let status = request(&args.to, &args.ask, |_| Ok(OwnedTerm::atom("status")))?;
    if args.ask.json {
        return answer::show(status.view(), args.ask.form());
    }
    match table(status.view()) {
        Some(table) => print(&table),
        None => answer::show(status.view(), args.ask.form()),
    }
}

pub(super) fn promote(args: PromoteArgs) -> Result<(), CliError> {
    let form = args.ask.form();
    let promote = OwnedTerm::write(|w| {
        w.tuple(2).atom("promote").list(1 + usize::from(args.force)).tuple(2).atom("report").atom("true");
        if args.force {
            w.tuple(2).atom("force").atom("true");
        }
        w.nil();
    });
    let promote = promote.map_err(CliError::usage)?;
    let (answer, status) = with_store(&args.to, &args.ask, async |store: &Store<'_>| {
        let answer = store.call(promote.view()).await?;
        // Meanwhile the slaves that are there have answered.
        let status = match report_of(answer.view()) {
            Some(report) if form == Form::Text => store.settled(former_of(report), args.ask.time() / 2).await,
            _ => None,
        };
        Ok((answer, status))
    })?;
    match report_of(answer.view()).and_then(|report| promoted(report, status.as_ref().map(OwnedTerm::view))) {
        Some(text) if form == Form::Text => print(&text),
        _ => told(answer.view(), form),
    }
}

/// `{:ok, report}`
fn report_of(answer: TermView<'_>) -> Option<TermView<'_>> {
    answer.as_tuple::<2>().filter(|[ok, _]| ok.is_atom("ok")).map(|[_, report]| report)
}

/// The name by which the former primary is a slave: the last of those in a report. `None`: the former primary is not known.
fn former_of(report: TermView<'_>) -> Option<TermView<'_>> {
    in_map(report, "former")?.as_pid()?;
    let slaves = in_map(report, "slaves")?;
    let mut cursor = slaves.cursor();
    let len = cursor.list().ok()?;
    (0..len).map_while(|_| cursor.term().ok()).last()
}

/// What a promotion has done, for people; `None`: the report is of another form.
fn promoted(report: TermView<'_>, status: Option<TermView<'_>>) -> Option<String> {
    let lag = in_map(report, "lag")?.as_unsigned()?;
    let missing = in_map(report, "missing")?.as_atom()?.to_str();
    let missing = match &*missing {
        "nil" => "nothing that is known".to_owned(),
        "not_kept" => {
            "some of what the former primary had sent, which this store did not keep: its log says why"
                .to_owned()
        }
        "part" => {
            "what a copy or a repair had not brought yet: keys may be missing, and others old".to_owned()
        }
        "behind" => {
            "what the former primary was about to bring: the store has what it had before that".to_owned()
        }
        "writes" if lag == 1 => "the last write that the former primary has taken".to_owned(),
        "writes" => format!("the last {lag} writes that the former primary has taken"),
        "unknown" => "not known: the store was started again since its former primary was lost".to_owned(),
        other => other.to_owned(),
    };
    let former = in_map(report, "former")?;
    let former =
        former.as_pid().map_or_else(|| "not known".to_owned(), |pid| Pid::from(pid).node.to_string());
    let mut names = Vec::new();
    let listed = in_map(report, "names")?;
    let mut cursor = listed.cursor();
    for _ in 0..cursor.list().ok()? {
        names.push(plain(cursor.term().ok()?));
    }
    let names = if names.is_empty() { "none".to_owned() } else { names.join(", ") };
    let mut text = String::from(":ok\n");
    for (name, value) in
        [("term", plain(in_map(report, "term")?)), ("former", former), ("missing", missing), ("names", names)]
    {
        _ = writeln!(text, "{name:<20}  {value}");
    }
    let Some(slaves) = status.and_then(|status| in_map(status, "slaves")) else { return Some(text) };
    text.push_str(&table_of_slaves(slaves)?);
    let former = former_of(report);
    let mut silent = Vec::new();
    let mut cursor = slaves.cursor();
    for _ in 0..cursor.list().ok()? {
        let slave = cursor.term().ok()?;
        let name = in_map(slave, "name")?;
        match has_answered(slave)? {
            true => {}
            false if former.is_some_and(|former| former.bytes() == name.bytes()) => {
                text.push_str("\nThe former primary becomes a slave once it is reached.\n");
            }
            false => silent.push(plain(name)),
        }
    }
    if !silent.is_empty() {
        let silent = silent.join(", ");
        _ = writeln!(text, "\nNot answered yet: {silent}. kvnode status shows when it has.");
    }
    Some(text)
}

/// Whether a slave of a status is followed.
fn has_answered(slave: TermView<'_>) -> Option<bool> {
    let state = in_map(slave, "state")?;
    let mut cursor = state.cursor();
    let state = match cursor.tuple() {
        Ok(1..) => cursor.term().ok()?,
        _ => state,
    };
    Some(!["seeking", "gone", "refused"].iter().any(|silent| state.is_atom(silent)))
}

pub(super) fn in_map<'a>(map: TermView<'a>, key: &str) -> Option<TermView<'a>> {
    pairs(map)?.into_iter().find(|(known, _)| known.is_atom(key)).map(|(_, value)| value)
}

pub(super) fn remove_slave(args: RemoveSlaveArgs) -> Result<(), CliError> {
    let removal = |slave: TermView<'_>| {
        OwnedTerm::write(|w| _ = w.tuple(2).atom("remove_slave").term(slave)).map_err(CliError::usage)
    };
    // A process of another node than the asked one is known by what the status shows alone.
    if names_processes(&args.slave) {
        let status = request(&args.to, &args.ask, |_| Ok(OwnedTerm::atom("status")))?;
        if let Some(slave) = shown_as(status.view(), &args.slave) {
            let answer = request(&args.to, &args.ask, |_| removal(slave))?;
            return told(answer.view(), args.ask.form());
        }
        let late = |session: &Session| removal(slave_name(&args.slave, Some(&session.identity()))?.view());
        return told(request(&args.to, &args.ask, late)?.view(), args.ask.form());
    }
    let removal = removal(slave_name(&args.slave, None)?.view())?;
    let answer = request(&args.to, &args.ask, |_| Ok(removal.clone()))?;
    told(answer.view(), args.ask.form())
}

/// The name of the slave that a status shows so.
fn shown_as<'a>(status: TermView<'a>, typed: &str) -> Option<TermView<'a>> {
    let mut cursor = in_map(status, "slaves")?.cursor();
    for _ in 0..cursor.list().ok()? {
        let name = in_map(cursor.term().ok()?, "name")?;
        if plain(name) == typed {
            return Some(name);
        }
    }
    None
}

/// Prints an answer; `{:error, reason}` is a failure for scripts too.
fn told(answer: TermView<'_>, form: Form) -> Result<(), CliError> {
    if answer::refusal(answer).is_none() || form == Form::Json {
        answer::show(answer, form)?;
    }
    let known = [
        (
            "not_a_slave",
            "it is the slave of no kvnode, and so of nobody in whose place it could be; kvnode status shows it",
        ),
        (
            "copying",
            "it is being sent a copy of its primary, and has not all of it yet; kvnode status shows when it has",
        ),
        (
            "kept_by_etcd",
            "it is kept by etcd: each kvnode of that etcd serves it, and there is no primary in whose place it could be",
        ),
        (
            "elected",
            "an election decides which store is the primary (--elect): when that is gone, the most advanced of its slaves takes its place by \
             itself. To have this one be the primary all the same, which may lose writes that others have: kvnode promote --force",
        ),
        answer::NOT_KEPT,
        ("no_slave", "it has no such slave; kvnode status shows those that it has"),
    ];
    let not_forced = answer::refusal(answer).and_then(TermView::as_tuple::<2>).map(|[_, why]| why);
    answer::carried_out(answer, |code| match not_forced {
        Some(why) if code.is_atom("not_elected") => answer::of_table(&NOT_FORCED, why),
        _ => answer::of_table(&known, code),
    })
}

/// Why a store is not made the primary by force, in `{:error, {:not_elected, why}}`.
const NOT_FORCED: [(&str, &str); 7] = [
    (
        "etcd",
        "it is not the primary: etcd does not answer its node, or gives it no lease, and nothing has changed; kvnode doctor --etcd shows what is \
         wrong with it",
    ),
    (
        "unknown",
        "it is not the primary so far: etcd has not answered in time, or its promotion takes long, and it may be the primary yet; kvnode status \
         shows it",
    ),
    (
        "refused",
        "it is not the primary: etcd refuses what has to be written, as it does without space or for a user without rights; the log of its node, \
         and kvnode doctor --etcd, say what is wrong",
    ),
    (
        "unreadable",
        "it is not the primary: a key of the election in etcd is not understood, as of another version of kvnode; the log of its node names the key",
    ),
    ("unfit", "it is not the primary: the store could not be promoted; the log of its node says why"),
    ("leaves", "it is not the primary: its node ends"),
    (
        "late",
        "it is not the primary: another node was faster, or the store has not said in time what it holds, and it is not tried any more; kvnode \
         status shows which node is",
    ),
];

impl Store<'_> {
    /// Its status once all slaves but this one have answered, and after so long at the latest; `None`: it does not say.
    async fn settled(&self, but: Option<TermView<'_>>, limit: Duration) -> Option<OwnedTerm> {
        let (status, mut last) = (OwnedTerm::atom("status"), None);
        let ask = async {
            loop {
                let shown = self.call(status.view()).await.ok()?;
                let slaves = in_map(shown.view(), "slaves")?;
                let mut cursor = slaves.cursor();
                let mut is_settled = true;
                for _ in 0..cursor.list().ok()? {
                    let slave = cursor.term().ok()?;
                    let is_but = but.is_some_and(|but| {
                        in_map(slave, "name").is_some_and(|name| name.bytes() == but.bytes())
                    });
                    is_settled &= is_but || has_answered(slave)?;
                }
                last = Some(shown);
                if is_settled {
                    return Some(());
                }
                _ = Timer::after(SETTLED_PAUSE).await;
            }
        };
        _ = within(limit.min(SETTLED_LIMIT), ask).await;
        last
    }
}

/// A status for people; `None`: it is of another form.
fn table(status: TermView<'_>) -> Option<String> {
    let mut text = String::new();
    let mut slaves = None;
    for (key, value) in pairs(status)? {
        let key = key.as_atom()?.to_str();
        match &*key {
            "slaves" => slaves = Some(value),
            "primary" if value.is_atom("nil") => {}
            "primary" => {
                for (name, value) in pairs(value)? {
                    let name = format!("primary.{}", name.as_atom()?.to_str());
                    _ = writeln!(text, "{name:<20}  {}", plain(value));
                }
            }
            _ => _ = writeln!(text, "{key:<20}  {}", plain(value)),
        }
    }
    text.push_str(&table_of_slaves(slaves?)?);
    Some(text)
}

/// The slaves of a status, for people, below an empty line; nothing, where there are none.
fn table_of_slaves(slaves: TermView<'_>) -> Option<String> {
    let head = ["SLAVE", "STATE", "KIND", "STALE KEYS", "WITHHELD", "SINCE", "LAST ERROR"];
    let mut rows = vec![head.map(str::to_owned)];
    let mut cursor = slaves.cursor();
    for _ in 0..cursor.list().ok()? {
        let mut row = [const { String::new() }; 7];
        for (key, value) in pairs(cursor.term().ok()?)? {
            let at = ["name", "state", "kind", "stale_keys", "withheld", "since", "error"]
                .iter()
                .position(|name| key.is_atom(name));
            match at {
                Some(5) => row[5] = value.as_unsigned().map_or_else(String::new, ago),
                Some(at) if value.is_atom("nil") => row[at] = "-".to_owned(),
                Some(at) => row[at] = plain(value),
                None => {}
            }
        }
        rows.push(row);
    }
    if rows.len() == 1 {
        return Some(String::new());
    }
    let widths: [usize; 7] =
        std::array::from_fn(|at| rows.iter().map(|row| row[at].chars().count()).max().unwrap_or(0));
    let mut text = String::from("\n");
    for row in &rows {
        let cells: Vec<String> =
            row.iter().zip(widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
        _ = writeln!(text, "{}", cells.join("  ").trim_end());
    }
    Some(text)
}

/// How long ago that is, by the clock of this machine.
fn ago(unix_ms: u64) -> String {
    let secs = since_epoch().saturating_sub(Duration::from_millis(unix_ms)).as_secs();
    match secs {
        0..120 => format!("{secs} s"),
        120..7_200 => format!("{} min", secs / 60),
        _ => format!("{} h", secs / 3_600),
    }
}

/// A term without what only programs need: atoms as words.
fn plain(term: TermView<'_>) -> String {
    if let Some(atom) = term.as_atom() {
        return atom.to_str().into_owned();
    }
    if let Some([kind, name]) = term.as_tuple::<2>()
        && kind.is_atom("global")
    {
        return format!("global:{}", plain(name));
    }
    answer::text(term)
}

fn pairs<'a>(map: TermView<'a>) -> Option<Vec<(TermView<'a>, TermView<'a>)>> {
    let mut cursor = map.cursor();
    let len = cursor.map().ok()?;
    (0..len).map(|_| Some((cursor.term().ok()?, cursor.term().ok()?))).collect()
}

#[cfg(test)]
mod tests {
    use super::super::term::read;
    use super::*;

    #[test]
    fn a_status_is_a_table_with_a_line_for_each_slave() {
        let typed = "%{role: :primary, entries: 3, primary: nil, slaves: [%{name: {:global, :s}, \
                     state: {:in_step, 0}, stale_keys: false, withheld: 0, kind: :kvnode, since: nil, error: nil}]}";
        let status = read("T", typed, None).expect("a term");
        let table = table(status.view()).expect("a status");
        assert!(table.contains("role                  primary\n"), "{table}");
        assert!(
            table.ends_with(
                "\nSLAVE     STATE          KIND    STALE KEYS  WITHHELD  SINCE  LAST ERROR\n\
                 global:s  {:in_step, 0}  kvnode  false       0                -\n"
            ),
            "{table}"
        );
        assert!(!table.contains("primary."), "{table}");
        assert_eq!(super::table(read("T", "[]", None).expect("a term").view()), None);
    }
}
