//! Which of the nodes of a replicated store is the primary: an elector, as a value.
//!
//! (Under construction: the face stands, the machine follows.)

mod face;
pub mod keys;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

pub use face::{
    Change, Config, Entry, Event, Input, Leader, Output, Role, Slave, SteppedDown, Transacted, Transaction,
    View,
};
pub use keys::{Holds, Key};

/// One node of a store in its elections. See the [module](self).
#[derive(Debug)]
pub struct Succession {
    config: Config,
    now: Instant,
    outputs: VecDeque<Output>,
}

impl Succession {
    /// Of a store's process that has just started. It asks for a lease at once.
    pub fn new(config: Config, now: Instant) -> Self {
        Self { config, now, outputs: VecDeque::new() }
    }

    /// Until when the store is the primary by its own clock, if nothing more is heard of its lease: before that it takes writes of
    /// callers, and confirms them. `None`: it is not the primary. To be compared with the clock before each write is taken, and before each
    /// is confirmed.
    pub fn leads_until(&self) -> Option<Instant> {
        None
    }

    /// Whether the acknowledgements of a node's slave count.
    pub fn counts(&self, _node: &str) -> bool {
        false
    }

    /// How it stands, to be shown.
    pub fn view(&self) -> View {
        View {
            role: Role::Starting,
            since: self.now,
            fence: 0,
            leader: None,
            members: Vec::<Arc<str>>::new(),
            round: None,
        }
    }

    /// Whether it has ended: there is nothing more to be done.
    pub fn is_over(&self) -> bool {
        false
    }

    /// What is to be done next.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// When [`Input::Time`] is to be handed in, if nothing comes before.
    pub fn poll_timeout(&self) -> Option<Instant> {
        None
    }

    /// Something has come.
    pub fn handle(&mut self, _input: Input, now: Instant) {
        self.now = now;
        let _ = &self.config;
    }
}
