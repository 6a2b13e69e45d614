//! What the commands that ask another node have in common: which node, the cookie, how long to wait, how to answer.
//!
//! They ask by a node of their own that only connects to others ([`NodeBuilder::outgoing_only`](crate::NodeBuilder)): it
//! has a name of a small set ([`own_name`]) and is not registered with epmd: what asking leaves behind is two lines in the log of
//! the node that is asked.

use std::cell::Cell;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;

use super::answer::Form;
use super::find::{Find, FindArgs, wrong_node};
use super::node::FRAME_BYTES_MOST;
use super::tls::TlsArgs;
use super::{CliError, own_name, progress, server_name};
use crate::config::{EpmdConfig, Limits, ServerName, TlsConfig};
use crate::distribution::node_at::split_port;
use crate::distribution::node_name::{NameKind, NodeName, split_typed};
use crate::distribution::{Cookie, NodeAt, NodeAtError, ServerRef};
use crate::epmd::client::{local_names, lookup};
use crate::epmd::host::Host;
use crate::etf::text::NodeIdentity;
use crate::node::cookie_file::CookiePlaces;
use crate::node::setup::DialError;
use crate::within::within;
use crate::{CallError, ConnectedNode, Node, StartError, block_on};

/// The variable with the cookie, which a node's settings have too.
const COOKIE_VARIABLE: &str = "KVNODE_COOKIE";
/// The local name of a store where nothing else is said: the module of the Elixir original.
pub(super) const DEFAULT_TO: &str = "local:KeyValueStore";

#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Whom to ask")]
pub(super) struct AskArgs {
    /// The node to ask: NAME@HOST, or NAME on this host [default: the only kvnode that this machine's epmd knows]. With :PORT
    /// behind it, it is found at that port, and epmd is not asked
    #[arg(long, value_name = "NODE")]
    pub(super) node: Option<String>,
    /// The secret of the cluster. Others on this machine can see it in the list of processes: the cookie file does not have
    /// that [default: KVNODE_COOKIE of the environment, ~/.erlang.cookie, else $XDG_CONFIG_HOME/erlang/.erlang.cookie]
    #[arg(long, value_name = "TEXT")]
    pub(super) cookie: Option<String>,
    /// How long to wait, for everything together
    #[arg(long, value_name = "SECONDS", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
    pub(super) timeout: u32,
    /// Print JSON, for scripts: {"term": …} in Elixir's syntax, and "value" where JSON has the same
    #[arg(long, help_heading = "Output")]
    pub(super) json: bool,
    #[command(flatten)]
    pub(super) find: FindArgs,
    #[command(flatten)]
    pub(super) tls: TlsArgs,
}

#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Whom to ask")]
pub(super) struct ToArgs {
    /// The server: global:NAME, or local:NAME on that node
    #[arg(long, value_name = "KIND:NAME", default_value = DEFAULT_TO)]
    pub(super) to: String,
}

impl ToArgs {
    /// The server's name.
    ///
    /// # Errors
    /// It is no such name.
    pub(super) fn name(&self) -> Result<ServerName, CliError> {
        server_name::server(&self.to).map_err(|reason| CliError::usage(format!("--to {}: {reason}", self.to)))
    }
}

impl AskArgs {
    /// JSON, if that was asked for.
    pub(super) const fn form(&self) -> Form {
        if self.json { Form::Json } else { Form::Text }
    }

    /// As an answer is waited for.
    pub(super) fn time(&self) -> Duration {
        Duration::from_secs(self.timeout.into())
    }

    /// Does something with a connection to the node, within the time; a bar shows how far it has come.
    ///
    /// # Errors
    /// The node cannot be found or reached, the time is over, or what `act` says.
    pub(super) fn with_session<T>(
        &self,
        act: impl AsyncFnOnce(&Session) -> Result<T, CliError>,
    ) -> Result<T, CliError> {
        self.session(Lasts::ForOneTime, act)
    }

    /// The same for as long as `act` goes on: connecting and each question have the time, and the terminal is `act`'s alone.
    ///
    /// # Errors
    /// As [`with_session`](Self::with_session).
    pub(super) fn with_lasting_session<T>(
        &self,
        act: impl AsyncFnOnce(&Session) -> Result<T, CliError>,
    ) -> Result<T, CliError> {
        self.session(Lasts::AsLongAsItLikes, act)
    }

