//! Looks at etcd beside the store's work, for people and for monitoring: how far the store is behind, and how the members are.

use std::sync::Arc;
use std::time::Duration;

use smol::Timer;
use smol::future::zip;

use super::Shared;
use crate::etcd::message::{Bytes, RangeRequest, ResponseHeader, SortOrder, SortTarget, StatusResponse};
use crate::etcd::{Ask as EtcdAsk, Error};
use crate::store::etcd::machine::Input;
use crate::store::{EtcdLag, EtcdSeen};

/// Between two looks.
const EVERY: Duration = Duration::from_secs(2);
/// How long a look waits for the last write.
const LOOK_MAX: Duration = Duration::from_secs(2);
/// Of what a member says of itself so much is kept: characters of its version, errors, and characters of each.
const VERSION_CHARS_MAX: usize = 32;
const ERRORS_MAX: usize = 4;
const ERROR_CHARS_MAX: usize = 120;

/// What the last looks have shown.
#[derive(Debug, Default)]
pub(super) struct Observed {
    /// The revision of the last write of any process, and when it was asked for, in the time since the store was opened.
    last_write: Option<(i64, Duration)>,
    /// Of each member, in the order of the endpoints.
    members: Vec<Option<EtcdSeen>>,
}

impl Observed {
    /// How far a store is behind that has come to the revision `applied`.
    pub(super) fn lag(&self, applied: i64, now: Duration) -> Option<EtcdLag> {
        let (revision, at) = self.last_write?;
        let heard = u64::try_from(now.saturating_sub(at).as_millis()).unwrap_or(u64::MAX);
        Some(EtcdLag { revisions: revision.saturating_sub(applied).max(0) as u64, heard_ms: heard })
    }

    pub(super) fn member(&self, at: usize) -> Option<EtcdSeen> {
        self.members.get(at).cloned().flatten()
    }
}

/// The answer to a look.
pub(super) struct Last {
    /// The revision of the mark that was written last; 0: there is none.
    pub mark: i64,
    /// What [`Input::Observed`] is told.
    pub observed: Option<Input>,
}

/// Looks until it is dropped. `marks`: the range of all writers' marks.
pub(super) async fn run(shared: Arc<Shared>, marks: (Bytes, Bytes)) {
    loop {
        let asked = shared.began.elapsed();
        let last = last_mark(&shared, marks.clone(), LOOK_MAX);
        let (last, statuses) = zip(last, shared.etcd.statuses()).await;
        {
            let mut observed = shared.observed.lock();
            if let Ok(last) = last {
                observed.last_write = Some((last.mark, asked));
                shared.tell(last.observed);
            }
            observed.members = statuses.into_iter().map(|status| status.ok().map(seen)).collect();
        }
        Timer::after(EVERY).await;
    }
}

fn seen(status: StatusResponse) -> EtcdSeen {
    let leads = status.header.is_some_and(|header| header.member_id == status.leader && status.leader != 0);
    let bytes = |bytes: i64| u64::try_from(bytes).unwrap_or(0);
    EtcdSeen {
        version: plain(&status.version, VERSION_CHARS_MAX),
        leads,
        file_bytes: bytes(status.db_size),
        used_bytes: bytes(status.db_size_in_use),
        errors: status.errors.iter().take(ERRORS_MAX).map(|error| plain(error, ERROR_CHARS_MAX)).collect(),
    }
}

/// A text of a member, without what could move a terminal's cursor.
fn plain(text: &str, chars_max: usize) -> String {
    text.trim().chars().map(|char| if char.is_control() { '?' } else { char }).take(chars_max).collect()
}

/// Looks at the mark that was written last.
pub(super) async fn last_mark(
    shared: &Shared,
    (key, range_end): (Bytes, Bytes),
    limit: Duration,
) -> Result<Last, Error> {
    let applied = shared.table.applied();
    let range = RangeRequest {
        key,
        range_end,
        limit: 1,
        sort_order: SortOrder::Descend.into(),
        sort_target: SortTarget::Mod.into(),
        keys_only: true,
        ..RangeRequest::default()
    };
    let ask = EtcdAsk { deadline: Some(limit), effect: None };
    let found = shared.etcd.call_with(&range, ask).await?;
    let mark = found.kvs.first().map_or(0, |mark| mark.mod_revision);
    Ok(Last { mark, observed: observed(applied, found.header) })
}

/// What an answer with this header shows, that etcd was asked for when the table had come to `applied`. `None`: nothing is wrong, and the
/// machine need not look.
pub(super) fn observed(applied: i64, header: Option<ResponseHeader>) -> Option<Input> {
    let revision = header?.revision;
    (revision < applied).then_some(Input::Observed { applied, revision })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_store_is_behind_by_what_it_lacks_of_the_last_write_and_nothing_is_known_before_etcd_has_said() {
        let (mut observed, second) = (Observed::default(), Duration::from_secs(1));
        assert_eq!(observed.lag(5, second), None);
        observed.last_write = Some((20, second));
        let lag = |revisions, heard_ms| Some(EtcdLag { revisions, heard_ms });
        assert_eq!(observed.lag(15, 3 * second), lag(5, 2000));
        // Others have written since: the watch was faster than the look.
        assert_eq!(observed.lag(30, second), lag(0, 0));
        assert_eq!(observed.lag(i64::MIN, Duration::ZERO), lag(i64::MAX as u64, 0));
        assert_eq!(observed.member(7), None);
    }

    #[test]
    fn what_a_member_says_of_itself_is_bounded_and_harms_no_terminal() {
        let header = Some(ResponseHeader { member_id: 7, ..ResponseHeader::default() });
        let status = StatusResponse {
            header,
            version: "3\u{1b}".repeat(100),
            leader: 7,
            db_size: -1,
            db_size_in_use: 9,
            errors: vec!["\u{7}x".repeat(1000); 1000],
            ..StatusResponse::default()
        };
        let member = seen(status);
        assert!(member.leads && (member.file_bytes, member.used_bytes) == (0, 9));
        assert_eq!((member.version.len(), member.errors.len()), (VERSION_CHARS_MAX, ERRORS_MAX));
        assert!(member.errors.iter().all(|error| error.len() == ERROR_CHARS_MAX && error.starts_with("?x")));
        assert!(
            !seen(StatusResponse { header: Some(ResponseHeader::default()), ..StatusResponse::default() })
                .leads
        );
    }
}
