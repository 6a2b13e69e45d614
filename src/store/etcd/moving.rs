//! Backups of all stores below a prefix, and their restore.
//!
//! ```text
//! backup    names, then each store's notes and entries, in pages of one revision of etcd -> the file (`store/disk/backup.rs`)
//! restore   the file is checked -> nobody serves the prefix -> it is claimed -> emptied -> transactions of many keys -> all is counted -> the claim goes
//! ```
//!
//! The claim is a key (`layout`) with a random number: each transaction of the restore has it as a condition, so that of two restores one ends, and
//! what is on its way when a restore ends is not done later. No store below the prefix is opened while the claim is there. So a
//! restore is there as a whole, or not for any kvnode. A key with a lease says that the process which claimed lives: where it is gone the next
//! restore takes the claim over, and deletes what is there.
//!
//! What is there already is deleted where no kvnode serves it. A kvnode that does holds the stores' names; one that was cut off from etcd may have lost them,
//! and takes them again when it is back: so the restore looks for as long as a holder's lease lasts, and claims the prefix in a transaction that
//! finds no holder, and no name of a store that is new since. From then on no kvnode takes names (`program/holder/at_etcd.rs`). The marks of writers
//! go first, and no writer makes another while the claim is there (`batch`): a kvnode that was stopped all the time, and goes on
//! now, writes nothing into what is restored.
//!
//! This has what is decided; `shell::moving` asks etcd and reads the file.

use std::fmt;
use std::mem;

use super::batch::{BATCH_BYTES, Bounds, OPERATION_BYTES, OPERATIONS_MAX, delete, is_at};
use super::layout::{self, Layout, PLACES_MAX, claim_key, escaped, name_key, name_keys, restorer_key};
use crate::etcd::Error;
use crate::etcd::message::{Bytes, Compare, CompareResult, Compared, Op, PutRequest, RequestOp, TxnRequest};
use crate::store::Value;
use crate::store::disk::{BackupError, StoreCount};

const _: () = assert!(OPERATIONS_MAX <= PLACES_MAX, "each entry of a transaction has a place of its own");

/// Entries that are too large, of which the keys are told.
const TOLD_MAX: usize = 10;

/// How a backup is restored into an etcd. The caller decides which names and notes a store keeps.
pub struct EtcdRestore<'a> {
    /// What is below the prefix is deleted; without it something there is refused.
    pub force: bool,
    /// By which of its names a store is found in etcd.
    pub names: &'a dyn Fn(&[String]) -> Vec<String>,
    /// What is kept of the notes of a store, each a name and what it says.
    ///
    /// # Errors
    /// They cannot be read, or say that the store is none to be restored: why.
    pub notes: &'a dyn Fn(Vec<Note>) -> Result<Vec<Note>, String>,
}

/// A note's name, and what it says.
pub type Note = (String, Vec<u8>);

impl fmt::Debug for EtcdRestore<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EtcdRestore").field("force", &self.force).finish_non_exhaustive()
    }
}

/// An entry that is larger than etcd takes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TooLarge {
    /// The store's names.
    pub store: String,
    /// The key, an encoded term.
    pub key: Vec<u8>,
    /// Bytes of key and value.
    pub bytes: u64,
}

/// Why the stores of an etcd were not backed up, or not restored.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum EtcdBackupError {
    /// The file: it is there, damaged, or the system refuses.
    File(BackupError),
    /// etcd: away, out of space, or not to be used so.
    Etcd(Error),
    /// etcd failed behind the restore's claim of the prefix.
    Interrupted(Error),
    /// The revision that was being read is compacted: it took longer than etcd remembers.
    Compacted,
    /// There is no store below the prefix.
    NoStore {
        /// The prefix.
        prefix: String,
    },
    /// There is something below the prefix already.
    NotEmpty {
        /// The prefix.
        prefix: String,
        /// The names of stores there.
        stores: Vec<String>,
    },
    /// A kvnode serves a store below the prefix.
    Held {
        /// The store's name.
        store: String,
        /// What says so, as it stands in etcd: its node stands last.
        holder: String,
    },
    /// A kvnode has made a store below the prefix just now.
    Changed {
        /// The prefix.
        prefix: String,
    },
    /// There is something else than stores below the prefix.
    Foreign {
        /// The prefix.
        prefix: String,
        /// A key of it.
        key: String,
    },
    /// A restore of these stores goes on, or was interrupted.
    Restoring {
        /// The prefix.
        prefix: String,
    },
    /// Another restore has taken this one's place.
    TakenOver {
        /// The prefix.
        prefix: String,
    },
    /// Entries are larger than etcd takes.
    TooLarge {
        /// The first of them, ten at most.
        first: Vec<TooLarge>,
        /// How many there are.
        count: u64,
        /// Bytes that key and value may have, about.
        bytes_max: u64,
    },
    /// Something in etcd, or in the file, is not what a kvnode writes there.
    Unreadable {
        /// The store's names, or its prefix.
        store: String,
        /// What is known of it.
        what: String,
    },
    /// etcd has other entries than were written: another program has changed them.
    Differs {
        /// The store's names.
        store: String,
        /// Entries in etcd.
        found: u64,
        /// Entries of the backup.
        wanted: u64,
    },
}

