//! What keeps a store, for people and for monitoring.

/// What keeps a store, and how the store stands to it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Keeper {
    /// The memory of the process.
    Memory,
    /// A folder.
    Disk,
    /// etcd.
    Etcd(EtcdFigures),
    /// An engine of one's own.
    Other,
}

impl Keeper {
    /// Its word, for machines.
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Memory => "memory",
            Self::Disk => "disk",
            Self::Etcd(_) => "etcd",
            Self::Other => "other",
        }
    }
}

/// How a store stands to the etcd that keeps it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EtcdFigures {
    /// What it gets of others' writes.
    pub state: EtcdState,
    /// The revision of etcd up to which all is here.
    pub revision: u64,
    /// The members, in the order in which they were named.
    pub members: Vec<EtcdMember>,
}

/// A member of etcd, as a client sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EtcdMember {
    /// Its URL.
    pub endpoint: String,
    /// It answers, and is asked in turn with the others; else it is left alone until it answers again.
    pub is_asked: bool,
}

/// What a store gets of the writes of other processes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EtcdState {
    /// All entries are being read: for the first time, or because the watch was cut for longer than etcd remembers. Readers see the entries of
    /// before until the load takes their place; then those of keys that differ wait until that is told.
    Loading,
    /// The watch brings each write.
    Following,
    /// The watch is cut, and is being begun anew. Readers see the entries of before.
    Cut,
}

impl EtcdState {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Loading, Self::Following, Self::Cut];

    /// Its word, for machines.
    pub const fn code(self) -> &'static str {
        match self {
            Self::Loading => "loading",
            Self::Following => "following",
            Self::Cut => "cut",
        }
    }
}
