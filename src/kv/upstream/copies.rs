//! The end of a copy: it takes the place of what the store had, and what that drops is told, or kept elsewhere.

use std::sync::Arc;

use crate::etf::{TermError, TermView};
use crate::kv::server::{KeyValueServer, with_canonical};
use crate::kv::write::{Completion, Write, Written};
use crate::process::Turn;
use crate::replica::upstream::{Input, Rest};
use crate::store::{Batch, Owed, ReadDone, Shows, Store, StoreError, Value, scan};

impl<S: Store> KeyValueServer<S> {
    /// What was put aside takes the place of the store's entries.
    pub(super) fn swap_in(&self, copy: u64, export: bool, turn: &mut Turn<'_>) {
        let with = self.upstream.aside.lock().take();
        if let Some(with) = with {
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
        self.copy_is_in(copy, turn);
    }

    fn copy_is_in(&self, copy: u64, turn: &mut Turn<'_>) {
        let outputs = self.upstream.hand(Input::CopyIsIn { copy });
        self.carry_out(outputs, None, turn);
    }

    /// Deletes what the copy has not brought. Its batches have to come at once: nothing else may be written meanwhile.
    pub(super) fn delete_rest(&self, copy: u64, export: bool, turn: &mut Turn<'_>) {
        let shows = if export { Shows::Pairs } else { Shows::Keys };
        for part in 0..self.store().parts() {
            let mut scan = self.store().scan(Some(part), shows);
            loop {
                let batch = match scan::at_once(&mut *scan) {
                    Some(Ok(batch)) => batch,
                    failed => {
                        let error = failed.and_then(Result::err);
                        tracing::error!(store = ?turn.me, ?error, "keys that the primary has not may stay: they cannot be read");
                        break;
                    }
                };
                self.delete_foreign(copy, &batch, export, turn);
                if batch.is_last {
                    break;
                }
            }
        }
        if export {
            self.dropped.lock().end();
        }
        self.copy_is_in(copy, turn);
    }

    fn delete_foreign(&self, copy: u64, batch: &Batch, export: bool, turn: &mut Turn<'_>) {
        let mut deleted = 0_u64;
        for (key, value) in batch.iter() {
            let ticket = match self.upstream.with(|machine| machine.take_rest(copy, key)) {
                Rest::Stays => continue,
                Rest::Over => break,
                Rest::Goes(ticket) => ticket,
            };
            deleted += 1;
            if let Some(value) = value.filter(|_| export) {
                self.dropped.lock().keep(key, value.bytes);
            }
            // If a key stays, this store differs from the primary: the primary is told, and copies again.
            let later = |_: &Turn<'_>| Completion::FromPrimary(Arc::clone(&self.upstream), ticket);
            let done = TermView::parse(key).and_then(|key| self.write(Write::Delete { key }, turn, 0, later));
            match done {
                Ok(Written::Now(result)) => self.upstream.stored(ticket, &result, &turn.me),
                Ok(Written::Later) => {}
                Err(error) => {
                    tracing::error!(store = ?turn.me, %error, "a key that the primary has not stays");
                    self.upstream.stored(ticket, &Ok(0), &turn.me);
                }
            }
        }
        if deleted > 0 {
            tracing::warn!(store = ?turn.me, keys = deleted, "keys that the primary has not are deleted");
        }
    }

    /// Something comes in the place of what is there under a key, which the new primary does not have.
    pub(super) fn keep_dropped(&self, write: Write<'_>) -> Result<(), TermError> {
        let (key, value) = write.check()?;
        with_canonical(key, |key| self.keep_present(key, value.map(TermView::bytes)))
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
