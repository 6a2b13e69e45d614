//! Between which two processes a frame of ours goes, as far as it tells.

use super::super::control::{ControlMessage, ProcessRef};
use super::super::outbound::ProcessNumber;
use crate::etf::{Cursor, PidView};

/// A frame's two ends: a process of ours, and one of the peer's. What a frame does not tell is `None`, and may be any.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Course {
    pub(super) from: Option<ProcessNumber>,
    pub(super) to: Option<ProcessNumber>,
}

/// What kind of frame it is, as far as order matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// A signal between two processes.
    Between(Course),
    /// Likewise, to an alias: `to` is what was noted for it.
    ToAlias(Course),
    /// To the node and to no process of it: it has no order with others.
    ToNode,
}

impl Course {
    /// What nothing is known of: in order with everything.
    pub(super) const UNKNOWN: Self = Self { from: None, to: None };

    /// Whether both may be signals of one process to another.
    pub(super) fn may_be_of_one_pair(self, other: Self) -> bool {
        let differ = |one: Option<ProcessNumber>, other: Option<ProcessNumber>| {
            one.is_some_and(|one| other.is_some_and(|other| one != other))
        };
        !differ(self.from, other.from) && !differ(self.to, other.to)
    }
}

/// Reads a control message of ours, without its version byte.
pub(super) fn kind(control: &[u8]) -> Kind {
    let number = |pid: &PidView<'_>| Some((pid.id, pid.serial));
    let process = |process: &ProcessRef<'_>| match process {
        ProcessRef::Pid(pid) => number(pid),
        ProcessRef::Name(_) => None,
    };
    let Ok(control) = ControlMessage::parse_seldom(&mut Cursor::new(control)) else {
        debug_assert!(false, "our own frames are well formed");
        return Kind::Between(Course::UNKNOWN);
    };
    Kind::Between(match &control {
        ControlMessage::AliasSend { from_pid, .. } => {
            return Kind::ToAlias(Course { from: number(from_pid), to: None });
        }
        ControlMessage::SpawnRequest { .. } | ControlMessage::NodeLink => return Kind::ToNode,
        ControlMessage::Send { to_pid } => Course { from: None, to: number(to_pid) },
        ControlMessage::RegSend { from_pid, .. } => Course { from: number(from_pid), to: None },
        ControlMessage::MonitorP { from_pid, to_proc, .. }
        | ControlMessage::DemonitorP { from_pid, to_proc, .. } => {
            Course { from: number(from_pid), to: process(to_proc) }
        }
        ControlMessage::MonitorPExit { from_proc, to_pid, .. } => {
            Course { from: process(from_proc), to: number(to_pid) }
        }
        ControlMessage::SpawnReply { to, .. } => Course { from: None, to: number(to) },
        ControlMessage::Link { from_pid, to_pid }
        | ControlMessage::Unlink { from_pid, to_pid }
        | ControlMessage::UnlinkId { from_pid, to_pid, .. }
        | ControlMessage::UnlinkIdAck { from_pid, to_pid, .. }
        | ControlMessage::Exit { from_pid, to_pid, .. }
        | ControlMessage::Exit2 { from_pid, to_pid, .. }
        | ControlMessage::GroupLeader { from_pid, to_pid } => {
            Course { from: number(from_pid), to: number(to_pid) }
        }
        ControlMessage::Exit2Name { .. }
        | ControlMessage::Exit2Alias { .. }
        | ControlMessage::Unknown { .. } => Course::UNKNOWN,
    })
}
