//! The stores of an etcd, to and from the file of a backup.

use std::path::Path;

use super::{EtcdConfig, StartError, in_etcd};
use crate::replica::Membership;
use crate::replica::membership::Former;
use crate::store::disk::StoreCount;
use crate::store::{EtcdBackupError, EtcdRestore};

/// Why stores of an etcd were not moved.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MoveError {
    /// A client of etcd cannot be made of these settings.
    #[error("{0}")]
    Settings(StartError),
    /// The backup, or the restore, was not done.
    #[error("{0}")]
    Backup(EtcdBackupError),
}

/// Told of what is done, and of all; `false` ends it.
pub type Progress<'a> = &'a mut dyn FnMut(u64, u64) -> bool;

/// Writes all stores of an etcd below a prefix into a new file, as they were at one revision of etcd, which is given. They may be served, and written
/// to, meanwhile.
///
/// # Errors
/// See [`MoveError`]. There is no such file then.
pub fn backup(
    config: &EtcdConfig,
    file: &Path,
    progress: Progress<'_>,
) -> Result<(Vec<StoreCount>, u64), MoveError> {
    let engine = in_etcd::engine(config).map_err(MoveError::Settings)?;
    engine.backup(file, progress).map_err(MoveError::Backup)
}

/// Makes the stores of a backup in an etcd, all or nothing. A store keeps its global names, or all where it has
/// none, and of its notes the slaves alone: a store in etcd follows no primary, and has no term. `force`: the stores below the prefix are
/// deleted first, where no kvnode serves them and nothing else is there.
///
/// # Errors
/// See [`MoveError`].
pub fn restore(
    config: &EtcdConfig,
    file: &Path,
    force: bool,
    progress: Progress<'_>,
) -> Result<Vec<StoreCount>, MoveError> {
    let engine = in_etcd::engine(config).map_err(MoveError::Settings)?;
    let restore = EtcdRestore { force, names: &|names| in_etcd::found_by(names), notes: &notes };
    engine.restore(file, &restore, progress).map_err(MoveError::Backup)
}

/// What a store in etcd keeps of its notes elsewhere.
fn notes(notes: Vec<(String, Vec<u8>)>) -> Result<Vec<(String, Vec<u8>)>, String> {
    let note = |name: &str| notes.iter().find(|(known, _)| known == name).map(|(_, note)| &note[..]);
    let membership = match note(Membership::NOTE) {
        Some(note) => Membership::read(note)
            .ok_or("what it kept of its role and its slaves is damaged, or of a newer kvnode")?,
        None => {
            let [rank, is_slave, position, slaves, names] = Former::NOTES.map(note);
            let former = Former { rank, is_slave, position, slaves, names };
            former.carried_over().map_err(|_| "the names of its slaves are damaged")?
        }
    };
    if membership.is_partial {
        return Err("it was a slave, and what it holds is a mix, as a copy of its primary had not come whole: take a backup of the \
                    primary, or of the slave once it has everything"
            .to_owned());
    }
    if membership.slaves.is_empty() {
        return Ok(Vec::new());
    }
    let kept = Membership { slaves: membership.slaves, ..Membership::default() };
    Ok(vec![(Membership::NOTE.to_owned(), kept.note())])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::distribution::ServerRef;
    use crate::replica::{KnownSlave, Position, TermRole};

    #[test]
    fn of_what_a_store_kept_its_slaves_go_with_it_and_its_role_stays() {
        let slaves = vec![KnownSlave { name: ServerRef::global("b"), node: None }];
        let membership = Membership {
            term: 3,
            promoted: 7,
            role: TermRole::Follows,
            was_slave: true,
            position: Some(Position { primary: 9, applied: 12 }),
            must_export: true,
            slaves: slaves.clone(),
            copies: 4,
            ..Membership::default()
        };
        let kept = notes(vec![(Membership::NOTE.to_owned(), membership.note())]).unwrap();
        assert_eq!(kept.len(), 1);
        assert_eq!(Membership::read(&kept[0].1), Some(Membership { slaves, ..Membership::default() }));
        let partial = Membership { is_partial: true, ..membership.clone() };
        let refused = notes(vec![(Membership::NOTE.to_owned(), partial.note())]);
        assert!(refused.is_err_and(|why| why.contains("take a backup of the primary")));
        let alone = Membership { slaves: Vec::new(), ..membership };
        assert_eq!(notes(vec![(Membership::NOTE.to_owned(), alone.note())]), Ok(Vec::new()));
        assert_eq!(notes(Vec::new()), Ok(Vec::new()));
        // As it was kept before there was one record.
        let former = notes(vec![("slaves".to_owned(), b"l\x00\x00\x00\x01h\x02w\x06globalw\x01bj".to_vec())]);
        assert_eq!(former, Ok(kept));
        assert!(notes(vec![(Membership::NOTE.to_owned(), b"h\x00".to_vec())]).is_err());
    }
}
