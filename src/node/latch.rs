//! Something that happens once, and is waited for by many.

use smol::channel::{Receiver, Sender};

/// What happens: it is opened once, by [`open`](Self::open) or by being dropped.
#[derive(Debug)]
pub(super) struct Latch {
    hold: Sender<()>,
    wait: Opened,
}

/// A wait for it.
#[derive(Clone, Debug)]
pub(super) struct Opened(Receiver<()>);

impl Latch {
    pub(super) fn new() -> Self {
        let (hold, wait) = smol::channel::bounded(1);
        Self { hold, wait: Opened(wait) }
    }

    /// It happens; once is enough.
    pub(super) fn open(&self) {
        self.hold.close();
    }

    pub(super) fn opened(&self) -> Opened {
        self.wait.clone()
    }
}

impl Opened {
    /// Waits until it has happened.
    pub(super) async fn wait(&self) {
        // Nothing is ever sent: only the closing of the channel ends the wait.
        while self.0.recv().await.is_ok() {}
    }
}
