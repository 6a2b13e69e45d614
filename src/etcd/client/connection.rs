//! A connection to a member: HTTP/2, with gRPC's calls in it.

use std::error::Error as _;
use std::future::poll_fn;
use std::net::Shutdown;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures_rustls::rustls::pki_types::ServerName;
use hyper::body::{Body, Incoming};
use hyper::client::conn::http2::{Builder, SendRequest};
use hyper::header::{CONTENT_TYPE, HeaderName, HeaderValue, TE};
use hyper::{Method, Request, Response, StatusCode};
use prost::bytes::Bytes;
use smol::channel::Receiver;
use smol::io::{AsyncRead, AsyncWrite};
use smol::net::TcpStream;
use smol_hyper::rt::FuturesIo;

use super::body::Outgoing;
use super::thread::Spawn;
use super::tls;
use crate::etcd::config::Endpoint;
use crate::etcd::frame::{FrameError, Frames};
use crate::etcd::status::Status;
use crate::etcd::{Error, TlsFiles};

/// How much of one answer may come before it is read, and of all answers of a connection.
const STREAM_WINDOW_BYTES: u32 = 1 << 20;
const CONNECTION_WINDOW_BYTES: u32 = 8 << 20;
/// Bytes of an answer's headers, or trailers.
const HEADERS_BYTES_MAX: u32 = 16 << 10;

/// etcd's names for the token, and for the wish that a member without a leader refuses at once (`rpctypes/metadatafields.go`,
/// `md.go`).
const TOKEN: HeaderName = HeaderName::from_static("token");
const HAS_LEADER: HeaderName = HeaderName::from_static("hasleader");
const GRPC_TIMEOUT: HeaderName = HeaderName::from_static("grpc-timeout");

/// A connection, which many use at the same time.
#[derive(Clone)]
pub(super) struct Connection {
    sender: SendRequest<Outgoing>,
    socket: TcpStream,
    origin: String,
    message_bytes_max: usize,
}

/// What a call is besides its message.
pub(super) struct Head<'a> {
    pub(super) path: &'static str,
    pub(super) token: Option<HeaderValue>,
    /// For how long the caller waits, which etcd is told. `None`: as long as the stream goes on.
    pub(super) limit: Option<Duration>,
    /// Set as soon as the member may have got the request.
    pub(super) is_sent: &'a AtomicBool,
}

impl Connection {
    /// Connects, shakes hands where the endpoint has TLS, and begins HTTP/2. Whether the other side speaks it, the first call shows.
    pub(super) async fn open(
        endpoint: &Endpoint,
        files: &TlsFiles,
        message_bytes_max: usize,
        spawn: &Spawn,
    ) -> Result<Self, Error> {
        let failed = |error: &dyn ToString| Error::unavailable(format!("{endpoint}: {}", error.to_string()));
        let socket = TcpStream::connect((endpoint.host.as_str(), endpoint.port)).await;
        let socket = socket.map_err(|error| failed(&error))?;
        socket.set_nodelay(true).map_err(|error| failed(&error))?;
        let sender = if endpoint.is_tls {
            let connector = tls::connector(files, tls::HTTP2).map_err(|error| failed(&error))?;
            let name = ServerName::try_from(endpoint.host.clone()).map_err(|error| failed(&error))?;
            let stream = connector.connect(name, socket.clone()).await.map_err(|error| failed(&error))?;
            begin(stream, spawn).await
        } else {
            begin(socket.clone(), spawn).await
        };
        let sender = sender.map_err(|error| failed(&described(&error)))?;
        Ok(Self { sender, socket, origin: endpoint.origin.clone(), message_bytes_max })
    }

    /// Whether it has ended.
    pub(super) fn is_closed(&self) -> bool {
        self.sender.is_closed()
    }

    /// Ends it at once, with all that waits for it: it is believed to be dead.
    pub(super) fn give_up(&self) {
        // Its end is what is wanted, and it may be there already.
        let _ = self.socket.shutdown(Shutdown::Both);
    }

    /// A request with one message, and an answer with one.
    pub(super) async fn call(&mut self, head: Head<'_>, frame: Bytes) -> Result<Bytes, Error> {
        let bytes = frame.len();
        let mut answers = self.answers(head, Outgoing::Once(Some(frame)), bytes).await?;
        let answer =
            answers.next().await?.ok_or(Error::Malformed { reason: "there is no message in its answer" })?;
        match answers.next().await? {
            None => Ok(answer),
            Some(_) => Err(Error::Malformed { reason: "there are two messages in its answer" }),
        }
    }