impl From<BackupError> for EtcdBackupError {
    fn from(error: BackupError) -> Self {
        Self::File(error)
    }
}

impl From<Error> for EtcdBackupError {
    fn from(error: Error) -> Self {
        match error {
            Error::Compacted { .. } => Self::Compacted,
            error => Self::Etcd(error),
        }
    }
}

impl fmt::Display for EtcdBackupError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(error) => error.fmt(f),
            Self::Etcd(error) => error.fmt(f),
            Self::Interrupted(error) => write!(
                f,
                "{error}. The restore has not come to its end, and no kvnode opens what is there: run it again"
            ),
            Self::Compacted => f.write_str(
                "etcd has compacted the revision that was being read, as the backup took longer than its history is kept: try again \
                 at a quieter time, or have more of it kept (--etcd-compact of the kvnodes)",
            ),
            Self::NoStore { prefix } => {
                write!(f, "there is no store below {prefix}/ in this etcd; --etcd-prefix says another prefix")
            }
            Self::NotEmpty { prefix, stores } => write!(
                f,
                "there is something below {prefix}/ in this etcd already{}, and nothing was changed: choose another --etcd-prefix, or \
                 have it deleted first by --force",
                if stores.is_empty() { String::new() } else { format!(" (the stores {})", stores.join(", ")) }
            ),
            Self::Held { store, holder } => write!(
                f,
                "a kvnode serves the store {store} ({}), and nothing was changed: end all kvnodes of this etcd and prefix first",
                holder.rsplit(' ').next().unwrap_or_default()
            ),
            Self::Changed { prefix } => write!(
                f,
                "somebody has written below {prefix}/ in this etcd just now, and nothing was changed: end all kvnodes of this etcd and prefix, \
                 and run it again"
            ),
            Self::Foreign { prefix, key } => write!(
                f,
                "there is more than stores below {prefix}/ in this etcd, as {key}, and nothing was changed: kvnodes elect a primary there \
                 (--elect) or have a prefix that begins so, or another program uses it. Choose another --etcd-prefix"
            ),
            Self::Restoring { prefix } => write!(
                f,
                "a restore of the stores below {prefix}/ goes on, or was interrupted a moment ago: wait for its end, or try again in ten \
                 seconds"
            ),
            Self::TakenOver { prefix } => write!(
                f,
                "another restore has begun anew below {prefix}/, and this one has ended: what is there is the other's"
            ),
            Self::TooLarge { count, bytes_max, .. } => write!(
                f,
                "{count} of the entries {} larger than etcd takes, which is {bytes_max} bytes of key and value, and nothing was changed",
                if *count == 1 { "is" } else { "are" }
            ),
            Self::Unreadable { store, what } => write!(f, "{store}: {what}"),
            Self::Differs { store, found, wanted } => write!(
                f,
                "the store {store} has {found} entries in etcd, and its backup has {wanted}: another program has changed them meanwhile. No \
                 kvnode opens it; run the restore again"
            ),
        }
    }
}

impl std::error::Error for EtcdBackupError {}

/// A store of a backup, as it is to be in etcd.
pub(super) struct Planned {
    pub names: Vec<String>,
    pub layout: Layout,
    pub notes: Vec<Note>,
    pub entries: u64,
}

