//! Which etcd, and how long anything may take.

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

use hyper::Uri;

/// The port that an endpoint without one means.
const PORT: u16 = 2379;

/// What a client needs to know.
///
/// ```
/// use std::time::Duration;
///
/// use kvnode::etcd::{Config, User};
///
/// let config = Config::new(["https://10.0.0.7"]).with_user(User::new("kv", "secret")).with_deadline(Duration::from_secs(2));
/// # assert_eq!(config.deadline, Duration::from_secs(2));
/// ```
///
/// What has no method is set as a field: `config.away_pause = …`.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Config {
    /// Where members are: `http://host:port` or `https://host:port`. The port is 2379 where there is none, an IPv6 address
    /// stands in brackets. The client asks those that are named here, and no others.
    pub endpoints: Vec<String>,
    /// What endpoints with `https` need.
    pub tls: TlsFiles,
    /// The user of the requests. `None`: no user, which is right where etcd's authentication is off, or takes the name in the certificate.
    pub user: Option<User>,
    /// How long a request may take that is told nothing else, over all tries: 4 s, so that a `GenServer.call` with its 5 s has
    /// an answer. The election of a leader takes 1 to 2.5 s with etcd's own settings.
    pub deadline: Duration,
    /// How long a try at one member may take: 1.5 s. A write that a leader has taken with it hangs for 7 s at etcd.
    pub try_duration_max: Duration,
    /// How long it may take to connect, TLS with it: 1 s.
    pub connect_duration_max: Duration,
    /// After so long without a word of a member it is asked how it is: 1 s.
    pub check_interval: Duration,
    /// How long it may take to answer that: 1.5 s, after which it is given up with all that waits for it.
    pub check_duration_max: Duration,
    /// How long a member that is given up is left alone: 250 ms, then twice as long each time, up to
    /// [`away_pause_max`](Self::away_pause_max).
    pub away_pause: Duration,
    /// See [`away_pause`](Self::away_pause): 1 s.
    pub away_pause_max: Duration,
    /// Bytes of a request at most: 1.5 MiB, etcd's `--max-request-bytes` where it was not told otherwise.
    pub request_bytes_max: usize,
    /// Bytes of an answer, or of a message of a watch, at most: 16 MiB.
    pub message_bytes_max: usize,
    /// Bytes of one revision's changes that a watch holds at most until it has them all: 256 MiB. With `prev_kv` a transaction
    /// of 128 operations has 192 MiB at most, unless etcd's bounds were raised.
    pub revision_bytes_max: usize,
}

/// Files for TLS, all of them PEM. They are read at each connection, so that renewed ones are taken.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct TlsFiles {
    /// The certificates of the CAs that may sign a member's. Endpoints with `https` need it.
    pub ca: Option<PathBuf>,
    /// The client's own certificate, followed by the certificates between it and the CA: for `--client-cert-auth`.
    pub cert: Option<PathBuf>,
    /// Its key. `None`: it stands in the file of the certificate.
    pub key: Option<PathBuf>,
}

/// A user of etcd's authentication.
#[derive(Clone, PartialEq, Eq)]
pub struct User {
    /// The name.
    pub name: String,
    /// The password, which is shown nowhere.
    pub password: String,
}

impl TlsFiles {
    /// The same, with the certificates of the CAs in this file.
    #[must_use]
    pub fn with_ca(self, file: impl Into<PathBuf>) -> Self {
        Self { ca: Some(file.into()), ..self }
    }

    /// The same, with the client's own certificate in this file.
    #[must_use]
    pub fn with_cert(self, file: impl Into<PathBuf>) -> Self {
        Self { cert: Some(file.into()), ..self }
    }

    /// The same, with its key in this file.
    #[must_use]
    pub fn with_key(self, file: impl Into<PathBuf>) -> Self {
        Self { key: Some(file.into()), ..self }
    }
}

impl User {
    /// With this name and this password.
    pub fn new(name: impl Into<String>, password: impl Into<String>) -> Self {
        Self { name: name.into(), password: password.into() }
    }
}

impl fmt::Debug for User {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("User").field("name", &self.name).finish_non_exhaustive()
    }
}

impl Config {
    /// The defaults, for these members.
    pub fn new<E: Into<String>>(endpoints: impl IntoIterator<Item = E>) -> Self {
        Self {
            endpoints: endpoints.into_iter().map(Into::into).collect(),
            tls: TlsFiles::default(),
            user: None,
            deadline: Duration::from_secs(4),
            try_duration_max: Duration::from_millis(1500),
            connect_duration_max: Duration::from_secs(1),
            check_interval: Duration::from_secs(1),
            check_duration_max: Duration::from_millis(1500),
            away_pause: Duration::from_millis(250),
            away_pause_max: Duration::from_secs(1),
            request_bytes_max: 3 << 19,
            message_bytes_max: 16 << 20,
            revision_bytes_max: 256 << 20,
        }
    }

    /// The same, with these files for TLS.
    #[must_use]
    pub fn with_tls(self, tls: TlsFiles) -> Self {
        Self { tls, ..self }
    }

    /// The same, as this user.
    #[must_use]
    pub fn with_user(self, user: User) -> Self {
        Self { user: Some(user), ..self }
    }

    /// The same, with so much time for a request over all tries.
    #[must_use]
    pub fn with_deadline(self, deadline: Duration) -> Self {
        Self { deadline, ..self }
    }

