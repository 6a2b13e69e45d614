//! The OTP release of a peer, asked of it once where an answer depends on it.
//!
//! OTP 25 and 27 offer the very same flags, but `:sys.get_state/1` wants the state as it is on 25, and `{ok, State}`
//! from 26 on (stdlib, `sys.erl`).

use std::sync::Arc;
use std::time::Duration;

use crate::etf::tag::STRING_EXT;
use crate::node::Node;
use crate::node::peers::erpc::ErpcError;
use crate::process::OwnedCaller;

/// How long a node may take to say its release: callers of `sys` wait 5 s.
const RELEASE_LIMIT: Duration = Duration::from_secs(2);
/// The first release whose `sys` expects `{ok, State}`.
const STATE_IN_OK_FROM: u32 = 26;

impl Node {
    /// Sends a state to the caller that has asked for it, in the form that the OTP release of its node expects.
    pub(in crate::node) fn reply_state(&self, caller: OwnedCaller, state: Vec<u8>) {
        let known = self.peers.get(caller.node()).and_then(|peer| peer.release.get().copied());
        if let Some(release) = known {
            return self.reply_state_to(caller, &state, release);
        }
        let Some(node) = self.this.upgrade() else { return };
        self.spawn_link(async move {
            let release = node.release_of(caller.node()).await;
            node.reply_state_to(caller, &state, release);
        });
    }

    fn reply_state_to(&self, caller: OwnedCaller, state: &[u8], release: Option<u32>) {
        caller.reply(self, |w| {
            if release.is_none_or(|release| release >= STATE_IN_OK_FROM) {
                w.tuple(2).atom("ok");
            }
            w.raw(state);
        });
    }

    /// The release of a node; `None` where it is none of OTP's, or does not say.
    async fn release_of(&self, name: &Arc<str>) -> Option<u32> {
        let peer = self.connect(name).await.ok()?;
        if let Some(release) = peer.release.get() {
            return *release;
        }
        let function = ("erlang", "system_info");
        let argument = |w: &mut crate::etf::TermWriter<'_>| _ = w.atom("otp_release");
        let release = match self.erpc(&peer, function, 1, argument, RELEASE_LIMIT).await {
            Ok(release) => read(release.view().bytes()),
            // It may say so next time.
            Err(ErpcError::Timeout | ErpcError::NoConnection) => return None,
            Err(_) => None,
        };
        *peer.release.get_or_init(|| release)
    }
}

/// The number in the list of characters that `erlang:system_info(otp_release)` gives.
fn read(release: &[u8]) -> Option<u32> {
    let digits = release.strip_prefix(&[STRING_EXT, 0])?.split_first()?.1;
    std::str::from_utf8(digits).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_release_is_the_number_in_a_list_of_characters() {
        assert_eq!(read(&[107, 0, 2, b'2', b'5']), Some(25));
        assert_eq!(read(&[107, 0, 1, b'9']), Some(9));
        for other in [&[106][..], &[107, 0, 3, b'R', b'1', b'6'], &[107, 0], &[119, 2, b'2', b'5']] {
            assert_eq!(read(other), None);
        }
    }
}