/// What is to be restored, found by reading the file once.
pub(super) struct Plan {
    prefix: String,
    bounds: Bounds,
    pub stores: Vec<Planned>,
    too_large: Vec<TooLarge>,
    too_large_count: u64,
    bytes_max: u64,
}

impl Plan {
    /// For requests of so many bytes.
    pub fn new(prefix: &str, request_bytes_max: usize) -> Self {
        let bounds = Bounds::new(request_bytes_max);
        let (stores, too_large) = Default::default();
        Self { prefix: prefix.to_owned(), bounds, stores, too_large, too_large_count: 0, bytes_max: u64::MAX }
    }

    /// A store begins, which is found by these names.
    pub fn begin(&mut self, names: Vec<String>) -> Result<(), EtcdBackupError> {
        let unreadable = |store: &str, what: &str| {
            Err(EtcdBackupError::Unreadable { store: store.to_owned(), what: what.to_owned() })
        };
        let Some(first) = names.first() else { return unreadable(&self.prefix, "a store has no name") };
        let known = self.stores.iter().flat_map(|store| &store.names);
        if let Some(name) = known.into_iter().find(|name| names.contains(name)) {
            return unreadable(name, "two stores of the backup would have this name in etcd");
        }
        let layout = Layout::new(&self.prefix, &escaped(first), 0);
        self.stores.push(Planned { names, layout, notes: Vec::new(), entries: 0 });
        Ok(())
    }

    /// A note of the store that has begun.
    pub fn note(&mut self, name: &str, note: &[u8]) {
        if let Some(store) = self.stores.last_mut() {
            store.notes.push((name.to_owned(), note.to_vec()));
        }
    }

    /// An entry of that store.
    pub fn entry(&mut self, key: &[u8], value: &Value<'_>) {
        let Some(store) = self.stores.last_mut() else { return };
        store.entries += 1;
        let (bytes, most) = (key.len() + value.bytes.len(), self.bounds.bytes_max(&store.layout, 1));
        if bytes > most {
            self.too_large_count += 1;
            self.bytes_max = self.bytes_max.min(most as u64);
            if self.too_large.len() < TOLD_MAX {
                let store = store.names.join(", ");
                self.too_large.push(TooLarge { store, key: key.to_vec(), bytes: bytes as u64 });
            }
        }
    }

    /// All has been read: whether etcd takes it.
    pub fn close(&mut self) -> Result<(), EtcdBackupError> {
        if self.too_large_count == 0 {
            return Ok(());
        }
        let (first, count) = (mem::take(&mut self.too_large), self.too_large_count);
        Err(EtcdBackupError::TooLarge { first, count, bytes_max: self.bytes_max })
    }
}

/// Something below a prefix, as it was found before a restore.
pub(super) struct Found {
    /// The revision of the claim that is there; 0: there is none.
    pub claim: i64,
    /// The revision of etcd at which the names of the stores were read.
    pub revision: i64,
    pub stores: Vec<Layout>,
}

/// Holders that a claim compares: those of further stores are looked at behind it.
pub(super) const HOLDERS_COMPARED: usize = OPERATIONS_MAX - 2;

/// Transactions of a restore, as they fill up.
pub(super) struct Transactions {
    prefix: String,
    token: Bytes,
    puts: Vec<RequestOp>,
    bytes: usize,
}

impl Transactions {
    /// Of the restore that has the claim by this number.
    pub fn new(prefix: &str, token: Bytes) -> Self {
        Self { prefix: prefix.to_owned(), token, puts: Vec::new(), bytes: 0 }
    }

    /// The condition of all of them.
    fn claimed(&self) -> Compare {
        Compare::new(claim_key(&self.prefix), CompareResult::Equal, Compared::Value(self.token.clone()))
    }

    fn of(&self, success: Vec<RequestOp>) -> TxnRequest {
        TxnRequest { compare: vec![self.claimed()], success, failure: Vec::new() }
    }