    fn session<T>(
        &self,
        lasts: Lasts,
        act: impl AsyncFnOnce(&Session) -> Result<T, CliError>,
    ) -> Result<T, CliError> {
        block_on(async {
            let (target, node) = self.node_of_ours().await?;
            // One clock for everything, or one for each.
            let (all, each) = match lasts {
                Lasts::ForOneTime => (self.time(), Duration::MAX),
                Lasts::AsLongAsItLikes => (Duration::MAX, self.time()),
            };
            let typed = target.to_string();
            let is_reached = Cell::new(false);
            let asked = within(all, async {
                let connected = within(each, node.connect_to(&typed)).await;
                let connected = connected.ok_or_else(|| not_reached(&target, self.timeout))?;
                let connected = connected.map_err(|error| refused(&error))?;
                is_reached.set(true);
                act(&Session { node: Arc::clone(&node), connected, time: each }).await
            });
            let asked = match lasts {
                Lasts::ForOneTime => progress::beside(&node, target.name.as_str(), asked).await,
                Lasts::AsLongAsItLikes => asked.await,
            };
            let outcome = asked.unwrap_or_else(|| {
                Err(match is_reached.get() {
                    true => not_answered(&target, self.timeout),
                    false => not_reached(&target, self.timeout),
                })
            });
            // What waits to be written is written: a cast is nothing else.
            node.stop().await;
            outcome
        })
    }

    /// The node to ask, and one of ours that asks it.
    async fn node_of_ours(&self) -> Result<(NodeAt, Arc<Node>), CliError> {
        let find = self.find.find()?;
        let target = match (&self.node, find.epmd()) {
            (Some(typed), _) => target("--node", typed)?,
            (None, Some(epmd)) => only_kvnode(epmd).await?,
            (None, None) => {
                return Err(CliError::usage(
                    "without epmd nobody knows which nodes run here; say which one to ask, as in --node NAME, --node NAME@HOST \
                     or --node NAME@HOST:PORT",
                ));
            }
        };
        let _known = find.port("--node", &target)?;
        let node = start(&target.name, self.cookie.as_deref(), self.tls.config()?, find).await?;
        Ok((target, node))
    }
}

/// What the time of [`AskArgs`] is for.
#[derive(Clone, Copy)]
enum Lasts {
    /// Everything together.
    ForOneTime,
    /// Each question.
    AsLongAsItLikes,
}

/// Something was asked, and not answered within so many seconds.
fn not_answered(target: &NodeAt, secs: u32) -> CliError {
    CliError::Timeout(format!(
        "{} gave no answer within {secs} s; whether it did what was asked is not known (--timeout gives it longer)",
        target.name
    ))
}

/// Nobody was asked anything within so many seconds.
fn not_reached(target: &NodeAt, secs: u32) -> CliError {
    CliError::CannotRun(format!(
        "{target} was not reached within {secs} s, and nothing was asked of it; kvnode doctor {target} says why (--timeout \
         gives it longer)"
    ))
}

/// A connection to the node that is asked.
pub(super) struct Session {
    pub(super) node: Arc<Node>,
    pub(super) connected: ConnectedNode,
    /// For each question; `Duration::MAX` where all of them have a limit together.
    pub(super) time: Duration,
}

impl Session {
    /// The node whose pids can be read.
    pub(super) fn identity(&self) -> NodeIdentity {
        NodeIdentity { name: self.connected.name.to_string(), creation: self.connected.creation }
    }

    /// A server of the node, or of its cluster.
    pub(super) fn server(&self, name: &ServerName) -> ServerRef {
        match name {
            ServerName::Global(name) => ServerRef::global(name),
            ServerName::Local(name) => ServerRef::remote(name, &self.connected.name),
        }
    }

    /// Why a call failed, for a person.
    pub(super) fn failed(&self, to: &ServerName, error: &CallError) -> CliError {
        let node = &self.connected.name;
        let to = match to {
            ServerName::Global(name) => format!("{{:global, {}}}", server_name::shown(name)),
            ServerName::Local(name) => {
                format!("{{{}, {}}}", server_name::shown(name), server_name::shown(node))
            }
        };
        match error {
            CallError::NoProcess => CliError::NoProcess(format!(
                "nobody has the name {to}; kvnode names --node {node} shows the global ones, and --to says another"
            )),
            CallError::Timeout => CliError::Timeout(format!("{to} gave no answer in time")),
            CallError::Exit(_) => CliError::Failed(format!("{to}: {error}")),
            error => CliError::CannotRun(format!("{to}: {error}")),
        }
    }
}

/// A node as it is typed: with this host where none is, and perhaps with its port. `what` is the argument's name.
///
/// # Errors
/// It is no node's name, or what stands behind its colon is no port.
pub(super) fn target(what: &str, typed: &str) -> Result<NodeAt, CliError> {
    let wrong = |reason: String| CliError::usage(format!("{what} {typed}: {reason}"));
    if typed.is_empty() {
        return Err(CliError::usage(format!("{what} is empty; a node is NAME@HOST, or NAME on this host")));
    }
    match split_typed(typed) {
        (_, Some(_)) => typed.parse::<NodeAt>().map_err(|error| wrong(wrong_node(&error))),
        (name, None) => {
            // A name that epmd tells may have a colon in it.
            let split = if typed.contains('@') { Ok((name, None)) } else { split_port(name) };
            let (name, port) = split.map_err(|error| wrong(wrong_node(&error)))?;
            let host = Host::of_system().name(NameKind::Short).map_err(|error| wrong(error.to_string()))?;
            let name = NodeName::new(&format!("{name}@{host}"));
            let name = name.map_err(|error| wrong(wrong_node(&NodeAtError::Name(error))))?;
            Ok(NodeAt { name, port })
        }
    }
}

