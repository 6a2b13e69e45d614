//! The end of a copy: it takes the place of what the store had, and what that drops is told, or kept elsewhere.

use std::sync::{Arc, Weak};

use super::said;
use crate::kv::Work;
use crate::kv::server::{KeyValueServer, with_canonical};
use crate::kv::write::{Completion, Write, Written};
use crate::process::{ProcessId, Turn};
use crate::replica::upstream::{Input, Output, Rest};
use crate::store::{Batch, Owed, ReadDone, Scan, Shows, Store, StoreError, Value, scan};

/// Keys that are looked at while the primary's writes wait.
const KEYS_AT_ONCE: usize = 1024;

/// The end of a copy that has come into the store itself, while what it has not brought is deleted.
struct DeletedRest<S> {
    server: Weak<KeyValueServer<S>>,
    store: ProcessId,
    copy: u64,
    /// What is deleted is kept elsewhere.
    export: bool,
    part: usize,
    scan: Option<Box<dyn Scan>>,
}

impl<S: Store> DeletedRest<S> {
    /// A batch. Gives whether there are more.
    fn step(&mut self) -> bool {
        let Some(server) = self.server.upgrade() else { return false };
        let (part, shows) = (self.part, if self.export { Shows::Pairs } else { Shows::Keys });
        let goes_on = if part < server.store().parts() {
            let scan = self.scan.get_or_insert_with(|| server.store().scan(Some(part), shows));
            match scan::at_once(&mut **scan) {
                Some(Ok(batch)) if batch.is_last => {
                    self.part += 1;
                    self.scan = None;
                    server.delete_foreign(self, &batch)
                }
                Some(Ok(batch)) => server.delete_foreign(self, &batch),
                failed => {
                    let error = failed.and_then(Result::err);
                    tracing::error!(store = ?self.store, ?error, "keys that the primary has not may stay: they cannot be read");
                    self.part += 1;
                    self.scan = None;
                    true
                }
            }
        } else {
            // What was taken before is with the store, and the record is kept behind it.
            let _turns = server.turns.lock();
            server.copy_is_in(self.copy, self.store);
            false
        };
        if !goes_on && self.export {
            server.dropped.lock().end();
        }
        goes_on
    }
}

impl<S: Store> KeyValueServer<S> {
    /// What was put aside takes the place of the store's entries.
    pub(super) fn swap_in(&self, copy: u64, export: bool, turn: &Turn<'_>) {
        let _turns = self.turns.lock();
        let is_it = self.upstream.with(|machine| machine.is_ending(copy));
        if is_it && let Some(with) = self.upstream.aside.lock().take() {
            let slaves = self.slaves();
            // Readers see all of it at once, and its own slaves get it whole too.
            let before = self.in_order_of_writes(|| {
                let before = self.store().replace(with);
                for slave in &slaves {
                    slave.copy_all();
                }
                before
            });
            if let Some(before) = before {
                self.report_dropped(&before, export, turn);
            }
        }
        self.copy_is_in(copy, turn.me.id);
    }

    fn copy_is_in(&self, copy: u64, store: ProcessId) {
        for output in self.upstream.hand(Input::CopyIsIn { copy }) {
            match output {
                Output::Persist { changed, .. } => self.persist(changed),
                Output::ConfirmPutOff(asked) => self.confirm_put_off(asked, store),
                Output::ReplyPutOff(answer) => self.upstream.answer_asker(&answer, &*self.dispatch),
                Output::Log(event) => said::log(&event, Some(&store)),
                _ => {}
            }
        }
    }

    /// Has deleted what the copy has not brought, batch by batch.
    pub(super) fn delete_rest(&self, copy: u64, export: bool, turn: &Turn<'_>) {
        let server = Weak::clone(&self.this);
        let mut rest = DeletedRest { server, store: turn.me.id, copy, export, part: 0, scan: None };
        let step = Box::new(move || rest.step());
        self.follow.work(Work { store: turn.me.pid.clone(), step });
    }

