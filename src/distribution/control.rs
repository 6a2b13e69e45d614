//! Control messages (erl_dist_protocol, "Protocol between Connected Nodes"): parsed where they were received,
//! written straight into the output.
//!
//! The traced variants (`*_TT`) parse to the same values as their plain forms; the trace token is checked and
//! dropped. So does `ALTACT_SIG_SEND`, which has the place of several from OTP 28 on. An operation that is not known is
//! a value too, so that it can be logged and skipped.

use crate::etf::tag::{LARGE_BIG_EXT, NEW_PID_EXT, PID_EXT, SMALL_BIG_EXT};
use crate::etf::{AtomView, Cursor, PidView, ReferenceView, TermError, TermView};

/// The numbers of the operations.
#[expect(missing_docs, reason = "each constant is named after the control message that documents it")]
pub mod op {
    pub const LINK: u64 = 1;
    pub const SEND: u64 = 2;
    pub const EXIT: u64 = 3;
    pub const UNLINK: u64 = 4;
    pub const NODE_LINK: u64 = 5;
    pub const REG_SEND: u64 = 6;
    pub const GROUP_LEADER: u64 = 7;
    pub const EXIT2: u64 = 8;
    pub const SEND_TT: u64 = 12;
    pub const EXIT_TT: u64 = 13;
    pub const REG_SEND_TT: u64 = 16;
    pub const EXIT2_TT: u64 = 18;
    pub const MONITOR_P: u64 = 19;
    pub const DEMONITOR_P: u64 = 20;
    pub const MONITOR_P_EXIT: u64 = 21;
    pub const SEND_SENDER: u64 = 22;
    pub const SEND_SENDER_TT: u64 = 23;
    pub const PAYLOAD_EXIT: u64 = 24;
    pub const PAYLOAD_EXIT_TT: u64 = 25;
    pub const PAYLOAD_EXIT2: u64 = 26;
    pub const PAYLOAD_EXIT2_TT: u64 = 27;
    pub const PAYLOAD_MONITOR_P_EXIT: u64 = 28;
    pub const SPAWN_REQUEST: u64 = 29;
    pub const SPAWN_REQUEST_TT: u64 = 30;
    pub const SPAWN_REPLY: u64 = 31;
    pub const SPAWN_REPLY_TT: u64 = 32;
    pub const ALIAS_SEND: u64 = 33;
    pub const ALIAS_SEND_TT: u64 = 34;
    pub const UNLINK_ID: u64 = 35;
    pub const UNLINK_ID_ACK: u64 = 36;
    pub const ALTACT_SIG_SEND: u64 = 37;
}

/// Bit of [`ControlMessage::SpawnReply`]'s flags: a link was set up.
pub const SPAWN_REPLY_LINK: u64 = 1;
/// Bit of [`ControlMessage::SpawnReply`]'s flags: a monitor was set up.
pub const SPAWN_REPLY_MONITOR: u64 = 2;

/// Bit of `ALTACT_SIG_SEND`'s flags: the signal has priority. It is passed over: a signal has priority where it goes to a
/// priority alias that its receiver has made (erlang, `send/3` and `exit/3`; `alias/1`), and is like any other elsewhere.
/// No process of ours makes one.
pub const ALTACT_SIG_PRIORITY: u8 = 1;
/// Bit of `ALTACT_SIG_SEND`'s flags: a trace token is there too.
pub const ALTACT_SIG_TOKEN: u8 = 1 << 1;
/// Bit of `ALTACT_SIG_SEND`'s flags: the signal goes to an alias.
pub const ALTACT_SIG_ALIAS: u8 = 1 << 2;
/// Bit of `ALTACT_SIG_SEND`'s flags: the signal goes to a registered name.
pub const ALTACT_SIG_NAME: u8 = 1 << 3;
/// Bit of `ALTACT_SIG_SEND`'s flags: an exit signal, and no message.
pub const ALTACT_SIG_EXIT: u8 = 1 << 4;