    /// Claims the prefix for a process with this lease, if it is as it was found and nobody holds a store there. `None`: the prefix is empty.
    pub fn claim(&self, lease: i64, found: Option<&Found>) -> TxnRequest {
        let as_found = match found {
            Some(found) => {
                // Of all keys of the range.
                let (key, range_end) = name_keys(&self.prefix);
                let later = Compared::ModRevision(found.revision.saturating_add(1));
                let names = Compare { range_end, ..Compare::new(key, CompareResult::Less, later) };
                let holders =
                    found.stores.iter().take(HOLDERS_COMPARED).map(|store| is_at(store.holder(), 0));
                [is_at(claim_key(&self.prefix), found.claim), names].into_iter().chain(holders).collect()
            }
            // There are none.
            None => {
                let (key, range_end) = layout::below(&self.prefix);
                vec![Compare { range_end, ..Compare::is_absent(key) }]
            }
        };
        let put = |key, value, lease| Op::Put(PutRequest { key, value, lease, ..PutRequest::default() });
        let puts = [
            put(claim_key(&self.prefix), self.token.clone(), 0),
            put(restorer_key(&self.prefix), self.token.clone(), lease),
        ];
        TxnRequest { compare: as_found, success: puts.map(Into::into).to_vec(), failure: Vec::new() }
    }

    /// Deletes the marks of all writers of these stores: none of them writes behind that.
    pub fn marks(&self, stores: &[Layout]) -> Vec<TxnRequest> {
        self.deletes(stores.iter().map(Layout::marks))
    }

    /// Deletes what lies between two keys of one store, both of them too.
    pub fn entries(&self, first: &Bytes, last: &Bytes) -> TxnRequest {
        self.of(vec![delete((first.clone(), [last, &[0][..]].concat().into())).into()])
    }

    /// Deletes the rest of these stores, whose entries have gone, and the names of all stores last: until then it is known which these were.
    pub fn empty(&self, stores: &[Layout]) -> Vec<TxnRequest> {
        let parts = |store: &Layout| {
            let single = store.single_keys().map(|key| (key, Bytes::new()));
            [store.notes(), store.marks()].into_iter().chain(single)
        };
        self.deletes(stores.iter().flat_map(parts).chain([name_keys(&self.prefix)]))
    }

    fn deletes(&self, ranges: impl Iterator<Item = (Bytes, Bytes)>) -> Vec<TxnRequest> {
        let deletes: Vec<RequestOp> = ranges.map(|range| delete(range).into()).collect();
        deletes.chunks(OPERATIONS_MAX).map(|some| self.of(some.to_vec())).collect()
    }

    /// A store is found by these names.
    pub fn names(&mut self, store: &Planned) -> Vec<TxnRequest> {
        let id = store.layout.id();
        store.names.iter().filter_map(|name| self.put(name_key(&self.prefix, name), id.clone())).collect()
    }

    /// A note of a store.
    pub fn note(&mut self, store: &Planned, (name, note): &Note) -> Option<TxnRequest> {
        self.put(store.layout.note(name.as_bytes()), note.clone().into())
    }

    /// An entry of a store. Its revision is etcd's, and it was brought by no copy of a primary.
    pub fn entry(&mut self, store: &Planned, key: &[u8], value: Value<'_>) -> Option<TxnRequest> {
        let (key, len) = (store.layout.entry(key), value.bytes.len());
        // The transaction before goes first: the place is that in the one that the entry comes into.
        let full = self.take_if_full(key.len() + len);
        let place = self.puts.len() as u64;
        self.push(key, layout::write_value(&Value { copy: 0, ..value }, place));
        full
    }

    /// Adds a key. Gives the transaction that is full, where it does not fit any more.
    fn put(&mut self, key: Bytes, value: Bytes) -> Option<TxnRequest> {
        let full = self.take_if_full(key.len() + value.len());
        self.push(key, value);
        full
    }

    fn push(&mut self, key: Bytes, value: Bytes) {
        self.bytes += key.len() + value.len() + OPERATION_BYTES;
        self.puts.push(Op::Put(PutRequest { key, value, ..PutRequest::default() }).into());
    }

    fn take_if_full(&mut self, bytes: usize) -> Option<TxnRequest> {
        let is_full = self.puts.len() >= OPERATIONS_MAX || self.bytes + bytes > BATCH_BYTES;
        (is_full && !self.puts.is_empty()).then(|| self.take())
    }

    /// Those that wait.
    pub fn rest(&mut self) -> Option<TxnRequest> {
        (!self.puts.is_empty()).then(|| self.take())
    }

    fn take(&mut self) -> TxnRequest {
        self.bytes = 0;
        let puts = mem::take(&mut self.puts);
        self.of(puts)
    }

