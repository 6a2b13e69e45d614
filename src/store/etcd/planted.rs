//! Rules of the engine that a test can break one by one, to show that its judges notice (`tests/linearizable_etcd.rs`).
//!
//! Only with the feature `planted`, which is for tests alone. Without it `planted` is `false` as a constant: each question stands where
//! its rule is kept, and costs nothing. A store is opened with what is planted (`plant`) on the thread that opens it.

/// A rule that can be broken. Its text is the rule as it is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rule {
    /// A read that wants the writes of all processes waits until they are here.
    CatchUp,
    /// A batch that is sent again, as its answer was lost, and finds its own mark was done by the first time, and is not done anew.
    OnceOrNever,
    /// A write is answered when etcd has committed it.
    AnswerBehindCommit,
    /// The table goes on by revisions, one after the other, and never back.
    OneOrder,
}

impl Rule {
    /// All of them.
    pub const ALL: &[Self] = &[Self::CatchUp, Self::OnceOrNever, Self::AnswerBehindCommit, Self::OneOrder];
}

#[cfg(not(feature = "planted"))]
mod switch {
    use super::Rule;

    /// Whether a rule is broken.
    #[inline(always)]
    pub(in crate::store::etcd) const fn planted(_rule: Rule) -> bool {
        false
    }

    /// The work of a store's thread.
    pub(in crate::store::etcd) const fn inherited<W: FnOnce()>(work: W) -> W {
        work
    }
}

#[cfg(feature = "planted")]
mod switch {
    use std::cell::Cell;

    use super::Rule;

    thread_local! {
        static PLANTED: Cell<Option<Rule>> = const { Cell::new(None) };
    }

    /// Whether a rule is broken.
    pub(in crate::store::etcd) fn planted(rule: Rule) -> bool {
        PLANTED.get() == Some(rule)
    }

    /// Breaks a rule, or none, in the stores that this thread opens from now on.
    pub fn plant(rule: Option<Rule>) {
        PLANTED.set(rule);
    }

    /// The work of a store's thread, which breaks what this thread does.
    pub(in crate::store::etcd) fn inherited<W: FnOnce()>(work: W) -> impl FnOnce() {
        let rule = PLANTED.get();
        move || {
            PLANTED.set(rule);
            work();
        }
    }
}

#[cfg(feature = "planted")]
pub use switch::plant;
pub(super) use switch::{inherited, planted};
