//! How a store is replicated from the start.

use std::time::Duration;

use crate::distribution::ServerRef;
use crate::kv::{ConfirmConfig, Consistency, SlaveWrites};

/// How a store is replicated from the start, and when its writes are answered.
///
/// ```
/// use kvnode::ServerRef;
/// use kvnode::kv::Replication;
///
/// let replication = Replication::default().with_slave(ServerRef::global("slave1")).with_confirm(1);
/// assert_eq!(replication.confirm.slaves, 1);
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Replication {
    /// Its slaves, 64 at most. More are added by `{:add_slave, name}`. The default is none.
    pub slaves: Vec<ServerRef>,
    /// Bytes kept for a slave that does not take them: past it the slave is behind, and only the keys that it misses are
    /// kept; past it with these too, the whole store is sent once the slave takes writes again. The default is 64 MiB.
    pub slave_buffer_bytes_max: usize,
    /// When a write is answered. The default is at once, and within 4 s where a caller wants a write confirmed.
    pub confirm: ConfirmConfig,
    /// What becomes of callers' writes while it follows a kvnode's store. The default is [`SlaveWrites::Refuse`].
    pub slave_writes: SlaveWrites,
    /// How new the answers of reads are that say nothing of it, where other processes serve the store too. The default is
    /// [`Consistency::Session`].
    pub reads: Consistency,
}

impl Replication {
    /// [`slave_buffer_bytes_max`](Self::slave_buffer_bytes_max) where nothing else is said: 64 MiB.
    pub const SLAVE_BUFFER_BYTES_MAX: usize = 64 << 20;

    /// With one slave more: a server of the Elixir modules, or a kvnode's store.
    pub fn with_slave(mut self, slave: impl Into<ServerRef>) -> Self {
        self.slaves.push(slave.into());
        self
    }

    /// With writes that so many slaves have before they are answered, unless the caller says otherwise; 0: at once.
    pub const fn with_confirm(mut self, slaves: u32) -> Self {
        self.confirm.slaves = slaves;
        self
    }

    /// With the time after which a write is answered that too few slaves have: the answer says so. It should be less than
    /// what callers wait for, which is 5 s by `GenServer.call/2`.
    pub const fn with_confirm_timeout(mut self, timeout: Duration) -> Self {
        self.confirm.timeout = timeout;
        self
    }

    /// With so many bytes kept for each slave.
    pub const fn with_slave_buffer_bytes_max(mut self, bytes: usize) -> Self {
        self.slave_buffer_bytes_max = bytes;
        self
    }

    /// With this for callers' writes while it follows a kvnode's store.
    pub const fn with_slave_writes(mut self, slave_writes: SlaveWrites) -> Self {
        self.slave_writes = slave_writes;
        self
    }

    /// With reads that are so new where they say nothing of it.
    pub const fn with_reads(mut self, reads: Consistency) -> Self {
        self.reads = reads;
        self
    }
}

impl Default for Replication {
    fn default() -> Self {
        Self {
            slaves: Vec::new(),
            slave_buffer_bytes_max: Self::SLAVE_BUFFER_BYTES_MAX,
            confirm: ConfirmConfig::default(),
            slave_writes: SlaveWrites::default(),
            reads: Consistency::default(),
        }
    }
}
