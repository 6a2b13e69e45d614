//! What a backup and a restore ask etcd, see [`moving`](crate::store::etcd::moving).

use std::path::Path;
use std::time::Duration;

use smol::{Timer, block_on};

use crate::etcd::message::{Bytes, Effect, KeyValue, RangeRequest, TxnRequest};
use crate::etcd::{Ask, Error, Etcd, Lease};
use crate::store::disk::{BackupError, Part, Progress, StoreCount, Writer, read_backup};
use crate::store::etcd::layout::{
    self, Layout, Of, claim_key, is_id, last_revision, name_key, name_keys, read_value, restorer_key,
    unescaped,
};
use crate::store::etcd::moving::{
    EtcdBackupError, EtcdRestore, Found, HOLDERS_COMPARED, Plan, Planned, Transactions, by_ids, compare,
    summed,
};

/// How long a transaction of a restore is tried at all members: an etcd that has lost its leader has another by then.
const PATIENCE: Duration = Duration::from_secs(60);
/// The lease that says that a restore goes on.
const LEASE: Duration = Duration::from_secs(10);
/// It is looked so often, and with such a pause, whether a kvnode takes the names of a store that is to be deleted: for longer than the lease of a holder
/// lasts (`program/candidacy.rs`), so that one which was cut off from etcd has lost what it held, or is back and has it again.
const LOOKS: u32 = 20;
const BETWEEN_LOOKS: Duration = Duration::from_millis(250);
/// Keys that one transaction deletes. etcd does nothing else meanwhile.
const DELETED_AT_ONCE: usize = 1000;
/// Entries between two tellings of how far a restore is.
const TELL_EVERY: u64 = 256;

type Result<T> = std::result::Result<T, EtcdBackupError>;

/// See [`EtcdEngine::backup`](crate::store::EtcdEngine::backup).
pub(in crate::store::etcd) fn backup(
    etcd: &Etcd,
    prefix: &str,
    file: &Path,
    progress: Progress<'_>,
) -> Result<(Vec<StoreCount>, u64)> {
    // The file first: what is there already needs no etcd to be found out.
    let mut writer = Writer::create(file)?;
    let (names, revision) = names(etcd, prefix)?;
    if get(etcd, claim_key(prefix), revision)?.is_some() {
        return Err(EtcdBackupError::Restoring { prefix: prefix.to_owned() });
    }
    let stores: Vec<(Layout, Vec<String>)> =
        by_ids(names).into_iter().map(|(id, names)| (Layout::new(prefix, &id, 0), names)).collect();
    if stores.is_empty() {
        return Err(EtcdBackupError::NoStore { prefix: prefix.to_owned() });
    }
    let (mut all, mut done) = (0, 0);
    for (layout, _) in &stores {
        all += count(etcd, layout, revision)?;
    }
    for (layout, names) in &stores {
        writer.add(&Part::Store(names, last_revision(revision)))?;
        let unreadable = |kv: &KeyValue, what: &str| EtcdBackupError::Unreadable {
            store: names.join(", "),
            what: format!(
                "the key {} in etcd {what}: no backup was made. Where another program has put it there, delete it by etcdctl",
                kv.key.escape_ascii()
            ),
        };
        each(etcd, layout.notes(), revision, |kv| match layout.read(&kv.key) {
            Of::Note(name) => match str::from_utf8(name) {
                Ok(name) => Ok(writer.add(&Part::Note(name, &kv.value))?),
                Err(_) => Err(unreadable(kv, "is no note of a kvnode")),
            },
            _ => Ok(()),
        })?;
        each(etcd, layout.entries(), revision, |kv| {
            let Of::Entry(key) = layout.read(&kv.key) else { return Ok(()) };
            let value = read_value(key, kv).ok_or_else(|| unreadable(kv, "is no entry of a kvnode"))?;
            writer.add(&Part::Entry(key, value))?;
            done += 1;
            if done % TELL_EVERY == 0 && !progress(done, all) {
                return Err(BackupError::Stopped.into());
            }
            Ok(())
        })?;
    }
    let stores = writer.finish()?;
    progress(all, all);
    Ok((stores, revision.max(0) as u64))
}

