//! A watch: streams to one member after the other, as [`Following`] goes on.

use std::collections::VecDeque;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use prost::bytes::Bytes;
use smol::Timer;
use smol::channel::Sender;

use super::connection::{Answers, Head};
use super::{Etcd, decode, framed, now};
use crate::etcd::following::{Following, Output, may_begin_again};
use crate::etcd::members::{Input, MemberId};
use crate::etcd::message::{Event, WATCH, WatchAsk, WatchRequest, WatchResponse};
use crate::etcd::{Error, WatchOptions};
use crate::within::within;

const PATH: &str = "/etcdserverpb.Watch/Watch";
/// How long a member is waited for that could serve the watch, before that is said.
const MEMBER_WAIT: Duration = Duration::from_secs(1);
/// Between streams that end before anything came, so that a member that ends each at once is not asked without end.
const PAUSE: Duration = Duration::from_millis(100);

/// See [`Etcd::watch`]. It reads from its stream while it is asked for the next event: etcd keeps for later what does not fit
/// into the stream's window.
pub struct Watch {
    etcd: Etcd,
    following: Following,
    stream: Stream,
    ready: VecDeque<WatchEvent>,
}

enum Stream {
    /// There is none.
    None {
        /// The last one ended before anything came.
        was_in_vain: bool,
        /// [`WatchEvent::Cut`] was said.
        is_cut: bool,
    },
    Open(Open),
}

struct Open {
    member: MemberId,
    answers: Answers,
    /// The stream ends with it.
    _asks: Sender<Bytes>,
    /// Anything came.
    has_said: bool,
    was_cut: bool,
}

/// What a watch tells.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum WatchEvent {
    /// The stream has begun: for the first time, or again after [`Cut`](Self::Cut). All from this revision on is told.
    Opened {
        /// The first revision that was not told yet.
        next_revision: i64,
    },
    /// What changed: in the order of revisions, and all that was changed in each of them. Not empty.
    Changes(Vec<Event>),
    /// Nothing changed up to this revision but what was told.
    Progress {
        /// The revision of the whole key space.
        revision: i64,
    },
    /// The stream has ended; another one is begun, with the first revision that was not told. Said once for each time.
    Cut {
        /// Why.
        reason: Error,
    },
}

impl Watch {
    pub(super) fn new(etcd: Etcd, options: WatchOptions) -> Self {
        let following = Following::new(options, etcd.0.config.revision_bytes_max);
        let stream = Stream::None { was_in_vain: false, is_cut: false };
        Self { etcd, following, stream, ready: VecDeque::new() }
    }

    /// The first revision that was not told; 0: no stream has begun yet.
    pub fn next_revision(&self) -> i64 {
        self.following.next_revision()
    }

    /// The next event. May be dropped while it waits, and called again. It waits as long as no member answers, however long that
    /// is.
    ///
    /// # Errors
    ///
    /// [`Error::Compacted`]: what comes next is gone; load anew, and watch from there. Others say that etcd refuses the watch. After
    /// an error the watch may be asked again, and tries again.
    pub async fn next(&mut self) -> Result<WatchEvent, Error> {
        loop {
            if let Some(event) = self.ready.pop_front() {
                return Ok(event);
            }
            let ended = match &mut self.stream {
                Stream::None { was_in_vain, is_cut } => {
                    let (was_in_vain, is_cut) = (*was_in_vain, *is_cut);
                    if was_in_vain {
                        Timer::after(PAUSE).await;
                    }
                    match self.open(is_cut).await {
                        Ok(open) => {
                            self.stream = Stream::Open(open);
                            continue;
                        }
                        Err(error) => error,
                    }
                }
                Stream::Open(open) => match Self::read(&self.etcd, &mut self.following, open).await {
                    Ok(output) => {
                        self.give(output);
                        continue;
                    }
                    Err(Error::TokenExpired) => {
                        // Before what waits: the stream is over.
                        self.stream =
                            Stream::None { was_in_vain: true, is_cut: open.was_cut && !open.has_said };
                        let known = self.etcd.0.known_token().await;
                        if self.etcd.0.forget_token(known.as_ref()).await {
                            Error::unavailable(Error::TokenExpired)
                        } else {
                            Error::TokenExpired
                        }
                    }
                    Err(error) => {
                        if error.casts_doubt() {
                            self.etcd.0.note(Input::Failed(open.member));
                        }
                        error
                    }
                },
            };
            self.end(ended)?;
        }
    }

