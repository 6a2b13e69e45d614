//! Why a store was not opened.

use std::fmt;
use std::path::PathBuf;

/// Why a folder with stores, or a store of etcd, was not opened.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum OpenError {
    /// Another process has it.
    InUse {
        /// The folder.
        dir: PathBuf,
        /// The other's process id, where it could be read.
        pid: Option<u32>,
    },
    /// A newer kvnode wrote it.
    NewerFormat {
        /// The folder.
        dir: PathBuf,
        /// Its version.
        version: u32,
        /// The newest version that this program reads.
        known: u32,
    },
    /// The folder holds other things.
    NotOurs {
        /// The folder.
        dir: PathBuf,
    },
    /// Something in it is not as it was written.
    Damaged {
        /// The file, or the folder where it is not known.
        file: PathBuf,
        /// What is known of it.
        what: String,
    },
    /// Names that belong to different stores were given for one.
    Names {
        /// They.
        names: Vec<String>,
    },
    /// The system refused.
    System {
        /// The file or folder.
        path: PathBuf,
        /// What it said.
        reason: String,
    },
    /// etcd refuses: an operator has to change something.
    Etcd {
        /// What it said.
        reason: String,
    },
    /// etcd does not answer, or cannot serve at present: later it may.
    EtcdAway {
        /// What is known of it.
        reason: String,
    },
}

impl fmt::Display for OpenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::InUse { dir, pid } => {
                write!(f, "{} is in use by another process", dir.display())?;
                match pid {
                    Some(pid) => write!(f, " (pid {pid})")?,
                    None => write!(f, " (`fuser {}/lock` shows which)", dir.display())?,
                }
                f.write_str(": end that, or choose another --data-dir")
            }
            Self::NewerFormat { dir, version, known } => write!(
                f,
                "{} was written by a newer kvnode (format {version}; this one reads {known}): use that version",
                dir.display()
            ),
            Self::NotOurs { dir } => write!(
                f,
                "{} has files in it and is no folder of kvnode's: choose an empty or a new one as --data-dir",
                dir.display()
            ),
            Self::Damaged { file, what } => write!(
                f,
                "{} is damaged: {what}. Nothing was changed; copy the folder before you do anything with it, and restore \
                 a backup (`kvnode restore`) where there is one",
                file.display()
            ),
            Self::Names { names } => {
                write!(
                    f,
                    "the names {} belong to different stores that are kept: see --store",
                    names.join(", ")
                )
            }
            Self::Etcd { reason } => write!(f, "etcd cannot be used for stores: {reason}"),
            Self::EtcdAway { reason } => write!(f, "etcd does not serve at present: {reason}"),
            Self::System { path, reason } => write!(
                f,
                "{} cannot be used for stores: {reason}; --data-dir takes a folder that this user may write to, there or to \
                 be made",
                path.display()
            ),
        }
    }
}

impl std::error::Error for OpenError {}