/// A process, as a control message addresses it.
#[derive(Clone, Copy, Debug)]
pub enum ProcessRef<'a> {
    /// By its pid.
    Pid(PidView<'a>),
    /// By the name under which it is registered on the receiving node.
    Name(AtomView<'a>),
}

/// Where the reason of an exit stands.
#[derive(Clone, Copy, Debug)]
pub enum Reason<'a> {
    /// In the control message.
    Inline(TermView<'a>),
    /// It is the payload.
    Payload,
}

/// One control message.
#[derive(Clone, Copy, Debug)]
#[expect(missing_docs, reason = "the fields carry the specification's names")]
pub enum ControlMessage<'a> {
    /// `LINK`
    Link { from_pid: PidView<'a>, to_pid: PidView<'a> },
    /// `UNLINK`: the protocol before OTP 23.3, without acknowledgement.
    Unlink { from_pid: PidView<'a>, to_pid: PidView<'a> },
    /// `UNLINK_ID`: to be answered by `UNLINK_ID_ACK`.
    UnlinkId { id: u64, from_pid: PidView<'a>, to_pid: PidView<'a> },
    /// `UNLINK_ID_ACK`
    UnlinkIdAck { id: u64, from_pid: PidView<'a>, to_pid: PidView<'a> },
    /// `NODE_LINK`
    NodeLink,
    /// `SEND`, `SEND_SENDER`, or `ALTACT_SIG_SEND` to a pid: a message follows.
    Send { to_pid: PidView<'a> },
    /// `REG_SEND`, or `ALTACT_SIG_SEND` to a name: a message follows.
    RegSend { from_pid: PidView<'a>, to_name: AtomView<'a> },
    /// `ALTACT_SIG_SEND` to an alias, or `ALIAS_SEND`: a message follows.
    AliasSend { from_pid: PidView<'a>, alias: ReferenceView<'a> },
    /// `EXIT` and `PAYLOAD_EXIT`: a linked process ended.
    Exit { from_pid: PidView<'a>, to_pid: PidView<'a>, reason: Reason<'a> },
    /// `EXIT2`, `PAYLOAD_EXIT2`, or `ALTACT_SIG_SEND` with an exit signal: `exit/2` and `exit/3`.
    Exit2 { from_pid: PidView<'a>, to_pid: PidView<'a>, reason: Reason<'a> },
    /// `ALTACT_SIG_SEND` with an exit signal to a registered name: the reason follows. (OTP takes it and sends none.)
    Exit2Name { from_pid: PidView<'a>, to_name: AtomView<'a> },
    /// `ALTACT_SIG_SEND` with an exit signal to an alias: the reason follows.
    Exit2Alias { from_pid: PidView<'a>, alias: ReferenceView<'a> },
    /// `GROUP_LEADER`
    GroupLeader { from_pid: PidView<'a>, to_pid: PidView<'a> },
    /// `MONITOR_P`
    MonitorP { from_pid: PidView<'a>, to_proc: ProcessRef<'a>, reference: ReferenceView<'a> },
    /// `DEMONITOR_P`
    DemonitorP { from_pid: PidView<'a>, to_proc: ProcessRef<'a>, reference: ReferenceView<'a> },
    /// `MONITOR_P_EXIT` and `PAYLOAD_MONITOR_P_EXIT`
    MonitorPExit {
        from_proc: ProcessRef<'a>,
        to_pid: PidView<'a>,
        reference: ReferenceView<'a>,
        reason: Reason<'a>,
    },
    /// `SPAWN_REQUEST`: the list of arguments follows.
    SpawnRequest {
        request_id: ReferenceView<'a>,
        from: PidView<'a>,
        group_leader: PidView<'a>,
        module: AtomView<'a>,
        function: AtomView<'a>,
        arity: u64,
        options: TermView<'a>,
    },
    /// `SPAWN_REPLY`: a pid, or an atom that says why not.
    SpawnReply { request_id: ReferenceView<'a>, to: PidView<'a>, flags: u64, result: TermView<'a> },
    /// Any other: to be skipped.
    Unknown { operation: u64, arity: usize },
}

impl<'a> ControlMessage<'a> {
    /// Reads one control message, without its version byte.
    ///
    /// # Errors
    /// The peer's fault: no term, or a known operation with the wrong arity or types.
    #[inline]
    pub fn parse(cursor: &mut Cursor<'a>) -> Result<Self, TermError> {
        Self::read::<false>(cursor)
    }

    /// The same, where it is seldom done.
    ///
    /// # Errors
    /// As [`parse`](Self::parse).
    #[cold]
    #[inline(never)]
    pub fn parse_seldom(cursor: &mut Cursor<'a>) -> Result<Self, TermError> {
        Self::read::<true>(cursor)
    }

    /// There is one of these for each of the two: what has one caller is compiled into it, which is worth 80 instructions a
    /// frame.
    #[inline]
    fn read<const SELDOM: bool>(cursor: &mut Cursor<'a>) -> Result<Self, TermError> {
        let whole = *cursor;
        let arity = cursor.tuple()?;
        let operation = cursor.unsigned()?;
        let Some(message) = Self::fields::<SELDOM>(cursor, operation, arity)? else {
            // Find its end, so that what follows is not misread.
            *cursor = whole;
            cursor.term()?;
            return Ok(Self::Unknown { operation, arity });
        };
        Ok(message)
    }

    #[inline]
    fn fields<const SELDOM: bool>(
        c: &mut Cursor<'a>,
        operation: u64,
        arity: usize,
    ) -> Result<Option<Self>, TermError> {
        Ok(Some(match (operation, arity) {
            (op::MONITOR_P, 4) => {
                Self::MonitorP { from_pid: c.pid()?, to_proc: process_ref(c)?, reference: c.reference()? }
            }
            (op::SEND_SENDER, 3) => {
                c.pid()?;
                Self::Send { to_pid: c.pid()? }
            }
            (op::REG_SEND, 4) => {
                let from_pid = c.pid()?;
                c.term()?;
                Self::RegSend { from_pid, to_name: c.atom()? }
            }
            (op::DEMONITOR_P, 4) => {
                Self::DemonitorP { from_pid: c.pid()?, to_proc: process_ref(c)?, reference: c.reference()? }
            }
            (op::SEND, 3) => {
                c.term()?;
                Self::Send { to_pid: c.pid()? }
            }
            (op::SEND_TT | op::SEND_SENDER_TT, 4) => {
                c.term()?;
                let to_pid = c.pid()?;
                c.term()?;
                Self::Send { to_pid }
            }
            (op::REG_SEND_TT, 5) => {
                let from_pid = c.pid()?;
                c.term()?;
                let to_name = c.atom()?;
                c.term()?;
                Self::RegSend { from_pid, to_name }
            }
            (op::ALIAS_SEND, 3) => Self::AliasSend { from_pid: c.pid()?, alias: c.reference()? },
            (op::ALIAS_SEND_TT, 4) => {
                let message = Self::AliasSend { from_pid: c.pid()?, alias: c.reference()? };
                c.term()?;
                message
            }
            (op::ALTACT_SIG_SEND, 4..) => altact_sig(c, arity)?,
            (op::LINK, 3) => Self::Link { from_pid: c.pid()?, to_pid: c.pid()? },
            (op::UNLINK, 3) => Self::Unlink { from_pid: c.pid()?, to_pid: c.pid()? },
            (op::UNLINK_ID, 4) => Self::UnlinkId { id: c.unsigned()?, from_pid: c.pid()?, to_pid: c.pid()? },
            (op::UNLINK_ID_ACK, 4) => {
                Self::UnlinkIdAck { id: c.unsigned()?, from_pid: c.pid()?, to_pid: c.pid()? }
            }
            (op::NODE_LINK, 1) => Self::NodeLink,
            (op::EXIT | op::EXIT2, 4) => {
                let (from_pid, to_pid) = (c.pid()?, c.pid()?);
                exit(operation == op::EXIT, from_pid, to_pid, Reason::Inline(c.term()?))
            }
            (op::EXIT_TT | op::EXIT2_TT, 5) => {
                let (from_pid, to_pid) = (c.pid()?, c.pid()?);
                c.term()?;
                exit(operation == op::EXIT_TT, from_pid, to_pid, Reason::Inline(c.term()?))
            }
            (op::PAYLOAD_EXIT | op::PAYLOAD_EXIT2, 3) => {
                exit(operation == op::PAYLOAD_EXIT, c.pid()?, c.pid()?, Reason::Payload)
            }
            (op::PAYLOAD_EXIT_TT | op::PAYLOAD_EXIT2_TT, 4) => {
                let message = exit(operation == op::PAYLOAD_EXIT_TT, c.pid()?, c.pid()?, Reason::Payload);
                c.term()?;
                message
            }
            (op::GROUP_LEADER, 3) => Self::GroupLeader { from_pid: c.pid()?, to_pid: c.pid()? },
            (op::MONITOR_P_EXIT, 5) => Self::MonitorPExit {
                from_proc: process_ref(c)?,
                to_pid: c.pid()?,
                reference: c.reference()?,
                reason: Reason::Inline(c.term()?),
            },
            (op::PAYLOAD_MONITOR_P_EXIT, 4) => Self::MonitorPExit {
                from_proc: process_ref(c)?,
                to_pid: c.pid()?,
                reference: c.reference()?,
                reason: Reason::Payload,
            },
            (op::SPAWN_REQUEST, 6) => spawn_request(c)?,
            (op::SPAWN_REQUEST_TT, 7) => {
                let message = spawn_request(c)?;
                c.term()?;
                message
            }
            (op::SPAWN_REPLY, 5) => spawn_reply(c)?,
            (op::SPAWN_REPLY_TT, 6) => {
                let message = spawn_reply(c)?;
                c.term()?;
                message
            }
            _ => return Ok(None),
        }))
    }
}

fn process_ref<'a>(c: &mut Cursor<'a>) -> Result<ProcessRef<'a>, TermError> {
    match c.peek()? {
        NEW_PID_EXT | PID_EXT => Ok(ProcessRef::Pid(c.pid()?)),
        _ => Ok(ProcessRef::Name(c.atom()?)),
    }
}

fn exit<'a>(
    linked: bool,
    from_pid: PidView<'a>,
    to_pid: PidView<'a>,
    reason: Reason<'a>,
) -> ControlMessage<'a> {
    if linked {
        ControlMessage::Exit { from_pid, to_pid, reason }
    } else {
        ControlMessage::Exit2 { from_pid, to_pid, reason }
    }
}

/// `{37, Flags, FromPid, To}`, or with a trace token `{37, Flags, FromPid, To, Token}` (erl_dist_protocol,
/// "ALTACT_SIG_SEND"; erts, dist.c, erts_net_message). Bits that have no meaning yet and further elements are passed over,
/// as OTP does; flags that contradict each other or the arity are malformed there too.
fn altact_sig<'a>(c: &mut Cursor<'a>, arity: usize) -> Result<ControlMessage<'a>, TermError> {
    let flags = altact_sig_flags(c)?;
    let has = |flag| flags & flag != 0;
    let from_pid = c.pid()?;
    if has(ALTACT_SIG_ALIAS) && has(ALTACT_SIG_NAME) {
        return Err(TermError::Unexpected { wanted: "an alias or a name, and not both", tag: c.peek()? });
    }
    let message = match (has(ALTACT_SIG_EXIT), has(ALTACT_SIG_ALIAS), has(ALTACT_SIG_NAME)) {
        (false, true, _) => ControlMessage::AliasSend { from_pid, alias: c.reference()? },
        (false, false, true) => ControlMessage::RegSend { from_pid, to_name: c.atom()? },
        (false, false, false) => ControlMessage::Send { to_pid: c.pid()? },
        (true, true, _) => ControlMessage::Exit2Alias { from_pid, alias: c.reference()? },
        (true, false, true) => ControlMessage::Exit2Name { from_pid, to_name: c.atom()? },
        (true, false, false) => ControlMessage::Exit2 { from_pid, to_pid: c.pid()?, reason: Reason::Payload },
    };
    if has(ALTACT_SIG_TOKEN) && arity < 5 {
        return Err(TermError::Truncated);
    }
    for _ in 4..arity {
        c.term()?;
    }
    Ok(message)
}

