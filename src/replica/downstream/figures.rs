//! What is shown of a slave.

use std::sync::Arc;

use super::phase::Phase;
use super::stream::Full;
use super::{Dialect, Downstream, Sibling, SlaveName};
use crate::distribution::RemoteProcess;
use crate::etf::{Pid, Traits};
use crate::replica::{SlaveState, Standing};

impl Downstream {
    /// How it was named.
    pub const fn name(&self) -> &SlaveName {
        &self.name
    }

    /// The process that it is followed at.
    pub fn followed_at(&self) -> Option<&Pid> {
        self.phase.stream().map(|(watch, _)| &watch.at)
    }

    /// Says on which node it was last, of a slave that is not found yet: a name in `global` is asked for there too.
    pub fn expect_at(&mut self, node: Arc<str>) {
        self.node.get_or_insert(node);
    }

    /// The node where it was last, as far as is known.
    pub const fn last_node(&self) -> Option<&Arc<str>> {
        self.node.as_ref()
    }

    /// Where it is.
    pub fn state(&self) -> SlaveState {
        match self.followed_at() {
            Some(at) => SlaveState::Following(RemoteProcess::Pid(at.clone())),
            None if self.is_over() => SlaveState::Dropped,
            None => SlaveState::Seeking,
        }
    }

    /// How it stands.
    pub fn standing(&self) -> Standing {
        let missed = self.lacks.count();
        match &self.phase {
            Phase::Dropped => Standing::Dropped,
            Phase::Streaming { stream, .. } | Phase::Behind { stream, .. } | Phase::Held { stream, .. }
                if let Some(Full { why, .. }) = stream.full =>
            {
                Standing::Full { why, missed }
            }
            Phase::Behind { .. } | Phase::Held { .. } => Standing::Behind { missed },
            Phase::Streaming { stream, repair, .. } if stream.copying || !self.lacks.is_nothing() => {
                let (done, total) = repair.map_or((0, 0), |repair| (repair.done, repair.total));
                Standing::Copying { done, total: total.max(done) }
            }
            Phase::Streaming { stream, .. } => Standing::InStep { lag: stream.log.len() as u64 },
            _ => match (self.refused, &self.known) {
                (Some(refusal), _) => Standing::Refused(refusal),
                (None, None) => Standing::Seeking,
                (None, Some(_)) => Standing::Gone { missed },
            },
        }
    }

    /// Whether it has acknowledged, since it was greeted last, that it has everything, and was sent each write since.
    pub fn is_whole(&self) -> bool {
        matches!(&self.phase, Phase::Streaming { stream, repair: None, .. } if stream.is_whole())
    }

    /// How it is spoken to, since it was followed last; `None`: it never was, and what it is, is not known.
    pub fn dialect(&self) -> Option<Dialect> {
        self.known.as_ref().map(|known| known.dialect)
    }

    /// It is sent writes that do not say which primary's they are, or was when it was followed last.
    pub fn is_unnumbered(&self) -> bool {
        self.dialect() == Some(Dialect::Elixir)
    }

    /// What matters of it for whether another slave of the store is the same process.
    pub fn as_sibling(&self) -> Sibling {
        let at = self.followed_at().cloned();
        let incarnation = self.known.as_ref().and_then(|known| known.incarnation);
        Sibling { name: self.name.clone(), at, incarnation }
    }

    /// Tells the time, in milliseconds since 1970, so that it is known since when the slave stands as it does.
    pub fn note_time(&mut self, unix_ms: u64) {
        let kind = std::mem::discriminant(&self.standing());
        if self.since.is_none_or(|(known, _)| known != kind) {
            self.since = Some((kind, unix_ms));
        }
    }

    /// Since when it stands as it does, in milliseconds since 1970: as far as [`note_time`](Self::note_time) has told.
    pub fn since(&self) -> Option<u64> {
        self.since.map(|(_, since)| since)
    }

    /// Why it was last not found, or not followed.
    pub fn last_error(&self) -> Option<Arc<str>> {
        self.last_error.clone()
    }

    /// Whether it may hold keys that the primary does not have, or old values, for good: its keys could not be read, or
    /// values could not be sent to it.
    pub const fn may_be_stale(&self) -> bool {
        self.lacks.is_for_good()
    }

    /// How many keys have a value that is not sent to it, as its node cannot decode it, and the first few of these keys. It
    /// has what it had of them before.
    pub fn withheld(&self, first: usize) -> (u64, Vec<Box<[u8]>>) {
        (self.lacks.withheld.len(), self.lacks.withheld.first(first))
    }

    /// If the primary's store was started without data, the slave keeps what it holds: it was not added by a person, but is
    /// always started with the store.
    pub const fn protect_data(&mut self) {
        self.protect_data = true;
    }

    /// Whether the slave was never followed and is to keep what it holds: see [`protect_data`](Self::protect_data).
    pub const fn protects_data(&self) -> bool {
        self.protect_data
    }

    /// The number of the last write of the store up to which it has acknowledged everything.
    pub fn confirmed(&self) -> u64 {
        self.known.as_ref().map_or(0, |known| known.confirmed)
    }

    /// Whether it has a write, with this number and these traits: acknowledged, and not [withheld](Self::withheld).
    pub fn has(&self, seq: u64, traits: Traits) -> bool {
        let (confirmed, cannot_decode) = self.acknowledges();
        confirmed >= seq && !cannot_decode.intersects(traits)
    }

    /// [`confirmed`](Self::confirmed), and the traits of what it is not sent.
    pub fn acknowledges(&self) -> (u64, Traits) {
        (self.confirmed(), self.cannot_decode)
    }
}
