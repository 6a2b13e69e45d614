//! Values of the program's that the node drops.

use std::ops::{Deref, DerefMut};
use std::sync::Arc;

use crate::node::ProcessHandle;
use crate::process::Process;
use crate::process::exits::guarded;

/// A value of a server's, in the keeping of its task. A panic of its drop ends here and is logged as one of the program:
/// what else the task drops is dropped all the same, and what it still has to do is done.
pub(super) struct Guarded<T> {
    /// Gone when it is dropped.
    value: Option<T>,
    process: Arc<Process>,
}

impl<T> Guarded<T> {
    pub(super) fn new(of: &ProcessHandle, value: T) -> Self {
        Self { value: Some(value), process: Arc::clone(&of.process) }
    }
}

impl<T> Deref for Guarded<T> {
    type Target = T;

    fn deref(&self) -> &T {
        self.value.as_ref().expect("it is there until the drop")
    }
}

impl<T> DerefMut for Guarded<T> {
    fn deref_mut(&mut self) -> &mut T {
        self.value.as_mut().expect("it is there until the drop")
    }
}

impl<T> Drop for Guarded<T> {
    fn drop(&mut self) {
        let value = self.value.take();
        if let Err(text) = guarded(|| drop(value)) {
            let process = &self.process;
            tracing::error!(
                ?process,
                panic = text,
                "a server panicked when it was dropped (a bug of the program)"
            );
        }
    }
}
