//! Rules of replication that a test can break one by one, to show that the cluster simulation notices (`tests/cluster_simulation`).
//!
//! Only with the feature `planted`, which is for that test alone. Without it [`planted`] is `false` as a constant: each question
//! stands where its rule is kept, and costs nothing.

/// Each rule with what it says.
macro_rules! rules {
    ($($(#[$doc:meta])* $rule:ident,)+) => {
        /// A rule that can be broken. Its text is the rule as it is kept.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Rule { $($(#[$doc])* $rule,)+ }

        impl Rule {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$rule),+];
        }
    };
}

rules! {
    // The primary's side of a slave.
    /// An answer to an earlier greeting is none to this one.
    LateAnswer,
    /// What a slave refused is the store as it was when it was greeted: one that has changed since asks again.
    RefusalOfTheChanged,
    /// A greeting that was refused is no session.
    RefusedSession,
    /// A process that is followed under two names is one slave.
    OneProcessOneSlave,
    /// Of two names of one process, the kept one takes over what the other has greeted it with.
    TakeOver,
    /// What a process has that is followed under another name now counts there alone.
    PreviousName,
    /// A slave is sent no more than a window ahead of what it has acknowledged.
    Window,
    /// A kvnode has a write of several keys whole, or nothing of it.
    ManyWhole,
    /// Of a deletion of all keys that is lost, everything is missed.
    LostClear,
    /// Past the bound of the keys that a slave has missed, everything is copied to it.
    MissedBound,
    /// A repair sends the deletion of a key that is there no more.
    RepairedDeletion,
    /// What a repair has read is forgotten when the key is written.
    RepairedRead,
    /// A value that is not the slaves' turn yet is read by no repair.
    RepairInTurn,
    /// A slave that does not keep what it is sent has not got it.
    NotKept,
    /// A server of the protocol has the keys deleted that its primary has not.
    Sweep,
    /// A slave that another primary may have written to late is copied to again.
    CopyToOthers,
    /// A slave is told where it is removed.
    Bye,
    // The slave's side.
    /// A slave answers its primary once what came before is kept.
    AnswerBehindWrites,
    /// A slave is not further than its store has kept.
    AppliedBehindStore,
    /// A copy takes the place of what was there when it is whole.
    CopyWhole,
    /// What is written while a copy comes into the store itself carries the copy's number.
    CopyNumber,
    /// No two copies have one number, also where the store was started again between them.
    CopyCounted,
    /// What a copy has not brought is deleted by what is there at that moment.
    RestAsItIs,
    /// A slave that lacks something says so until that is repaired.
    LacksUntilWhole,
    /// A store that follows another primary tells the one before.
    Leave,
    /// A store's own slaves are greeted anew when the chain of its primaries is another.
    ChainTold,
    /// What a former primary drops is kept elsewhere.
    DroppedKept,
    // Who is whose slave.
    /// Of two stores that greet each other one becomes the slave.
    Crossing,
    /// A store takes no primary of an older term.
    Superseded,
    /// An orphan leads nobody.
    OrphanLeads,
    /// A promotion is answered when it is kept.
    PromotionKept,
    /// A promotion begins a term of its own.
    TermOfPromotion,
    /// A promoted store takes over the slaves of its former primary, and that one.
    SlavesTaken,
    /// A demoted store leaves those of its slaves to the new primary that are that one's.
    SlavesLeft,
    /// A primary of an older term that a slave has refused becomes the slave of that one's primary.
    HandedUp,
    /// A primary that was started without data takes nothing from a slave that it was started with.
    ProtectData,
}

#[cfg(not(feature = "planted"))]
mod switch {
    use super::Rule;

    /// Whether a rule is broken.
    #[inline(always)]
    pub const fn planted(_rule: Rule) -> bool {
        false
    }

    /// The window, where none was planted.
    #[inline(always)]
    pub const fn window_bytes(default: usize) -> usize {
        default
    }
}

#[cfg(feature = "planted")]
mod switch {
    use std::cell::Cell;

    use super::Rule;

    thread_local! {
        static PLANTED: Cell<Option<Rule>> = const { Cell::new(None) };
        static WINDOW_BYTES: Cell<Option<usize>> = const { Cell::new(None) };
    }

    /// Whether a rule is broken.
    pub fn planted(rule: Rule) -> bool {
        PLANTED.get() == Some(rule)
    }

    /// Breaks a rule on this thread, or none.
    pub fn plant(rule: Option<Rule>) {
        PLANTED.set(rule);
    }

    /// The window in bytes.
    pub fn window_bytes(default: usize) -> usize {
        WINDOW_BYTES.get().unwrap_or(default)
    }

    /// Has another window on this thread: one that is full after a few writes.
    pub fn plant_window_bytes(bytes: Option<usize>) {
        WINDOW_BYTES.set(bytes);
    }
}

pub use switch::*;
