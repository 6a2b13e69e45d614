//! Spawn requests (erl_dist_protocol, "SPAWN_REQUEST"): the functions of rpc, and the processes that they start.
//!
//! The answer of a function is an exit reason and may be large. So a request waits for room like a call
//! ([`Held`](super::super::Held)); past the bound it is refused with `system_limit`, as by a node that has no process left.

use super::super::effect::Effect;
use super::super::exits::{RemoteId, write_exit, write_monitor_exit};
use super::super::rpc::{self, Mfa, Spawned};
use super::{Frame, Peer, PeerError, Surroundings, payload, plain};
use crate::distribution::Outbound;
use crate::distribution::control::{ControlMessage, op};
use crate::etf::{AtomView, Cursor, Pid, PidView, Reference, ReferenceView, TermView, TermWriter};

/// The parts of a request.
pub(super) struct SpawnRequest<'a> {
    pub(super) request_id: ReferenceView<'a>,
    pub(super) from: PidView<'a>,
    pub(super) module: AtomView<'a>,
    pub(super) function: AtomView<'a>,
    pub(super) options: TermView<'a>,
    /// The list of arguments.
    pub(super) payload: &'a [u8],
}

impl Peer {
    /// Does what is asked, or keeps it until its answer has room.
    pub(super) fn spawn_in_turn(
        &mut self,
        request: SpawnRequest<'_>,
        frame: Frame<'_>,
        around: Surroundings<'_>,
        out: &mut Outbound,
        later: &mut Vec<Effect>,
    ) -> Result<(), PeerError> {
        if request.from.node != *self.name {
            return Err(PeerError::ForeignSender);
        }
        if out.room().large && !self.held.holds_spawns() {
            return self.spawn(request, around, out, later);
        }
        if !self.held.push_spawn(frame.bytes, frame.form, around.held_bytes_max) {
            tracing::warn!(peer = %self.name, "the peer takes answers too slowly, and too much waits for them: spawn request refused");
            let (owner, request_id) = (Pid::from(request.from), Reference::from(request.request_id));
            write_spawn_reply(&request_id, &owner, 0, out, |w| _ = w.atom("system_limit"));
        }
        Ok(())
    }

    /// Does what was asked next of what waits, if its answer has room now; `false`: there is none.
    #[cold]
    pub(super) fn deliver_spawn(
        &mut self,
        around: Surroundings<'_>,
        out: &mut Outbound,
        later: &mut Vec<Effect>,
    ) -> Result<bool, PeerError> {
        let Some((bytes, form)) = self.held.next_spawn(out.room()) else { return Ok(false) };
        let mut cursor = Cursor::new(&bytes);
        if let ControlMessage::SpawnRequest { request_id, from, module, function, options, .. } =
            ControlMessage::parse_seldom(&mut cursor)?
        {
            let payload = payload(cursor.rest(), form)?;
            self.spawn(
                SpawnRequest { request_id, from, module, function, options, payload },
                around,
                out,
                later,
            )?;
        }
        Ok(true)
    }

    fn spawn(
        &mut self,
        request: SpawnRequest<'_>,
        around: Surroundings<'_>,
        out: &mut Outbound,
        later: &mut Vec<Effect>,
    ) -> Result<(), PeerError> {
        let SpawnRequest { request_id, from, module, function, options, payload } = request;
        let Self { name, flags, inflated, .. } = self;
        let arguments = TermView::parse(plain(payload, inflated, around.inflated_bytes_max)?)?;
        let (owner, request_id_owned) = (Pid::from(from), Reference::from(request_id));
        let Some(watched) = Watched::read(options) else {
            write_spawn_reply(&request_id_owned, &owner, 0, out, |w| _ = w.atom("badopt"));
            return Ok(());
        };
        let mfa = Mfa { module: &module.to_str(), function: &function.to_str(), arguments };
        let mut context = rpc::Context::new(around.registry, name, *flags, later);
        let spawned = rpc::spawn(mfa, &mut context);
        let pid = match &spawned {
            Spawned::Ended(pid, _) => pid.clone(),
            Spawned::Lives(process) => process.pid.clone(),
        };
        write_spawn_reply(&request_id_owned, &owner, watched.reply_flags(), out, |w| _ = w.pid(&pid));
        match spawned {
            // The process has lived and ended: its exit is told to the process that spawned it, if that asked.
            Spawned::Ended(_, reason) => {
                if watched.link {
                    write_exit(&self.name, self.flags, &pid, RemoteId::new(&from), &reason, out);
                }
                if watched.monitor {
                    write_monitor_exit(self.flags, &owner, &request_id_owned, &reason, out, |w| {
                        w.pid(&pid);
                    });
                }
            }
            Spawned::Lives(process) => {
                if self.watches() >= around.watches_max {
                    return Err(PeerError::TooMany);
                }
                self.attach(&process);
                if watched.link {
                    self.links.insert(process.id, RemoteId::new(&from));
                }
                if watched.monitor {
                    self.monitors.set(&process, None, &from, &request_id);
                }
            }
        }
        Ok(())
    }
}

/// `SPAWN_REPLY` with a pid, or the atom that says why not.
pub(super) fn write_spawn_reply(
    request_id: &Reference,
    to: &Pid,
    flags: u64,
    out: &mut Outbound,
    result: impl FnOnce(&mut TermWriter<'_>),
) {
    let open = out.begin();
    let mut term = out.term();
    term.tuple(5).unsigned(op::SPAWN_REPLY).reference(request_id).pid(to).unsigned(flags);
    result(&mut term);
    out.finish(open);
}

/// What a spawn request asks to be told.
#[derive(Clone, Copy, Default)]
struct Watched {
    link: bool,
    monitor: bool,
}

impl Watched {
    /// `None`: not a list of options that erlang:spawn_opt/5 takes.
    fn read(options: TermView<'_>) -> Option<Self> {
        let mut watched = Self::default();
        let mut cursor = options.cursor();
        for _ in 0..cursor.list().ok()? {
            let option = cursor.term().ok()?;
            if option.is_atom("link") {
                watched.link = true;
                continue;
            }
            if option.is_atom("monitor") {
                watched.monitor = true;
                continue;
            }
            let [key, _value] = option.as_tuple::<2>()?;
            match key.as_atom()?.as_bytes() {
                b"monitor" => watched.monitor = true,
                // How a process of a BEAM is laid out: nothing to do with ours.
                b"priority"
                | b"min_heap_size"
                | b"min_bin_vheap_size"
                | b"max_heap_size"
                | b"fullsweep_after"
                | b"message_queue_data"
                | b"async_dist"
                | b"scheduler" => {}
                _ => return None,
            }
        }
        Some(watched)
    }

    const fn reply_flags(self) -> u64 {
        use crate::distribution::control::{SPAWN_REPLY_LINK, SPAWN_REPLY_MONITOR};
        (if self.link { SPAWN_REPLY_LINK } else { 0 }) | (if self.monitor { SPAWN_REPLY_MONITOR } else { 0 })
    }
}
