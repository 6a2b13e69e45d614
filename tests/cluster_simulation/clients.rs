//! Those who call stores: each call is answered once, or its node ends before.

use kvnode::distribution::control::ControlMessage;
use kvnode::distribution::{FrameForm, Outbound};
use kvnode::etf::{Cursor, Pid, Reference, TermView, TermWriter};
use kvnode::kv::SlaveEntry;
use kvnode::process::peer::Frame;
use kvnode::replica::{Refusal, SlaveName};

use super::checks::{Confirmed, Had};
use super::drive::Drive;
use super::edits::{Expects, Left};
use super::node::{CLIENT, frames_of};
use super::shelf::term;
use super::world::{Edited, World};

/// Keys that are written to.
pub const KEYS: u64 = 10;

/// What was asked for.
#[derive(Clone, Debug)]
pub enum Asked {
    Write,
    /// Something that is answered so.
    Edit(Expects),
    /// A write that so many slaves are to have, with its number under the primary's incarnation once that is known, and the
    /// lives of those that have it or had it.
    Confirmed {
        incarnation: u64,
        seq: Option<u64>,
        left: Vec<Left>,
        want: u64,
        had: Vec<Had>,
        expects: Expects,
    },
    AddSlave {
        is_own: bool,
    },
    RemoveSlave,
    Promote,
    Watch {
        initial: bool,
    },
}

/// A call that is not answered.
#[derive(Clone, Debug)]
pub struct Call {
    pub node: usize,
    pub asked: Asked,
}

impl World {
    pub fn call(&mut self, node: usize, asked: Asked, request: impl FnOnce(&mut TermWriter<'_>)) {
        tracing::debug!(node, ?asked, "called");
        let is_of_tree = matches!(asked, Asked::AddSlave { .. } | Asked::RemoveSlave | Asked::Promote);
        self.changes += u64::from(is_of_tree);
        let number = self.next_call;
        self.next_call += 1;
        self.calls.insert(number, Call { node, asked });
        let pid = Pid { node: CLIENT.into(), id: 1, serial: 0, creation: 1 };
        let tag = Reference { node: CLIENT.into(), creation: 1, words: vec![number, 0, 0] };
        let mut frames = Outbound::default();
        frames.send(&self.life(node).store.pid, |w| {
            w.tuple(3).atom("$gen_call").tuple(2).pid(&pid).reference(&tag);
            request(w);
        });
        let mut out = Outbound::default();
        for frame in frames_of(&mut frames) {
            let life = self.life_mut(node);
            let mut later = std::mem::take(&mut life.later);
            let mut client = std::mem::replace(&mut life.client, super::node::no_client());
            let frame = Frame::small(&frame, FrameForm::PassThrough);
            client.handle(frame, life.surroundings(), &mut out, &mut later).expect("a good frame");
            (life.client, life.later) = (client, later);
        }
        self.answered(node, &frames_of(&mut out));
        self.carry_out(node);
    }

    /// Answers of a node have come.
    pub fn answered(&mut self, node: usize, frames: &[Vec<u8>]) {
        for frame in frames {
            let mut cursor = Cursor::new(frame);
            let control = ControlMessage::parse(&mut cursor).expect("a control message");
            match control {
                // Of those who watch.
                ControlMessage::MonitorP { .. } => continue,
                control => assert!(matches!(control, ControlMessage::Send { .. }), "{control:?}"),
            }
            let answer = TermView::parse(&cursor.rest()[1..]).expect("a term");
            let [tag, reply] = answer.as_tuple::<2>().expect("an answer");
            let number = tag.as_reference().expect("our own tag").words()[0];
            let call = self.calls.remove(&number).expect("a call is answered once");
            assert_eq!(call.node, node);
            self.answer(call, reply);
        }
    }

    fn answer(&mut self, call: Call, reply: TermView<'_>) {
        let is_ok = reply.is_atom("ok");
        let reason = reply.as_tuple::<2>().map(|[_, reason]| reason);
        let is_refusal = |reason: TermView<'_>| {
            reason.is_atom("no_space") || reason.as_tuple::<2>().is_some_and(|[io, _]| io.is_atom("io"))
        };
        let may_fail = self.nodes[call.node].drive.is_some() || self.nodes[call.node].was_full;
        let has_failed = may_fail && reason.is_some_and(is_refusal);
        self.counts.failed += u64::from(has_failed);
        if has_failed {
            self.edited = Some(Edited::NoRoom);
        }
        let is_unconfirmed = reason.and_then(TermView::as_tuple::<3>).is_some();
        match call.asked {
            Asked::Write | Asked::Edit(_) | Asked::Confirmed { .. } if has_failed => {}
            Asked::Write => assert!(is_ok, "{reply:?}"),
            Asked::Edit(expects) => self.counts.guarded += u64::from(expects.check(reply)),
            Asked::Confirmed { incarnation, seq, left, want, had, expects } if !is_unconfirmed => {
                // What has changed nothing, no slave need have.
                let has_changed_nothing = expects.check(reply) || left.is_empty() && seq.is_none();
                if has_changed_nothing {
                    self.counts.guarded += u64::from(!left.is_empty());
                    self.edited = Some(Edited::Done);
                    return;
                }
                let slaves = self.life(call.node).server.slaves();
                let told = |slave: &std::sync::Arc<SlaveEntry>| {
                    let confirmed = slave.machine().confirmed();
                    format!("{slave:?} {confirmed} {:?}", slave.standing())
                };
                let slaves: Vec<String> = slaves.iter().map(told).collect();
                assert!(
                    had.len() as u64 >= want,
                    "{left:?} of {} is confirmed by {want}, and {had:x?} have it: {slaves:?}",
                    call.node
                );
                self.counts.confirmed += 1;
                let turns = self.turns.get(&incarnation).copied().unwrap_or(0);
                self.confirmed.push(Confirmed { incarnation, turns, left, had });
            }
            Asked::Confirmed { want, .. } => {
                let [unconfirmed, have, wanted] = reason.and_then(TermView::as_tuple::<3>).expect("a reason");
                assert!(unconfirmed.is_atom("unconfirmed") && wanted.as_unsigned() == Some(want));
                assert!(have.as_unsigned() < Some(want), "{reply:?}");
                self.counts.unconfirmed += 1;
            }
            Asked::AddSlave { is_own } => {
                let refusal = reason.and_then(Refusal::of_code);
                assert!(is_ok || refusal.is_some(), "{reply:?}");
                assert!(!is_own || refusal == Some(Refusal::Itself), "{reply:?}");
                self.counts.itself += u64::from(is_own);
                self.counts.is_own_by_name += u64::from(!is_own && refusal == Some(Refusal::Itself));
            }
            Asked::Watch { initial } => self.watches(call.node, initial, reply),
            Asked::RemoveSlave => assert!(is_ok || reason.is_some_and(|reason| reason.is_atom("no_slave"))),
            Asked::Promote => {
                if let Some(term) = term_of(reply) {
                    self.counts.promotions += 1;
                    // Not what it is now: it may have been promoted again.
                    let incarnation = self.life(call.node).incarnation;
                    self.nodes[call.node].promoted = (term, incarnation);
                } else {
                    let reason = reason.expect("a reason");
                    assert!(reason.is_atom("not_a_slave") || reason.is_atom("copying"), "{reply:?}");
                }
            }
        }
    }