/// The names of stores with their ids, and the revision of etcd.
fn names(etcd: &Etcd, prefix: &str) -> Result<(Vec<(String, String)>, i64)> {
    let ((key, range_end), mut names) = (name_keys(prefix), Vec::new());
    let begins = key.len();
    // The newest that any process was answered for.
    let now = RangeRequest { key: key.clone(), count_only: true, ..RangeRequest::default() };
    let revision = block_on(etcd.call(&now))?.header.map_or(0, |header| header.revision);
    each(etcd, (key, range_end), revision, |kv| {
        // What is no id could be of keys that are no store's.
        let read = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).ok().filter(|id| is_id(id));
        match (unescaped(kv.key.get(begins..).unwrap_or_default()), read(&kv.value)) {
            (Some(name), Some(id)) => names.push((name, id)),
            _ => {
                let what = format!("the key {} is no name of a store", kv.key.escape_ascii());
                return Err(EtcdBackupError::Unreadable { store: prefix.to_owned(), what });
            }
        }
        Ok(())
    })?;
    Ok((names, revision))
}

/// Shows each entry of a range at a revision.
fn each(
    etcd: &Etcd,
    (key, range_end): (Bytes, Bytes),
    revision: i64,
    mut show: impl FnMut(&KeyValue) -> Result<()>,
) -> Result<()> {
    let mut pages = etcd.pages(RangeRequest { key, range_end, revision, ..RangeRequest::default() });
    while let Some(page) = block_on(pages.next())? {
        page.iter().try_for_each(&mut show)?;
    }
    Ok(())
}

/// A key as it was at a revision; 0: as it is.
fn get(etcd: &Etcd, key: Bytes, revision: i64) -> Result<Option<KeyValue>> {
    let found = block_on(etcd.call(&RangeRequest { key, revision, ..RangeRequest::default() }))?;
    Ok(found.kvs.into_iter().next())
}

/// Entries of a store at a revision; 0: as they are.
fn count(etcd: &Etcd, layout: &Layout, revision: i64) -> Result<u64> {
    let (key, range_end) = layout.entries();
    let range = RangeRequest { key, range_end, revision, count_only: true, ..RangeRequest::default() };
    Ok(u64::try_from(block_on(etcd.call(&range))?.count).unwrap_or(0))
}

/// See [`EtcdEngine::restore`](crate::store::EtcdEngine::restore).
pub(in crate::store::etcd) fn restore(
    etcd: &Etcd,
    prefix: &str,
    file: &Path,
    restore: &EtcdRestore<'_>,
    progress: Progress<'_>,
) -> Result<Vec<StoreCount>> {
    // A third of the way is to check it.
    let (plan, found) =
        read_plan(etcd, prefix, file, restore, &mut |done, all| progress(done, all.saturating_mul(3)))?;
    let claimed = Claimed::claim(etcd, prefix, restore.force)?;
    let transactions = claimed.transactions;
    let restored =
        fill(etcd, prefix, file, (&plan, &found), transactions, &mut |done, all| progress(done, all));
    restored.map_err(interrupted)?;
    // Its key is gone already.
    let _ = block_on(claimed.lease.revoke());
    progress(1, 1);
    let stores = plan.stores.into_iter().zip(found);
    Ok(stores.map(|(store, found)| StoreCount { names: store.names, ..found }).collect())
}

/// The error of a restore whose claim stands.
fn interrupted(error: EtcdBackupError) -> EtcdBackupError {
    match error {
        EtcdBackupError::Etcd(error) => EtcdBackupError::Interrupted(error),
        error => error,
    }
}

