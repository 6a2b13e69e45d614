//! The files that a store writes into what it drops, as another was promoted in its place.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::kv::NewFile;

/// Files of one store that may be in a folder.
const DROPPED_FILES_MAX: u32 = 10_000;

/// Makes the files for what a store drops when another was promoted in its place: in the first of the folders that can be
/// written to, for its owner alone, and never over one that is there.
pub(super) fn dropped_files(dirs: Vec<PathBuf>, store: &str) -> NewFile {
    let name = store.rsplit(':').next().unwrap_or_default();
    let plain = |char: char| if char.is_ascii_alphanumeric() || "-_".contains(char) { char } else { '_' };
    let name: String = name.chars().take(64).map(plain).collect();
    Arc::new(move || {
        let mut last = io::Error::from(io::ErrorKind::NotFound);
        for dir in &dirs {
            match new_file(dir, &name) {
                Ok(made) => return Ok(made),
                Err(error) => last = error,
            }
        }
        Err(last)
    })
}

fn new_file(dir: &Path, name: &str) -> io::Result<(String, Box<dyn Write + Send>)> {
    let dir = dir.canonicalize()?;
    for number in 1..=DROPPED_FILES_MAX {
        let path = dir.join(format!("kvnode-dropped-{name}-{number}.exs"));
        match OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path) {
            Ok(file) => return Ok((path.display().to_string(), Box::new(Synced(file)))),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error),
        }
    }
    Err(io::ErrorKind::AlreadyExists.into())
}

/// A file that is on disk once it was flushed.
struct Synced(File);

impl Write for Synced {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.sync_all()
    }
}
