//! The file into which a demoted store writes what its new primary does not have, in memory.

#![allow(dead_code, reason = "not every test uses all of it")]

use std::io::{self, Write};
use std::sync::Arc;

use parking_lot::Mutex;

/// What a demoted store has written into its files, line by line.
#[derive(Clone, Default)]
pub struct Dropped(Arc<Mutex<Vec<u8>>>);

impl Dropped {
    pub fn take(&self) -> String {
        String::from_utf8(std::mem::take(&mut *self.0.lock())).expect("lines of text")
    }

    pub fn is_empty(&self) -> bool {
        self.0.lock().is_empty()
    }
}

impl Write for Dropped {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