/// Writes all of a backup below a prefix that is claimed, and gives the claim back.
fn fill(
    etcd: &Etcd,
    prefix: &str,
    file: &Path,
    (plan, found): (&Plan, &[StoreCount]),
    mut transactions: Transactions,
    progress: Progress<'_>,
) -> Result<()> {
    let (mut at, mut refused, mut done, all) = (0, None, 0_u64, summed(found));
    let send = |request: Option<TxnRequest>| match request {
        Some(request) => sent(etcd, prefix, &request),
        None => Ok(()),
    };
    let mut write = |part: Part<'_>| -> Result<()> {
        match part {
            Part::Store(..) => {
                at += 1;
                let store = planned(plan, at, file)?;
                transactions.names(store).into_iter().try_for_each(|request| send(Some(request)))?;
                store.notes.iter().try_for_each(|note| send(transactions.note(store, note)))
            }
            // Those that are kept are written already.
            Part::Note(..) => Ok(()),
            Part::Entry(key, value) => {
                let store = planned(plan, at, file)?;
                send(transactions.entry(store, key, value))?;
                done += 1;
                if done % TELL_EVERY == 0 && !progress(all + done * 2, all.saturating_mul(3)) {
                    return Err(BackupError::Stopped.into());
                }
                Ok(())
            }
        }
    };
    let again = read_backup(
        file,
        &mut |part| {
            write(part).map_err(|error| {
                refused = Some(error);
                BackupError::Stopped
            })
        },
        &mut |_, _| true,
    );
    if let Some(error) = refused.take() {
        return Err(error);
    }
    if again? != *found {
        return Err(changed(file));
    }
    send(transactions.rest())?;
    let counts = plan.stores.iter().map(|store| count(etcd, &store.layout, 0)).collect::<Result<Vec<_>>>()?;
    compare(&plan.stores, &counts)?;
    end(etcd, prefix, &transactions.end())
}

/// The store of a backup that is read the second time.
fn planned<'a>(plan: &'a Plan, at: usize, file: &Path) -> Result<&'a Planned> {
    at.checked_sub(1).and_then(|at| plan.stores.get(at)).ok_or_else(|| changed(file))
}

fn changed(file: &Path) -> EtcdBackupError {
    BackupError::Damaged { file: file.into(), what: "it changed while it was read".into() }.into()
}

/// Reads the file to its end, and looks whether etcd takes what is in it.
fn read_plan(
    etcd: &Etcd,
    prefix: &str,
    file: &Path,
    restore: &EtcdRestore<'_>,
    progress: Progress<'_>,
) -> Result<(Plan, Vec<StoreCount>)> {
    let (mut plan, mut refused) = (Plan::new(prefix, etcd.request_bytes_max()), None);
    let found = read_backup(
        file,
        &mut |part| {
            match part {
                Part::Store(names, _) => plan.begin((restore.names)(names)).map_err(|error| {
                    refused = Some(error);
                    BackupError::Stopped
                })?,
                Part::Note(name, note) => plan.note(name, note),
                Part::Entry(key, value) => plan.entry(key, &value),
            }
            Ok(())
        },
        progress,
    );
    if let Some(error) = refused.take() {
        return Err(error);
    }
    let found = found?;
    plan.close()?;
    for store in &mut plan.stores {
        let notes = std::mem::take(&mut store.notes);
        store.notes = (restore.notes)(notes)
            .map_err(|what| EtcdBackupError::Unreadable { store: store.names.join(", "), what })?;
    }
    Ok((plan, found))
}

/// A prefix that is ours alone, with nothing in it.
struct Claimed {
    transactions: Transactions,
    lease: Lease,
}

