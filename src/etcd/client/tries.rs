//! A request's tries: at the good members in turn, as often as its deadline allows and its effect.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use hyper::header::HeaderValue;
use prost::bytes::Bytes;
use smol::Timer;

use super::connection::{Connection, Head};
use super::{Inner, Latch, now};
use crate::etcd::Error;
use crate::etcd::members::{Input, MemberId};
use crate::etcd::message::Effect;
use crate::within::{until, within};

/// Between tries that fail one after the other: 20 ms, then twice as long each time, up to this. The first failure is followed
/// by a try at once.
const PAUSE_MAX: Duration = Duration::from_millis(200);
/// How often a request asks for another token.
const TOKENS_MAX: u32 = 2;

impl Inner {
    /// Asks until there is an answer.
    pub(super) async fn ask(
        &self,
        path: &'static str,
        frame: Bytes,
        effect: Effect,
        deadline: Instant,
    ) -> Result<Bytes, Error> {
        let (mut last, mut is_unknown, mut failures, mut tokens) = (None, false, 0_u32, 0);
        while let Some(id) = self.good_member(deadline).await {
            let mut token = None;
            let is_hurried = deadline.saturating_duration_since(now()) < self.config.try_duration_max;
            let error = match self.try_at(id, path, frame.clone(), &mut token, deadline).await {
                Ok(answer) => {
                    self.note(Input::Answered(id));
                    return Ok(answer);
                }
                Err(error) => error,
            };
            if !error.casts_doubt() {
                self.note(Input::Answered(id));
            } else if !is_hurried || now() < deadline {
                // Else the caller's time is over, which says nothing of the member.
                self.note(Input::Failed(id));
            }
            if error == Error::TokenExpired && tokens < TOKENS_MAX && self.forget_token(token.as_ref()).await
            {
                tokens += 1;
                continue;
            }
            match effect {
                _ if error.may_be_asked_again() => {}
                Effect::Reads if error.is_unknown() => {}
                Effect::Idempotent | Effect::Guarded if error.is_unknown() => is_unknown = true,
                // Of the try before it says nothing.
                Effect::Guarded if is_unknown => return Err(Error::unknown(error)),
                _ => return Err(error),
            }
            last = Some(error);
            if failures > 0 {
                let pause = Duration::from_millis(10 << failures.min(5)).min(PAUSE_MAX);
                Timer::after(pause.min(deadline.saturating_duration_since(now()))).await;
            }
            failures += 1;
        }
        let reason = last.map_or_else(
            || "no member answers, or none has a leader".to_owned(),
            |error| match error {
                Error::Unavailable { reason } | Error::Unknown { reason } => reason,
                other => other.to_string(),
            },
        );
        Err(if is_unknown { Error::Unknown { reason } } else { Error::Unavailable { reason } })
    }

    /// The next good member, as soon as there is one. `None`: the time is over.
    pub(super) async fn good_member(&self, deadline: Instant) -> Option<MemberId> {
        loop {
            // Taken before the question, so that none comes between.
            let good_again = self.good_again.lock().wait.clone();
            if now() >= deadline {
                return None;
            }
            if let Some(id) = self.members.lock().choose() {
                return Some(id);
            }
            // Nothing is ever sent.
            until(Timer::at(deadline), good_again.recv()).await?.ok();
        }
    }

    /// One try; with it goes the token that it leaves in `token`.
    async fn try_at(
        &self,
        id: MemberId,
        path: &'static str,
        frame: Bytes,
        token: &mut Option<HeaderValue>,
        deadline: Instant,
    ) -> Result<Bytes, Error> {
        let limit = self.config.try_duration_max.min(deadline.saturating_duration_since(now()));
        let is_sent = AtomicBool::new(false);
        let work = async {
            let mut connection = self.connection(id).await?;
            token.clone_from(&self.token(&mut connection, limit).await?);
            let head = Head { path, token: token.clone(), limit: Some(limit), is_sent: &is_sent };
            connection.call(head, frame).await
        };
        within(limit, work).await.unwrap_or_else(|| {
            let said = format!("{} has not answered within {limit:?}", self.endpoint(id));
            Err(if is_sent.load(Ordering::Relaxed) { Error::unknown(said) } else { Error::unavailable(said) })
        })
    }

    /// The connection to a member, which is made where there is none.
    pub(super) async fn connection(&self, id: MemberId) -> Result<Connection, Error> {
        let (Some(slot), Some(endpoint)) = (self.connections.get(id), self.endpoints.get(id)) else {
            return Err(Error::unavailable("no such member"));
        };
        let mut slot = slot.lock().await;
        if let Some(connection) = slot.as_ref().filter(|connection| !connection.is_closed()) {
            return Ok(connection.clone());
        }
        *slot = None;
        let bytes_max = self.config.message_bytes_max;
        let spawn = self.thread.spawner();
        let limit = self.config.connect_duration_max;
        // TLS and HTTP/2 begin in a future of a hundred KiB, which each future around it would have a place for.
        let open = Box::pin(Connection::open(endpoint, &self.config.tls, bytes_max, &spawn));
        let opened = within(limit, open).await;
        let connection = opened.unwrap_or_else(|| {
            Err(Error::unavailable(format!("{endpoint}: cannot connect within {limit:?}")))
        })?;
        *slot = Some(connection.clone());
        Ok(connection)
    }

    pub(super) fn endpoint(&self, id: MemberId) -> &str {
        self.endpoints.get(id).map_or("", |endpoint| endpoint.origin.as_str())
    }

    /// Something has happened at a member: waiting callers, and the checks, are told what follows.
    pub(super) fn note(&self, input: Input) {
        if self.members.lock().handle(input, now()) {
            *self.good_again.lock() = Latch::new();
        }
        if !matches!(input, Input::Answered(_)) {
            // Full: it is told already.
            let _ = self.poke.try_send(());
        }
    }

    /// All answers are of one cluster: revisions of another say nothing here.
    pub(super) fn note_cluster(&self, found: u64) -> Result<(), Error> {
        if found == 0 {
            return Ok(());
        }
        match self.cluster.compare_exchange(0, found, Ordering::AcqRel, Ordering::Acquire) {
            Ok(_) => Ok(()),
            Err(expected) if expected == found => Ok(()),
            Err(expected) => Err(Error::OtherCluster { expected, found }),
        }
    }
}