    /// Deletes what of a batch the copy has not brought. Gives whether the copy goes on.
    fn delete_foreign(&self, rest: &DeletedRest<S>, batch: &Batch) -> bool {
        let (mut deleted, mut goes_on) = (0_u64, true);
        let entries: Vec<_> = batch.iter().collect();
        'entries: for entries in entries.chunks(KEYS_AT_ONCE) {
            // Between what is asked of the machine and the store's having the deletion nothing comes from the primary.
            let _turns = self.turns.lock();
            for (key, value) in entries {
                let ticket = match self.upstream.with(|machine| machine.take_rest(rest.copy, key)) {
                    Rest::Stays => continue,
                    Rest::Over => {
                        goes_on = false;
                        break 'entries;
                    }
                    Rest::Goes(ticket) => ticket,
                };
                deleted += 1;
                if let Some(value) = value.filter(|_| rest.export) {
                    self.dropped.lock().keep(key, value.bytes);
                }
                // If a key stays, this store differs from the primary: the primary is told, and copies again.
                let later = || Completion::FromPrimary(Arc::clone(&self.upstream), ticket);
                if let Written::Now(result) = self.delete_apart(key, rest.store, later) {
                    self.upstream.stored(ticket, &result, &rest.store);
                }
            }
        }
        if deleted > 0 {
            tracing::warn!(store = ?rest.store, keys = deleted, "keys that the primary has not are deleted");
        }
        goes_on
    }

    /// Something comes in the place of what is there under a key, which the new primary does not have.
    pub(super) fn keep_dropped(&self, write: Write<'_>) {
        // What is no write was refused before.
        let Ok((key, value)) = write.check() else { return };
        _ = with_canonical(key, |key| self.keep_present(key, value.map(|value| value.bytes())));
    }

    fn keep_present(&self, key: &[u8], with: Option<&[u8]>) {
        let later = || -> ReadDone {
            // Asked before what comes in its place is written, and so answered with what was there.
            let dropped = Arc::clone(&self.dropped);
            dropped.lock().expect();
            let (key, with): (Box<[u8]>, Option<Box<[u8]>>) = (key.into(), with.map(Into::into));
            let came = Owed::new(move |found: Result<Option<Box<[u8]>>, StoreError>| {
                let mut dropped = dropped.lock();
                match found {
                    Ok(Some(present)) if Some(&*present) != with.as_deref() => dropped.keep(&key, &present),
                    Ok(_) => {}
                    Err(error) => {
                        tracing::error!(%error, "an entry that the new primary may not have is dropped, and cannot be read");
                    }
                }
                dropped.came();
            });
            Box::new(move |found| came.tell(found.map(|present| present.map(|present| present.bytes.into()))))
        };
        let keep = |present: Option<Value<'_>>| {
            if let Some(present) = present.filter(|present| Some(present.bytes) != with) {
                self.dropped.lock().keep(key, present.bytes);
            }
        };
        self.store().get(key, keep, later);
    }

    /// Says how much of what the store held is not in the copy that has taken its place. `keep`: that is kept elsewhere, with
    /// what is otherwise there.
    fn report_dropped(&self, before: &S, keep: bool, turn: &Turn<'_>) {
        let mut missing = 0_u64;
        let mut scan = before.scan(None, Shows::Pairs);
        // Such a store answers at once.
        while let Some(Ok(batch)) = scan::at_once(&mut *scan) {
            for (key, value) in batch.iter() {
                let Some(value) = value else { continue };
                let now =
                    self.store().get(key, |now| now.map(|now| now.bytes == value.bytes), || Box::new(|_| {}));
                missing += u64::from(now == Some(None));
                if keep && now != Some(Some(true)) {
                    self.dropped.lock().keep(key, value.bytes);
                }
            }
            if batch.is_last {
                break;
            }
        }
        if keep {
            self.dropped.lock().end();
        }
        if missing > 0 {
            tracing::warn!(store = ?turn.me, keys = missing, "what the primary has not is dropped");
        }
    }
}
