//! A lease that is kept by a task.

use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use smol::Timer;
use smol::channel::{Receiver, Sender};

use super::{Ask, Etcd, now};
use crate::etcd::Error;
use crate::etcd::message::{LeaseGrantRequest, LeaseKeepAliveRequest, LeaseRevokeRequest};
use crate::etcd::term::{Input, Term};

/// Longer ones are taken for this: etcd takes up to 285 years.
const TTL_MAX: Duration = Duration::from_secs(365 * 24 * 3600);

/// See [`Etcd::lease`]. When it is dropped it is not renewed any more, and ends at etcd in its time.
#[derive(Debug)]
pub struct Lease {
    etcd: Etcd,
    id: i64,
    term: Arc<Mutex<Term>>,
    lost: Receiver<()>,
    _renewing: smol::Task<()>,
}

impl Lease {
    pub(super) async fn grant(etcd: &Etcd, ttl: Duration) -> Result<Self, Error> {
        let seconds = i64::try_from(ttl.as_secs()).unwrap_or(i64::MAX).max(1);
        // The clock before the first try: the try that makes the lease is later, and so is its end.
        let asked = now();
        let granted = etcd.call(&LeaseGrantRequest { ttl: seconds, id: 0 }).await?;
        if !granted.error.is_empty() {
            return Err(Error::Refused { code: 2, text: granted.error });
        }
        if granted.id == 0 || granted.ttl <= 0 {
            return Err(Error::Malformed { reason: "its lease has no number or no time" });
        }
        let term = Arc::new(Mutex::new(Term::granted(asked, duration(granted.ttl))));
        let (hold, lost) = smol::channel::bounded(1);
        let renewing = etcd.0.thread.spawn(renew(etcd.clone(), granted.id, Arc::clone(&term), hold));
        Ok(Self { etcd: etcd.clone(), id: granted.id, term, lost, _renewing: renewing })
    }

    /// Its number, for [`PutRequest::lease`](super::super::message::PutRequest::lease).
    pub fn id(&self) -> i64 {
        self.id
    }

    /// Until when the lease is surely held, by our clock, as far as is known at the time of asking. `None`, for good: it is lost, or
    /// may be.
    ///
    /// The clock stands still while the machine sleeps, and etcd's does not. And a leader that was stopped may renew a lease
    /// that another one has ended, in the moment before it hears of that: what relies on a lease carries a condition.
    pub fn held_until(&self) -> Option<Instant> {
        let now = now();
        match *self.term.lock() {
            Term::Held { until, .. } if until > now => Some(until),
            _ => None,
        }
    }

    /// Waits until it is lost.
    pub fn lost(&self) -> impl Future<Output = ()> + Send + use<> {
        let lost = self.lost.clone();
        async move {
            // Nothing is ever sent.
            let _ = lost.recv().await;
        }
    }

    /// Ends it, and the keys that are attached to it.
    ///
    /// # Errors
    ///
    /// See [`Error`]. It is not renewed any more all the same.
    pub async fn revoke(self) -> Result<(), Error> {
        let Self { etcd, id, _renewing: renewing, .. } = self;
        renewing.cancel().await;
        match etcd.call(&LeaseRevokeRequest { id }).await {
            Ok(_) => Ok(()),
            // It has ended before; or an earlier try was done.
            Err(Error::Refused { code: 5, .. }) => Ok(()),
            Err(error) => Err(error),
        }
    }
}

async fn renew(etcd: Etcd, id: i64, term: Arc<Mutex<Term>>, _lost: Sender<()>) {
    loop {
        let (until, renew_at) = match *term.lock() {
            Term::Held { until, renew_at } => (until, renew_at),
            Term::Lost => return,
        };
        Timer::at(renew_at).await;
        let asked = now();
        let ask = Ask { deadline: Some(until.saturating_duration_since(asked)), effect: None };
        let input = match etcd.call_with(&LeaseKeepAliveRequest { id }, ask).await {
            Ok(answer) => Input::Renewed { asked, ttl: duration(answer.ttl) },
            Err(_) => Input::Failed,
        };
        let mut term = term.lock();
        *term = term.handle(input, now());
    }
}

fn duration(seconds: i64) -> Duration {
    Duration::from_secs(u64::try_from(seconds).unwrap_or(0)).min(TTL_MAX)
}
