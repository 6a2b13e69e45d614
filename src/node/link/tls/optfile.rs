//! The file that a BEAM is given by `-ssl_dist_optfile`, as a [`TlsConfig`].
//!
//! ssl User's Guide, "Using TLS for Erlang Distribution", section "Specifying TLS Options": a list of
//! `{server, Options}` and `{client, Options}`, the options those of `ssl:listen/2` and `ssl:connect/3`.

use std::path::{Path, PathBuf};

use super::term_text::{self, Located, Term, TextError};
use super::{TlsError, files};
use crate::config::{TlsConfig, TlsSide, TlsVerify, TlsVersion};

/// Options that change nothing here, or nothing that would let a peer in: of how a BEAM stores, logs and schedules,
/// and of which algorithms it prefers (ours are the AEAD suites with forward secrecy alone).
const WITHOUT_EFFECT: &[&str] = &[
    "secure_renegotiate",
    "client_renegotiation",
    "reuse_sessions",
    "reuse_session",
    "session_tickets",
    "hibernate_after",
    "honor_cipher_order",
    "honor_ecc_order",
    "log_level",
    "handshake",
    "ktls",
    "dhfile",
    "dh",
    "ciphers",
    "eccs",
    "supported_groups",
    "signature_algs",
    "signature_algs_cert",
    "key_update_at",
    "max_handshake_size",
    "middlebox_comp_mode",
    "keep_secrets",
    "nodelay",
];

/// Reads a file with the options of `-ssl_dist_optfile`. Paths in it are taken from the current folder, as a BEAM takes
/// them. A `verify` that is missing means what it means in OTP 26 and later: `verify_peer` for the client, and
/// `verify_none` for the server.
///
/// Options without an effect here (preferences among ciphers, caches, log levels) are skipped.
///
/// # Errors
/// The file cannot be read, is not plain data, or has an option that is not known here: the file's author is told
/// its line.
pub fn read_optfile(path: &Path) -> Result<TlsConfig, TlsError> {
    let bytes = files::read(path)?;
    // As the BEAM: Latin-1 unless it says otherwise; what is UTF-8 by chance or by a comment is UTF-8 here.
    let text = String::from_utf8(bytes)
        .unwrap_or_else(|error| error.as_bytes().iter().copied().map(char::from).collect());
    parse(&text).map_err(|TextError { line, reason }| TlsError::Optfile {
        path: path.to_owned(),
        line,
        reason,
    })
}

fn parse(text: &str) -> Result<TlsConfig, TextError> {
    let mut server = None;
    let mut client = None;
    for part in list(term_text::read(text)?, "a list of {server, Options} and {client, Options}")? {
        let (line, name, options) = option(part)?;
        let side = match name.as_str() {
            "server" => &mut server,
            "client" => &mut client,
            _ => return Err(wrong(line, format!("{name} is neither server nor client"))),
        };
        if side.is_some() {
            return Err(wrong(line, format!("{name} is there a second time")));
        }
        *side = Some(side_of(options, name == "server")?);
    }
    let none = || TlsSide::default();
    let server = server.ok_or_else(|| wrong(1, "{server, Options} is missing".into()))?;
    Ok(TlsConfig { server, client: client.unwrap_or_else(none) })
}

fn side_of(options: Located, is_server: bool) -> Result<TlsSide, TextError> {
    let mut side = TlsSide::default();
    let mut verify = !is_server;
    let mut needs_certificate = false;
    let mut seen = Vec::new();
    for part in list(options, "a list of options")? {
        let (line, name, value) = option(part)?;
        // As proplists: the first one counts.
        if seen.contains(&name) {
            continue;
        }
        match name.as_str() {
            "certfile" => side.cert_file = Some(path(value)?),
            "keyfile" => side.key_file = Some(path(value)?),
            "cacertfile" => side.ca_file = Some(path(value)?),
            "verify" => {
                verify = match atom(&value)? {
                    "verify_peer" => true,
                    "verify_none" => false,
                    _ => return Err(wrong(value.line, "verify is verify_peer or verify_none".into())),
                }
            }
            "fail_if_no_peer_cert" if is_server => needs_certificate = truth(&value)?,
            "depth" => side.depth_max = Some(depth(&value)?),
            "versions" => (side.version_min, side.version_max) = versions(value)?,
            // Only an encrypted key needs it, and such a key is refused where it is read.
            "password" => {}
            known if WITHOUT_EFFECT.contains(&known) => {}
            _ => {
                return Err(wrong(
                    line,
                    format!(
                        "the option {name} is not known here, and might decide who is let in; known are certfile, keyfile, \
                         cacertfile, verify, depth, fail_if_no_peer_cert (of the server) and versions"
                    ),
                ));
            }
        }
        seen.push(name);
    }
    side.verify = match (verify, is_server && !needs_certificate) {
        (false, _) => TlsVerify::None,
        (true, true) => TlsVerify::PeerIfGiven,
        (true, false) => TlsVerify::Peer,
    };
    Ok(side)
}

fn wrong(line: usize, reason: String) -> TextError {
    TextError { line, reason }
}

fn list(located: Located, what: &str) -> Result<Vec<Located>, TextError> {
    match located.term {
        Term::List(items) => Ok(items),
        _ => Err(wrong(located.line, format!("{what} should be here"))),
    }
}

