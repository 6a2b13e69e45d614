//! How far a watch has come: a value that is told what comes on its stream and says what the caller gets, each change once
//! and none left out, however often the stream is cut and begun again elsewhere.
//!
//! A transaction's changes have one revision, and are given together. etcd sends those of many revisions in a message, and a
//! large message in parts that end anywhere: so the changes of the last revision wait until the message is whole, and a new
//! stream begins with the first revision that was not given.

use super::message::{Event, WatchCreateRequest, WatchResponse};
use super::{Error, WatchOptions};

/// The number that etcd gives to what belongs to no watch: answers to a question for progress.
const NO_WATCH: i64 = -1;

/// See the module.
#[derive(Debug)]
pub(super) struct Following {
    options: WatchOptions,
    /// All before it was given. 0: from the moment that the first stream begins.
    next_revision: i64,
    phase: Phase,
    revision_bytes_max: usize,
}

#[derive(Debug)]
enum Phase {
    /// It was asked for, or is to be.
    Opening,
    /// It has begun.
    Open {
        watch_id: i64,
        /// Changes of one revision that may have more.
        held: Vec<Event>,
        held_bytes: usize,
    },
}

/// What the caller gets.
#[derive(Debug, PartialEq)]
pub(super) enum Output {
    /// Nothing yet.
    Nothing,
    /// The stream has begun.
    Opened,
    /// Whole revisions.
    Changes(Vec<Event>),
    /// There is nothing up to this revision that was not given.
    Progress(i64),
}

impl Following {
    pub(super) fn new(options: WatchOptions, revision_bytes_max: usize) -> Self {
        let next_revision = options.from_revision.unwrap_or(0).max(0);
        Self { options, next_revision, phase: Phase::Opening, revision_bytes_max }
    }

    /// The first revision that was not given; 0: no stream has begun yet.
    pub(super) fn next_revision(&self) -> i64 {
        self.next_revision
    }

    /// A new stream is to begin: with this.
    pub(super) fn open(&mut self) -> WatchCreateRequest {
        self.phase = Phase::Opening;
        WatchCreateRequest {
            key: self.options.key.clone(),
            range_end: self.options.range_end.clone(),
            start_revision: self.next_revision,
            progress_notify: true,
            prev_kv: self.options.prev_kv,
            fragment: true,
            ..WatchCreateRequest::default()
        }
    }

    /// A message has come. An error ends the stream; whether another is to begin says
    /// [`may_begin_again`].
    pub(super) fn handle(&mut self, response: WatchResponse) -> Result<Output, Error> {
        if response.watch_id == NO_WATCH && !response.created && !response.canceled {
            return Ok(Output::Nothing);
        }
        if response.canceled {
            return Err(self.why_cancelled(&response));
        }
        let revision = response.header.map_or(0, |header| header.revision);
        match &mut self.phase {
            Phase::Opening if response.created => {
                self.phase = Phase::Open { watch_id: response.watch_id, held: Vec::new(), held_bytes: 0 };
                if self.next_revision == 0 {
                    self.next_revision =
                        revision.checked_add(1).filter(|next| *next > 0).ok_or(BAD_REVISION)?;
                }
                Ok(Output::Opened)
            }
            Phase::Opening => Err(Error::Malformed { reason: "a watch's events come before it has begun" }),
            Phase::Open { .. } if response.created => {
                Err(Error::Malformed { reason: "a watch has begun that nobody wanted" })
            }
            Phase::Open { watch_id, .. } if *watch_id != response.watch_id => {
                Err(Error::Malformed { reason: "the events are of another watch" })
            }
            Phase::Open { held, .. }
                if response.events.is_empty() && held.is_empty() && !response.fragment =>
            {
                // What it has told before it has told.
                if revision < self.next_revision {
                    return Ok(Output::Nothing);
                }
                self.next_revision = revision.checked_add(1).ok_or(BAD_REVISION)?;
                Ok(Output::Progress(revision))
            }
            Phase::Open { .. } => self.take(response.events, response.fragment),
        }
    }

