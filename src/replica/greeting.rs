//! The greeting of a kvnode's store, as terms: what a primary says of itself, and what it is answered.

use std::sync::Arc;

use super::SlaveName;
use super::lineage::{Lineage, Refusal};
use crate::etf::{TermView, TermWriter};

/// A slave, as others are told of it: how it is found, also by a node that is connected to none that knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KnownSlave {
    /// The name that it has on other nodes.
    pub name: SlaveName,
    /// The node where it was last; `None`: it was never found.
    pub node: Option<Arc<str>>,
}

impl KnownSlave {
    /// Writes `{:at, name, node}`, which is no slave's name, with `nil` for a node that is not known.
    pub fn write(&self, w: &mut TermWriter<'_>) {
        w.tuple(3).atom("at");
        self.name.write(w);
        w.atom(self.node.as_deref().unwrap_or("nil"));
    }

    /// Reads what [`write`](Self::write) writes; `None`: it is something else.
    pub fn read(term: TermView<'_>) -> Option<Self> {
        let [at, name, node] = term.as_tuple::<3>()?;
        let node = node.as_atom().filter(|_| at.is_atom("at"))?;
        let node = (node != "nil").then(|| node.to_str().into());
        Some(Self { name: SlaveName::read(name)?, node })
    }
}

/// What a primary says of itself to a store that is to be its slave, beside its names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hello {
    /// The session that the greeting begins.
    pub session: u64,
    /// The primary's identity.
    pub lineage: Lineage,
    /// The number of the last write that it has taken.
    pub seq: u64,
    /// What its clock says, in milliseconds.
    pub clock: u64,
    /// All its slaves.
    pub slaves: Vec<KnownSlave>,
    /// It was started without data, and may have lost what the slave holds.
    pub started_empty: bool,
}

impl Hello {
    /// Writes `{:replica_hello, session, lineage, seq, clock, names, slaves, fresh}`. `names` are those of the primary, as other
    /// nodes use them.
    pub fn write(&self, w: &mut TermWriter<'_>, names: &[SlaveName]) {
        w.tuple(8).atom("replica_hello").unsigned(self.session);
        self.lineage.write(w);
        w.unsigned(self.seq).unsigned(self.clock);
        w.list(names.len());
        names.iter().for_each(|name| name.write(w));
        w.nil();
        write_slaves(w, &self.slaves);
        w.atom(if self.started_empty { "true" } else { "false" });
    }
}

/// Writes a list of slaves.
pub(super) fn write_slaves(w: &mut TermWriter<'_>, slaves: &[KnownSlave]) {
    w.list(slaves.len());
    slaves.iter().for_each(|slave| slave.write(w));
    w.nil();
}

/// What a kvnode's store says of itself when it is greeted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Said {
    /// Its own incarnation.
    pub incarnation: u64,
    /// That of the primary whose writes it has had.
    pub had: Option<u64>,
    /// The last of these.
    pub applied: u64,
    /// It was a primary with slaves until now: what it has sent to them may come late.
    pub stepped_down: bool,
}

/// What has come of a greeting.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum GreetingAnswer {
    /// The store becomes a slave.
    Taken(Said),
    /// It does not.
    Refused(Refusal),
    /// The call ended with the process, or was ended by it: a server of a kvnode that is none of the protocol's.
    NoStore,
    /// There is no answer, or none that says anything, for this reason.
    None(String),
}

impl GreetingAnswer {
    /// Reads `{:ok, own, incarnation | :none, applied}`, with `:stepped_down` behind it from a former primary with slaves, or
    /// `{:error, reason}`.
    pub fn read(answer: TermView<'_>) -> Self {
        let read = match answer.as_tuple::<2>() {
            Some([error, reason]) if error.is_atom("error") => Refusal::of_code(reason).map(Self::Refused),
            Some(_) => None,
            None => read_taken(answer).map(Self::Taken),
        };
        read.unwrap_or_else(|| Self::None(format!("it answers {answer:?} (a kvnode of another version?)")))
    }
}

fn read_taken(answer: TermView<'_>) -> Option<Said> {
    let former = answer.as_tuple::<5>();
    let former = former.filter(|[.., stepped_down]| stepped_down.is_atom("stepped_down"));
    let stepped_down = former.is_some();
    let [ok, own, had, applied] = match former {
        Some([ok, own, had, applied, _]) => [ok, own, had, applied],
        None => answer.as_tuple::<4>()?,
    };
    let (incarnation, applied) = (own.as_unsigned()?, applied.as_unsigned()?);
    ok.is_atom("ok").then_some(Said { incarnation, had: had.as_unsigned(), applied, stepped_down })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::etf::encode;

    #[test]
    fn a_slave_is_read_as_others_are_told_of_it() {
        for node in [None, Some("a@h".into())] {
            for name in [SlaveName::global("a"), SlaveName::remote("b", "c@h")] {
                let slave = KnownSlave { name, node: node.clone() };
                let told = encode(|w| slave.write(w));
                assert_eq!(KnownSlave::read(TermView::parse(&told).expect("our own term")), Some(slave));
            }
        }
        let name = encode(|w| SlaveName::global("a").write(w));
        assert_eq!(KnownSlave::read(TermView::parse(&name).expect("our own term")), None);
    }

    #[test]
    fn answers_to_a_greeting_are_told_apart() {
        let read = |write: fn(&mut TermWriter<'_>)| {
            GreetingAnswer::read(TermView::parse(&encode(write)).expect("our own term"))
        };
        let said = |had| Said { incarnation: u64::MAX, had, applied: 3, stepped_down: false };
        let former = Said { stepped_down: true, ..said(None) };
        assert_eq!(
            read(|w| {
                w.tuple(5).atom("ok").unsigned(u64::MAX).atom("none").unsigned(3).atom("stepped_down");
            }),
            GreetingAnswer::Taken(former)
        );
        assert_eq!(
            read(|w| _ = w.tuple(4).atom("ok").unsigned(u64::MAX).atom("none").unsigned(3)),
            GreetingAnswer::Taken(said(None))
        );
        assert_eq!(
            read(|w| _ = w.tuple(4).atom("ok").unsigned(u64::MAX).unsigned(9).unsigned(3)),
            GreetingAnswer::Taken(said(Some(9)))
        );
        let refused = read(|w| _ = w.tuple(2).atom("error").atom("cycle"));
        assert_eq!(refused, GreetingAnswer::Refused(Refusal::Cycle));
        for other in [
            read(|w| _ = w.tuple(2).atom("error").atom("other")),
            read(|w| _ = w.tuple(4).atom("no").unsigned(1).unsigned(9).unsigned(3)),
            read(|w| _ = w.atom("ok")),
        ] {
            let GreetingAnswer::None(why) = &other else { panic!("{other:?}") };
            assert!(
                why.starts_with("it answers ") && why.ends_with("(a kvnode of another version?)"),
                "{why}"
            );
        }
    }
}