/// The only kvnode of this machine: the only one that its epmd has as a hidden node, which BEAMs are not there.
async fn only_kvnode(epmd: &EpmdConfig) -> Result<NodeAt, CliError> {
    let (at, names) = local_names(epmd).await.map_err(CliError::cannot_run)?;
    let mut found = Vec::new();
    for (name, _) in &names {
        // One that goes meanwhile is not the one.
        if lookup(&at.ip().to_string(), at.port(), name)
            .await
            .is_ok_and(|found| found.is_some_and(|node| node.hidden))
        {
            found.push(name.clone());
        }
    }
    match &found[..] {
        [name] => target("NODE", &format!("{name}@")),
        [] => Err(CliError::cannot_run(format!(
            "the epmd at {at} knows no kvnode; start one, as in kvnode --sname slave1, or say with --node which node to ask \
             ({})",
            if names.is_empty() {
                "it knows no node at all".to_owned()
            } else {
                let names: Vec<String> =
                    names.iter().map(|(name, _)| name.escape_debug().to_string()).collect();
                format!("it knows {}", names.join(", "))
            }
        ))),
        several => Err(CliError::usage(format!(
            "there are {} kvnodes on this machine; say with --node which one to ask: {}",
            several.len(),
            several.join(", ")
        ))),
    }
}

/// The cookie that was given, and where. As for a node: what is typed wins over the environment, and that over the file.
fn given(typed: Option<&str>) -> Option<(&'static str, String)> {
    let from_environment = || std::env::var(COOKIE_VARIABLE).ok().filter(|cookie| !cookie.is_empty());
    match typed {
        Some(typed) => Some(("--cookie", typed.to_owned())),
        None => from_environment().map(|cookie| (COOKIE_VARIABLE, cookie)),
    }
}

/// The cookie that a command asks with. No cookie file is made here: no other node has a cookie that was made just now.
///
/// # Errors
/// There is none, or it cannot be one.
pub(super) fn cookie(typed: Option<&str>) -> Result<Cookie, CliError> {
    if let Some((origin, cookie)) = given(typed) {
        return Cookie::typed(&cookie).map_err(|error| CliError::usage(format!("{origin}: {error}")));
    }
    let file = CookiePlaces::from_environment().read().map_err(CliError::cannot_run)?;
    let file = file.ok_or_else(|| {
        CliError::cannot_run(
            "there is no cookie file; give the cluster's cookie with --cookie or KVNODE_COOKIE, or put it into \
             ~/.erlang.cookie with mode 400",
        )
    })?;
    Ok(file.cookie)
}

/// A node of our own, of the kind of name that the other one has.
///
/// # Errors
/// There is no cookie, or the system refuses.
pub(super) async fn start(
    target: &NodeName,
    typed_cookie: Option<&str>,
    tls: Option<TlsConfig>,
    find: Find,
) -> Result<Arc<Node>, CliError> {
    cookie(typed_cookie)?;
    let host = Host::of_system();
    let host = match NameKind::Short.admits(target.host()) {
        true => host.name(NameKind::Short),
        // Nobody connects to this name: any host of that kind does.
        false => host.name(NameKind::Long).or_else(|_| Ok(target.host().to_owned())),
    };
    let host = host.map_err(|error| CliError::cannot_run(StartError::Host(error)))?;
    let name = own_name::take().map_err(CliError::cannot_run)?;
    let name = format!("{name}@{host}");
    // What was asked for is taken, however large it is: nobody else sends anything here.
    let limits = Limits { frame_bytes_max: FRAME_BYTES_MOST, ..Limits::default() };
    let mut builder = Node::builder(&name).limits(limits).outgoing_only();
    builder = match find {
        Find::Epmd(epmd) => builder.epmd(epmd),
        Find::Ports(port) => builder.without_epmd().dist_port(port.unwrap_or_default()),
    };
    if let Some((_, cookie)) = given(typed_cookie) {
        builder = builder.cookie(&cookie);
    }
    if let Some(tls) = tls {
        builder = builder.tls(tls);
    }
    builder.start_async().await.map_err(CliError::cannot_run)
}

fn refused(error: &DialError) -> CliError {
    let hint = "kvnode doctor says more";
    CliError::cannot_run(format!("{error}; {hint}"))
}
