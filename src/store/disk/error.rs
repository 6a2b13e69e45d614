//! What the system's and the engine's refusals are called.

use std::io;
use std::path::Path;

pub use crate::store::OpenError;
use crate::store::StoreError;

impl OpenError {
    pub(super) fn system(path: &Path, error: &io::Error) -> Self {
        Self::System { path: path.into(), reason: error.to_string() }
    }

    pub(super) fn engine(path: &Path, error: fjall::Error) -> Self {
        match error {
            fjall::Error::Io(error) | fjall::Error::Storage(fjall::LsmError::Io(error)) => {
                Self::system(path, &error)
            }
            fjall::Error::Locked => Self::InUse { dir: path.into(), pid: None },
            error => Self::Damaged { file: path.into(), what: format!("the engine says: {error:?}") },
        }
    }
}

/// What callers are told of a refusal, in the words of OTP's `file:posix()`.
pub(super) fn store_error(error: &io::Error) -> StoreError {
    use rustix::io::Errno;
    let Some(errno) = Errno::from_io_error(error) else { return StoreError::Io("unknown") };
    match errno {
        Errno::NOSPC | Errno::DQUOT => StoreError::NoSpace,
        Errno::IO => StoreError::Io("eio"),
        Errno::ROFS => StoreError::Io("erofs"),
        Errno::ACCESS => StoreError::Io("eacces"),
        Errno::PERM => StoreError::Io("eperm"),
        Errno::MFILE => StoreError::Io("emfile"),
        Errno::NFILE => StoreError::Io("enfile"),
        Errno::FBIG => StoreError::Io("efbig"),
        Errno::NOENT => StoreError::Io("enoent"),
        Errno::NOMEM => StoreError::Io("enomem"),
        _ => StoreError::Io("unknown"),
    }
}

/// The same of the engine's refusal.
pub(super) fn engine_error(error: &fjall::Error) -> StoreError {
    match error {
        fjall::Error::Io(error) | fjall::Error::Storage(fjall::LsmError::Io(error)) => store_error(error),
        fjall::Error::Poisoned => StoreError::Io("eio"),
        // A block that is not what it was when it was written.
        _ => StoreError::Io("damaged"),
    }
}