    fn take(&mut self, events: Vec<Event>, is_part: bool) -> Result<Output, Error> {
        let Phase::Open { held, held_bytes, .. } = &mut self.phase else { return Ok(Output::Nothing) };
        let mut last = held.last().map_or(0, Event::revision);
        let mut given = Vec::new();
        for event in events {
            let revision = event.revision();
            if revision <= 0 || revision == i64::MAX {
                return Err(BAD_REVISION);
            }
            // etcd has told it before. (Up to 3.4.24 and 3.5.7 a member that was far behind might go back.)
            if revision < self.next_revision {
                continue;
            }
            if revision < last {
                return Err(Error::Malformed { reason: "a watch's events are not in order" });
            }
            if revision > last {
                given.append(held);
                *held_bytes = 0;
                last = revision;
            }
            *held_bytes += bytes(&event);
            // What came in one message is there already; what more there is is what a bound is for.
            if is_part && *held_bytes > self.revision_bytes_max {
                return Err(Error::AnswerTooLarge { bytes_max: self.revision_bytes_max });
            }
            held.push(event);
        }
        if !is_part {
            given.append(held);
            *held_bytes = 0;
        }
        if let Some(revision) = given.last().map(Event::revision) {
            self.next_revision = revision + 1;
        }
        Ok(if given.is_empty() { Output::Nothing } else { Output::Changes(given) })
    }

    fn why_cancelled(&self, response: &WatchResponse) -> Error {
        let reason = &response.cancel_reason;
        let says = |part: &str| reason.contains(part);
        if response.compact_revision > 0 {
            return Error::Compacted { revision: Some(response.compact_revision) };
        }
        if says("invalid auth token") || says("user name is empty") || says("revision of auth store is old") {
            return Error::TokenExpired;
        }
        if says("ermission denied") || says("PermissionDenied") {
            return Error::Denied { text: reason.clone() };
        }
        match self.phase {
            Phase::Opening if !reason.is_empty() && !says("no leader") => {
                Error::Refused { code: 9, text: reason.clone() }
            }
            _ => Error::unavailable(if reason.is_empty() { "etcd has ended the watch" } else { reason }),
        }
    }
}

/// Whether another stream may do better than a stream that ended with this error.
pub(super) fn may_begin_again(error: &Error) -> bool {
    error.casts_doubt() && !matches!(error, Error::OtherCluster { .. })
}

const BAD_REVISION: Error = Error::Malformed { reason: "a watch's event has no revision" };

