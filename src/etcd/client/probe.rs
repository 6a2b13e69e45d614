//! Questions to one member, whichever is good: how it is, and the pages that it serves beside its API.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use futures_rustls::rustls::pki_types::ServerName;
use smol::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use smol::net::TcpStream;

use super::connection::Head;
use super::{Etcd, Inner, framed, tls};
use crate::etcd::config::Endpoint;
use crate::etcd::dates::{certificate_end, http_date};
use crate::etcd::members::MemberId;
use crate::etcd::message::{Call, StatusRequest, StatusResponse};
use crate::etcd::{ConfigError, Error, TlsFiles};
use crate::within::within;

/// Bytes of a page that are read.
const PAGE_BYTES_MAX: u64 = 4 << 20;

/// A page that a member serves by HTTP/1 beside its API, such as `/metrics`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemberPage {
    /// The time of the member's clock when it answered, in whole seconds since 1970, if it has said so.
    pub date: Option<u64>,
    /// When the member's certificate ends, in seconds since 1970; `None`: there is no TLS, or that cannot be read.
    pub certificate_end: Option<u64>,
    /// What it has answered; of what is longer than 4 MiB the beginning.
    pub text: String,
}

impl MemberPage {
    /// A figure of a page in Prometheus's format, which has no labels. The first counts.
    pub fn figure(&self, name: &str) -> Option<f64> {
        let of = |line: &str| line.strip_prefix(name)?.strip_prefix(' ')?.trim().parse().ok();
        self.text.lines().find_map(of)
    }
}

impl Etcd {
    /// Asks each member how it is, all of them at the same time, and each once: in the order of the endpoints. A member that callers do not ask
    /// at present is asked too.
    ///
    /// # Errors
    ///
    /// Of each member: see [`Error`]; within [`check_duration_max`](crate::etcd::Config::check_duration_max).
    #[doc(hidden)]
    pub async fn statuses(&self) -> Vec<Result<StatusResponse, Error>> {
        let limit = self.0.config.check_duration_max;
        let ask = |id: MemberId| {
            let inner = Arc::clone(&self.0);
            self.0.thread.spawn(async move {
                let said = within(limit, Box::pin(inner.status(id, limit))).await;
                said.unwrap_or_else(|| {
                    Err(Error::unavailable(format!(
                        "{} has not answered within {limit:?}",
                        inner.endpoint(id)
                    )))
                })
            })
        };
        let asked: Vec<_> = (0..self.0.endpoints.len()).map(ask).collect();
        let mut statuses = Vec::with_capacity(asked.len());
        for status in asked {
            statuses.push(status.await);
        }
        statuses
    }

    /// A page of the member at this place among the endpoints, by HTTP/1.0 and a connection of its own: `path` begins with `/`. It is for people
    /// who look for what is wrong: etcd's API does not tell its clock, and before 3.6 not its bound.
    ///
    /// # Errors
    ///
    /// See [`Error`]; within [`check_duration_max`](crate::etcd::Config::check_duration_max).
    #[doc(hidden)]
    pub async fn page_of(&self, member: usize, path: &str) -> Result<MemberPage, Error> {
        let endpoint = self.0.endpoints.get(member).ok_or(Error::unavailable("no such member"))?;
        let limit = self.0.config.check_duration_max;
        let read = within(limit, Box::pin(page(endpoint, &self.0.config.tls, path))).await;
        read.unwrap_or_else(|| {
            Err(Error::unavailable(format!("{endpoint} has not answered within {limit:?}")))
        })
    }
}

async fn page(endpoint: &Endpoint, files: &TlsFiles, path: &str) -> Result<MemberPage, Error> {
    let failed = |error: &dyn ToString| Error::unavailable(format!("{endpoint}: {}", error.to_string()));
    let socket = TcpStream::connect((endpoint.host.as_str(), endpoint.port)).await;
    let socket = socket.map_err(|error| failed(&error))?;
    let host = endpoint.origin.split_once("://").map_or("", |(_, host)| host);
    let (answer, certificate_end) = if endpoint.is_tls {
        let connector = tls::connector(files, b"http/1.1").map_err(|error| failed(&error))?;
        let name = ServerName::try_from(endpoint.host.clone()).map_err(|error| failed(&error))?;
        let mut stream = connector.connect(name, socket).await.map_err(|error| failed(&error))?;
        let certificates = stream.get_ref().1.peer_certificates().unwrap_or_default();
        let end = certificates.first().and_then(|certificate| certificate_end(certificate));
        (get(&mut stream, host, path).await, end)
    } else {
        let mut socket = socket;
        (get(&mut socket, host, path).await, None)
    };
    let answer = answer.map_err(|error| failed(&error))?;
    let answer = String::from_utf8_lossy(&answer);
    let (head, text) =
        answer.split_once("\r\n\r\n").ok_or(Error::Malformed { reason: "its answer is not of HTTP" })?;
    let mut lines = head.lines();
    match lines.next().and_then(|line| line.strip_prefix("HTTP/1.")?.split(' ').nth(1)) {
        Some("200") => {}
        Some(_) => return Err(failed(&format!("no page {path}"))),
        None => return Err(Error::Malformed { reason: "its answer is not of HTTP" }),
    }
    let date = lines.find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("date").then(|| http_date(value.trim()))?
    });
    Ok(MemberPage { date, certificate_end, text: text.to_owned() })
}

/// What is answered, head and all. A member that ends TLS without saying so has said all before.
async fn get(
    stream: &mut (impl AsyncRead + AsyncWrite + Unpin),
    host: &str,
    path: &str,
) -> std::io::Result<Vec<u8>> {
    stream.write_all(format!("GET {path} HTTP/1.0\r\nHost: {host}\r\n\r\n").as_bytes()).await?;
    stream.flush().await?;
    let mut answer = Vec::new();
    match stream.take(PAGE_BYTES_MAX).read_to_end(&mut answer).await {
        Err(error) if answer.is_empty() => Err(error),
        _ => Ok(answer),
    }
}

/// When a client's own certificate ends, in seconds since 1970; `None`: there is none, or that cannot be read.
///
/// # Errors
///
/// The file cannot be used.
pub fn own_certificate_end(files: &TlsFiles) -> Result<Option<u64>, ConfigError> {
    let Some(path) = &files.cert else { return Ok(None) };
    Ok(tls::certificates(path)?.first().and_then(|certificate| certificate_end(certificate)))
}

impl Inner {
    pub(super) async fn status(&self, id: MemberId, limit: Duration) -> Result<StatusResponse, Error> {
        let mut connection = self.connection(id).await?;
        // Without a token: that costs a member that has none much more than this.
        let head = Head {
            path: StatusRequest::PATH,
            token: None,
            limit: Some(limit),
            is_sent: &AtomicBool::new(false),
        };
        let frame = framed(&StatusRequest {}).ok_or(Error::unavailable("it cannot be framed"))?;
        self.read(connection.call(head, frame).await?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_figure_of_a_page_is_found_by_its_whole_name() {
        let text = "# HELP a b\na_more 7\na{x=\"y\"} 8\na 2.147483648e+09\na 9\nb x\n".to_owned();
        let page = MemberPage { date: None, certificate_end: None, text };
        assert_eq!(
            (page.figure("a"), page.figure("b"), page.figure("c")),
            (Some(2_147_483_648.0), None, None)
        );
    }
}