    /// A stream has ended, or did not begin.
    fn end(&mut self, error: Error) -> Result<(), Error> {
        let (was_in_vain, was_cut) = match &self.stream {
            Stream::None { is_cut, .. } => (true, *is_cut),
            Stream::Open(open) => (!open.has_said, open.was_cut && !open.has_said),
        };
        if !may_begin_again(&error) {
            self.stream = Stream::None { was_in_vain: true, is_cut: was_cut };
            return Err(error);
        }
        self.stream = Stream::None { was_in_vain, is_cut: true };
        if !was_cut {
            self.ready.push_back(WatchEvent::Cut { reason: error });
        }
        Ok(())
    }

    async fn open(&mut self, was_cut: bool) -> Result<Open, Error> {
        let inner = &self.etcd.0;
        let wait = now() + MEMBER_WAIT;
        let member = inner.good_member(wait).await.ok_or_else(|| Error::unavailable("no member answers"))?;
        let create = WatchRequest { request: Some(WatchAsk::Create(self.following.open())) };
        let frame = framed(&create).ok_or(Error::TooLarge { bytes: 0, bytes_max: None })?;
        let limit = inner.config.try_duration_max;
        let mut sent = None;
        let work = async {
            let mut connection = inner.connection(member).await?;
            let token = inner.token(&mut connection, limit).await?;
            sent.clone_from(&token);
            let (asks, frames) = smol::channel::bounded(1);
            // There is room for one.
            let _ = asks.try_send(frame);
            let head = Head { path: PATH, token, limit: None, is_sent: &AtomicBool::new(false) };
            let answers = connection.stream(head, frames).await?;
            Ok(Open { member, answers, _asks: asks, has_said: false, was_cut })
        };
        let opened = within(limit, work).await.unwrap_or_else(|| {
            Err(Error::unavailable(format!("{} has not answered within {limit:?}", inner.endpoint(member))))
        });
        match opened {
            Err(Error::TokenExpired) if inner.forget_token(sent.as_ref()).await => {
                Err(Error::unavailable(Error::TokenExpired))
            }
            Err(error) => {
                if error.casts_doubt() {
                    inner.note(Input::Failed(member));
                }
                Err(error)
            }
            Ok(open) => Ok(open),
        }
    }

    async fn read(etcd: &Etcd, following: &mut Following, open: &mut Open) -> Result<Output, Error> {
        let inner = &etcd.0;
        let message = if open.has_said {
            open.answers.next().await?
        } else {
            // etcd says at once that a watch has begun.
            let limit = inner.config.try_duration_max;
            within(limit, open.answers.next()).await.unwrap_or_else(|| {
                Err(Error::unavailable(format!(
                    "{} has begun no watch within {limit:?}",
                    inner.endpoint(open.member)
                )))
            })?
        };
        let message = message.ok_or_else(|| Error::unavailable("etcd has ended the stream"))?;
        let response: WatchResponse = decode(message, &WATCH, inner.config.message_bytes_max)?;
        if let Some(header) = response.header {
            inner.note_cluster(header.cluster_id)?;
        }
        let output = following.handle(response)?;
        open.has_said = true;
        inner.note(Input::Answered(open.member));
        Ok(output)
    }

    fn give(&mut self, output: Output) {
        self.ready.extend(match output {
            Output::Nothing => None,
            Output::Opened => Some(WatchEvent::Opened { next_revision: self.following.next_revision() }),
            Output::Changes(events) => Some(WatchEvent::Changes(events)),
            Output::Progress(revision) => Some(WatchEvent::Progress { revision }),
        });
    }
}

impl std::fmt::Debug for Watch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Watch").field("following", &self.following).finish_non_exhaustive()
    }
}
