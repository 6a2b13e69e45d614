//! A limit around a future: a time, or another future.

use std::future::Future;
use std::io;
use std::time::Duration;

use smol::future::FutureExt;

use crate::clock::Sleep;

/// Waits for `work`, but not longer than `limit`. `None`: the time is over, and the work is dropped where it was. Work that is done at
/// the same time counts; `Duration::MAX` is no limit.
///
/// ```
/// use std::future::{pending, ready};
/// use std::time::Duration;
///
/// use kvnode::{block_on, within};
///
/// let second = Duration::from_secs(1);
/// assert_eq!(block_on(within(second, ready(1))), Some(1));
/// assert_eq!(block_on(within(Duration::ZERO, pending::<u8>())), None);
/// ```
pub async fn within<T>(limit: Duration, work: impl Future<Output = T>) -> Option<T> {
    until(Sleep::after(limit), work).await
}

/// Waits for `work`, but not after `end` is there. `None`: it was, and the work is dropped where it was. Work that is done at the
/// same time counts.
pub(crate) async fn until<T, E>(end: impl Future<Output = E>, work: impl Future<Output = T>) -> Option<T> {
    let ended = async {
        end.await;
        None
    };
    async { Some(work.await) }.or(ended).await
}

/// The same for what the system does, with [`TimedOut`](io::ErrorKind::TimedOut) among the errors that it gives.
pub(crate) async fn io_within<T>(
    limit: Duration,
    work: impl Future<Output = io::Result<T>>,
) -> io::Result<T> {
    within(limit, work).await.unwrap_or_else(|| Err(io::ErrorKind::TimedOut.into()))
}

#[cfg(test)]
mod tests {
    use std::future::{pending, ready};

    use super::*;
    use crate::node::block_on;

    const NOTHING: Duration = Duration::ZERO;

    #[test]
    fn what_is_ready_is_taken_even_when_the_time_is_over() {
        assert_eq!(block_on(within(NOTHING, ready(1))), Some(1));
        assert_eq!(block_on(io_within(NOTHING, ready(Ok(1)))).ok(), Some(1));
    }

    #[test]
    fn work_ends_where_its_end_comes_first_and_counts_where_both_are_there() {
        assert_eq!(block_on(until(ready(()), pending::<()>())), None);
        assert_eq!(block_on(until(pending::<()>(), ready(1))), Some(1));
        assert_eq!(block_on(until(ready(()), ready(1))), Some(1));
    }

    #[test]
    fn what_is_not_ready_in_time_is_dropped() {
        assert_eq!(block_on(within(NOTHING, pending::<()>())), None);
        let error = block_on(io_within(NOTHING, pending::<io::Result<()>>())).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    }
}