    /// A request with messages as they come, and answers as they come.
    pub(super) async fn stream(&mut self, head: Head<'_>, frames: Receiver<Bytes>) -> Result<Answers, Error> {
        self.answers(head, Outgoing::Stream(Box::pin(frames)), 0).await
    }

    async fn answers(&mut self, head: Head<'_>, body: Outgoing, bytes: usize) -> Result<Answers, Error> {
        let mut request = Request::builder()
            .method(Method::POST)
            .uri(format!("{}{}", self.origin, head.path))
            .header(TE, "trailers")
            .header(CONTENT_TYPE, "application/grpc")
            .header(HAS_LEADER, "true");
        if let Some(token) = head.token {
            request = request.header(TOKEN, token);
        }
        if let Some(limit) = head.limit {
            // "Timeout": at most eight digits.
            request = request.header(GRPC_TIMEOUT, format!("{}m", limit.as_millis().min(99_999_999)));
        }
        let request = request.body(body).map_err(Error::unavailable)?;
        head.is_sent.store(true, Ordering::Relaxed);
        let response = self.sender.try_send_request(request).await.map_err(|mut failed| {
            let is_back = failed.take_message().is_some();
            let error = described(failed.error());
            if is_back { Error::unavailable(error) } else { Error::unknown(error) }
        })?;
        Answers::new(response, bytes, self.message_bytes_max)
    }
}

/// HTTP/2 begins; what drives it is a task that ends with it.
async fn begin<S>(stream: S, spawn: &Spawn) -> hyper::Result<SendRequest<Outgoing>>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let mut builder = Builder::new(spawn.clone());
    builder
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .max_header_list_size(HEADERS_BYTES_MAX);
    let (sender, connection) = builder.handshake(FuturesIo::new(stream)).await?;
    spawn.spawn(async move {
        // The requests that wait for answers are told why the connection ends.
        let _ = connection.await;
    });
    Ok(sender)
}

/// The messages that answer a call, until its status ends them.
pub(super) struct Answers {
    body: Option<Incoming>,
    frames: Frames,
    request_bytes: usize,
    message_bytes_max: usize,
}

impl Answers {
    fn new(
        response: Response<Incoming>,
        request_bytes: usize,
        message_bytes_max: usize,
    ) -> Result<Self, Error> {
        if response.status() != StatusCode::OK {
            // A proxy before it, perhaps: what is behind it may have done the request.
            return Err(Error::unknown(format!("HTTP status {}", response.status())));
        }
        let kind = response.headers().get(CONTENT_TYPE).map(HeaderValue::as_bytes).unwrap_or_default();
        if !kind.starts_with(b"application/grpc") {
            return Err(Error::Malformed { reason: "its answer is not of gRPC" });
        }
        // "Trailers-Only": an answer that is a status alone.
        match Status::read(response.headers()) {
            Some(status) if !status.is_ok() => Err(status.error(request_bytes)),
            Some(_) => Err(Error::Malformed { reason: "there is no message in its answer" }),
            None => Ok(Self {
                body: Some(response.into_body()),
                frames: Frames::new(message_bytes_max),
                request_bytes,
                message_bytes_max,
            }),
        }
    }

    /// The next message. `None`: the status is there, and all is well. May be dropped and called again.
    pub(super) async fn next(&mut self) -> Result<Option<Bytes>, Error> {
        loop {
            match self.frames.next() {
                Ok(Some(message)) => return Ok(Some(message)),
                Ok(None) => {}
                Err(FrameError::TooLarge { .. }) => {
                    self.body = None;
                    return Err(Error::AnswerTooLarge { bytes_max: self.message_bytes_max });
                }
                Err(_) => return Err(Error::Malformed { reason: "its answer is compressed" }),
            }
            let Some(body) = &mut self.body else { return Ok(None) };
            let frame = poll_fn(|cx| Pin::new(&mut *body).poll_frame(cx)).await;
            let frame = match frame {
                Some(Ok(frame)) => frame,
                Some(Err(error)) => return Err(Error::unknown(described(&error))),
                None => return Err(Error::Malformed { reason: "its answer has no status" }),
            };
            match frame.into_data() {
                Ok(data) => self.frames.push(&data),
                Err(frame) => {
                    let status = frame.trailers_ref().and_then(Status::read);
                    self.body = None;
                    let status = status.ok_or(Error::Malformed { reason: "its answer has no status" })?;
                    if !status.is_ok() {
                        return Err(status.error(self.request_bytes));
                    }
                    self.frames.end().map_err(|_| Error::Malformed { reason: "its answer is cut" })?;
                }
            }
        }
    }
}

/// hyper's errors say little without what caused them.
fn described(error: &hyper::Error) -> String {
    match error.source() {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    }
}
