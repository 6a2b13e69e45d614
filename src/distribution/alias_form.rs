//! By which control message an answer to a process alias is sent: each peer gets the newest that it takes.
//!
//! ```text
//! ALTACT_SIG_SEND  {37, Flags, FromPid, Alias}         where ALTACT_SIG is in force: from OTP 28 on
//! ALIAS_SEND       {33, FromPid, Alias}                where ALIAS is: OTP 24 to 29. OTP 30 removes it
//! SEND             {2, '', ToPid}                      to a peer that takes neither: the alias stays in the answer's tag
//! not settled      {37, Flags, FromPid, Alias, ToPid}  written before the peer's flags are known, never sent
//! ```
//!
//! An answer that is given later, or to a call that came by another node, is written before it is known which connection
//! takes it, and that may not be set up yet. It carries all three addresses until
//! [`Outbound::append`](super::Outbound::append) puts it among the frames of a peer. (To a reader it is an
//! `ALTACT_SIG_SEND` with an element more than it needs, so the node delivers it to itself as it is.)

use super::DistributionFlags;
use super::control::{ALTACT_SIG_ALIAS, op};
use crate::etf::tag::{SMALL_ATOM_UTF8_EXT, SMALL_INTEGER_EXT, SMALL_TUPLE_EXT};
use crate::etf::{Cursor, TermError, TermView, TermWriter};

/// How an answer to an alias is written for one peer. See the module.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AliasForm {
    /// By `ALTACT_SIG_SEND`.
    AltactSigSend,
    /// By `ALIAS_SEND`.
    AliasSend,
    /// By `SEND`, to the pid of the caller.
    Send,
    /// The peer is not known yet.
    #[default]
    Unsettled,
}

/// `{37, Flags, FromPid, Alias}` up to the pid.
const ALTACT_SIG_SEND_HEAD: [u8; 6] = altact_sig_send_head(4);
/// `{33, FromPid, Alias}` up to the pid.
const ALIAS_SEND_HEAD: [u8; 4] = [SMALL_TUPLE_EXT, 3, SMALL_INTEGER_EXT, op::ALIAS_SEND as u8];
/// `{2, '', ToPid}` up to the pid.
const SEND_HEAD: [u8; 6] = [SMALL_TUPLE_EXT, 3, SMALL_INTEGER_EXT, op::SEND as u8, SMALL_ATOM_UTF8_EXT, 0];
/// `{37, Flags, FromPid, Alias, ToPid}` up to the first pid.
const UNSETTLED_HEAD: [u8; 6] = altact_sig_send_head(5);

const fn altact_sig_send_head(arity: u8) -> [u8; 6] {
    let operation = op::ALTACT_SIG_SEND as u8;
    [SMALL_TUPLE_EXT, arity, SMALL_INTEGER_EXT, operation, SMALL_INTEGER_EXT, ALTACT_SIG_ALIAS]
}

/// Where an answer comes from and goes to, each an encoded term.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Addresses<'a> {
    /// The pid of the process that answers.
    pub(crate) from: &'a [u8],
    /// The alias that the answer is for.
    pub(crate) alias: &'a [u8],
    /// The pid of the process that called.
    pub(crate) to: &'a [u8],
}

impl AliasForm {
    /// The form for a connection on which these flags are in force.
    pub const fn in_force(flags: DistributionFlags) -> Self {
        if flags.contains(DistributionFlags::ALTACT_SIG) {
            Self::AltactSigSend
        } else if flags.contains(DistributionFlags::ALIAS) {
            Self::AliasSend
        } else {
            Self::Send
        }
    }

    /// Writes the control message.
    #[inline]
    pub(crate) fn write(self, term: &mut TermWriter<'_>, Addresses { from, alias, to }: Addresses<'_>) {
        match self {
            Self::AltactSigSend => term.raw(&ALTACT_SIG_SEND_HEAD).raw(from).raw(alias),
            Self::AliasSend => term.raw(&ALIAS_SEND_HEAD).raw(from).raw(alias),
            Self::Send => term.raw(&SEND_HEAD).raw(to),
            Self::Unsettled => term.raw(&UNSETTLED_HEAD).raw(from).raw(alias).raw(to),
        };
    }

