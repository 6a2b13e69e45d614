//! A node that is built without TLS: settings that want TLS are refused with that reason.

use std::convert::Infallible;
use std::io;
use std::os::fd::BorrowedFd;
use std::path::Path;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use smol::io::{AsyncRead, AsyncWrite};
use smol::net::TcpStream;

use super::{TlsError, TlsFault};
use crate::config::TlsConfig;
use crate::node::link::socket::Waits;

/// What no node has.
pub(in crate::node) struct Tls(Infallible);

/// What no connection runs over.
#[derive(Debug)]
pub(in crate::node) struct TlsSocket(Infallible);

impl Tls {
    pub(in crate::node) fn load(_config: TlsConfig) -> Result<Self, TlsError> {
        Err(TlsError::NotBuilt)
    }

    pub(in crate::node) const fn reload(&self) -> Result<(), TlsError> {
        match self.0 {}
    }

    #[expect(clippy::unused_async, reason = "as with the feature `tls`")]
    pub(in crate::node) async fn accept(&self, _: TcpStream, _: Duration) -> Result<TlsSocket, TlsFault> {
        match self.0 {}
    }

    #[expect(clippy::unused_async, reason = "as with the feature `tls`")]
    pub(in crate::node) async fn connect(
        &self,
        _: TcpStream,
        _host: &str,
        _: Duration,
    ) -> Result<TlsSocket, TlsFault> {
        match self.0 {}
    }
}

/// Reads a file with the options of `-ssl_dist_optfile`, where TLS is built in.
///
/// # Errors
/// That it is not.
pub fn read_optfile(_path: &Path) -> Result<TlsConfig, TlsError> {
    Err(TlsError::NotBuilt)
}

impl Waits for TlsSocket {
    fn set_armed(&mut self, _: bool) {
        match self.0 {}
    }

    fn fd(&self) -> BorrowedFd<'_> {
        match self.0 {}
    }

    fn is_near(&self) -> bool {
        match self.0 {}
    }
}

impl AsyncRead for TlsSocket {
    fn poll_read(self: Pin<&mut Self>, _: &mut Context<'_>, _: &mut [u8]) -> Poll<io::Result<usize>> {
        match self.0 {}
    }
}

impl AsyncWrite for TlsSocket {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, _: &[u8]) -> Poll<io::Result<usize>> {
        match self.0 {}
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.0 {}
    }

    fn poll_close(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.0 {}
    }
}
