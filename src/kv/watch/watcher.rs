//! A watcher, as a value: what it is told next.
//!
//! ```text
//!                     pages of what is there            all shown
//!     Showing { since } ------------------> Showing ------------> Following { next }
//!         |                                                            |
//!         | what it still has to be told is not kept any more          |
//!         +--------------------------> Overrun <-----------------------+
//!         | a page cannot be read
//!         +--------------------------> Failed
//! ```
//!
//! What has changed is not queued for a watcher: it has a place in the backlog that all share ([`Log`]), and reads on from there
//! when its node has room.

use std::collections::VecDeque;
use std::sync::Arc;

use super::log::{Found, Log, Place, Told};
use crate::etf::order::TermRange;
use crate::etf::pattern::Pattern;
use crate::store::StoreError;

/// Bytes of a key that cost as much as a look at a short one.
const LOOK_BYTES: usize = 64;

/// What a watcher wants to be told.
#[derive(Clone, Debug)]
pub(in crate::kv) struct Wants {
    /// Of keys that match this; `None`: of all.
    pub pattern: Option<Arc<Pattern>>,
    /// Of keys that begin so; `None`: of all.
    pub prefix: Option<Arc<TermRange>>,
    /// Values too.
    pub values: bool,
}

impl Wants {
    pub(in crate::kv) fn matches(&self, key: &[u8]) -> bool {
        self.pattern.as_ref().is_none_or(|pattern| pattern.matches(key))
            && self.prefix.as_ref().is_none_or(|prefix| prefix.has(key) == Ok(true))
    }

    /// What it costs to look at a key, in looks at short ones.
    fn looks(&self, key: &[u8]) -> usize {
        let looks_into = self.pattern.is_some() || self.prefix.is_some();
        1 + if looks_into { key.len() / LOOK_BYTES } else { 0 }
    }

    /// Bytes that are held for it.
    pub(super) fn held_bytes(&self) -> usize {
        self.pattern.as_ref().map_or(0, |pattern| pattern.held_bytes())
            + self.prefix.as_ref().map_or(0, |prefix| prefix.held_bytes())
    }
}

/// A page of what is there.
#[derive(Debug)]
pub(in crate::kv) struct Page {
    pub entries: VecDeque<Told>,
    /// Where the next begins; `None`: this was the last.
    pub behind: Option<Box<[u8]>>,
}

/// What a watcher is told next.
pub(super) enum Step<'a> {
    /// This has happened.
    Event(&'a Told),
    /// This is there.
    Shown(Told),
    /// What is there was shown, as it was with this number.
    Current(u64),
    /// It has missed something, and is none any more.
    Overrun,
    /// What is there cannot be read: it is none any more.
    Failed(StoreError),
    /// A page is to be read for it, from behind this place.
    AskPage(Option<Box<[u8]>>),
    /// Nothing now.
    Waits,
    /// It is to be asked again: enough was looked at for once.
    Tired,
}

/// How far it is.
#[derive(Debug)]
enum Phase {
    /// It is shown what is there. What has changed since then waits.
    Showing { since: Place, seq: u64, entries: VecDeque<Told>, page: PageOf },
    /// It is told what changes behind this number.
    Following { next: Place, behind: u64 },
    /// It is to be told that it cannot be shown what is there.
    Failed(StoreError),
}

/// The page behind those that have come.
#[derive(Debug)]
enum PageOf {
    Behind(Option<Box<[u8]>>),
    Asked,
    None,
}

/// The machine.
#[derive(Debug)]
pub(super) struct Watcher {
    wants: Wants,
    phase: Phase,
}

impl Watcher {
    /// Of what changes from a place on, behind a number: the store may have counted to that without having told of all up to it.
    pub(super) const fn following(wants: Wants, next: Place, behind: u64) -> Self {
        Self { wants, phase: Phase::Following { next, behind } }
    }

    /// Of what is there at a number, which is that of the last event, and of what changes from there on.
    pub(super) const fn showing(wants: Wants, since: Place, seq: u64) -> Self {
        let page = PageOf::Behind(None);
        Self { wants, phase: Phase::Showing { since, seq, entries: VecDeque::new(), page } }
    }

    pub(super) const fn wants(&self) -> &Wants {
        &self.wants
    }

    /// It is being shown what is there, since this place and number.
    pub(super) const fn shown_since(&self) -> Option<(Place, u64)> {
        match self.phase {
            Phase::Showing { since, seq, .. } => Some((since, seq)),
            Phase::Following { .. } | Phase::Failed(_) => None,
        }
    }

    /// Bytes of what it is shown that it has not taken.
    pub(super) fn waiting_bytes(&self) -> usize {
        match &self.phase {
            Phase::Showing { entries, .. } => entries.iter().map(Told::bytes).sum(),
            Phase::Following { .. } | Phase::Failed(_) => 0,
        }
    }

    /// The page that it has asked for has come.
    pub(super) fn page_came(&mut self, came: Result<Page, StoreError>) {
        let Phase::Showing { entries, page, .. } = &mut self.phase else { return };
        match came {
            Ok(came) => {
                entries.extend(came.entries);
                *page = came.behind.map_or(PageOf::None, |behind| PageOf::Behind(Some(behind)));
            }
            Err(error) => self.phase = Phase::Failed(error),
        }
    }

    /// What it is told next. Events that it does not want are passed over, each for some of `looks`: more of these where the key is long.
    pub(super) fn next<'a>(&mut self, log: &'a Log, looks: &mut usize) -> Step<'a> {
        match &mut self.phase {
            Phase::Showing { since, seq, entries, page } => {
                if matches!(log.at(*since), Found::Gone) {
                    return Step::Overrun;
                }
                if let Some(entry) = entries.pop_front() {
                    return Step::Shown(entry);
                }
                match std::mem::replace(page, PageOf::Asked) {
                    PageOf::Behind(behind) => Step::AskPage(behind),
                    PageOf::Asked => Step::Waits,
                    PageOf::None => {
                        let (since, seq) = (*since, *seq);
                        self.phase = Phase::Following { next: since, behind: seq };
                        Step::Current(seq)
                    }
                }
            }
            Phase::Following { next, behind } => loop {
                match log.at(*next) {
                    Found::Gone => return Step::Overrun,
                    Found::End => return Step::Waits,
                    Found::Event(..) if *looks == 0 => return Step::Tired,
                    Found::Event(told) => {
                        *looks = looks.saturating_sub(self.wants.looks(told.key()));
                        *next = next.next();
                        if told.seq() > *behind && told.is_for(&self.wants) {
                            return Step::Event(told);
                        }
                    }
                }
            },
            Phase::Failed(error) => Step::Failed(error.clone()),
        }
    }
}
