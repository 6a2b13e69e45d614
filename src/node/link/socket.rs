//! A TCP socket that is read first and waited for only when it is empty.
//!
//! It waits in one of two ways. *Armed*, an empty read leaves a waker with the reactor, as every asynchronous
//! socket does. *Unarmed*, an empty read is only said to be empty: a thread that polls the socket by itself waits
//! in its own way ([`dedicated`](crate::node::link::dedicated)).

use std::io::{self, IoSlice, IoSliceMut, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::os::fd::{AsFd, BorrowedFd};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use smol::Async;
use smol::io::{AsyncRead, AsyncWrite};
use socket2::SockRef;

/// Bytes that the kernel takes and cannot send yet. Everything that comes later waits behind them, so that they are few:
/// what is in flight is not counted. On this machine there is no such bound: the kernel's buffer is passed on in some
/// milliseconds, and to be woken for each 128 KiB cost a quarter of the rate of large values.
const UNSENT_BYTES_MAX: u32 = 128 << 10;

/// See the module.
#[derive(Debug)]
pub(in crate::node) struct Socket {
    tcp: Arc<Async<TcpStream>>,
    armed: bool,
}

impl From<smol::net::TcpStream> for Socket {
    fn from(stream: smol::net::TcpStream) -> Self {
        let socket = Self { tcp: stream.into(), armed: true };
        if !socket.is_near() {
            // Some systems have no such bound: then what the kernel takes in advance is only more.
            let _without = SockRef::from(socket.tcp.get_ref()).set_tcp_notsent_lowat(UNSENT_BYTES_MAX);
        }
        socket
    }
}

/// A stream whose way of waiting can be chosen.
pub(in crate::node) trait Waits {
    /// Whether an empty read or a full write leaves a waker with the reactor.
    fn set_armed(&mut self, armed: bool);

    /// What a thread of its own waits for.
    fn fd(&self) -> BorrowedFd<'_>;

    /// Whether the other side is on this machine.
    fn is_near(&self) -> bool;

    /// Whether something may be read that has already left the socket: then its readiness is not to be waited for.
    fn may_hold_input(&self) -> bool {
        false
    }
}

impl Waits for Socket {
    fn set_armed(&mut self, armed: bool) {
        self.armed = armed;
    }

    fn fd(&self) -> BorrowedFd<'_> {
        self.tcp.get_ref().as_fd()
    }

    fn is_near(&self) -> bool {
        let tcp = self.tcp.get_ref();
        let (Ok(here), Ok(there)) = (tcp.local_addr(), tcp.peer_addr()) else { return false };
        there.ip().to_canonical().is_loopback() || there.ip().to_canonical() == here.ip().to_canonical()
    }
}

impl AsyncRead for Socket {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, room: &mut [u8]) -> Poll<io::Result<usize>> {
        self.poll_read_with(cx, |mut tcp| tcp.read(room))
    }

    fn poll_read_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        rooms: &mut [IoSliceMut<'_>],
    ) -> Poll<io::Result<usize>> {
        self.poll_read_with(cx, |mut tcp| tcp.read_vectored(rooms))
    }
}

impl Socket {
    fn poll_read_with(
        &self,
        cx: &mut Context<'_>,
        mut read: impl FnMut(&TcpStream) -> io::Result<usize>,
    ) -> Poll<io::Result<usize>> {
        loop {
            match read(self.tcp.get_ref()) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                result => return Poll::Ready(result),
            }
            if !self.armed {
                return Poll::Pending;
            }
            ready!(self.tcp.poll_readable(cx))?;
        }
    }

    fn poll_write_with(
        &self,
        cx: &mut Context<'_>,
        mut write: impl FnMut(&TcpStream) -> io::Result<usize>,
    ) -> Poll<io::Result<usize>> {
        loop {
            match write(self.tcp.get_ref()) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                result => return Poll::Ready(result),
            }
            if !self.armed {
                return Poll::Pending;
            }
            ready!(self.tcp.poll_writable(cx))?;
        }
    }
}

impl AsyncWrite for Socket {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_write_with(cx, |mut tcp| tcp.write(bytes))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.poll_write_with(cx, |mut tcp| tcp.write_vectored(slices))
    }

    fn poll_flush(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_close(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(self.tcp.get_ref().shutdown(Shutdown::Write))
    }
}
