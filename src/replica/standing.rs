//! Where a slave is, and how a store and its other side stand to each other, with the words for it.
//!
//! The words are what `:status`, `/status.json` and `/metrics` say, and `kvnode top` and the page read. They stand here
//! alone: a list of them is `ALL` of its enum, and a new state is a line in it.

use super::lineage::Refusal;
use crate::distribution::RemoteProcess;

/// An enum of states, each with its word.
macro_rules! states {
    ($(#[$doc:meta])* $name:ident { $($(#[$state_doc:meta])* $state:ident = $code:literal,)+ }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum $name { $($(#[$state_doc])* $state,)+ }

        impl $name {
            /// All of them.
            pub const ALL: [Self; [$($code),+].len()] = [$(Self::$state),+];

            /// Its word, for machines.
            pub const fn code(self) -> &'static str {
                match self { $(Self::$state => $code,)+ }
            }

            /// Reads [`code`](Self::code).
            pub fn of_code(code: &str) -> Option<Self> {
                Self::ALL.into_iter().find(|state| state.code() == code)
            }
        }
    };
}

/// Where a slave is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SlaveState {
    /// Not known.
    Seeking,
    /// Known, and watched.
    Following(RemoteProcess),
    /// It will never be there (again): nothing is kept for it.
    Dropped,
}

/// How a slave stands to its primary, for people.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// It has never been found.
    Seeking,
    /// It is there, and does not become a slave of this store.
    Refused(Refusal),
    /// It is not there. `missed`: keys that it will be sent; `None`: all of them.
    Gone {
        /// How many keys were written or deleted since.
        missed: Option<u64>,
    },
    /// It is being brought up to date.
    Copying {
        /// Keys sent so far.
        done: u64,
        /// Keys that there are to send, as far as is known.
        total: u64,
    },
    /// It did not keep up: what it misses is sent when it has taken what it was sent.
    Behind {
        /// As in [`Gone`](Self::Gone).
        missed: Option<u64>,
    },
    /// Its store does not take what it is sent, for this reason. Deletions go on, and it is tried again.
    Full {
        /// Why.
        why: Refusal,
        /// As in [`Gone`](Self::Gone).
        missed: Option<u64>,
    },
    /// It has everything, but for so many writes that are on their way.
    InStep {
        /// Writes that it has not acknowledged.
        lag: u64,
    },
    /// It will never be there (again).
    Dropped,
}

states! {
    /// A slave's [`Standing`] without its numbers.
    StandingKind {
        /// Not found yet.
        Seeking = "seeking",
        /// It does not become a slave.
        Refused = "refused",
        /// It is not there.
        Gone = "gone",
        /// It is being brought up to date.
        Copying = "copying",
        /// It does not keep up.
        Behind = "behind",
        /// It has no room for what it is sent.
        Full = "full",
        /// It cannot keep what it is sent, for another reason.
        Failing = "failing",
        /// It has everything, but for what is on its way.
        InStep = "in_step",
        /// It will never be there (again).
        Dropped = "dropped",
    }
}

states! {
    /// How a store stands with its primary.
    PrimaryStanding {
        /// It has all that has come.
        Following = "following",
        /// The primary is none that says how it stands: an Elixir one.
        Writing = "writing",
        /// The store is brought up to date.
        Copying = "copying",
        /// Something is missing, and will be sent again.
        Repairing = "repairing",
        /// The store has no room for what comes.
        Full = "full",
        /// The store cannot keep what comes, for another reason.
        Failing = "failing",
        /// The primary is lost.
        Gone = "gone",
    }
}

impl Standing {
    /// Which of them it is.
    pub const fn kind(self) -> StandingKind {
        match self {
            Self::Seeking => StandingKind::Seeking,
            Self::Refused(_) => StandingKind::Refused,
            Self::Gone { .. } => StandingKind::Gone,
            Self::Copying { .. } => StandingKind::Copying,
            Self::Behind { .. } => StandingKind::Behind,
            Self::Full { why: Refusal::NoSpace, .. } => StandingKind::Full,
            Self::Full { .. } => StandingKind::Failing,
            Self::InStep { .. } => StandingKind::InStep,
            Self::Dropped => StandingKind::Dropped,
        }
    }

    /// Writes that it has not acknowledged, or keys that it misses; `None`: all of them, or not known.
    pub const fn lag(self) -> Option<u64> {
        match self {
            Self::Seeking | Self::Refused(_) | Self::Dropped => None,
            Self::Gone { missed } | Self::Behind { missed } | Self::Full { missed, .. } => missed,
            Self::Copying { done, total } => Some(total.saturating_sub(done)),
            Self::InStep { lag } => Some(lag),
        }
    }

    /// Keys of a copy in all, as far as is known.
    pub const fn total(self) -> Option<u64> {
        match self {
            Self::Copying { total, .. } => Some(total),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_state_is_read_by_its_word() {
        for state in StandingKind::ALL {
            assert_eq!(StandingKind::of_code(state.code()), Some(state));
        }
        for state in PrimaryStanding::ALL {
            assert_eq!(PrimaryStanding::of_code(state.code()), Some(state));
        }
        assert_eq!((StandingKind::of_code(""), PrimaryStanding::of_code("Gone")), (None, None));
    }
}
