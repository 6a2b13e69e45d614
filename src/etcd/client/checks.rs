//! Asks members how they are: those that have said nothing for a while, those that a try has failed at, and those that were given
//! up. `Maintenance/Status` is answered by the member itself, also without a leader.

use std::sync::{Arc, Weak};

use smol::Timer;
use smol::channel::Receiver;

use super::{Inner, now};
use crate::etcd::Error;
use crate::etcd::members::{Check, Input, MemberId};
use crate::within::{until, within};

/// Checks what is due, until the client is gone.
pub(super) async fn run(inner: Weak<Inner>, poked: Receiver<()>) {
    loop {
        let next = {
            let Some(inner) = inner.upgrade() else { return };
            let now = now();
            let (due, next) = {
                let mut members = inner.members.lock();
                (members.due(now), members.next_check(now))
            };
            for id in due {
                let its = Arc::clone(&inner);
                inner.thread.spawner().spawn(async move {
                    let check = its.check(id).await;
                    its.note(Input::Checked(id, check));
                });
            }
            next
        };
        let poked = match next {
            Some(next) => until(Timer::at(next), poked.recv()).await,
            None => Some(poked.recv().await),
        };
        // The client is gone with the other end.
        if let Some(Err(_)) = poked {
            return;
        }
    }
}

impl Inner {
    async fn check(&self, id: MemberId) -> Check {
        let limit = self.config.check_duration_max;
        match within(limit, self.status(id, limit)).await {
            Some(Ok(status)) if status.leader != 0 => Check::Well,
            Some(Ok(_)) => Check::NoLeader,
            // It answers, and says that this is not for everybody.
            Some(Err(Error::TokenExpired | Error::Denied { .. } | Error::Refused { .. })) => Check::Well,
            Some(Err(Error::LeaderLost)) => Check::NoLeader,
            Some(Err(_)) | None => {
                self.give_up(id).await;
                Check::Silent
            }
        }
    }

    /// The connection to this member is dead: what waits for it ends now.
    async fn give_up(&self, id: MemberId) {
        if let Some(slot) = self.connections.get(id)
            && let Some(connection) = slot.lock().await.take()
        {
            connection.give_up();
        }
    }
}
