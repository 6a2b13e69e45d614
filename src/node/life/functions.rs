//! The functions that only the shell can answer: which nodes are connected, what time it is, how large we are.

use std::fmt;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use ahash::AHashSet;

use crate::etf::{OwnedTerm, TermView, TermWriter, encode};
use crate::node::peers::names;
use crate::node::peers::whereis;
use crate::node::{Node, now};
use crate::process::rpc::builtin::write_list;
use crate::process::rpc::{Answer, Context, Exception, FunctionCall, Functions, elements};
use crate::within::within;

/// The release whose distribution protocol, calls and exits are spoken here: what callers ask `otp_release` for.
const OTP_RELEASE: &str = "25";
/// Processes that there can be: the numbers that a pid of OTP 23 has room for (15 bits and 13).
const PROCESS_LIMIT: u64 = 1 << 28;

/// What a running node can say of itself.
pub(in crate::node) struct NodeFunctions {
    node: Weak<Node>,
    started: Instant,
    /// When `statistics(wall_clock)` was last asked for.
    asked: parking_lot::Mutex<Instant>,
}

impl NodeFunctions {
    pub(in crate::node) fn new(node: Weak<Node>) -> Self {
        let started = now();
        Self { node, started, asked: parking_lot::Mutex::new(started) }
    }

    /// `erlang:statistics(wall_clock)`: milliseconds since the start, and since it was last asked.
    fn wall_clock(&self) -> Answer {
        let now = now();
        let last = std::mem::replace(&mut *self.asked.lock(), now);
        Answer::value(|w| {
            w.tuple(2).unsigned(millis(now - self.started)).unsigned(millis(now - last));
        })
    }

    /// `erlang:monotonic_time/1`, from the node's start on.
    fn monotonic(&self, call: &FunctionCall<'_>, unit: Option<TermView<'_>>) -> Answer {
        time(call, self.started.elapsed(), unit)
    }
}

impl Functions for NodeFunctions {
    fn apply(&self, call: &FunctionCall<'_>, context: &mut Context<'_>) -> Option<Answer> {
        let node = self.node.upgrade()?;
        Some(match (call.module, call.function, call.arguments) {
            ("erlang", "nodes", []) | ("Elixir.Node", "list", []) => nodes(call, &node, None),
            ("erlang", "nodes", [kind]) | ("Elixir.Node", "list", [kind]) => nodes(call, &node, Some(*kind)),
            ("erlang", "monotonic_time", []) => self.monotonic(call, None),
            ("erlang", "monotonic_time", [unit]) => self.monotonic(call, Some(*unit)),
            ("erlang", "system_time", []) => time(call, since_epoch(), None),
            ("erlang", "system_time", [unit]) => time(call, since_epoch(), Some(*unit)),
            ("erlang", "statistics", [item]) if item.is_atom("wall_clock") => self.wall_clock(),
            ("erlang", "statistics", [_]) => Answer::raise(Exception::badarg(call)),
            ("erlang", "memory", []) => memory(call, None),
            ("erlang", "memory", [kind]) => memory(call, Some(*kind)),
            ("erlang", "system_info", [item]) => system_info(call, *item, &node),
            ("global", "whereis_name", [name]) => whereis_name(call, *name, &node, context)?,
            ("global", "registered_names", []) => registered_names(call, &node, context)?,
            _ => return None,
        })
    }
}

impl fmt::Debug for NodeFunctions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("NodeFunctions")
    }
}

/// `erlang:nodes/1`: of one kind, or of several in a list.
fn nodes(call: &FunctionCall<'_>, node: &Node, kind: Option<TermView<'_>>) -> Answer {
    let kinds = match kind {
        None => None,
        Some(kind) if kind.as_atom().is_some() => Some(vec![kind]),
        Some(kinds) => match elements(kinds) {
            Some(kinds) => Some(kinds),
            None => return Answer::raise(Exception::badarg_of("nodes", call)),
        },
    };
    let mut found: Vec<Arc<str>> = Vec::new();
    let peers = node.peers.all();
    let of = |wanted: fn(bool) -> bool| {
        let others = peers.iter().filter(|peer| peer.name != node.registry.node);
        others.filter(move |peer| wanted(peer.is_visible())).map(|peer| Arc::clone(&peer.name))
    };
    if kinds.is_none() {
        found.extend(of(|visible| visible));
    }
    for kind in kinds.unwrap_or_default() {
        match kind.as_atom() {
            Some(kind) if kind == "visible" => found.extend(of(|visible| visible)),
            Some(kind) if kind == "hidden" => found.extend(of(|visible| !visible)),
            Some(kind) if kind == "connected" => found.extend(of(|_| true)),
            Some(kind) if kind == "this" => found.push(Arc::clone(&node.registry.node)),
            Some(kind) if kind == "known" => {
                found.push(Arc::clone(&node.registry.node));
                found.extend(of(|_| true));
            }
            _ => return Answer::raise(Exception::badarg_of("nodes", call)),
        }
    }
    found.sort();
    found.dedup();
    atoms(&found)
}

