//! What only a kvnode's store knows is asked of no other server.
//!
//! An Elixir server of the protocol ends with its data when it gets a request that it does not know: so the server's node
//! is asked first whether it is a kvnode.

use std::sync::Arc;
use std::time::Duration;

use smol::Timer;

use super::CliError;
use super::answer::refusal;
use super::ask::{AskArgs, Session, ToArgs};
use crate::Client;
use crate::config::ServerName;
use crate::distribution::ServerRef;
use crate::etf::{OwnedTerm, TermView};
use crate::handle::{Error, is_kvnode};

/// So often a store is asked that has no room for one more reader.
const TRIES: u32 = 100;
/// Between two of these.
const PAUSE: Duration = Duration::from_millis(100);

/// A store of a kvnode.
pub(super) struct Store<'a> {
    pub(super) session: &'a Session,
    client: Client,
    to: &'a ServerName,
    at: ServerRef,
}

impl<'a> Store<'a> {
    /// # Errors
    /// It is none of a kvnode, or is not found.
    pub(super) async fn find(
        session: &'a Session,
        to: &'a ServerName,
        ask: &AskArgs,
    ) -> Result<Self, CliError> {
        let (client, server) = (session.node.client(), session.server(to));
        let at = client.locate(&server).await.map_err(|error| session.failed(to, &error))?;
        match is_kvnode(&client, at.node(), ask.time()).await {
            Ok(true) => Ok(Self { session, client, to, at: at.into() }),
            Ok(false) => Err(CliError::Failed(Error::NotKvnode(Arc::clone(at.node())).to_string())),
            Err(error) => Err(CliError::CannotRun(error.to_string())),
        }
    }

    /// Where it is.
    pub(super) const fn at(&self) -> &ServerRef {
        &self.at
    }

    /// # Errors
    /// It does not answer.
    pub(super) async fn call(&self, request: TermView<'_>) -> Result<OwnedTerm, CliError> {
        let called = self.client.call_term(&self.at, request, self.session.time).await;
        called.map_err(|error| self.session.failed(self.to, &error))
    }

    /// A page of a scan. A store that has no room for one more reader is asked again, for ten seconds.
    ///
    /// # Errors
    /// It does not answer.
    pub(super) async fn page(&self, request: TermView<'_>) -> Result<OwnedTerm, CliError> {
        let mut tries = 0;
        loop {
            let page = self.call(request).await?;
            if !refusal(page.view()).is_some_and(|reason| reason.is_atom("busy")) || tries >= TRIES {
                return Ok(page);
            }
            tries += 1;
            Timer::after(PAUSE).await;
        }
    }
}

/// Calls a store of a kvnode.
///
/// # Errors
/// The server is none, or does not answer.
pub(super) fn request(
    to: &ToArgs,
    ask: &AskArgs,
    request: impl Fn(&Session) -> Result<OwnedTerm, CliError>,
) -> Result<OwnedTerm, CliError> {
    with_store(to, ask, async |store: &Store<'_>| store.call(request(store.session)?.view()).await)
}

/// Does something with a store of a kvnode; all of it has the time of --timeout.
///
/// # Errors
/// The server is none, or what `act` says.
pub(super) fn with_store<T>(
    to: &ToArgs,
    ask: &AskArgs,
    act: impl AsyncFnOnce(&Store<'_>) -> Result<T, CliError>,
) -> Result<T, CliError> {
    let to = to.name()?;
    ask.with_session(async |session: &Session| act(&Store::find(session, &to, ask).await?).await)
}

/// Does something with a store of a kvnode; each question has the time of --timeout.
///
/// # Errors
/// As [`with_store`].
pub(super) fn with_store_for_long<T>(
    to: &ToArgs,
    ask: &AskArgs,
    act: impl AsyncFnOnce(&Store<'_>) -> Result<T, CliError>,
) -> Result<T, CliError> {
    let to = to.name()?;
    ask.with_lasting_session(async |session: &Session| act(&Store::find(session, &to, ask).await?).await)
}