/// The flags of an `ALTACT_SIG_SEND` that have a meaning: the lowest byte of a non-negative integer of any size.
fn altact_sig_flags(c: &mut Cursor<'_>) -> Result<u8, TermError> {
    let tag = c.peek()?;
    if !matches!(tag, SMALL_BIG_EXT | LARGE_BIG_EXT) {
        return Ok(c.unsigned()? as u8);
    }
    let digits_at = if tag == SMALL_BIG_EXT { 2 } else { 5 };
    match c.term()?.bytes().get(digits_at..) {
        Some([0, digits @ ..]) => Ok(digits.first().copied().unwrap_or(0)),
        _ => Err(TermError::Unexpected { wanted: "a non-negative integer", tag }),
    }
}

fn spawn_request<'a>(c: &mut Cursor<'a>) -> Result<ControlMessage<'a>, TermError> {
    let (request_id, from, group_leader) = (c.reference()?, c.pid()?, c.pid()?);
    let mfa = *c;
    if c.tuple()? != 3 {
        return Err(TermError::Unexpected { wanted: "{module, function, arity}", tag: mfa.peek()? });
    }
    let (module, function, arity) = (c.atom()?, c.atom()?, c.unsigned()?);
    let options = c.term()?;
    Ok(ControlMessage::SpawnRequest { request_id, from, group_leader, module, function, arity, options })
}

