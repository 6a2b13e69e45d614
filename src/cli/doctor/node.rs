//! Why a node cannot be connected to, step by step.

use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use smol::io::{AsyncReadExt, AsyncWriteExt};
use smol::net::TcpStream;

use super::super::ask::{self, Session};
use super::super::find::{Find, listed};
use super::super::progress::waiting;
use super::super::rpc;
use super::super::second_opinion;
use super::{CLOCKS_MAX_MS, DoctorArgs, Failed, Report, now_ms};
use crate::config::EpmdConfig;
use crate::distribution::handshake::{Fault, HandshakeError};
use crate::distribution::node_at::with_port;
use crate::distribution::node_name::NameKind;
use crate::distribution::{DistributionFlags, NodeAt, NodeName};
use crate::epmd::client::{EpmdError, lookup, names};
use crate::epmd::resolve::{Resolved, resolve};
use crate::etf::from_term;
use crate::node::setup::DialError;
use crate::within::io_within;

/// How long a step may take that no one else limits.
const STEP: Duration = Duration::from_secs(5);
/// The first message of TLS, cut off after its header: a TLS server answers it with an alert.
const TLS_BEGIN: [u8; 9] = [0x16, 3, 1, 0, 4, 1, 0, 0, 0];
/// The records that a TLS server answers with: alert and handshake (RFC 8446, 5.1).
const TLS_RECORDS: [u8; 2] = [0x15, 0x16];

const OWN_TLS: &str = "this is about the flags of TLS that were typed here, and not about that node: give it what a node \
                       would be started with, --tls-cert, --tls-key and --tls-ca, or --tls-optfile";
const OWN_NODE: &str =
    "this is about the node here that asks, and not about that one: put right what it names, and try again";

/// How the node is found.
pub(super) struct Way {
    pub(super) find: Find,
    /// The port that it is dialled at; `None`: its epmd is asked.
    pub(super) port: Option<u16>,
}

pub(super) async fn examine(
    report: &mut Report,
    typed: &NodeAt,
    args: &DoctorArgs,
    way: &Way,
) -> Result<(), Failed> {
    let target = &typed.name;
    let kind = kind(report, target)?;
    let resolved = host(report, target).await?;
    let addresses = match (way.port, way.find.epmd()) {
        (None, Some(epmd)) => vec![registered(report, target, epmd).await?],
        (port, _) => without_epmd(report, typed, &resolved, port.unwrap_or_default()),
    };
    let address = port(report, &addresses, way).await?;
    let tls = match args.tls.config() {
        Ok(tls) => tls,
        Err(error) => return Err(report.bad("tls", error.to_string(), OWN_TLS)),
    };
    let is_tls = tls.is_some();
    let node = match ask::start(target, args.cookie.as_deref(), tls, way.find.clone()).await {
        Ok(node) => node,
        Err(error) => return Err(report.bad("own node", error.to_string(), OWN_NODE)),
    };
    let reached = match waiting("asking", target.as_str(), node.connect_to(&typed.to_string())).await {
        Ok(reached) => reached,
        Err(error) => {
            let why = async {
                node.stop().await;
                let other_name = named_otherwise(target, kind, args, way, &error).await;
                let tls = match &*error {
                    DialError::Handshake(HandshakeError { fault, .. }) => {
                        matches!(fault, Fault::Malformed(_) | Fault::Closed | Fault::TimedOut)
                            && speaks_tls(address).await
                    }
                    _ => false,
                };
                (other_name, tls)
            };
            let (other_name, tls) = waiting("finding out more about", target.as_str(), why).await;
            let found = Found { target, kind, address, way };
            return Err(handshake_failed(report, &found, &error, other_name, tls));
        }
    };
    report.good("handshake", format!("{target} has our cookie and lets us in"));
    flags(report, reached.offered);
    let session = Session { node: Arc::clone(&node), connected: reached, time: STEP };
    let talked = talk(report, &session).await;
    node.stop().await;
    talked?;
    another_client(report, target, address, args, is_tls).await;
    Ok(())
}

