//! fjall beside redb, as the engine of a store on disk: the numbers behind the choice of fjall, to be measured again when either engine has changed.
//!
//!     cargo run --release -- DIR       (in scripts/bench.d/engines; DIR on the disk that is meant)
//!
//! A package of its own: what it compares must not become a dependency of kvnode.

use std::fs;
use std::hint::black_box;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;
use std::time::Instant;

use fjall::{Database, Keyspace, KeyspaceCreateOptions, PersistMode};
use redb::{ReadableDatabase, TableDefinition};

const ENTRIES: u64 = 1_000_000;
const BATCH: u64 = 128;
const TABLE: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("store");

/// What is asked of both.
trait Engine: Sized {
    const NAME: &'static str;
    fn open(dir: &Path) -> Self;
    /// Puts one batch; durable when it returns if `sync`.
    fn put(&self, batch: &[(Vec<u8>, Vec<u8>)], sync: bool);
    fn get(&self, key: &[u8]) -> usize;
    fn settle(&self);
}

struct Fjall(Database, Keyspace);

impl Engine for Fjall {
    const NAME: &'static str = "fjall";

    fn open(dir: &Path) -> Self {
        let db = Database::builder(dir).open().expect("opens");
        let keyspace = db.keyspace("store", KeyspaceCreateOptions::default).expect("opens");
        Self(db, keyspace)
    }

    fn put(&self, entries: &[(Vec<u8>, Vec<u8>)], sync: bool) {
        let mut batch = self.0.batch().durability(sync.then_some(PersistMode::SyncData));
        for (key, value) in entries {
            batch.insert(&self.1, key.as_slice(), value.as_slice());
        }
        batch.commit().expect("commits");
    }

    fn get(&self, key: &[u8]) -> usize {
        self.1.get(key).expect("reads").map_or(0, |value| value.len())
    }

    fn settle(&self) {
        self.0.persist(PersistMode::SyncAll).expect("syncs");
    }
}

struct Redb(redb::Database);

impl Engine for Redb {
    const NAME: &'static str = "redb";

    fn open(dir: &Path) -> Self {
        fs::create_dir_all(dir).expect("a folder");
        Self(redb::Database::create(dir.join("redb")).expect("opens"))
    }

    fn put(&self, entries: &[(Vec<u8>, Vec<u8>)], sync: bool) {
        let mut transaction = self.0.begin_write().expect("begins");
        let durability = if sync { redb::Durability::Immediate } else { redb::Durability::None };
        transaction.set_durability(durability).expect("nothing was written yet");
        {
            let mut table = transaction.open_table(TABLE).expect("opens");
            for (key, value) in entries {
                table.insert(key.as_slice(), value.as_slice()).expect("inserts");
            }
        }
        transaction.commit().expect("commits");
    }

    fn get(&self, key: &[u8]) -> usize {
        let table = self.0.begin_read().expect("begins").open_table(TABLE).expect("opens");
        table.get(key).expect("reads").map_or(0, |value| value.value().len())
    }

    fn settle(&self) {
        self.0.begin_write().expect("begins").commit().expect("commits");
    }
}

/// A key of 16 bytes, spread over the whole range.
fn key(n: u64) -> Vec<u8> {
    let mixed = n.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let mut key = mixed.to_be_bytes().to_vec();
    key.extend_from_slice(&n.to_be_bytes());
    key
}

fn value(n: u64, len: usize) -> Vec<u8> {
    // Not to be compressed away.
    let mut state = n | 1;
    (0..len)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state as u8
        })
        .collect()
}

fn batch(from: u64, len: usize) -> Vec<(Vec<u8>, Vec<u8>)> {
    (from..from + BATCH).map(|n| (key(n), value(n, len))).collect()
}

fn bytes_under(dir: &Path) -> u64 {
    use std::os::unix::fs::MetadataExt;
    let entries = fs::read_dir(dir).expect("a folder").map(|entry| entry.expect("an entry"));
    entries
        .map(|entry| match entry.metadata() {
            Ok(metadata) if metadata.is_dir() => bytes_under(&entry.path()),
            Ok(metadata) => metadata.blocks() * 512,
            Err(_) => 0,
        })
        .sum()
}

