//! A socket with TLS on it, in the same two ways of waiting as the plain one.

use std::io::{self, IoSlice};
use std::os::fd::BorrowedFd;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use futures_rustls::TlsStream;
use smol::io::{AsyncRead, AsyncWrite};

use crate::node::link::socket::{Socket, Waits};

/// See the module.
#[derive(Debug)]
pub(in crate::node) struct TlsSocket {
    stream: TlsStream<Socket>,
    /// The last read filled all the room that it had: there may be more that is decrypted, which the socket's
    /// readiness says nothing of.
    may_hold_input: bool,
}

impl TlsSocket {
    /// After the handshake of TLS.
    pub(super) fn new(stream: impl Into<TlsStream<Socket>>) -> Self {
        Self { stream: stream.into(), may_hold_input: true }
    }
}

impl Drop for TlsSocket {
    /// Says that nothing more comes (close_notify; RFC 8446, section 6.1), as far as the socket takes it now: an attacker
    /// that cuts a connection off cannot say it.
    fn drop(&mut self) {
        let mut cx = Context::from_waker(Waker::noop());
        let _may_not_be_said = Pin::new(&mut self.stream).poll_close(&mut cx);
    }
}

impl Waits for TlsSocket {
    fn set_armed(&mut self, armed: bool) {
        self.stream.get_mut().0.set_armed(armed);
    }

    fn fd(&self) -> BorrowedFd<'_> {
        self.stream.get_ref().0.fd()
    }

    fn is_near(&self) -> bool {
        self.stream.get_ref().0.is_near()
    }

    fn may_hold_input(&self) -> bool {
        self.may_hold_input
    }
}

impl AsyncRead for TlsSocket {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, room: &mut [u8]) -> Poll<io::Result<usize>> {
        let wanted = room.len();
        let read = Pin::new(&mut self.stream).poll_read(cx, room);
        self.may_hold_input = matches!(read, Poll::Ready(Ok(len)) if len == wanted && len > 0);
        match read {
            // Closed without a word (close_notify). Frames have lengths: what is cut off is seen without it, and a BEAM
            // that is killed has no time for it.
            Poll::Ready(Err(error)) if error.kind() == io::ErrorKind::UnexpectedEof => Poll::Ready(Ok(0)),
            read => read,
        }
    }
}

impl AsyncWrite for TlsSocket {
    /// What is taken has not always left: see [`poll_flush`](Self::poll_flush).
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    /// Small slices become one record.
    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, slices)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_close(cx)
    }
}