fn atoms(names: &[Arc<str>]) -> Answer {
    Answer::value(|w| write_list(w, names.len(), |w| names.iter().for_each(|name| _ = w.atom(name))))
}

fn millis(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}

#[expect(clippy::disallowed_methods, reason = "the shell is where the clock is read")]
pub(crate) fn since_epoch() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

/// A time in a unit of `erlang:time_unit/0`; the native one is the nanosecond.
fn time(call: &FunctionCall<'_>, span: Duration, unit: Option<TermView<'_>>) -> Answer {
    let per_second = match unit {
        None => Some(1_000_000_000),
        Some(unit) => match unit.as_atom().map(|unit| unit.to_str().into_owned()).as_deref() {
            Some("second" | "seconds") => Some(1),
            Some("millisecond" | "milli_seconds") => Some(1_000),
            Some("microsecond" | "micro_seconds") => Some(1_000_000),
            Some("nanosecond" | "nano_seconds" | "native" | "perf_counter") => Some(1_000_000_000),
            Some(_) => None,
            None => unit.as_unsigned().filter(|&parts| parts > 0),
        },
    };
    let Some(per_second) = per_second else { return Answer::raise(Exception::badarg(call)) };
    let ticks = span.as_nanos().saturating_mul(u128::from(per_second)) / 1_000_000_000;
    Answer::value(|w| _ = w.unsigned(u64::try_from(ticks).unwrap_or(u64::MAX)))
}

/// `erlang:memory/0,1`: what the system has given us, as `total`. The parts of a BEAM's memory are `notsup`, as on a BEAM
/// that does not count them.
fn memory(call: &FunctionCall<'_>, kind: Option<TermView<'_>>) -> Answer {
    const PARTS: [&str; 8] =
        ["processes", "processes_used", "system", "atom", "atom_used", "binary", "code", "ets"];
    let total = |w: &mut TermWriter<'_>, bytes: u64| _ = w.tuple(2).atom("total").unsigned(bytes);
    let Some(bytes) = resident_bytes() else { return Answer::raise(Exception::notsup(call)) };
    let Some(kind) = kind else { return Answer::value(|w| write_list(w, 1, |w| total(w, bytes))) };
    if kind.is_atom("total") {
        return Answer::value(|w| _ = w.unsigned(bytes));
    }
    let kinds = elements(kind).unwrap_or_else(|| vec![kind]);
    if kinds.iter().all(|kind| kind.is_atom("total")) && !kind.is_nil() {
        return Answer::value(|w| write_list(w, kinds.len(), |w| kinds.iter().for_each(|_| total(w, bytes))));
    }
    let known = |kind: &TermView<'_>| kind.is_atom("total") || PARTS.iter().any(|part| kind.is_atom(part));
    if kind.is_nil() {
        Answer::value(|w| _ = w.nil())
    } else if kinds.iter().all(known) {
        Answer::raise(Exception::notsup(call))
    } else {
        Answer::raise(Exception::badarg(call))
    }
}

/// The memory that is resident, in bytes, where the system tells it: proc(5), /proc/pid/status, VmRSS.
fn resident_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kibibytes: u64 = line.split_whitespace().next()?.parse().ok()?;
    Some(kibibytes << 10)
}