    /// Writes a random key at a store; `want`: as a confirmed write.
    pub fn write(&mut self, node: usize, want: Option<u64>) {
        let value = self.next_value();
        let pair = (self.random.below(KEYS), value);
        let (key, value) = (term(pair.0), term(pair.1));
        let incarnation = self.life(node).incarnation;
        match want {
            Some(want) => {
                let left = vec![Left { key: pair.0, value: Some(pair.1), number: pair.1 }];
                let (had, expects) = (Vec::new(), Expects::DONE);
                let asked = Asked::Confirmed { incarnation, seq: None, left, want, had, expects };
                self.call(node, asked, |w| {
                    w.tuple(4).atom("put").raw(&key).raw(&value);
                    w.list(1).tuple(2).atom("confirm").unsigned(want).nil();
                });
            }
            None if self.random.one_in(4) => {
                self.deleted.insert(pair.0, pair.1);
                self.call(node, Asked::Write, |w| _ = w.tuple(2).atom("delete").raw(&key));
            }
            // Nobody but its primary knows when it goes.
            None if self.has_ends && self.random.one_in(4) => {
                self.deleted.insert(pair.0, pair.1);
                self.ending.put(pair.1);
                self.counts.ending += 1;
                let ttl = 1 + self.random.below(4_000);
                self.call(node, Asked::Write, |w| {
                    w.tuple(4).atom("put").raw(&key).raw(&value);
                    w.list(1).tuple(2).atom("ttl").unsigned(ttl).nil();
                });
            }
            None if self.random.one_in(4) => self.write_many(node, pair),
            None => self.call(node, Asked::Write, |w| _ = w.tuple(3).atom("put").raw(&key).raw(&value)),
        }
    }

    /// Writes this pair and others at once: their values follow one another.
    fn write_many(&mut self, node: usize, (key, first): (u64, u64)) {
        let keys = 2 + self.random.below(3);
        let stride = self.stride;
        self.writes += (keys - 1) * stride;
        self.counts.many += 1;
        self.call(node, Asked::Write, |w| {
            w.tuple(2).atom("put_many").list(keys as usize);
            for more in 0..keys {
                w.tuple(2).raw(&term((key + more) % KEYS)).raw(&term(first + more * stride));
            }
            w.nil();
        });
    }