    /// The same, with so much time for a try at one member.
    #[must_use]
    pub fn with_try_duration_max(self, try_duration_max: Duration) -> Self {
        Self { try_duration_max, ..self }
    }

    /// Longer times are taken for this one: clocks end somewhere.
    pub(super) const DURATION_MAX: Duration = Duration::from_secs(24 * 3600);
    /// Shorter times are taken for this one: members would be asked without end.
    const DURATION_MIN: Duration = Duration::from_millis(1);

    /// The same with times that can be counted with.
    pub(super) fn within_bounds(mut self) -> Self {
        for time in [
            &mut self.deadline,
            &mut self.try_duration_max,
            &mut self.connect_duration_max,
            &mut self.check_interval,
            &mut self.check_duration_max,
            &mut self.away_pause,
            &mut self.away_pause_max,
        ] {
            *time = (*time).clamp(Self::DURATION_MIN, Self::DURATION_MAX);
        }
        self
    }

    /// The endpoints, read.
    pub(super) fn endpoints(&self) -> Result<Vec<Endpoint>, ConfigError> {
        let endpoints: Vec<_> =
            self.endpoints.iter().map(|text| Endpoint::read(text)).collect::<Result<_, _>>()?;
        if endpoints.is_empty() { Err(ConfigError::NoEndpoint) } else { Ok(endpoints) }
    }
}

/// Why a client cannot be made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// No member is named.
    #[error("no endpoint of etcd is given")]
    NoEndpoint,
    /// An endpoint is none.
    #[error("{text:?} is no endpoint of etcd: {reason}")]
    Endpoint {
        /// What was given.
        text: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// An endpoint with `https`, and no CA.
    #[error("an endpoint with https needs the certificates of a CA")]
    NoCa,
    /// A file for TLS cannot be read.
    #[error("{}: {error}", .path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system says.
        error: io::Error,
    },
    /// A file for TLS is not what it should be.
    #[error("{}: {reason}", .path.display())]
    Tls {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// There is no thread for it.
    #[error("no thread can be started: {0}")]
    Thread(io::Error),
}

/// Whether a member may be named so.
///
/// # Errors
/// [`ConfigError::Endpoint`].
#[cfg(feature = "cli")]
pub(crate) fn check_endpoint(text: &str) -> Result<(), ConfigError> {
    Endpoint::read(text).map(drop)
}

/// Where a member is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Endpoint {
    pub(super) is_tls: bool,
    /// Without brackets.
    pub(super) host: String,
    pub(super) port: u16,
    /// With scheme and port: what requests begin with.
    pub(super) origin: String,
}

impl Endpoint {
    fn read(text: &str) -> Result<Self, ConfigError> {
        let wrong = |reason| ConfigError::Endpoint { text: text.to_owned(), reason };
        let uri: Uri = text.trim().parse().map_err(|_| wrong("it is no URL"))?;
        let is_tls = match uri.scheme_str() {
            Some("http") => false,
            Some("https") => true,
            _ => return Err(wrong("it begins with neither http:// nor https://")),
        };
        let authority = uri.authority().ok_or_else(|| wrong("it has no host"))?;
        if authority.as_str().contains('@') {
            return Err(wrong("a user is given beside it, not in it"));
        }
        if uri.path_and_query().is_some_and(|path| path != "/") {
            return Err(wrong("it has a path"));
        }
        let host = authority.host();
        if host.is_empty() {
            return Err(wrong("it has no host"));
        }
        let is_without = authority.as_str() == host;
        let port = if is_without { Some(PORT) } else { authority.port_u16() };
        let port = port.filter(|port| *port > 0).ok_or_else(|| wrong("its port is none"))?;
        let scheme = if is_tls { "https" } else { "http" };
        Ok(Self {
            is_tls,
            host: host.trim_start_matches('[').trim_end_matches(']').to_owned(),
            port,
            origin: format!("{scheme}://{host}:{port}"),
        })
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.origin)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints_are_read_and_what_is_none_is_refused() {
        let read =
            |text| Endpoint::read(text).map(|at| (at.is_tls, at.host.clone(), at.port, at.to_string()));
        let at = |is_tls, host: &str, port, origin: &str| (is_tls, host.to_owned(), port, origin.to_owned());
        assert_eq!(read("http://a:1").unwrap(), at(false, "a", 1, "http://a:1"));
        assert_eq!(read(" https://a.b/ ").unwrap(), at(true, "a.b", 2379, "https://a.b:2379"));
        assert_eq!(read("http://[::1]:7").unwrap(), at(false, "::1", 7, "http://[::1]:7"));
        assert_eq!(read("http://[::1]").unwrap(), at(false, "::1", 2379, "http://[::1]:2379"));
        for text in [
            "",
            "a:1",
            "ftp://a",
            "http://",
            "http://a/x",
            "http://a?x",
            "http://u:p@a",
            "http://a:0",
            "http://a:70000",
            "http://a:",
        ] {
            assert!(read(text).is_err(), "{text}");
        }
        assert!(matches!(Config::new([""; 0]).endpoints(), Err(ConfigError::NoEndpoint)));
    }

    #[test]
    fn a_password_is_not_shown() {
        let mut config = Config::new(["http://a"]);
        config.user = Some(User { name: "root".to_owned(), password: "geheim".to_owned() });
        assert!(format!("{config:?}").contains("root") && !format!("{config:?}").contains("geheim"));
    }
}