/// `erlang:system_info/1` of the usual items.
fn system_info(call: &FunctionCall<'_>, item: TermView<'_>, node: &Node) -> Answer {
    let Some(item) = item.as_atom() else { return Answer::raise(Exception::badarg(call)) };
    let text = |text: &str| Answer::value(|w| write_charlist(w, text));
    let number = |number: u64| Answer::value(|w| _ = w.unsigned(number));
    match &*item.to_str() {
        "otp_release" => text(OTP_RELEASE),
        "version" => text(env!("CARGO_PKG_VERSION")),
        "system_version" => text(concat!("kvnode ", env!("CARGO_PKG_VERSION"), "\n")),
        "machine" => text("kvnode"),
        "system_architecture" => text(&format!("{}-{}", std::env::consts::ARCH, std::env::consts::OS)),
        "process_count" => number(node.registry.len() as u64),
        "process_limit" => number(PROCESS_LIMIT),
        "port_count" => number(0),
        "schedulers"
        | "schedulers_online"
        | "logical_processors"
        | "logical_processors_available"
        | "logical_processors_online" => {
            number(std::thread::available_parallelism().map_or(1, usize::from) as u64)
        }
        "wordsize" => number(size_of::<usize>() as u64),
        "creation" => number(u64::from(node.registry.creation)),
        "threads" => Answer::value(|w| _ = w.atom("true")),
        _ => Answer::raise(Exception::badarg(call)),
    }
}

fn write_charlist(w: &mut TermWriter<'_>, text: &str) {
    write_list(w, text.chars().count(), |w| {
        text.chars().for_each(|character| _ = w.unsigned(u64::from(u32::from(character))));
    });
}

/// `global:whereis_name/1`: as the visible nodes know it; what they do not know, as we hold it ourselves; and what is not
/// ours, as hidden BEAMs know it. `None`: there is nobody to ask.
///
/// Other kvnodes are not asked: they would ask in turn.
fn whereis_name(
    call: &FunctionCall<'_>,
    name: TermView<'_>,
    node: &Arc<Node>,
    context: &mut Context<'_>,
) -> Option<Answer> {
    let others = names::with_global(node);
    if others.is_empty() {
        return None;
    }
    let (deferred, answer) = match context.defer(call) {
        Ok(deferred) => deferred,
        Err(answer) => return Some(answer),
    };
    let (name, asking) = (OwnedTerm::from(name), Arc::clone(node));
    node.spawn_link(async move {
        let name = name.view();
        let (visible, hidden): (Vec<_>, Vec<_>) = others.into_iter().partition(|peer| peer.is_visible());
        let mut found = asking.first_that_knows(&visible, name.bytes(), whereis::LIMIT).await;
        if found.is_none()
            && let Some(name) = name.as_atom()
        {
            found = asking.registry.by_global_name(&name.to_str()).map(|process| process.pid.clone());
        }
        if found.is_none() {
            found = asking.first_that_knows(&hidden, name.bytes(), whereis::HIDDEN_LIMIT).await;
        }
        deferred.answer(Ok(encode(|w| match found {
            Some(pid) => _ = w.pid(&pid),
            None => _ = w.atom("undefined"),
        })));
    });
    Some(answer)
}

/// `global:registered_names/0`: those that the visible nodes and hidden BEAMs know, and those that we hold. `None`: there is nobody to ask.
fn registered_names(call: &FunctionCall<'_>, node: &Arc<Node>, context: &mut Context<'_>) -> Option<Answer> {
    let mut others = names::with_global(node);
    others.sort_by_key(|peer| !peer.is_visible());
    if others.is_empty() {
        return None;
    }
    let (deferred, answer) = match context.defer(call) {
        Ok(deferred) => deferred,
        Err(answer) => return Some(answer),
    };
    let asking = Arc::clone(node);
    node.spawn_link(async move {
        let mut names: AHashSet<Vec<u8>> = asking
            .registry
            .global_names()
            .iter()
            .map(|(name, _)| OwnedTerm::atom(name).into_bytes())
            .collect();
        let ask = async {
            for peer in others {
                let limit = if peer.is_visible() { whereis::LIMIT } else { whereis::HIDDEN_LIMIT };
                let known = asking.erpc(&peer, ("global", "registered_names"), 0, |_| {}, limit).await;
                let Ok(known) = known else { continue };
                let mut cursor = known.view().cursor();
                for _ in 0..cursor.list().unwrap_or(0) {
                    let Ok(name) = cursor.term() else { break };
                    names.insert(name.bytes().to_vec());
                }
            }
        };
        // What is known by then is answered.
        _ = within(whereis::LIMIT, ask).await;
        deferred.answer(Ok(encode(|w| {
            write_list(w, names.len(), |w| names.iter().for_each(|name| _ = w.raw(name)));
        })));
    });
    Some(answer)
}