impl Claimed {
    fn claim(etcd: &Etcd, prefix: &str, force: bool) -> Result<Self> {
        let found = match get(etcd, claim_key(prefix), 0)? {
            Some(_) if get(etcd, restorer_key(prefix), 0)?.is_some() => {
                return Err(EtcdBackupError::Restoring { prefix: prefix.to_owned() });
            }
            // What an interrupted one has left.
            Some(claim) => Some(Found { claim: claim.mod_revision, ..stores_alone(etcd, prefix)? }),
            None if is_empty(etcd, prefix)? => None,
            None => Some(may_be_emptied(etcd, prefix, force)?),
        };
        let mut token = [0; 16];
        getrandom::fill(&mut token).map_err(|error| Error::Unavailable {
            reason: format!("no random number is to be had: {error}"),
        })?;
        let token: Bytes = token.iter().map(|byte| format!("{byte:02x}")).collect::<String>().into();
        let lease = block_on(etcd.lease(LEASE))?;
        let transactions = Transactions::new(prefix, token.clone());
        let request = transactions.claim(lease.id(), found.as_ref());
        let ask = Ask { effect: Some(Effect::Guarded), ..Ask::default() };
        // What is there tells whether it was done.
        match block_on(etcd.call_with(&request, ask)) {
            Ok(_) | Err(Error::Unknown { .. }) => {}
            Err(error) => return Err(error.into()),
        }
        if get(etcd, claim_key(prefix), 0)?.is_none_or(|claim| claim.value != token) {
            // Another process was faster.
            let _ = block_on(lease.revoke());
            return Err(why_not_claimed(etcd, prefix));
        }
        let (was_claimed, stores) =
            found.map_or((false, Vec::new()), |found| (found.claim != 0, found.stores));
        let mut further = stores.iter().skip(HOLDERS_COMPARED);
        let further = further.try_for_each(|store| {
            let id = store.id();
            held(etcd, store, &String::from_utf8_lossy(&id))
        });
        if let Err(error) = further {
            // What an interrupted one has left stays closed.
            if !was_claimed {
                end(etcd, prefix, &transactions.end())?;
            }
            let _ = block_on(lease.revoke());
            return Err(error);
        }
        empty(etcd, prefix, &transactions, &stores).map_err(interrupted)?;
        Ok(Self { transactions, lease })
    }
}

/// Why a prefix is not ours.
fn why_not_claimed(etcd: &Etcd, prefix: &str) -> EtcdBackupError {
    let prefix_of = || prefix.to_owned();
    let found = || -> Result<EtcdBackupError> {
        if get(etcd, claim_key(prefix), 0)?.is_some() {
            return Ok(EtcdBackupError::Restoring { prefix: prefix_of() });
        }
        nobody_holds(etcd, prefix, &names(etcd, prefix)?.0)?;
        Ok(EtcdBackupError::Changed { prefix: prefix_of() })
    };
    found().unwrap_or_else(|error| error)
}

/// Deletes stores below a prefix that is claimed, some keys at a time.
fn empty(etcd: &Etcd, prefix: &str, transactions: &Transactions, stores: &[Layout]) -> Result<()> {
    let send = |request: &TxnRequest| sent(etcd, prefix, request);
    // Nobody writes an entry behind the place that has been reached.
    transactions.marks(stores).iter().try_for_each(send)?;
    for store in stores {
        let (mut key, range_end) = store.entries();
        while let Some(behind) = empty_from(etcd, (key, range_end.clone()), |first, last| {
            send(&transactions.entries(first, last))
        })? {
            key = behind;
        }
    }
    transactions.empty(stores).iter().try_for_each(send)
}

/// Shows the first and the last key of parts of a range. Gives where it has to go on, if the revision of its pages is compacted meanwhile.
fn empty_from(
    etcd: &Etcd,
    (mut key, range_end): (Bytes, Bytes),
    mut show: impl FnMut(&Bytes, &Bytes) -> Result<()>,
) -> Result<Option<Bytes>> {
    let range = RangeRequest { key: key.clone(), range_end, keys_only: true, ..RangeRequest::default() };
    let mut pages = etcd.pages(range);
    loop {
        let page = match block_on(pages.next()) {
            Ok(Some(page)) => page,
            Ok(None) => return Ok(None),
            Err(Error::Compacted { .. }) => return Ok(Some(key)),
            Err(error) => return Err(error.into()),
        };
        for part in page.chunks(DELETED_AT_ONCE) {
            if let (Some(first), Some(last)) = (part.first(), part.last()) {
                show(&first.key, &last.key)?;
                key = [&last.key, &[0][..]].concat().into();
            }
        }
    }
}

