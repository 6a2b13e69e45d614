//! Undoes what was not synced, by the notes of tests/support/undo.c.

use std::collections::{HashMap, HashSet};
use std::ffi::OsStr;
use std::fs::{self, File, OpenOptions};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};

const WRITE: u32 = 1;
const TRUNCATE: u32 = 2;
const SYNC: u32 = 3;
const CREATE: u32 = 4;
const UNLINK: u32 = 5;
const RENAME: u32 = 6;
const MKDIR: u32 = 7;
const RMDIR: u32 = 8;

/// One change, or a sync.
struct Note {
    kind: u32,
    inode: u64,
    a: u64,
    b: u64,
    bytes: Vec<u8>,
}

/// Brings the folder to what a power cut would leave at worst, and forgets the notes.
pub fn undo(data: &Path, notes: &Path) {
    let log = notes.join("log");
    let all = read(&fs::read(&log).unwrap());
    assert!(all.iter().any(|note| note.kind == WRITE), "the library was not preloaded");
    let mut files = HashMap::new();
    for dir in [data, notes] {
        open_all(dir, &mut files);
    }
    // From the end: what was synced after here.
    let (mut synced, mut reused) = (HashSet::new(), HashSet::new());
    for note in all.iter().rev() {
        let durable = match note.kind {
            SYNC => {
                synced.insert(note.inode);
                continue;
            }
            WRITE | TRUNCATE => synced.contains(&note.inode),
            CREATE => synced.contains(&note.inode) || synced.contains(&note.a),
            _ => synced.contains(&note.a),
        };
        let of_another = reused.contains(&note.inode) && matches!(note.kind, WRITE | TRUNCATE);
        if !(durable || of_another) {
            take_back(note, notes, &files);
        }
        if matches!(note.kind, CREATE | MKDIR) {
            // Older notes with this number are of another file.
            reused.insert(note.inode);
            synced.remove(&note.inode);
        }
    }
    for entry in fs::read_dir(notes).unwrap() {
        fs::remove_file(entry.unwrap().path()).unwrap();
    }
}

fn take_back(note: &Note, notes: &Path, files: &HashMap<u64, File>) {
    let path = |bytes: &[u8]| PathBuf::from(OsStr::from_bytes(bytes));
    match note.kind {
        WRITE | TRUNCATE => {
            // One that is not there any more was removed by a call that passes by.
            let Some(file) = files.get(&note.inode) else { return };
            file.write_all_at(&note.bytes, note.a).unwrap();
            if note.kind == TRUNCATE {
                // Zeros follow up to the old end.
                let end = note.a + note.bytes.len() as u64;
                file.set_len(end.min(note.b)).unwrap();
            }
            file.set_len(note.b).unwrap();
        }
        CREATE => {
            let path = path(&note.bytes);
            if fs::symlink_metadata(&path).is_ok_and(|found| found.ino() == note.inode) {
                fs::remove_file(path).unwrap();
            }
        }
        UNLINK if note.b > 0 => {
            let path = path(&note.bytes);
            let _gone = fs::remove_file(&path);
            fs::hard_link(notes.join(note.b.to_string()), path).unwrap();
        }
        RENAME => {
            let mut both = note.bytes.split(|byte| *byte == 0);
            let (from, to) = (path(both.next().unwrap()), path(both.next().unwrap()));
            if fs::symlink_metadata(&to).is_ok_and(|found| found.ino() == note.inode) {
                fs::rename(&to, from).unwrap();
            }
            if note.b > 0 {
                fs::hard_link(notes.join(note.b.to_string()), to).unwrap();
            }
        }
        // What is in it was undone before.
        MKDIR => _ = fs::remove_dir(path(&note.bytes)),
        RMDIR => fs::create_dir(path(&note.bytes)).unwrap(),
        _ => {}
    }
}

/// Every file, by its inode.
fn open_all(dir: &Path, files: &mut HashMap<u64, File>) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        let found = fs::symlink_metadata(&path).unwrap();
        if found.is_dir() {
            open_all(&path, files);
        } else {
            let open = || OpenOptions::new().read(true).write(true).open(&path).unwrap();
            files.entry(found.ino()).or_insert_with(open);
        }
    }
}

/// The notes; a last one that was not written to its end is of a change that was not made.
fn read(mut bytes: &[u8]) -> Vec<Note> {
    let mut notes = Vec::new();
    while let Some((head, rest)) = bytes.split_first_chunk::<32>() {
        let four = |at: usize| u32::from_ne_bytes(head[at..at + 4].try_into().unwrap());
        let eight = |at: usize| u64::from_ne_bytes(head[at..at + 8].try_into().unwrap());
        let len = four(4) as usize;
        let Some(content) = rest.get(..len) else { break };
        notes.push(Note {
            kind: four(0),
            inode: eight(8),
            a: eight(16),
            b: eight(24),
            bytes: content.to_vec(),
        });
        bytes = &rest[len..];
    }
    notes
}