    /// Empties a primary now and then.
    pub fn clear_some(&mut self) {
        let primaries = self.primaries();
        let Some(random) = self.clearing.as_mut().filter(|_| !primaries.is_empty()) else { return };
        let (is_time, node) = (random.one_in(40), random.pick(&primaries));
        if is_time {
            self.empty(node);
        }
    }

    /// What a primary holds is older than this.
    pub fn empty(&mut self, node: usize) {
        let number = self.next_value();
        self.deleted.extend((0..KEYS).map(|key| (key, number)));
        self.counts.clears += 1;
        self.call(node, Asked::Write, |w| _ = w.atom("clear"));
    }

    /// Some writes of a primary that answers later are under way, and some of them done, in whatever order.
    pub fn have_writes_under_way(&mut self, node: usize) {
        if self.is_calm || self.nodes[node].drive.is_none() {
            return;
        }
        for _ in 0..2 + self.random.below(6) {
            if self.figures(node).is_none() {
                self.write(node, None);
            }
        }
        let waiting = self.nodes[node].drive.as_ref().map_or(0, Drive::waiting);
        for _ in 0..self.random.index(2 * waiting + 1) {
            self.drive_on(node, 1);
        }
    }

    /// Adds a node's store as a slave, by one of its names or by its pid.
    pub fn add_slave(&mut self, node: usize, other: usize) {
        let kind = self.random.below(5);
        let name = match (&self.nodes[other].life, self.global_name_of(other)) {
            (Some(life), _) if kind == 0 => SlaveName::Pid(life.store.pid.clone()),
            (_, Some(name)) if kind < 3 => name,
            _ => self.nodes[other].store_name(),
        };
        self.add_as(node, other, &name);
    }

    /// Adds a node's store as a slave by a name that it is not a slave by, if it has one.
    pub fn add_by_another_name(&mut self, node: usize, other: usize) {
        let pid = self.nodes[other].life.as_ref().map(|life| SlaveName::Pid(life.store.pid.clone()));
        let global = self.global_name_of(other);
        let names = [Some(self.nodes[other].store_name()), pid, global];
        let slaves = self.life(node).server.slaves();
        let is_new = |name: &SlaveName| slaves.iter().all(|slave| slave.name() != name);
        let names: Vec<SlaveName> = names.into_iter().flatten().filter(is_new).collect();
        if !names.is_empty() {
            let name = names[self.random.index(names.len())].clone();
            self.add_as(node, other, &name);
        }
    }

    fn add_as(&mut self, node: usize, other: usize, name: &SlaveName) {
        let is_own = node == other && !matches!(name, SlaveName::Global(_));
        let added = self.nodes[other].store_name();
        // A name in `global` may be anybody's by then.
        let is_global = matches!(name, SlaveName::Global(_));
        self.life_mut(node).protected.retain(|protected| *protected != added && !is_global);
        self.call(node, Asked::AddSlave { is_own }, |w| {
            w.tuple(2).atom("add_slave");
            name.write(w);
        });
    }

    /// The same, by its registered name.
    pub fn add_named(&mut self, node: usize, other: usize) {
        let name = self.nodes[other].store_name();
        self.life_mut(node).protected.retain(|protected| *protected != name);
        self.call(node, Asked::AddSlave { is_own: false }, |w| {
            w.tuple(2).atom("add_slave");
            name.write(w);
        });
    }

    pub fn remove_slave(&mut self, node: usize, name: &SlaveName) {
        self.call(node, Asked::RemoveSlave, |w| {
            w.tuple(2).atom("remove_slave");
            name.write(w);
        });
    }

    pub fn promote(&mut self, node: usize) {
        // What is promoted counts, whatever it holds.
        self.life_mut(node).started_empty = false;
        let figures = self.figures(node);
        self.counts.nested += u64::from(figures.is_some() && self.lineage(node).term > 0);
        self.call(node, Asked::Promote, |w| {
            w.tuple(2).atom("promote").list(1).tuple(2).atom("report").atom("true").nil();
        });
    }
}

/// The term of a promotion that is answered `{:ok, report}`.
fn term_of(reply: TermView<'_>) -> Option<u64> {
    let [ok, report] = reply.as_tuple::<2>()?;
    let mut cursor = report.cursor();
    let len = cursor.map().ok().filter(|_| ok.is_atom("ok"))?;
    let mut pairs = (0..len).map_while(|_| Some((cursor.term().ok()?, cursor.term().ok()?)));
    pairs.find(|(key, _)| key.is_atom("term"))?.1.as_unsigned()
}
