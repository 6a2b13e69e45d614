//! Why a request of a store is not done: the word that its caller is answered with, and that it is counted by.

use std::fmt;

use super::figures::StoreWatch;
use crate::etf::TermWriter;
use crate::replica::lineage::Refusal;
use crate::store::StoreError;

/// What a [`Reason`] is one of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReasonKind {
    /// The caller's fault, or a bound: the request is not one that the store carries out.
    Refused,
    /// What is there is not what the caller expected.
    Conflict,
    /// The store's fault, or its machine's or slaves'.
    Failed,
}

impl ReasonKind {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Refused, Self::Conflict, Self::Failed];

    /// Its word, for machines.
    pub const fn code(self) -> &'static str {
        match self {
            Self::Refused => "refused",
            Self::Conflict => "conflict",
            Self::Failed => "failed",
        }
    }
}

/// Makes the enum, the list of all and the words of the same lines.
macro_rules! reasons {
    ($($kind:ident { $($(#[$about:meta])* $name:ident = $code:expr,)+ })+) => {
        /// Why a request is not done.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Reason {
            $($($(#[$about])* $name,)+)+
        }

        impl Reason {
            /// All of them, in the order of their counters.
            pub const ALL: &'static [Self] = &[$($(Self::$name,)+)+];

            /// The atom that callers get, in `{:error, code}` or at the head of a tuple in there, or as the reason of the end of their call.
            pub const fn code(self) -> &'static str {
                match self {
                    $($(Self::$name => $code,)+)+
                }
            }

            /// The word that it is counted by: the same, but for that of guards, which would say too little by itself.
            pub const fn label(self) -> &'static str {
                match self {
                    Self::GuardFailed => "guard_failed",
                    reason => reason.code(),
                }
            }

            /// What it is one of.
            pub const fn kind(self) -> ReasonKind {
                match self {
                    $($(Self::$name)|+ => ReasonKind::$kind,)+
                }
            }
        }
    };
}

reasons! {
    Refused {
        /// There is no such request; of casts too.
        BadCall = "bad_call",
        /// A key or a value cannot be kept.
        BadArgument = "badarg",
        /// The caller's OTP cannot decode what it would get.
        Undecodable = "system_limit",
        /// There is no such option.
        UnknownOption = "unknown_option",
        /// The store is a slave.
        SlaveOf = "slave_of",
        /// An election decides which store is the primary: nobody promotes one by hand.
        Elected = "elected",
        /// Something that is to be added is no integer.
        NotAnInteger = "not_an_integer",
        /// More of something than a bound allows.
        TooMany = "too_many",
        /// The same of bytes.
        TooLarge = "too_large",
        /// The store has no order of keys.
        Unordered = "unordered",
        /// Nothing begins with a prefix.
        BadPrefix = "bad_prefix",
        /// A scan has a prefix and a range.
        PrefixAndRange = "prefix_and_range",
        /// A cursor is of another store, or of none.
        BadCursor = "bad_cursor",
        /// As many scans or watches wait as may.
        Busy = "busy",
        /// What has changed since is not known.
        TooOld = "too_old",
        /// The caller has no such watch.
        NoWatch = "no_watch",
        /// Another process holds the store, and follows the store's slaves.
        HeldBy = "held_by",
        /// The store has as many slaves as it may have.
        TooManySlaves = "too_many_slaves",
        /// It has no such slave.
        NoSlave = "no_slave",
        /// A slave that was to be added is the store itself.
        Itself = Refusal::Itself.code(),
        /// It is, over others, the store's primary.
        Cycle = Refusal::Cycle.code(),
        /// It follows another primary.
        HasPrimary = Refusal::HasPrimary.code(),
        /// It is about to have the store as a slave.
        Crossing = Refusal::Crossing.code(),
        /// It was promoted, or follows a store that was, in the place of this one.
        Superseded = Refusal::Superseded.code(),
        /// It holds something, and this store may have lost just that.
        NotEmpty = Refusal::NotEmpty.code(),
        /// It is a server of another kind.
        Foreign = Refusal::Foreign.code(),
        /// etcd keeps the store: it follows no primary, is not promoted, and no write waits for slaves.
        KeptByEtcd = Refusal::KeptByEtcd.code(),
        /// Its answer is of no session, or none.
        OtherSession = Refusal::OtherSession.code(),
    }
    Conflict {
        /// A key has something else than a request expects.
        Conflict = "conflict",
        /// A guard of a transaction does not hold.
        GuardFailed = "failed",
    }
    Failed {
        /// The store is full.
        NoSpace = StoreError::NoSpace.code(),
        /// The disk fails.
        Io = StoreError::Io("").code(),
        /// The machine that keeps the store does not answer.
        Unavailable = StoreError::Unavailable.code(),
        /// The machine that keeps the store has not said whether the write is done.
        Unknown = StoreError::Unknown.code(),
        /// An election runs, and this store is not the primary, nor knows one that is there: nothing is written. To be asked again.
        NoPrimary = "no_primary",
        /// An election runs, and this store could not be made the primary by force.
        NotElected = "not_elected",
        /// Too few slaves have a write in time.
        Unconfirmed = "unconfirmed",
        /// The disk does not take what the store is to know after a restart.
        NotKept = "not_kept",
    }
}

impl From<&StoreError> for Reason {
    fn from(error: &StoreError) -> Self {
        match error {
            StoreError::NoSpace => Self::NoSpace,
            StoreError::Unavailable => Self::Unavailable,
            StoreError::Unknown => Self::Unknown,
            StoreError::TooLarge(_) => Self::TooLarge,
            StoreError::TooMany(_) => Self::TooMany,
            // It may come to have others.
            _ => Self::Io,
        }
    }
}

/// Of a slave that was to be added.
impl From<Refusal> for Reason {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::Itself => Self::Itself,
            Refusal::Cycle => Self::Cycle,
            Refusal::HasPrimary => Self::HasPrimary,
            Refusal::Crossing => Self::Crossing,
            Refusal::Superseded => Self::Superseded,
            Refusal::NotEmpty => Self::NotEmpty,
            Refusal::NoSpace => Self::NoSpace,
            Refusal::Disk => Self::Io,
            Refusal::TooLarge => Self::TooLarge,
            Refusal::Foreign => Self::Foreign,
            Refusal::KeptByEtcd => Self::KeptByEtcd,
            Refusal::OtherSession => Self::OtherSession,
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.label())
    }
}

// What writes a reason counts it: so none is answered that is not counted.
pub(super) fn write_result<T>(w: &mut TermWriter<'_>, result: &Result<T, StoreError>, figures: &StoreWatch) {
    match result {
        Ok(_) => {
            w.atom("ok");
        }
        Err(error) => write_error(w, error, figures),
    }
}

#[cold]
pub(super) fn write_error(w: &mut TermWriter<'_>, error: &StoreError, figures: &StoreWatch) {
    figures.count_failed(error);
    w.tuple(2).atom("error");
    write_reason(w, error);
}

/// Writes `{:error, {:not_kept, reason}}`: what was asked is so from here on, and forgotten after a restart.
pub(super) fn write_not_kept(w: &mut TermWriter<'_>, error: &StoreError, figures: &StoreWatch) {
    figures.count_not_done(Reason::NotKept);
    w.tuple(2).atom("error").tuple(2).atom(Reason::NotKept.code());
    write_reason(w, error);
}

/// Writes what stands behind `:error`.
pub(super) fn write_reason(w: &mut TermWriter<'_>, error: &StoreError) {
    match (error.detail(), error.bound()) {
        (None, None) => w.atom(error.code()),
        (Some(detail), _) => w.tuple(2).atom(error.code()).atom(detail),
        (None, Some(bound)) => w.tuple(2).atom(error.code()).unsigned(bound),
    };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_reason_has_a_word_of_its_own_and_its_place() {
        for (place, reason) in Reason::ALL.iter().enumerate() {
            assert_eq!(*reason as usize, place, "{reason}");
            assert_eq!(
                Reason::ALL.iter().filter(|other| other.code() == reason.code()).count(),
                1,
                "{reason}"
            );
        }
        for refusal in Refusal::ALL {
            assert_eq!(Reason::from(refusal).code(), refusal.code());
        }
        assert_eq!((Reason::from(&StoreError::NoSpace).code(), Reason::Io.code()), ("no_space", "io"));
    }
}
