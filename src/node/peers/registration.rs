//! The registration with epmd, kept: when epmd dies, the node registers again as soon as there is one.

use std::sync::Arc;
use std::time::Duration;

use crate::epmd::{self, Registration};
use crate::log::Once;
use crate::node::peers::backoff::Backoff;
use crate::node::{Node, now};

/// For so long it is left to others to start an epmd again; then we do.
const LEFT_TO_OTHERS: Duration = Duration::from_secs(15);

/// Keeps the registration for as long as the node lives.
pub(in crate::node) async fn keep(node: Arc<Node>, mut registration: Registration, dist_port: u16) {
    let Some(config) = &node.config.epmd else { return };
    loop {
        let how = registration.lost().await;
        node.figures.set_registered(false);
        tracing::warn!(port = config.port, reason = %how, "epmd is gone; registering again when it is back");
        let since = now();
        let mut backoff = Backoff::new(&node.config.limits);
        let mut said = Once::when_changed();
        registration = loop {
            backoff.pause().await;
            if since.elapsed() > LEFT_TO_OTHERS
                && let Err(error) = epmd::ensure(config, None).await
            {
                tracing::debug!(%error, "epmd not started");
            }
            match epmd::register(config, node.config.node_name.name(), dist_port).await {
                Ok(registration) => break registration,
                Err(error) => {
                    let text = error.to_string();
                    if !error.is_absent() && said.first(text.clone()) {
                        tracing::warn!(error = %text, "not registered with epmd; trying again");
                    }
                }
            }
        };
        node.figures.set_registered(true);
        tracing::info!(port = config.port, name = node.config.node_name.name(), "registered with epmd again");
    }
}