/// `{name, value}`, or a name alone, which means `{name, true}`.
fn option(located: Located) -> Result<(usize, String, Located), TextError> {
    let line = located.line;
    let pair = match located.term {
        Term::Atom(name) => {
            return Ok((line, name, Located { line, term: Term::Atom("true".into()) }));
        }
        Term::Tuple(items) => <[Located; 2]>::try_from(items).ok(),
        _ => None,
    };
    match pair {
        Some([Located { term: Term::Atom(name), .. }, value]) => Ok((line, name, value)),
        _ => Err(wrong(line, "{name, value} should be here".into())),
    }
}

fn path(located: Located) -> Result<PathBuf, TextError> {
    match located.term {
        Term::Text(path) if !path.is_empty() => Ok(path.into()),
        _ => Err(wrong(located.line, "a path in quotes (\"…\") should be here".into())),
    }
}

fn atom(located: &Located) -> Result<&str, TextError> {
    match &located.term {
        Term::Atom(name) => Ok(name),
        _ => Err(wrong(located.line, "an atom should be here".into())),
    }
}

fn truth(located: &Located) -> Result<bool, TextError> {
    match atom(located)? {
        "true" => Ok(true),
        "false" => Ok(false),
        _ => Err(wrong(located.line, "true or false should be here".into())),
    }
}

fn depth(located: &Located) -> Result<u8, TextError> {
    match located.term {
        Term::Integer(depth) => u8::try_from(depth).ok(),
        _ => None,
    }
    .ok_or_else(|| wrong(located.line, "a depth from 0 to 255 should be here".into()))
}

/// Versions before 1.2 are passed over where a newer one is there too.
fn versions(located: Located) -> Result<(TlsVersion, TlsVersion), TextError> {
    let line = located.line;
    let mut known = Vec::new();
    for version in list(located, "a list of versions")? {
        match atom(&version)? {
            "tlsv1.2" => known.push(TlsVersion::Tls12),
            "tlsv1.3" => known.push(TlsVersion::Tls13),
            "tlsv1" | "tlsv1.1" => {}
            other => return Err(wrong(version.line, format!("{other} is no version of TLS"))),
        }
    }
    match (known.iter().min(), known.iter().max()) {
        (Some(least), Some(most)) => Ok((*least, *most)),
        _ => Err(wrong(line, "of these versions none is spoken here: 'tlsv1.2' and 'tlsv1.3' are".into())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reason(text: &str) -> String {
        let error = parse(text).unwrap_err();
        format!("{}: {}", error.line, error.reason)
    }

    /// As in "Using TLS for Erlang Distribution".
    const OF_THE_GUIDE: &str = r#"[{server,
  [{certfile, "/home/me/ssl/cert.pem"},
   {keyfile, "/home/me/ssl/privkey.pem"},
   {password, "sesame"},
   {cacertfile, "/home/me/ssl/ca_cert.pem"},
   {fail_if_no_peer_cert, true},
   {verify, verify_peer},
   {secure_renegotiate, true}]},
 {client,
  [{cacertfile, "/home/me/ssl/ca_cert.pem"},
   {versions, ['tlsv1.3', 'tlsv1.2', 'tlsv1.1']},
   {verify, verify_peer}]}].
"#;

    #[test]
    fn the_file_of_the_guide_is_understood() {
        let config = parse(OF_THE_GUIDE).unwrap();
        let server = TlsSide {
            cert_file: Some("/home/me/ssl/cert.pem".into()),
            key_file: Some("/home/me/ssl/privkey.pem".into()),
            ca_file: Some("/home/me/ssl/ca_cert.pem".into()),
            ..TlsSide::default()
        };
        let client = TlsSide { ca_file: server.ca_file.clone(), ..TlsSide::default() };
        assert_eq!(config, TlsConfig { server, client });
        assert!(!format!("{config:?}").contains("sesame"));
    }

    #[test]
    fn what_is_not_said_is_what_a_beam_takes_it_for() {
        let config = parse("[{server, [{certfile, \"a\"}, {certfile, \"b\"}]}].").unwrap();
        assert_eq!(config.server.cert_file, Some("a".into()));
        assert_eq!((config.server.verify, config.client.verify), (TlsVerify::None, TlsVerify::Peer));
        let config = parse(
            "[{server, [{verify, verify_peer}, {versions, ['tlsv1.2']}]}, {client, [{verify, verify_none}, {depth, 1}]}].",
        );
        let TlsConfig { server, client } = config.unwrap();
        assert_eq!((server.verify, client.verify), (TlsVerify::PeerIfGiven, TlsVerify::None));
        assert_eq!((server.depth_max, client.depth_max), (None, Some(1)));
        assert_eq!((server.version_min, server.version_max), (TlsVersion::Tls12, TlsVersion::Tls12));
    }

    #[test]
    fn what_might_decide_who_is_let_in_is_not_passed_over() {
        let server = |option: &str| reason(&format!("[{{server, [\n{option}\n]}}]."));
        for option in [
            "{crl_check, true}",
            "{verify_fun, {a, b}}",
            "{cacerts, []}",
            "{certs_keys, []}",
            "{fail_if_no_peer_cert, yes}",
            "{verify, 1}",
            "{depth, 256}",
            "{depth, -1}",
            "{depth, deep}",
            "{verify, peer}",
            "{certfile, cert}",
            "{certfile, \"\"}",
            "{versions, [sslv3]}",
            "{versions, ['tlsv1.1']}",
            "{a, b, c}",
            "12",
        ] {
            assert!(server(option).starts_with("2: "), "{option}: {}", server(option));
        }
        assert!(reason("[{peer, []}].").starts_with("1: peer is neither"));
        assert!(reason("[{client, []}].").contains("server"));
        assert!(reason("[{server, []},\n{server, []}].").starts_with("2: server"));
        assert!(reason("{server, []}.").starts_with("1: a list"));
    }
}
