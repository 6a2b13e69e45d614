//! The greeting of a kvnode's store, as terms: what a primary says of itself, and what it is answered.

use super::lineage::{Lineage, Refusal};
use super::slave::{Said, SlaveName};
use crate::etf::{TermView, TermWriter};

/// What a primary says of itself to a store that is to be its slave, beside its names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hello {
    /// The session that the greeting begins.
    pub session: u64,
    /// Who the primary is.
    pub lineage: Lineage,
    /// The number of the last write that it has taken.
    pub seq: u64,
    /// All its slaves, by the names that they have on other nodes.
    pub slaves: Vec<SlaveName>,
    /// It was started without data, and may have lost what the slave holds.
    pub started_empty: bool,
}

impl Hello {
    /// Writes `{:replica_hello, session, lineage, seq, names, slaves, fresh}`. `names` are those of the primary, as other
    /// nodes use them.
    pub fn write(&self, w: &mut TermWriter<'_>, names: &[SlaveName]) {
        w.tuple(7).atom("replica_hello").unsigned(self.session);
        self.lineage.write(w);
        w.unsigned(self.seq);
        write_names(w, names);
        write_names(w, &self.slaves);
        w.atom(if self.started_empty { "true" } else { "false" });
    }
}

/// Writes a list of names.
pub(super) fn write_names(w: &mut TermWriter<'_>, names: &[SlaveName]) {
    w.list(names.len());
    names.iter().for_each(|name| name.write(w));
    w.nil();
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
