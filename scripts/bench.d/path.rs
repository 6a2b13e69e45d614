//! The way of a call without sockets: Inbound, Peer, KeyValueServer, Outbound. For callgrind.

use std::hint::black_box;
use std::sync::Arc;

use kvnode::distribution::control::op;
use kvnode::distribution::{AliasForm, Arrival, DistributionFlags, FrameForm, Inbound, Outbound};
use kvnode::etf::Pid;
use kvnode::kv::KeyValueServer;
use kvnode::process::peer::{Frame, Surroundings};
use kvnode::process::{Peer, Registry, Waiters};
use kvnode::store::MemoryStore;

use crate::around::{Nowhere, around};
use crate::native::{Request, call_frame, monitor_frame, tagged_call_frame};
use crate::servers::STORE;
use crate::{Result, failure};

/// Calls that come in one read.
const BATCH: usize = 64;
/// Batches with other keys, over and over.
const BATCHES: usize = 16;

/// As a connection has it while nothing large waits.
const fn unaddressed(mut out: Outbound) -> Outbound {
    out.set_addressed(false);
    out
}

/// Makes that many batches of calls of one kind: `get`, `put`, `call`, a get between MONITOR_P and DEMONITOR_P as a BEAM
/// sends it, or `alias`, the same with an alias in its tag as OTP 24 and later have it.
pub fn main(operation: &str, batches: &str) -> Result<()> {
    let batches: usize = batches.parse()?;
    let own = Pid { node: "m@h".into(), id: 90, serial: 1, creation: 5 };
    let frames: fn(&Pid, &[u8]) -> Vec<u8> = match operation {
        "get" => |own, key| call_frame(own, Request::Get, key),
        "put" => |own, key| call_frame(own, Request::Put, key),
        "call" => |own, key| {
            let call = call_frame(own, Request::Get, key);
            [monitor_frame(own, op::MONITOR_P), call, monitor_frame(own, op::DEMONITOR_P)].concat()
        },
        "alias" => |own, key| {
            let call = tagged_call_frame(own, true, Request::Get, key);
            [monitor_frame(own, op::MONITOR_P), call, monitor_frame(own, op::DEMONITOR_P)].concat()
        },
        _ => return Err(failure(format!("no such operation: {operation}"))),
    };
    let registry = Registry::new("k@h".into(), 5);
    let waiters = Waiters::default();
    let server = KeyValueServer::new(MemoryStore::default(), Arc::new(Nowhere), Arc::new(Nowhere), 1 << 20);
    let process = registry.spawn(server.shared());
    registry.register(STORE, &process).map_err(|error| failure(format!("{error:?}")))?;
    let around = around(&registry, &waiters);
    let mut way = Way {
        around,
        peer: Peer::new("m@h".into(), DistributionFlags::OFFERED),
        inbound: Inbound::new(&[], FrameForm::PassThrough, 1 << 20),
        out: unaddressed(Outbound::new(
            FrameForm::PassThrough,
            AliasForm::in_force(DistributionFlags::OFFERED),
        )),
    };
    let key = |number: usize| format!("key {number:012}").into_bytes();
    let received: Vec<Vec<u8>> = (0..BATCHES)
        .map(|batch| (0..BATCH).flat_map(|call| frames(&own, &key(batch * BATCH + call))).collect())
        .collect();
    for number in 0..BATCH * BATCHES {
        way.read(&call_frame(&own, Request::Put, &key(number)))?;
    }
    let answer = way.read(&frames(&own, &key(1)))?;
    let wanted = if operation == "put" { 30 } else { 130 };
    if answer < wanted {
        return Err(failure(format!("an answer of {answer} bytes to a {operation}")));
    }
    for batch in received.iter().cycle().take(batches) {
        let answered = way.read(black_box(batch))?;
        if answered != answer * BATCH {
            return Err(failure(format!("{answered} bytes of answers")));
        }
    }
    Ok(())
}

struct Way<'a> {
    around: Surroundings<'a>,
    peer: Peer,
    inbound: Inbound,
    out: Outbound,
}

impl Way<'_> {
    /// What the connection's loop does with the bytes of one read; gives how many it would write.
    fn read(&mut self, mut received: &[u8]) -> Result<usize> {
        let mut later = Vec::new();
        let mut written = 0;
        while !received.is_empty() {
            let [room, _] = self.inbound.rooms();
            let len = room.len().min(received.len());
            room[..len].copy_from_slice(&received[..len]);
            received = &received[len..];
            self.inbound.filled(len);
            while let Some(arrival) = self.inbound.next_arrival()? {
                if let Arrival::Frame(range) = arrival {
                    self.peer.handle(
                        Frame::small(self.inbound.slice(range), FrameForm::PassThrough),
                        self.around,
                        &mut self.out,
                        &mut later,
                    )?;
                }
            }
            written += black_box(self.out.single_slice()).map_or(0, <[u8]>::len);
            self.out.advance(self.out.len());
        }
        Ok(written)
    }
}

/// How many calls a batch has.
pub const fn calls(batches: u64) -> u64 {
    batches * BATCH as u64
}