    /// The restore is whole: its stores can be opened.
    pub fn end(&self) -> TxnRequest {
        let keys = [claim_key(&self.prefix), restorer_key(&self.prefix)];
        self.of(keys.map(|key| delete((key, Bytes::new())).into()).to_vec())
    }
}

/// Compares what a store of a backup is to have with what there is of it in etcd.
pub(super) fn compare(stores: &[Planned], found: &[u64]) -> Result<(), EtcdBackupError> {
    let differs = stores.iter().zip(found).find(|(store, found)| store.entries != **found);
    differs.map_or(Ok(()), |(store, &found)| {
        Err(EtcdBackupError::Differs { store: store.names.join(", "), found, wanted: store.entries })
    })
}

/// The names of all stores by their ids, the name that the id was made of first: a store that is restored by these has this id again.
pub(super) fn by_ids(names: Vec<(String, String)>) -> Vec<(String, Vec<String>)> {
    let mut found: Vec<(String, Vec<String>)> = Vec::new();
    for (name, id) in names {
        match found.iter_mut().find(|(known, _)| *known == id) {
            Some((_, names)) if escaped(&name) == id => names.insert(0, name),
            Some((_, names)) => names.push(name),
            None => found.push((id, vec![name])),
        }
    }
    found
}

/// What stores hold, entry by entry, as they are written.
pub(super) fn summed(stores: &[StoreCount]) -> u64 {
    stores.iter().map(|store| store.entries).sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::etf::Traits;

    fn plan(request_bytes_max: usize) -> Plan {
        let mut plan = Plan::new("p", request_bytes_max);
        plan.begin(vec!["global:kv".into(), "global:b".into()]).unwrap();
        plan
    }

    fn value(bytes: &[u8]) -> Value<'_> {
        Value::of(bytes, Traits::none())
    }

    #[test]
    fn transactions_are_full_by_operations_and_by_bytes_and_leave_nothing_out() {
        let mut plan = plan(3 << 19);
        let (small, large) = (vec![7; 10], vec![7; 300_000]);
        let entries: Vec<(Vec<u8>, &[u8])> = (0..1000_u32)
            .map(|n| (n.to_be_bytes().to_vec(), if n % 100 == 0 { &large[..] } else { &small[..] }))
            .collect();
        entries.iter().for_each(|(key, bytes)| plan.entry(key, &value(bytes)));
        assert_eq!(plan.close(), Ok(()));
        let store = &plan.stores[0];
        let mut transactions = Transactions::new("p", Bytes::from_static(b"token"));
        let mut sent = transactions.names(store);
        sent.extend(transactions.note(store, &("n".into(), vec![1])));
        for (key, bytes) in &entries {
            sent.extend(transactions.entry(store, key, value(bytes)));
        }
        sent.extend(transactions.rest());
        assert!(transactions.rest().is_none());
        let mut keys = Vec::new();
        for request in &sent {
            assert_eq!(request.compare, vec![transactions.claimed()]);
            assert!(request.success.len() <= OPERATIONS_MAX);
            assert!(prost::Message::encoded_len(request) <= BATCH_BYTES + 300_000, "one may be larger alone");
            for op in &request.success {
                let Some(Op::Put(put)) = &op.request else { panic!("{op:?}") };
                keys.push(put.key.clone());
            }
        }
        assert_eq!(keys.len(), 1000 + 2 + 1);
        assert_eq!(
            &keys[..3],
            ["p/=names/global:kv", "p/=names/global:b", "p/global:kv/n/n"].map(Bytes::from)
        );
        let wanted: Vec<Bytes> = entries.iter().map(|(key, _)| store.layout.entry(key)).collect();
        assert_eq!(keys[3..], wanted);
    }

    #[test]
    fn what_is_too_large_is_counted_and_told_and_what_fits_is_taken() {
        let mut plan = plan(4096);
        let most = plan.bounds.bytes_max(&plan.stores[0].layout, 1);
        plan.entry(b"k", &value(&vec![7; most - 1]));
        assert_eq!(plan.close(), Ok(()));
        for n in 0..12 {
            plan.entry(&[n], &value(&vec![7; most]));
        }
        let Err(EtcdBackupError::TooLarge { first, count, bytes_max }) = plan.close() else { panic!() };
        assert_eq!((first.len(), count, bytes_max), (TOLD_MAX, 12, most as u64));
        assert_eq!(
            first[9],
            TooLarge { store: "global:kv, global:b".into(), key: vec![9], bytes: most as u64 + 1 }
        );
        assert!(matches!(plan.begin(vec!["global:b".into()]), Err(EtcdBackupError::Unreadable { .. })));
        assert!(matches!(plan.begin(Vec::new()), Err(EtcdBackupError::Unreadable { .. })));
    }

    #[test]
    fn the_stores_that_are_named_are_deleted_and_nothing_else() {
        let transactions = Transactions::new("p", Bytes::from_static(b"t"));
        let stores = ["global:kv", "%3d"].map(|id| Layout::new("p", id, 0));
        let entries =
            stores.each_ref().map(|store| transactions.entries(&store.entry(b"\0"), &store.entry(b"k")));
        let sent = [transactions.marks(&stores), entries.to_vec(), transactions.empty(&stores)].concat();
        let ranges: Vec<_> = sent
            .into_iter()
            .flat_map(|request| request.success)
            .map(|op| match op.request {
                Some(Op::DeleteRange(range)) => (range.key, range.range_end),
                other => panic!("{other:?}"),
            })
            .collect();
        let deletes = |key: &str| {
            ranges.iter().any(|(from, to)| from == key || (&from[..]..&to[..]).contains(&key.as_bytes()))
        };
        for key in [
            "p/%3d/e/k",
            "p/=names/global:kv",
            "p/global:kv/h",
            "p/global:kv/w/7",
            "p/%3d/n/slaves",
            "p/%3d/c",
        ] {
            assert!(deletes(key), "{key}");
        }
        for key in ["p", "p/", "p0", "o", "p/=restoring", "p/=restorer", "p/global:kv2/e/k", "p/other", "p/~"]
        {
            assert!(!deletes(key), "{key}");
        }
        // Of a prefix that begins as a store does, and beyond the last entry that was read.
        for key in ["p/global:kv/=names/a", "p/global:kv/a/h", "p/global:kv/s/p", "p/global:kv/e/k0"] {
            assert!(!deletes(key), "{key}");
        }
        let many: Vec<Layout> = (0..500).map(|at| Layout::new("p", &format!("s{at}"), 0)).collect();
        let requests = transactions.empty(&many);
        assert!(
            requests
                .iter()
                .all(|request| request.success.len() <= OPERATIONS_MAX && request.compare.len() == 1)
        );
        assert_eq!(requests.iter().map(|request| request.success.len()).sum::<usize>(), 500 * 5 + 1);
    }

    #[test]
    fn a_claim_finds_no_holder_no_new_name_and_no_other_claim() {
        let transactions = Transactions::new("p", Bytes::from_static(b"t"));
        let stores: Vec<Layout> = (0..500).map(|at| Layout::new("p", &format!("s{at}"), 0)).collect();
        let found = Found { claim: 0, revision: 7, stores };
        let request = transactions.claim(9, Some(&found));
        assert_eq!(request.compare.len(), OPERATIONS_MAX);
        assert_eq!(request.compare[0], is_at(Bytes::from_static(b"p/=restoring"), 0));
        let names = &request.compare[1];
        assert_eq!((&names.key[..], &names.range_end[..]), (&b"p/=names/"[..], &b"p/=names0"[..]));
        assert_eq!(
            (names.result, &names.with),
            (CompareResult::Less as i32, &Some(Compared::ModRevision(8)))
        );
        assert_eq!(request.compare[2], is_at(Bytes::from_static(b"p/s0/h"), 0));
        let of_nothing = transactions.claim(9, None).compare;
        assert!(of_nothing.len() == 1 && of_nothing[0].range_end == "p0", "{of_nothing:?}");
    }

    #[test]
    fn the_first_name_of_a_store_is_that_of_its_id() {
        let names =
            [("global:a", "global:b"), ("global:b", "global:b"), ("x", "x"), ("global:c", "global:b")];
        let found = by_ids(names.map(|(name, id)| (name.to_owned(), id.to_owned())).to_vec());
        assert_eq!(found[0].1, ["global:b", "global:a", "global:c"]);
        assert_eq!(found[1], ("x".to_owned(), vec!["x".to_owned()]));
    }
}