fn kind(report: &mut Report, target: &NodeName) -> Result<NameKind, Failed> {
    for (kind, words) in [(NameKind::Short, "short"), (NameKind::Long, "long")] {
        if kind.admits(target.host()) {
            report.good("name", format!("{target} is a {words} name"));
            return Ok(kind);
        }
    }
    Err(report.bad(
        "name",
        format!("{target} is neither a short nor a long name"),
        "see `Node.self()` in its iex",
    ))
}

async fn host(report: &mut Report, target: &NodeName) -> Result<Resolved, Failed> {
    let host = target.host();
    match waiting("asking for the address of", host, resolve(host, None)).await {
        Ok(resolved) => {
            let addresses: Vec<String> = resolved.addresses.iter().map(IpAddr::to_string).collect();
            let addresses = addresses.join(", ");
            report.good(
                "host",
                match resolved.is_own_name {
                    false => format!("{host} is {addresses}"),
                    true => format!(
                        "{host} is this machine, whose name neither DNS nor /etc/hosts has: {addresses}"
                    ),
                },
            );
            Ok(resolved)
        }
        Err(EpmdError::UnknownHost { reason, .. }) => {
            Err(report.bad("host", format!("{host} is not known: {reason}"), unknown_host(host)))
        }
        Err(error) => Err(report.bad("host", error.to_string(), unknown_host(host))),
    }
}

fn unknown_host(host: &str) -> String {
    format!("see that the part behind the @ is right, and put {host} into /etc/hosts or the name server")
}

/// Asks the host's epmd, and gives where the node listens.
async fn registered(report: &mut Report, target: &NodeName, epmd: &EpmdConfig) -> Result<SocketAddr, Failed> {
    let (host, port) = (target.host(), epmd.port);
    let known = match waiting("asking epmd of", host, names(host, port)).await {
        Ok(known) => known,
        Err(error) => {
            let todo = match &error {
                EpmdError::NoAnswer { reason, .. } if reason.kind() == ErrorKind::ConnectionRefused => {
                    format!(
                        "no epmd runs at port {port} of {host}: start a node there, or epmd -daemon; where it has another port, \
                     set ERL_EPMD_PORT here too"
                    )
                }
                // A program that hangs up while it is asked is none either.
                EpmdError::NoAnswer { reason, .. }
                    if !matches!(
                        reason.kind(),
                        ErrorKind::ConnectionReset | ErrorKind::BrokenPipe | ErrorKind::UnexpectedEof
                    ) =>
                {
                    format!(
                        "see that no firewall stands before port {port} of {host}, and that the host is up"
                    )
                }
                _ => format!(
                    "another program than epmd has port {port} of {host}; set ERL_EPMD_PORT on both sides"
                ),
            };
            return Err(report.bad("epmd", format!("{host}:{port} does not answer: {error}"), todo));
        }
    };
    // Any program that can reach epmd can register any bytes.
    let list: Vec<String> = known.iter().map(|(name, _)| name.escape_debug().to_string()).collect();
    let list = if list.is_empty() { "no node".to_owned() } else { list.join(", ") };
    report.good("epmd", format!("{host}:{port} answers and knows {list}"));
    match waiting("asking epmd of", host, lookup(host, port, target.name())).await {
        Ok(Some(found)) => {
            let kind = if found.hidden { " as a hidden node" } else { "" };
            report.good("registered", format!("{} listens at {}{kind}", target.name(), found.address));
            Ok(found.address)
        }
        Ok(None) => Err(report.bad(
            "registered",
            format!("{} is not among them", target.name()),
            "start the node, or name one of those; a node that was started while epmd was down registers again within a \
             minute or so, an old one has to be restarted",
        )),
        Err(error) => Err(report.bad("registered", error.to_string(), "try again: epmd answered a moment ago")),
    }
}