/// Takes the files out of the page cache, and no others: other work goes on on this machine.
fn forget_pages(dir: &Path) {
    for entry in fs::read_dir(dir).expect("a folder") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            forget_pages(&path);
        } else {
            let of = format!("of={}", path.display());
            let dd = ["oflag=nocache", "conv=notrunc,fdatasync", "count=0", "status=none"];
            let done = Command::new("dd").arg(of).args(dd).status();
            assert!(done.expect("dd is there").success());
        }
    }
}

fn percentile(sorted: &[f64], at: f64) -> f64 {
    sorted[((sorted.len() - 1) as f64 * at) as usize]
}

fn reads<E: Engine>(engine: &E, entries: u64, count: u64) -> Vec<f64> {
    let mut micros: Vec<f64> = (0..count)
        .map(|n| {
            let key = key(n.wrapping_mul(7_919) % entries);
            let begun = Instant::now();
            assert!(black_box(engine.get(&key)) > 0, "it was put");
            begun.elapsed().as_secs_f64() * 1e6
        })
        .collect();
    micros.sort_by(f64::total_cmp);
    micros
}

fn measure<E: Engine>(root: &Path, len: usize, entries: u64) {
    let dir = root.join(format!("{}-{len}", E::NAME));
    let _ = fs::remove_dir_all(&dir);
    let engine = E::open(&dir);
    let begun = Instant::now();
    for from in (0..entries).step_by(BATCH as usize) {
        engine.put(&batch(from, len), false);
    }
    engine.settle();
    let load = begun.elapsed().as_secs_f64();
    let mut commits = Vec::new();
    let begun = Instant::now();
    while begun.elapsed().as_secs_f64() < 5.0 {
        let entries = batch((commits.len() as u64 * 1_315_423) % entries, len);
        let begun = Instant::now();
        engine.put(&entries, true);
        commits.push(begun.elapsed().as_secs_f64() * 1e3);
    }
    let rate = commits.len() as f64 * BATCH as f64 / begun.elapsed().as_secs_f64();
    commits.sort_by(f64::total_cmp);
    let hot = reads(&engine, 1_000, 50_000);
    let space = bytes_under(&dir) as f64 / 1e6;
    // As after a crash: nothing is closed.
    std::mem::forget(engine);
    println!(
        "{:5} {len:4} B: load {load:.1} s; {rate:.0} synced puts/s, commit p50 {:.2} ms p99 {:.2} ms; hot get p50 {:.1} us; {space:.0} MB",
        E::NAME,
        percentile(&commits, 0.5),
        percentile(&commits, 0.99),
        percentile(&hot, 0.5),
    );
}

fn recover<E: Engine>(root: &Path, len: usize, entries: u64) {
    let dir = root.join(format!("{}-{len}", E::NAME));
    forget_pages(&dir);
    let begun = Instant::now();
    let engine = E::open(&dir);
    let open = begun.elapsed().as_secs_f64();
    let cold = reads(&engine, entries, 2_000);
    println!(
        "{:5} {len:4} B: opened after a crash in {open:.2} s; cold get p50 {:.0} us p99 {:.0} us",
        E::NAME,
        percentile(&cold, 0.5),
        percentile(&cold, 0.99)
    );
}

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    let root = Path::new(arguments.get(1).expect("a folder to work in"));
    match arguments.get(2).map(String::as_str) {
        Some("recover") => {
            for (len, entries) in [(100, ENTRIES), (1024, ENTRIES / 5)] {
                recover::<Fjall>(root, len, entries);
                recover::<Redb>(root, len, entries);
            }
        }
        _ => {
            for (len, entries) in [(100, ENTRIES), (1024, ENTRIES / 5)] {
                measure::<Fjall>(root, len, entries);
                measure::<Redb>(root, len, entries);
            }
            // The same process with another program in it: nothing was closed, and the locks are gone.
            panic!("{}", Command::new(&arguments[0]).arg(root).arg("recover").exec());
        }
    }
}
