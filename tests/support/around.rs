//! What stands around processes that have no node: bounds, and no receiver of messages.

#![allow(dead_code, reason = "not every test uses all of it")]

use std::time::Instant;

use kvnode::distribution::Outbound;
use kvnode::etf::Pid;
use kvnode::kv::{Follow, FollowSlave, Offer};
use kvnode::process::effect::EndedCall;
use kvnode::process::peer::Surroundings;
use kvnode::process::{Dispatch, NoRoom, ProcessId, Registry, Waiters, WakeRequest};

/// The processes and bounds that no test reaches by accident.
pub const fn around<'a>(registry: &'a Registry, waiters: &'a Waiters) -> Surroundings<'a> {
    Surroundings {
        registry,
        waiters,
        inflated_bytes_max: 1 << 20,
        watches_max: 1 << 20,
        held_bytes_max: 1 << 20,
        state_bytes_max: 1 << 20,
        timed: None,
    }
}

#[expect(clippy::disallowed_methods, reason = "some instant")]
fn now() -> Instant {
    Instant::now()
}

/// Where nothing is answered later, nothing ends and no store has slaves.
pub struct Nowhere;

impl Dispatch for Nowhere {
    fn send(&self, node: &str, _frames: &mut Outbound) -> Result<(), NoRoom> {
        panic!("something was sent to {node} by the way");
    }

    fn end_call(&self, call: EndedCall) {
        panic!("{call:?} was to end: there is room here");
    }

    fn exit(&self, process: ProcessId, _reason: &[u8]) {
        panic!("nothing ends here: {process:?}");
    }
}

impl Follow for Nowhere {
    fn follow(&self, slave: FollowSlave) {
        panic!("nobody has slaves here: {slave:?}");
    }

    fn offer(&self, offer: Offer) {
        panic!("nobody has a name in global here: {offer:?}");
    }

    fn wake(&self, store: Pid, request: WakeRequest) {
        panic!("nothing ends here: {store:?} {request:?}");
    }

    fn now(&self) -> Instant {
        now()
    }

    fn unix_ms(&self) -> u64 {
        0
    }
}
