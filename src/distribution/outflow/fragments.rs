//! A large message in fragments (erl_dist_protocol, "Protocol for messages between Erlang nodes ... fragmentation").

use super::super::frame::{DIST_FRAG_CONT, DIST_FRAG_HEADER, FrameForm};
use super::super::outbound::{KeptFrame, set_length};
use super::Cut;
use crate::etf::Cursor;
use crate::etf::tag::VERSION_MAGIC;

/// How far a message is that leaves in fragments.
#[derive(Clone, Copy, Debug)]
pub(super) struct Fragments {
    /// Bytes of each.
    bytes: usize,
    /// Where the next one begins in the message.
    at: usize,
    /// Its number: they count down to 1.
    number: u64,
}

impl Fragments {
    /// How a message is cut; `None`: it is not.
    pub(super) fn of(frame: &KeptFrame, form: FrameForm, cut: Cut) -> Option<Self> {
        if form == FrameForm::PassThrough || frame.len() <= cut.whole_bytes_max {
            return None;
        }
        let in_head = frame.in_head(form);
        let mut cursor = Cursor::new(if in_head.is_empty() { &frame.body } else { in_head });
        let before = cursor.rest().len();
        cursor.term().ok()?;
        // The first fragment has the whole control message.
        let bytes = cut.fragment_bytes.max(before - cursor.rest().len());
        let number = (in_head.len() + frame.body.len()).div_ceil(bytes) as u64;
        (number > 1).then_some(Self { bytes, at: 0, number })
    }

    /// The next fragment of a message, and what comes behind it.
    pub(super) fn next(self, frame: &KeptFrame, sequence: u64, form: FrameForm) -> (KeptFrame, Option<Self>) {
        let Self { bytes, at, number } = self;
        let in_head = frame.in_head(form);
        let end = (at + bytes).min(in_head.len() + frame.body.len());
        let mut head = vec![0; 4];
        if at == 0 {
            head.extend_from_slice(&[VERSION_MAGIC, DIST_FRAG_HEADER]);
        } else {
            head.extend_from_slice(&[VERSION_MAGIC, DIST_FRAG_CONT]);
        }
        head.extend_from_slice(&sequence.to_be_bytes());
        head.extend_from_slice(&number.to_be_bytes());
        if at == 0 {
            // No references to an atom cache.
            head.push(0);
        }
        head.extend_from_slice(in_head.get(at..end.min(in_head.len())).unwrap_or_default());
        let in_body = |at: usize| at.saturating_sub(in_head.len());
        let body = frame.body.part(in_body(at)..in_body(end));
        let len = (head.len() + body.len() - 4) as u32;
        set_length(&mut head, len);
        let rest = (number > 1).then_some(Self { bytes, at: end, number: number - 1 });
        (KeptFrame { head, body, is_large: true, is_shared: frame.is_shared, to: None }, rest)
    }
}