fn is_empty(etcd: &Etcd, prefix: &str) -> Result<bool> {
    let (key, range_end) = layout::below(prefix);
    let range = RangeRequest { key, range_end, count_only: true, ..RangeRequest::default() };
    Ok(block_on(etcd.call(&range))?.count == 0)
}

/// The stores below a prefix, if what is there may be deleted.
fn may_be_emptied(etcd: &Etcd, prefix: &str, force: bool) -> Result<Found> {
    let (names, _) = names(etcd, prefix)?;
    if !force {
        let stores = names.into_iter().map(|(name, _)| name).collect();
        return Err(EtcdBackupError::NotEmpty { prefix: prefix.to_owned(), stores });
    }
    nobody_holds(etcd, prefix, &names)?;
    for _ in 0..LOOKS {
        block_on(Timer::after(BETWEEN_LOOKS));
        nobody_holds(etcd, prefix, &names)?;
    }
    stores_alone(etcd, prefix)
}

/// # Errors
/// A kvnode holds one of these stores: [`EtcdBackupError::Held`].
fn nobody_holds(etcd: &Etcd, prefix: &str, names: &[(String, String)]) -> Result<()> {
    names.iter().try_for_each(|(name, id)| held(etcd, &Layout::new(prefix, id, 0), name))
}

fn held(etcd: &Etcd, layout: &Layout, store: &str) -> Result<()> {
    let Some(holder) = get(etcd, layout.holder(), 0)? else { return Ok(()) };
    let holder = String::from_utf8_lossy(&holder.value).into_owned();
    Err(EtcdBackupError::Held { store: store.to_owned(), holder })
}

/// The stores below a prefix, where nothing else is there: another program has its keys there, or kvnodes that elect a primary.
fn stores_alone(etcd: &Etcd, prefix: &str) -> Result<Found> {
    let (names, revision) = names(etcd, prefix)?;
    let stores: Vec<Layout> = by_ids(names).into_iter().map(|(id, _)| Layout::new(prefix, &id, 0)).collect();
    let ours = [claim_key(prefix), restorer_key(prefix)];
    let all_names = name_key(prefix, "");
    let is_stored = |key: &[u8]| stores.iter().any(|store| store.has(key));
    let (key, range_end) = layout::below(prefix);
    let mut pages = etcd.pages(RangeRequest { key, range_end, keys_only: true, ..RangeRequest::default() });
    while let Some(page) = block_on(pages.next())? {
        let strange = page
            .iter()
            .map(|kv| &kv.key)
            .find(|key| !ours.contains(key) && !key.starts_with(&all_names) && !is_stored(key));
        if let Some(key) = strange {
            let (prefix, key) = (prefix.to_owned(), key.escape_ascii().to_string());
            return Err(EtcdBackupError::Foreign { prefix, key });
        }
    }
    Ok(Found { claim: 0, revision, stores })
}

/// Has a transaction done. Done twice it is as done once: its keys are the claim's alone, which is its condition.
fn sent(etcd: &Etcd, prefix: &str, request: &TxnRequest) -> Result<()> {
    let ask = Ask { deadline: Some(PATIENCE), effect: Some(Effect::Idempotent) };
    match block_on(etcd.call_with(request, ask))?.succeeded {
        true => Ok(()),
        false => Err(EtcdBackupError::TakenOver { prefix: prefix.to_owned() }),
    }
}

/// Gives the claim back. The first try may have done it, and its answer be lost.
fn end(etcd: &Etcd, prefix: &str, request: &TxnRequest) -> Result<()> {
    let ended = sent(etcd, prefix, request);
    match ended {
        Err(EtcdBackupError::TakenOver { .. }) if get(etcd, claim_key(prefix), 0)?.is_none() => Ok(()),
        ended => ended,
    }
}
