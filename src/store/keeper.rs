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
    /// How old what is here may be; `None`: etcd has not said yet what there is.
    pub lag: Option<EtcdLag>,
    /// The members, in the order in which they were named.
    pub members: Vec<EtcdMember>,
}

impl EtcdFigures {
    /// The URL of the member that leads, as far as is known.
    pub fn leader(&self) -> Option<&str> {
        let leads = |member: &&EtcdMember| member.seen.as_ref().is_some_and(|seen| seen.leads);
        self.members.iter().find(leads).map(|member| member.endpoint.as_str())
    }

    /// The largest of the members' files, and what is in use of it, in bytes; `None`: no member has said.
    pub fn file(&self) -> Option<(u64, u64)> {
        let seen = self.members.iter().filter_map(|member| member.seen.as_ref());
        seen.map(|seen| (seen.file_bytes, seen.used_bytes)).max()
    }
}

/// How old what is here may be. etcd is asked every two seconds for the last write to the store of any process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EtcdLag {
    /// Revisions of etcd by which the store is behind that write; 0: it has all of them.
    pub revisions: u64,
    /// Milliseconds since the question that etcd has answered last: for so long nothing is known of others' writes but what the watch
    /// brings.
    pub heard_ms: u64,
}

/// A member of etcd, as a client sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EtcdMember {
    /// Its URL.
    pub endpoint: String,
    /// It answers, and is asked in turn with the others; else it is left alone until it answers again.
    pub is_asked: bool,
    /// What it says of itself; `None`: it has not answered the last question.
    pub seen: Option<EtcdSeen>,
}

/// What a member of etcd says of itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EtcdSeen {
    /// Its version.
    pub version: String,
    /// It takes itself for the leader.
    pub leads: bool,
    /// Bytes of its file.
    pub file_bytes: u64,
    /// Bytes of its file that are in use: the others a defragmentation gives back.
    pub used_bytes: u64,
    /// What is wrong with it, in its words: its alarms, and that it has no leader.
    pub errors: Vec<String>,
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
    /// etcd was wiped, or restored from an older copy. Nothing is written any more, readers see the entries of before, and the node is to be
    /// started again.
    RolledBack,
}

impl EtcdState {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Loading, Self::Following, Self::Cut, Self::RolledBack];

    /// Its word, for machines.
    pub const fn code(self) -> &'static str {
        match self {
            Self::Loading => "loading",
            Self::Following => "following",
            Self::Cut => "cut",
            Self::RolledBack => "rolled_back",
        }
    }
}