fn spawn_reply<'a>(c: &mut Cursor<'a>) -> Result<ControlMessage<'a>, TermError> {
    Ok(ControlMessage::SpawnReply {
        request_id: c.reference()?,
        to: c.pid()?,
        flags: c.unsigned()?,
        result: c.term()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::etf::{Pid, Reference, TermWriter, encode};

    fn pid(id: u32) -> Pid {
        Pid { node: "a@b".into(), id, serial: 0, creation: 7 }
    }

    fn reference() -> Reference {
        Reference { node: "a@b".into(), creation: 7, words: vec![1, 2, 3] }
    }

    fn parse(bytes: &[u8]) -> ControlMessage<'_> {
        let mut cursor = Cursor::new(bytes);
        let message = ControlMessage::parse(&mut cursor).expect("a control message");
        cursor.end().expect("nothing is left over");
        message
    }

    #[test]
    fn a_traced_message_is_the_plain_one() {
        let plain = encode(|w| {
            w.tuple(4).unsigned(op::REG_SEND).pid(&pid(1)).atom("").atom("kv");
        });
        let traced = encode(|w| {
            w.tuple(5).unsigned(op::REG_SEND_TT).pid(&pid(1)).atom("").atom("kv").tuple(1).nil();
        });
        for bytes in [plain, traced] {
            let ControlMessage::RegSend { from_pid, to_name } = parse(&bytes) else {
                panic!("not a REG_SEND");
            };
            assert_eq!(from_pid.id, 1);
            assert!(to_name == "kv");
        }
    }

    #[test]
    fn a_monitor_names_a_pid_or_a_registered_name() {
        let by_name = encode(|w| {
            w.tuple(4).unsigned(op::MONITOR_P).pid(&pid(1)).atom("kv").reference(&reference());
        });
        assert!(
            matches!(parse(&by_name), ControlMessage::MonitorP { to_proc: ProcessRef::Name(n), .. } if n == "kv")
        );
        let by_pid = encode(|w| {
            w.tuple(4).unsigned(op::MONITOR_P).pid(&pid(1)).pid(&pid(2)).reference(&reference());
        });
        assert!(
            matches!(parse(&by_pid), ControlMessage::MonitorP { to_proc: ProcessRef::Pid(p), .. } if p.id == 2)
        );
    }

    #[test]
    fn an_unknown_operation_is_skipped_whole() {
        let bytes = encode(|w| {
            w.tuple(3).unsigned(99).binary(b"x").nil();
        });
        assert!(matches!(parse(&bytes), ControlMessage::Unknown { operation: 99, arity: 3 }));
    }

    #[test]
    fn a_known_operation_with_wrong_types_is_an_error() {
        let bytes = encode(|w| {
            w.tuple(3).unsigned(op::LINK).atom("no").pid(&pid(1));
        });
        assert!(ControlMessage::parse(&mut Cursor::new(&bytes)).is_err());
    }

    fn no_cut_is_a_message(bytes: &[u8]) {
        for len in 0..bytes.len() {
            assert!(
                ControlMessage::parse(&mut Cursor::new(&bytes[..len])).is_err(),
                "cut at {len}: {bytes:?}"
            );
        }
    }

    #[test]
    fn no_cut_of_a_message_panics() {
        let bytes = encode(|w| {
            w.tuple(6).unsigned(op::SPAWN_REQUEST).reference(&reference()).pid(&pid(1)).pid(&pid(2));
            w.tuple(3).atom("erpc").atom("execute_call").integer(4).list(1).atom("monitor").nil();
        });
        assert!(matches!(parse(&bytes), ControlMessage::SpawnRequest { arity: 4, .. }));
        no_cut_is_a_message(&bytes);
    }

    type Write = fn(&mut TermWriter<'_>);

    const TO_PID: Write = |w| _ = w.pid(&pid(2));
    const TO_NAME: Write = |w| _ = w.atom("kv");
    const TO_ALIAS: Write = |w| _ = w.reference(&reference());

    /// `{37, Flags, FromPid, To}`, and so many elements more.
    fn altact(flags: impl FnOnce(&mut TermWriter<'_>), to: Write, more: usize) -> Vec<u8> {
        encode(|w| {
            w.tuple(4 + more).unsigned(op::ALTACT_SIG_SEND);
            flags(w);
            w.pid(&pid(1));
            to(w);
            for _ in 0..more {
                w.tuple(2).atom("token").nil();
            }
        })
    }

    /// What an `ALTACT_SIG_SEND` is taken for.
    fn kind(message: ControlMessage<'_>) -> &'static str {
        match message {
            ControlMessage::Send { to_pid } if to_pid.id == 2 => "a message to a pid",
            ControlMessage::RegSend { from_pid, to_name } if from_pid.id == 1 && to_name == "kv" => {
                "a message to a name"
            }
            ControlMessage::AliasSend { from_pid, alias } if from_pid.id == 1 && alias.creation == 7 => {
                "a message to an alias"
            }
            ControlMessage::Exit2 { from_pid, to_pid, reason: Reason::Payload }
                if (from_pid.id, to_pid.id) == (1, 2) =>
            {
                "an exit signal to a pid"
            }
            ControlMessage::Exit2Name { from_pid, to_name } if from_pid.id == 1 && to_name == "kv" => {
                "an exit signal to a name"
            }
            ControlMessage::Exit2Alias { from_pid, alias } if from_pid.id == 1 && alias.creation == 7 => {
                "an exit signal to an alias"
            }
            _ => "something else",
        }
    }

    #[test]
    fn an_altact_signal_is_the_plain_one_by_its_flags() {
        let kinds: [(u8, Write, &str); 6] = [
            (0, TO_PID, "a message to a pid"),
            (ALTACT_SIG_NAME, TO_NAME, "a message to a name"),
            (ALTACT_SIG_ALIAS, TO_ALIAS, "a message to an alias"),
            (ALTACT_SIG_EXIT, TO_PID, "an exit signal to a pid"),
            (ALTACT_SIG_EXIT | ALTACT_SIG_NAME, TO_NAME, "an exit signal to a name"),
            (ALTACT_SIG_EXIT | ALTACT_SIG_ALIAS, TO_ALIAS, "an exit signal to an alias"),
        ];
        for (flags, to, wanted) in kinds {
            // Also with priority, a token, bits that mean nothing yet, and elements that OTP may add.
            for (more_flags, more) in [
                (0, 0),
                (ALTACT_SIG_PRIORITY, 0),
                (ALTACT_SIG_TOKEN, 1),
                (ALTACT_SIG_TOKEN, 3),
                (0xe0, 0),
                (0, 2),
            ] {
                let flags = flags | more_flags;
                let bytes = altact(|w| _ = w.unsigned(flags.into()), to, more);
                assert_eq!(kind(parse(&bytes)), wanted, "flags {flags:#x}, {more} more");
                no_cut_is_a_message(&bytes);
            }
        }
    }

    #[test]
    fn the_flags_of_an_altact_signal_are_an_integer_of_any_size() {
        let name = ALTACT_SIG_NAME;
        let large = [&[110, 20, 0, name][..], &[0xff; 19]].concat();
        let huge = [&[111, 0, 0, 1, 44, 0, name][..], &[0xff; 299]].concat();
        for flags in [large, huge, vec![98, 0x7f, 0xff, 0xff, name], vec![110, 1, 0, name]] {
            let bytes = altact(|w| _ = w.raw(&flags), TO_NAME, 0);
            assert_eq!(kind(parse(&bytes)), "a message to a name", "{flags:?}");
            no_cut_is_a_message(&bytes);
        }
        // Zero in every form.
        for flags in [vec![97, 0], vec![98, 0, 0, 0, 0], vec![110, 0, 0], vec![111, 0, 0, 0, 0, 0]] {
            let bytes = altact(|w| _ = w.raw(&flags), TO_PID, 0);
            assert_eq!(kind(parse(&bytes)), "a message to a pid", "{flags:?}");
        }
        for flags in [vec![98, 255, 255, 255, 255], vec![110, 1, 1, name], vec![111, 0, 0, 0, 1, 1, name]] {
            let bytes = altact(|w| _ = w.raw(&flags), TO_NAME, 0);
            assert!(ControlMessage::parse(&mut Cursor::new(&bytes)).is_err(), "{flags:?}");
        }
    }

    #[test]
    fn an_altact_signal_that_contradicts_itself_is_an_error() {
        let both = ALTACT_SIG_ALIAS | ALTACT_SIG_NAME;
        let bad: [(u8, Write); 9] = [
            (0, TO_NAME),
            (0, TO_ALIAS),
            (ALTACT_SIG_NAME, TO_PID),
            (ALTACT_SIG_ALIAS, TO_PID),
            (ALTACT_SIG_EXIT, TO_NAME),
            (both, TO_ALIAS),
            (both | ALTACT_SIG_EXIT, TO_NAME),
            // The token is not there.
            (ALTACT_SIG_TOKEN, TO_PID),
            (ALTACT_SIG_TOKEN | ALTACT_SIG_EXIT | ALTACT_SIG_ALIAS, TO_ALIAS),
        ];
        for (flags, to) in bad {
            let bytes = altact(|w| _ = w.unsigned(flags.into()), to, 0);
            assert!(ControlMessage::parse(&mut Cursor::new(&bytes)).is_err(), "flags {flags:#x}");
        }
        let odd: [Write; 3] = [|w| _ = w.atom("flags"), |w| _ = w.float(1.0), |w| _ = w.nil()];
        for flags in odd {
            assert!(ControlMessage::parse(&mut Cursor::new(&altact(flags, TO_PID, 0))).is_err());
        }
        let short = encode(|w| _ = w.tuple(3).unsigned(op::ALTACT_SIG_SEND).unsigned(0).pid(&pid(1)));
        assert!(matches!(parse(&short), ControlMessage::Unknown { operation: 37, arity: 3 }));
    }
}