/// Says where the node is looked for; asks nothing.
fn without_epmd(report: &mut Report, typed: &NodeAt, resolved: &Resolved, port: u16) -> Vec<SocketAddr> {
    let why = match typed.port {
        Some(_) => "which was typed",
        None => "that of all nodes without epmd",
    };
    report.good("epmd", format!("not asked: {} is tried at port {port}, {why}", typed.name));
    resolved.at(port)
}

/// The first of the addresses that takes connections.
async fn port(report: &mut Report, addresses: &[SocketAddr], way: &Way) -> Result<SocketAddr, Failed> {
    let shown = listed(addresses);
    let mut failure = None;
    for &address in addresses {
        match waiting("connecting to", &address.to_string(), connected(address)).await {
            Ok(_) => {
                report.good("port", format!("{address} takes connections"));
                return Ok(address);
            }
            Err(error) => failure = failure.or(Some(error)),
        }
    }
    let error = failure.unwrap_or_else(|| ErrorKind::NotFound.into());
    let todo = match (error.kind(), way.port) {
        (ErrorKind::ConnectionRefused, Some(port)) => format!(
            "nothing listens there: the node does not run, or listens on another interface (-kernel inet_dist_use_interface, \
             --bind) or at another port; it has this one if it was started with -erl_epmd_port {port}, or kvnode with \
             --dist-port {port}"
        ),
        (ErrorKind::ConnectionRefused, None) => "nothing listens there: the node has just ended, or listens on another \
                                                 interface (-kernel inet_dist_use_interface, --bind)"
            .to_owned(),
        (_, Some(_)) => "see that the host is up, and that no firewall stands before that port".to_owned(),
        (_, None) => "see that no firewall stands before that port; -kernel inet_dist_listen_min and …_max, or --dist-port, \
                      give the node a port that can be opened"
            .to_owned(),
    };
    Err(report.bad("port", format!("{shown} takes no connections: {error}"), todo))
}

async fn connected(address: SocketAddr) -> std::io::Result<TcpStream> {
    io_within(STEP, TcpStream::connect(address)).await
}

/// Whether TLS is spoken at an address.
async fn speaks_tls(address: SocketAddr) -> bool {
    let Ok(mut stream) = connected(address).await else { return false };
    let mut first = [0; 1];
    let asked = async {
        stream.write_all(&TLS_BEGIN).await?;
        stream.read_exact(&mut first).await
    };
    io_within(STEP, asked).await.is_ok() && TLS_RECORDS.contains(&first[0])
}

/// The full name of a node that refuses peers which dial it by this kind of name, found by a try with the other kind.
/// `None`: the refusal has another reason.
async fn named_otherwise(
    target: &NodeName,
    kind: NameKind,
    args: &DoctorArgs,
    way: &Way,
    error: &DialError,
) -> Option<String> {
    if !matches!(error, DialError::Handshake(HandshakeError { fault: Fault::NotAllowed | Fault::Closed, .. }))
    {
        return None;
    }
    let host = match kind {
        // An address is a long name's host, and leads to the same machine.
        NameKind::Short => {
            let resolved = resolve(target.host(), None).await.ok()?;
            resolved.addresses.iter().find(|found| found.is_ipv4())?.to_string()
        }
        NameKind::Long if target.host().parse::<IpAddr>().is_ok() => "localhost".to_owned(),
        NameKind::Long => target.host().split('.').next()?.to_owned(),
    };
    let other = NodeName::new(&format!("{}@{host}", target.name())).ok()?;
    let tls = args.tls.config().ok()?;
    let node = ask::start(&other, args.cookie.as_deref(), tls, way.find.clone()).await.ok()?;
    let other = NodeAt { name: other, port: way.port };
    let tried = node.connect_to(&other.to_string()).await;
    node.stop().await;
    match tried {
        Ok(connected) => Some(connected.name.to_string()),
        Err(error) => match &*error {
            DialError::Handshake(HandshakeError { fault: Fault::OtherName(name), .. }) => Some(name.clone()),
            _ => None,
        },
    }
}