    /// Writes a control message. The address of an answer that was left open gets this form; every other message is
    /// written as it is.
    pub(super) fn settle(self, control: TermView<'_>, term: &mut TermWriter<'_>) {
        match unsettled(control.bytes()) {
            Ok(Some(addresses)) => self.write(term, addresses),
            Ok(None) | Err(_) => _ = term.term(control),
        }
    }
}

/// Writes the control message of an answer that goes to a pid, as its call names no alias.
#[inline]
pub(crate) fn write_send(term: &mut TermWriter<'_>, to: &[u8]) {
    term.raw(&SEND_HEAD).raw(to);
}

/// The addresses in a control message that is not settled; `None`: it is another one.
fn unsettled(control: &[u8]) -> Result<Option<Addresses<'_>>, TermError> {
    let Some(rest) = control.strip_prefix(&UNSETTLED_HEAD) else { return Ok(None) };
    let mut cursor = Cursor::new(rest);
    let (from, alias, to) = (cursor.term()?, cursor.term()?, cursor.term()?);
    Ok(Some(Addresses { from: from.bytes(), alias: alias.bytes(), to: to.bytes() }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::etf::{Pid, Reference, encode};

    fn pid(id: u32) -> Vec<u8> {
        encode(|w| _ = w.pid(&Pid { node: "a@b".into(), id, serial: 0, creation: 7 }))
    }

    fn alias() -> Vec<u8> {
        encode(|w| _ = w.reference(&Reference { node: "c@d".into(), creation: 7, words: vec![1, 2, 3] }))
    }

    fn written(form: AliasForm) -> Vec<u8> {
        let (from, alias, to) = (pid(1), alias(), pid(2));
        encode(|w| form.write(w, Addresses { from: &from, alias: &alias, to: &to }))
    }

    fn expected(form: AliasForm) -> Vec<u8> {
        encode(|w| {
            match form {
                AliasForm::AltactSigSend => w.tuple(4).integer(37).integer(4).raw(&pid(1)).raw(&alias()),
                AliasForm::AliasSend => w.tuple(3).integer(33).raw(&pid(1)).raw(&alias()),
                AliasForm::Send => w.tuple(3).integer(2).atom("").raw(&pid(2)),
                AliasForm::Unsettled => {
                    w.tuple(5).integer(37).integer(4).raw(&pid(1)).raw(&alias()).raw(&pid(2))
                }
            };
        })
    }

    const ALL: [AliasForm; 4] =
        [AliasForm::AltactSigSend, AliasForm::AliasSend, AliasForm::Send, AliasForm::Unsettled];

    #[test]
    fn each_form_is_the_control_message_of_the_specification() {
        for form in ALL {
            assert_eq!(written(form), expected(form), "{form:?}");
        }
    }

    #[test]
    fn the_newest_form_that_is_in_force_is_taken() {
        let (altact, alias) = (DistributionFlags::ALTACT_SIG, DistributionFlags::ALIAS);
        assert_eq!(AliasForm::in_force(altact.union(alias)), AliasForm::AltactSigSend);
        // OTP 30 may offer ALIAS no more.
        assert_eq!(AliasForm::in_force(altact), AliasForm::AltactSigSend);
        assert_eq!(AliasForm::in_force(alias), AliasForm::AliasSend);
        assert_eq!(AliasForm::in_force(DistributionFlags::NONE), AliasForm::Send);
    }

    #[test]
    fn what_was_not_settled_becomes_what_the_peer_takes_and_all_else_stays() {
        for form in ALL {
            let settled =
                |control: &[u8]| encode(|w| form.settle(TermView::parse(control).expect("a term"), w));
            assert_eq!(settled(&written(AliasForm::Unsettled)), expected(form), "{form:?}");
            let other = encode(|w| _ = w.tuple(3).integer(1).raw(&pid(1)).raw(&pid(2)));
            assert_eq!(settled(&other), other);
        }
    }
}
