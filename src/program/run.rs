//! The `kvnode` program: a node with stores until a signal ends it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use async_signal::{Signal, Signals};
use smol::future::FutureExt;
use smol::stream::StreamExt;

use super::{Config, Program, StartError, StoreConfig, service, taken};
use crate::block_on;
use crate::distribution::NodeName;
use crate::epmd::EpmdStart;
use crate::etf::Pid;
use crate::node;
use crate::within::within;

/// A node whose stores are not loaded by then is announced all the same.
const ANNOUNCED_AFTER: Duration = Duration::from_secs(1);

/// A node that has started, as its banner shows it.
#[derive(Clone, Debug)]
pub struct Started {
    /// Its full name.
    pub node_name: NodeName,
    /// Where it listens.
    pub listening: SocketAddr,
    /// The epmd that it is registered with; `None`: it needs none.
    pub epmd: Option<EpmdStart>,
    /// Its stores, with their pids; `None`: it waits for etcd.
    pub stores: Vec<(StoreConfig, Option<Pid>)>,
    /// Where its page is served.
    pub http: Option<SocketAddr>,
}

/// Runs a node with the stores of its configuration until it is told to end by SIGTERM or SIGINT. `announce` is called
/// once it can be reached.
///
/// # Errors
/// Why it could not start: see [`StartError`]. Of stores in etcd that is known later, when etcd has refused something: the node is ended then.
pub fn run(config: Config, announce: impl FnOnce(&Started)) -> Result<(), StartError> {
    let system = |error| StartError::Node(node::StartError::System(error));
    block_on(async {
        let mut signals = Signals::new([Signal::Term, Signal::Int]).map_err(system)?;
        let mut hangups = Signals::new([Signal::Hup]).map_err(system)?;
        let has_tls = config.node.tls.is_some();
        let http = config.http;
        let program = Program::start(config).await?;
        let node = program.node();
        program.serve_status().map_err(taken)?;
        let http = match http {
            Some(address) => Some(serve_http(&program, address).await?),
            None => None,
        };
        // Of stores in etcd: mostly this is soon over, and the banner tells more then.
        let mut is_told = false;
        let told_early = async {
            signals.next().await;
            is_told = true;
        };
        let _not_yet = within(ANNOUNCED_AFTER, program.loaded().or(told_early)).await;
        let started = Started {
            node_name: node.name().clone(),
            listening: node.listening(),
            epmd: node.epmd().cloned(),
            stores: program.stores().map(|(names, pid)| (names.clone(), pid.cloned())).collect(),
            http,
        };
        announce(&started);
        service::ready(node, program.is_loaded());
        let reloading = async {
            while hangups.next().await.is_some() {
                if !has_tls {
                    tracing::warn!(
                        "SIGHUP: nothing is read again, as there is no TLS; SIGTERM ends the node"
                    );
                    continue;
                }
                service::reloading(|| match node.reload_tls() {
                    Ok(()) => tracing::info!("certificates, keys and CAs were read again"),
                    Err(error) => {
                        tracing::error!("the TLS files were not taken, those of before stay: {error}")
                    }
                });
            }
            std::future::pending().await
        };
        let told = async {
            if !is_told {
                signals.next().await;
            }
            Ok(())
        };
        let loaded = async {
            if !program.is_loaded() {
                program.loaded().await;
                service::ready(node, program.is_loaded());
            }
            std::future::pending().await
        };
        let failed = async { Err(program.failed().await) };
        let watchdog = async {
            service::watchdog(Arc::clone(node)).await;
            Ok(())
        };
        let end = told.or(failed).or(loaded).or(reloading).or(watchdog).await;
        service::stopping();
        tracing::info!("ending; a second signal ends at once");
        let at_once = async {
            signals.next().await;
            tracing::warn!("ended at once");
        };
        node.stop().or(at_once).await;
        end
    })
}

#[cfg(feature = "http")]
async fn serve_http(program: &Arc<Program>, address: SocketAddr) -> Result<SocketAddr, StartError> {
    super::http::serve(program, address).await.map_err(|error| StartError::Http { address, error })
}

#[cfg(not(feature = "http"))]
#[expect(clippy::unused_async, reason = "as with the feature `http`")]
async fn serve_http(_program: &Arc<Program>, _address: SocketAddr) -> Result<SocketAddr, StartError> {
    Err(StartError::WithoutHttp)
}