/// What takes connections where the node should be.
struct Found<'a> {
    target: &'a NodeName,
    kind: NameKind,
    address: SocketAddr,
    way: &'a Way,
}

fn handshake_failed(
    report: &mut Report,
    found: &Found<'_>,
    error: &DialError,
    other_name: Option<String>,
    speaks_tls: bool,
) -> Failed {
    let &Found { target, kind, address, way } = found;
    if matches!(error, DialError::SpeaksTls { .. }) {
        return plain_to_tls(report, target, address);
    }
    if let DialError::Tls { .. } = error {
        return report.bad(
            "tls",
            error.to_string(),
            "see that it speaks TLS too (-proto_dist inet_tls, kvnode --tls), and that each side has the CA of the other's \
             certificate",
        );
    }
    let DialError::Handshake(HandshakeError { fault, .. }) = error else {
        return report.bad("handshake", error.to_string(), "try again: it has just changed");
    };
    let other_kind = match kind {
        NameKind::Short => "long (-name)",
        NameKind::Long => "short (-sname)",
    };
    let calls_itself = match fault {
        Fault::OtherName(name) => Some(name.clone()),
        _ => other_name,
    };
    if let Some(name) = calls_itself {
        let found = format!("the node at {address} calls itself {}", name.escape_debug());
        if NodeName::new(&name).is_ok_and(|name| !kind.admits(name.host())) {
            return report.bad(
                "name kinds",
                format!("{found}: its name is {other_kind}, and {target} is not"),
                "all nodes of a cluster have short names (-sname, --sname) or all have long ones (-name, --name): name it as \
                 it calls itself",
            );
        }
        let todo = match way.port {
            None => "name it as it calls itself".to_owned(),
            Some(_) => format!(
                "name it as it calls itself; or find the port of {target}, and name it with that: {}",
                with_port(target, "PORT")
            ),
        };
        return report.bad("handshake", found, todo);
    }
    match fault {
        Fault::WrongCookie | Fault::CookieRefused => report.bad(
            "cookie",
            format!("{target} has another cookie than we"),
            "start both with the same cookie: --cookie here, -setcookie or ~/.erlang.cookie there; Node.get_cookie() in its \
             iex shows it",
        ),
        Fault::TooOld { lacks } => report.bad(
            "flags",
            format!("{target} lacks {lacks}, which are wanted here"),
            "bring it to OTP 23 or later",
        ),
        Fault::NotAllowed => report.bad(
            "handshake",
            format!("{target} answers not_allowed"),
            format!(
                "see its log: it misses flags of ours ({:#x}), or net_kernel:allow/1 was called there, or it is a kvnode that \
                 was started with --allow, or its names are {other_kind}",
                DistributionFlags::OFFERED.bits()
            ),
        ),
        _ if speaks_tls => plain_to_tls(report, target, address),
        Fault::Closed => report.bad(
            "handshake",
            error.to_string(),
            format!(
                "see its log; a node whose names are {other_kind} closes the connection so: all nodes of a cluster have short \
                 names, or all have long ones{}",
                match way.port {
                    Some(port) => format!("; or another program than an Erlang node has port {port}, as epmd has 4369"),
                    None => String::new(),
                }
            ),
        ),
        Fault::Malformed(_) if let Some(port) = way.port => report.bad(
            "handshake",
            error.to_string(),
            format!(
                "another program than an Erlang node has port {port} there: see which port the node was started with \
                 (-erl_epmd_port, kvnode --dist-port)"
            ),
        ),
        Fault::TimedOut => report.bad(
            "handshake",
            error.to_string(),
            format!(
                "see whether its process is stopped or overloaded, and that it is an Erlang node{}",
                match way.port {
                    Some(port) => format!(": another program, as a web server, may have port {port}"),
                    None => String::new(),
                }
            ),
        ),
        _ => report.bad("handshake", error.to_string(), "see its log, and that it is an Erlang node"),
    }
}

