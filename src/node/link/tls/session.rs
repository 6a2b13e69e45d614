//! A node's part in TLS, by rustls.

use std::io;
use std::net::Shutdown;
use std::sync::Arc;
use std::time::Duration;

use futures_rustls::rustls::pki_types::ServerName;
use futures_rustls::{TlsAcceptor, TlsConnector, TlsStream};
use parking_lot::RwLock;
use smol::io::{AsyncReadExt, AsyncWriteExt};
use smol::net::TcpStream;

use super::socket::TlsSocket;
use super::{TlsError, TlsFault, files};
use crate::config::TlsConfig;
use crate::node::link::socket::Socket;
use crate::within::within;

/// The answer to a record of no type that TLS has (RFC 8446, section 5): an alert, fatal, unexpected_message(10). A BEAM
/// answers so too, and a node that dials without TLS sees by it what it has dialled ([`is_alert`](super::is_alert)).
const UNEXPECTED_MESSAGE: [u8; 7] = [21, 3, 3, 0, 2, 2, 10];
/// How long this node waits for such a peer to hang up.
const TURNING_AWAY_MAX: Duration = Duration::from_secs(1);

/// A node's part in TLS: what its files said when they were last read.
pub(in crate::node) struct Tls {
    config: TlsConfig,
    loaded: RwLock<Loaded>,
}

#[derive(Clone)]
struct Loaded {
    acceptor: TlsAcceptor,
    connector: TlsConnector,
}

impl Loaded {
    fn load(config: &TlsConfig) -> Result<Self, TlsError> {
        Ok(Self {
            acceptor: Arc::new(files::server(&config.server)?).into(),
            connector: Arc::new(files::client(&config.client)?).into(),
        })
    }
}

impl Tls {
    pub(in crate::node) fn load(config: TlsConfig) -> Result<Self, TlsError> {
        Ok(Self { loaded: RwLock::new(Loaded::load(&config)?), config })
    }

    /// Reads the files again; what was read before stays where that fails.
    pub(in crate::node) fn reload(&self) -> Result<(), TlsError> {
        let loaded = Loaded::load(&self.config)?;
        *self.loaded.write() = loaded;
        Ok(())
    }

    /// Shakes hands with a peer that has connected, within `limit`.
    pub(in crate::node) async fn accept(
        &self,
        stream: TcpStream,
        limit: Duration,
    ) -> Result<TlsSocket, TlsFault> {
        let acceptor = self.loaded.read().acceptor.clone();
        let work = async {
            // The first packet of a node without TLS has a name in it, and so a length below 256.
            let mut first = [0];
            match stream.peek(&mut first).await {
                Ok(0) => return Err(TlsFault::Silence),
                Ok(_) if first == [0] => {
                    turn_away(stream).await;
                    return Err(TlsFault::Plain);
                }
                Ok(_) => {}
                Err(error) => return Err(TlsFault::Io(error)),
            }
            let stream = acceptor.accept(Socket::from(stream)).await.map_err(TlsFault::of_handshake)?;
            Ok(TlsSocket::new(TlsStream::Server(stream)))
        };
        within(limit, work).await.unwrap_or(Err(TlsFault::TimedOut))
    }

    /// Shakes hands with the node of `host`, within `limit`.
    pub(in crate::node) async fn connect(
        &self,
        stream: TcpStream,
        host: &str,
        limit: Duration,
    ) -> Result<TlsSocket, TlsFault> {
        let connector = self.loaded.read().connector.clone();
        let name = ServerName::try_from(host.to_owned()).map_err(|_| TlsFault::HostName(host.to_owned()))?;
        let work = async {
            let stream =
                connector.connect(name, Socket::from(stream)).await.map_err(TlsFault::of_handshake)?;
            Ok(TlsSocket::new(TlsStream::Client(stream)))
        };
        within(limit, work).await.unwrap_or(Err(TlsFault::TimedOut))
    }
}

/// Tells a peer that does not speak TLS that this node does, and closes the connection once the peer has heard it.
async fn turn_away(mut stream: TcpStream) {
    let told = async {
        stream.write_all(&UNEXPECTED_MESSAGE).await?;
        stream.shutdown(Shutdown::Write)?;
        // A socket that is closed with bytes unread takes back what was sent by it.
        let mut theirs = [0; 256];
        while stream.read(&mut theirs).await? > 0 {}
        io::Result::Ok(())
    };
    // They may be gone: what was said was for them alone.
    let _ = within(TURNING_AWAY_MAX, told).await;
}
