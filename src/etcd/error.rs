//! What can be wrong, and what follows from it.

/// Why there is no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// No member could be asked in time. Nothing was changed.
    #[error("etcd is not available: {reason}")]
    Unavailable {
        /// What the last try said.
        reason: String,
    },
    /// The request was sent, and no member said what became of it: it may have been done, or be done yet.
    #[error("etcd has not said whether it was done: {reason}")]
    Unknown {
        /// What the last try said.
        reason: String,
    },
    /// The member has no leader. Nothing was changed.
    #[error("the member of etcd has no leader")]
    LeaderLost,
    /// The revision that is asked for is compacted.
    #[error("the revision is compacted{}", .revision.map(|revision| format!(": the oldest is {revision}")).unwrap_or_default())]
    Compacted {
        /// The oldest that there is. Watches are told, ranges are not.
        revision: Option<i64>,
    },
    /// etcd has reached the bound of its file, and takes no writes until it is compacted and defragmented and the alarm
    /// is taken back. Nothing was changed.
    #[error("etcd has no space: compact and defragment its members, then `etcdctl alarm disarm`")]
    NoSpace,
    /// The request is larger than may be. Nothing was changed.
    #[error("the request has {bytes} bytes, which is too large{}", .bytes_max.map(|max| format!(": {max} are the most")).unwrap_or_default())]
    TooLarge {
        /// Its size.
        bytes: usize,
        /// The bound, [`Config::request_bytes_max`](super::Config::request_bytes_max). `None`: etcd's own, which it does not tell.
        bytes_max: Option<usize>,
    },
    /// The transaction has more operations, or conditions, than etcd takes, which is 128 where nobody has set another bound. Nothing was
    /// changed.
    #[error(
        "etcd takes no transaction of so many operations: start its members with --max-txn-ops=128, which is the default, or more"
    )]
    TooManyOperations,
    /// The answer is larger than is read: ask for less at a time. What was to be done is done.
    #[error(
        "etcd's answer is too large: {bytes_max} bytes and {} entries are read",
        super::message::ENTRIES_MAX
    )]
    AnswerTooLarge {
        /// The bound, [`Config::message_bytes_max`](super::Config::message_bytes_max).
        bytes_max: usize,
    },
    /// The token is not taken any more, or there is none and one is wanted. A client with a user asks for
    /// another token by itself: only a client without a user sees this error. Nothing was changed.
    #[error("etcd wants a user and a password: give the client those of a user that it knows")]
    TokenExpired,
    /// User or password are wrong, or this user may not do this. Nothing was changed.
    #[error("etcd does not allow it: {text}")]
    Denied {
        /// What it says.
        text: String,
    },
    /// etcd refuses the request. Nothing was changed.
    #[error("etcd refuses it: {text} (code {code})")]
    Refused {
        /// gRPC's code ("Status codes and their use in gRPC"): 3 for what can never be right, 5 for what there is not, 9 for what
        /// cannot be now.
        code: u32,
        /// What it says.
        text: String,
    },
    /// The answer is none of an etcd. A request that changes something may have done so.
    #[error("what answers is no etcd: {reason}")]
    Malformed {
        /// What is wrong with it.
        reason: &'static str,
    },
    /// A member belongs to another cluster than those that answered before. Nothing of what it says is taken; what it was to
    /// change may be changed there.
    #[error("the members are of two clusters: {expected:x} and {found:x}")]
    OtherCluster {
        /// The cluster of the first answer.
        expected: u64,
        /// That of this one.
        found: u64,
    },
}

impl Error {
    pub(super) fn unavailable(reason: impl ToString) -> Self {
        Self::Unavailable { reason: reason.to_string() }
    }

    pub(super) fn unknown(reason: impl ToString) -> Self {
        Self::Unknown { reason: reason.to_string() }
    }

    /// Whether the request that ended so was surely not done, and may yet succeed.
    pub(super) fn may_be_asked_again(&self) -> bool {
        matches!(self, Self::Unavailable { .. } | Self::LeaderLost)
    }

    /// Whether etcd has answered that it does not do what was asked, and is not likely to soon: people have to see to it.
    pub(crate) fn is_refusal(&self) -> bool {
        !matches!(
            self,
            Self::Unavailable { .. } | Self::Unknown { .. } | Self::LeaderLost | Self::Compacted { .. }
        )
    }

    /// Whether it is unknown if the request that ended so was done.
    pub(super) fn is_unknown(&self) -> bool {
        matches!(self, Self::Unknown { .. } | Self::Malformed { .. })
    }

    /// Whether the member that a try ended at so is to be looked at before it is asked again.
    pub(super) fn casts_doubt(&self) -> bool {
        self.may_be_asked_again() || self.is_unknown() || matches!(self, Self::OtherCluster { .. })
    }
}