fn bytes(event: &Event) -> usize {
    let entries = [&event.kv, &event.prev_kv].into_iter().flatten();
    size_of::<Event>() + entries.map(|kv| kv.key.len() + kv.value.len()).sum::<usize>()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::etcd::message::{KeyValue, ResponseHeader};

    fn header(revision: i64) -> Option<ResponseHeader> {
        Some(ResponseHeader { revision, ..ResponseHeader::default() })
    }

    fn created(revision: i64) -> WatchResponse {
        WatchResponse { header: header(revision), created: true, ..WatchResponse::default() }
    }

    fn events(revisions: &[i64], fragment: bool) -> WatchResponse {
        let events = revisions.iter().enumerate().map(|(at, revision)| Event {
            kv: Some(KeyValue { key: vec![at as u8].into(), mod_revision: *revision, ..KeyValue::default() }),
            ..Event::default()
        });
        WatchResponse { events: events.collect(), fragment, header: header(99), ..WatchResponse::default() }
    }

    fn following(from_revision: Option<i64>) -> Following {
        let options = WatchOptions { from_revision, ..WatchOptions::key("k") };
        let mut following = Following::new(options, 1 << 20);
        following.open();
        following
    }

    fn revisions(output: Result<Output, Error>) -> Vec<i64> {
        match output {
            Ok(Output::Changes(events)) => events.iter().map(Event::revision).collect(),
            Ok(Output::Nothing) => Vec::new(),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_watch_from_now_begins_behind_the_revision_that_it_began_at() {
        let mut following = following(None);
        assert_eq!(following.handle(created(7)), Ok(Output::Opened));
        assert_eq!(following.next_revision(), 8);
        assert_eq!(revisions(following.handle(events(&[8, 9, 9], false))), [8, 9, 9]);
        assert_eq!(following.open().start_revision, 10);
        // A member that is behind is at an older one, and sends nothing twice.
        assert_eq!(following.handle(created(8)), Ok(Output::Opened));
        assert_eq!(revisions(following.handle(events(&[9, 10], false))), [10]);
    }

    #[test]
    fn parts_are_given_by_whole_revisions_and_what_is_cut_comes_again() {
        let mut following = following(Some(5));
        following.handle(created(50)).unwrap();
        assert_eq!(revisions(following.handle(events(&[5, 6, 6], true))), [5]);
        assert_eq!(revisions(following.handle(events(&[6], true))), Vec::<i64>::new());
        assert_eq!(revisions(following.handle(events(&[6, 7], true))), [6; 4]);
        assert_eq!(following.open().start_revision, 7, "7 may have more");
        following.handle(created(50)).unwrap();
        assert_eq!(revisions(following.handle(events(&[7, 7], true))), Vec::<i64>::new());
        assert_eq!(revisions(following.handle(events(&[7], false))), [7; 3]);
        assert_eq!(following.next_revision(), 8);
    }

    #[test]
    fn progress_moves_on_what_the_next_stream_begins_with() {
        let mut following = following(Some(5));
        following.handle(created(4)).unwrap();
        let progress = |revision| WatchResponse { header: header(revision), ..WatchResponse::default() };
        assert_eq!(following.handle(progress(4)), Ok(Output::Nothing));
        assert_eq!(following.handle(progress(9)), Ok(Output::Progress(9)));
        assert_eq!(following.open().start_revision, 10);
        following.handle(created(9)).unwrap();
        // An answer to a question for progress may overtake events in some versions.
        let asked = WatchResponse { watch_id: NO_WATCH, ..progress(70) };
        assert_eq!(following.handle(asked), Ok(Output::Nothing));
        assert_eq!(following.next_revision(), 10);
    }

    #[test]
    fn the_end_of_a_watch_says_whether_another_may_begin() {
        let cancelled = |compact_revision, reason: &str, is_open: bool| {
            let mut following = following(Some(5));
            if is_open {
                following.handle(created(9)).unwrap();
            }
            let response = WatchResponse {
                canceled: true,
                compact_revision,
                cancel_reason: reason.to_owned(),
                ..WatchResponse::default()
            };
            following.handle(response).unwrap_err()
        };
        assert_eq!(cancelled(8, "", true), Error::Compacted { revision: Some(8) });
        assert!(!may_begin_again(&cancelled(8, "", true)));
        assert!(may_begin_again(&cancelled(0, "etcdserver: no leader", false)));
        assert!(may_begin_again(&cancelled(0, "", true)));
        assert!(matches!(cancelled(0, "etcdserver: permission denied", false), Error::Denied { .. }));
        assert!(matches!(cancelled(0, "something else", false), Error::Refused { .. }));
    }

    #[test]
    fn what_no_etcd_sends_is_refused() {
        let open = || {
            let mut following = following(Some(5));
            following.handle(created(9)).unwrap();
            following
        };
        let refuses = |mut following: Following, response| {
            assert!(matches!(following.handle(response), Err(Error::Malformed { .. })));
        };
        refuses(following(Some(5)), events(&[5], false));
        refuses(open(), created(9));
        refuses(open(), events(&[7, 6], false));
        refuses(open(), events(&[0], false));
        refuses(open(), events(&[i64::MAX], false));
        refuses(open(), WatchResponse { watch_id: 3, ..events(&[7], false) });
        refuses(following(None), created(i64::MAX));
        let mut held = open();
        held.revision_bytes_max = 2000;
        let many = events(&[7; 20], true);
        assert_eq!(held.handle(many), Err(Error::AnswerTooLarge { bytes_max: 2000 }));
    }
}
