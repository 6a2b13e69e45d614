//! The `kvnode` program: a node with stores until a signal ends it.

use std::net::SocketAddr;
use std::sync::Arc;

use async_signal::{Signal, Signals};
use smol::future::FutureExt;
use smol::stream::StreamExt;

use super::{Config, Program, StartError, StoreConfig, service, taken};
use crate::block_on;
use crate::distribution::NodeName;
use crate::epmd::EpmdStart;
use crate::etf::Pid;
use crate::node;

/// A node that has started, as its banner shows it.
#[derive(Clone, Debug)]
pub struct Started {
    /// Its full name.
    pub node_name: NodeName,
    /// Where it listens.
    pub listening: SocketAddr,
    /// The epmd that it is registered with; `None`: it needs none.
    pub epmd: Option<EpmdStart>,
    /// Its stores, with their pids.
    pub stores: Vec<(StoreConfig, Pid)>,
    /// Where its page is served.
    pub http: Option<SocketAddr>,
}

/// Runs a node with the stores of its configuration until it is told to end by SIGTERM or SIGINT. `announce` is called
/// once it can be reached.
///
/// # Errors
/// Why it could not start: see [`StartError`].
pub fn run(config: Config, announce: impl FnOnce(&Started)) -> Result<(), StartError> {
    let system = |error| StartError::Node(node::StartError::System(error));
    block_on(async {
        let mut signals = Signals::new([Signal::Term, Signal::Int]).map_err(system)?;
        // Without TLS a hangup ends the program, as it ends others.
        let mut reload = match &config.node.tls {
            Some(_) => Some(Signals::new([Signal::Hup]).map_err(system)?),
            None => None,
        };
        let http = config.http;
        let program = Program::start(config).await?;
        let node = program.node();
        program.serve_status().map_err(taken)?;
        let http = match http {
            Some(address) => Some(serve_http(&program, address).await?),
            None => None,
        };
        let started = Started {
            node_name: node.name().clone(),
            listening: node.listening(),
            epmd: node.epmd().cloned(),
            stores: program.stores().map(|(names, pid)| (names.clone(), pid.clone())).collect(),
            http,
        };
        announce(&started);
        service::ready(node);
        let reloading = async {
            let Some(hangups) = &mut reload else { return std::future::pending().await };
            while hangups.next().await.is_some() {
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
            signals.next().await;
        };
        told.or(reloading).or(service::watchdog(Arc::clone(node))).await;
        service::stopping();
        tracing::info!("ending; a second signal ends at once");
        let at_once = async {
            signals.next().await;
            tracing::warn!("ended at once");
        };
        node.stop().or(at_once).await;
        Ok(())
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
