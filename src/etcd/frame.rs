//! gRPC's frames: a message behind five bytes. (gRPC over HTTP/2, "Length-Prefixed-Message".)
//!
//! ```text
//! 1 byte        4 bytes, big-endian   so many bytes
//! compressed?   length                message
//! ```

use prost::Message;
use prost::bytes::{Buf, BufMut, Bytes, BytesMut};

const HEAD_BYTES: usize = 5;

/// What is wrong with a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FrameError {
    /// The message is compressed, which no request of ours asks for.
    Compressed,
    /// Its message is larger than may be.
    TooLarge {
        /// Of the message.
        bytes: usize,
    },
    /// The stream ends within it.
    Cut,
}

/// A message in its frame. `None`: it is larger than a frame can say.
pub(super) fn framed(message: &impl Message) -> Option<Bytes> {
    let len = message.encoded_len();
    let mut frame = BytesMut::with_capacity(HEAD_BYTES + len);
    frame.put_u8(0);
    frame.put_u32(u32::try_from(len).ok()?);
    // It has the room that it needs.
    message.encode(&mut frame).ok()?;
    Some(frame.freeze())
}

/// Takes messages out of their frames, as their bytes come.
#[derive(Debug)]
pub(super) struct Frames {
    bytes: BytesMut,
    message_bytes_max: usize,
}

impl Frames {
    /// For messages of so many bytes at most.
    pub(super) fn new(message_bytes_max: usize) -> Self {
        Self { bytes: BytesMut::new(), message_bytes_max }
    }

    /// More bytes came. Take out what is whole before the next: so no more is held than a message and what came last.
    pub(super) fn push(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    /// The next message, where it is whole. A length is believed as far as bytes come: nothing is made room for before.
    pub(super) fn next(&mut self) -> Result<Option<Bytes>, FrameError> {
        let Some((mut head, rest)) = self.bytes.split_at_checked(HEAD_BYTES) else { return Ok(None) };
        if head.get_u8() != 0 {
            return Err(FrameError::Compressed);
        }
        let bytes = head.get_u32() as usize;
        if bytes > self.message_bytes_max {
            return Err(FrameError::TooLarge { bytes });
        }
        if rest.len() < bytes {
            return Ok(None);
        }
        self.bytes.advance(HEAD_BYTES);
        Ok(Some(self.bytes.split_to(bytes).freeze()))
    }

    /// The stream has ended.
    pub(super) fn end(&self) -> Result<(), FrameError> {
        if self.bytes.is_empty() { Ok(()) } else { Err(FrameError::Cut) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::etcd::message::PutRequest;

    fn put(bytes: usize) -> PutRequest {
        PutRequest { key: Bytes::from_static(b"k"), value: vec![7; bytes].into(), ..PutRequest::default() }
    }

    #[test]
    fn messages_come_out_as_they_went_in_wherever_the_bytes_are_cut() {
        let messages = [put(0), put(300), PutRequest::default()];
        let stream: Vec<u8> = messages.iter().flat_map(|message| framed(message).unwrap()).collect();
        for piece in 1..stream.len() {
            let (mut frames, mut found) = (Frames::new(400), Vec::new());
            for bytes in stream.chunks(piece) {
                frames.push(bytes);
                while let Some(message) = frames.next().unwrap() {
                    found.push(PutRequest::decode(message).unwrap());
                }
            }
            assert_eq!(found, messages);
            assert_eq!(frames.end(), Ok(()));
        }
    }

    #[test]
    fn a_frame_that_is_compressed_or_too_large_is_refused_by_its_head() {
        let frames = |head: [u8; 5]| {
            let mut frames = Frames::new(1000);
            frames.push(&head);
            frames.next()
        };
        assert_eq!(frames([1, 0, 0, 0, 1]), Err(FrameError::Compressed));
        assert_eq!(frames([0, 0xff, 0xff, 0xff, 0xff]), Err(FrameError::TooLarge { bytes: 0xffff_ffff }));
        assert_eq!(frames([0, 0, 0, 3, 0xe9]), Err(FrameError::TooLarge { bytes: 1001 }));
        assert_eq!(frames([0, 0, 0, 3, 0xe8]), Ok(None));
        assert_eq!(frames([0, 0, 0, 0, 0]), Ok(Some(Bytes::new())));
    }

    #[test]
    fn a_stream_that_ends_within_a_frame_is_cut() {
        let whole = framed(&put(20)).unwrap();
        for len in 1..whole.len() {
            let mut frames = Frames::new(400);
            frames.push(&whole[..len]);
            assert_eq!((frames.next(), frames.end()), (Ok(None), Err(FrameError::Cut)));
        }
    }
}