fn plain_to_tls(report: &mut Report, target: &NodeName, address: SocketAddr) -> Failed {
    report.bad(
        "tls",
        format!("{target} speaks TLS at {address}, and plain text was tried"),
        "give the flags of TLS here too (--tls, --tls-cert …); in a cluster all nodes speak TLS (-proto_dist inet_tls, \
         kvnode --tls), or none does",
    )
}

/// What of the protocol is not in force between the two: nothing to do about, but good to know.
fn flags(report: &mut Report, offered: DistributionFlags) {
    let ours = DistributionFlags::OFFERED;
    let (lacks, more) = (ours.difference(offered), offered.difference(ours));
    let visible = offered.contains(DistributionFlags::PUBLISHED);
    let kind = if visible { "a visible node" } else { "a hidden node, which takes no part in :global" };
    report.good("flags", format!("{kind}; of ours it lacks {lacks}; beyond ours it offers {more}"));
}

async fn talk(report: &mut Report, session: &Session) -> Result<(), Failed> {
    match waiting("asking", &session.connected.name, rpc::round_trip(session)).await {
        Ok(millis) => report.good("ping", format!("answered in {millis:.1} ms")),
        Err(error) => {
            return Err(report.bad(
                "ping",
                error.to_string(),
                "see whether the node is overloaded or suspended",
            ));
        }
    }
    clocks(report, session).await
}

async fn clocks(report: &mut Report, session: &Session) -> Result<(), Failed> {
    let client = session.node.client();
    let asked = client.erpc(
        &session.connected.name,
        ("erlang", "system_time"),
        1,
        |w| _ = w.atom("millisecond"),
        STEP,
    );
    let before = now_ms();
    let theirs = match waiting("asking", &session.connected.name, asked)
        .await
        .map(|time| from_term::<i64>(time.view()))
    {
        Ok(Ok(theirs)) => theirs,
        Ok(Err(_)) => return Err(report.bad("clock", "it gave no time", "see that it is an Erlang node")),
        Err(error) => {
            return Err(report.bad(
                "rpc",
                format!("erlang:system_time/1 gave no value: {error}"),
                "a C node or another program answers no rpc: nothing to do then",
            ));
        }
    };
    // The answer is of some moment between asking and hearing.
    let after = now_ms();
    let off = if theirs < before { before - theirs } else { (theirs - after).max(0) };
    if off > CLOCKS_MAX_MS {
        return Err(report.bad(
            "clock",
            format!("its clock is {:.1} s off ours", off as f64 / 1000.0),
            "set both clocks by NTP; nothing of the protocol depends on it, but logs are hard to compare",
        ));
    }
    report.good("clock", "its clock agrees with ours");
    Ok(())
}

/// Whether a client of others gets in. It is no fault of the node's if not: nodes may be choosy.
async fn another_client(
    report: &mut Report,
    target: &NodeName,
    address: SocketAddr,
    args: &DoctorArgs,
    is_tls: bool,
) {
    const NAME: &str = "erl_rpc";
    if is_tls {
        return report.good(NAME, "not asked: this client of another implementation speaks no TLS");
    }
    // The file has been read a moment ago.
    let Ok(cookie) = ask::cookie(args.cookie.as_deref()) else {
        return report.good(NAME, "not asked: the cookie file has just changed");
    };
    let asked = second_opinion::ask(target, address, &cookie, STEP);
    let opinion = waiting("asking, as another client does,", target.as_str(), asked).await;
    match opinion.meaning(target) {
        None => report.good(NAME, opinion.found()),
        Some(meaning) => report.noted(NAME, opinion.found(), meaning),
    }
}
