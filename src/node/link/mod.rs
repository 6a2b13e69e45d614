//! What a connection runs over: a TCP socket, with or without TLS.

pub(in crate::node) mod connection;
pub(in crate::node) mod dedicated;
pub(in crate::node) mod door;
pub(in crate::node) mod listener;
pub mod setup;
pub(in crate::node) mod socket;
pub mod tls;

use std::io::{self, IoSlice, IoSliceMut};
use std::os::fd::BorrowedFd;
use std::pin::Pin;
use std::task::{Context, Poll};

use smol::io::{AsyncRead, AsyncWrite};

use crate::distribution::handshake::Lengths;
use crate::node::link::socket::{Socket, Waits};
use crate::node::link::tls::TlsSocket;

/// See the module. One type for both, so that there is one connection's loop: the branch costs nothing beside the
/// system call behind it.
#[derive(Debug)]
pub(in crate::node) enum Link {
    /// TCP.
    Plain(Socket),
    /// TLS over TCP. Elsewhere, for the plain one shall stay small.
    Tls(Box<TlsSocket>),
}

impl Link {
    /// How the lengths of the handshake's packets are written on it.
    pub(in crate::node) const fn lengths(&self) -> Lengths {
        match self {
            Self::Plain(_) => Lengths::TwoBytes,
            Self::Tls(_) => Lengths::FourBytes,
        }
    }
}

macro_rules! either {
    ($link:expr, $socket:ident => $what:expr) => {
        match $link {
            Link::Plain($socket) => $what,
            Link::Tls($socket) => $what,
        }
    };
}

impl Waits for Link {
    fn set_armed(&mut self, armed: bool) {
        either!(self, socket => socket.set_armed(armed));
    }

    fn fd(&self) -> BorrowedFd<'_> {
        either!(self, socket => socket.fd())
    }

    fn is_near(&self) -> bool {
        either!(self, socket => socket.is_near())
    }

    fn may_hold_input(&self) -> bool {
        either!(self, socket => socket.may_hold_input())
    }
}

impl AsyncRead for Link {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, room: &mut [u8]) -> Poll<io::Result<usize>> {
        either!(self.get_mut(), socket => Pin::new(socket).poll_read(cx, room))
    }

    fn poll_read_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        rooms: &mut [IoSliceMut<'_>],
    ) -> Poll<io::Result<usize>> {
        either!(self.get_mut(), socket => Pin::new(socket).poll_read_vectored(cx, rooms))
    }
}

impl AsyncWrite for Link {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        either!(self.get_mut(), socket => Pin::new(socket).poll_write(cx, bytes))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        either!(self.get_mut(), socket => Pin::new(socket).poll_write_vectored(cx, slices))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        either!(self.get_mut(), socket => Pin::new(socket).poll_flush(cx))
    }

    fn poll_close(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        either!(self.get_mut(), socket => Pin::new(socket).poll_close(cx))
    }
}
