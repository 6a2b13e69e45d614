//! What a request says: one frame, or frames as they come.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

use hyper::body::{Body, Frame, SizeHint};
use prost::bytes::Bytes;
use smol::channel::Receiver;
use smol::stream::Stream;

/// See the module.
pub(super) enum Outgoing {
    /// One, which may be gone already.
    Once(Option<Bytes>),
    /// Until the channel is closed.
    Stream(Pin<Box<Receiver<Bytes>>>),
}

impl Body for Outgoing {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let data = match &mut *self {
            Self::Once(frame) => Poll::Ready(frame.take()),
            Self::Stream(frames) => frames.as_mut().poll_next(cx),
        };
        data.map(|frame| frame.map(|frame| Ok(Frame::data(frame))))
    }

    fn is_end_stream(&self) -> bool {
        matches!(self, Self::Once(None))
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Once(frame) => SizeHint::with_exact(frame.as_ref().map_or(0, |frame| frame.len() as u64)),
            Self::Stream(_) => SizeHint::default(),
        }
    }
}
