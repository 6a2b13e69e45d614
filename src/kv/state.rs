//! The state of a store as `:sys.get_state/1` shows it: what the Elixir servers of the protocol would show.

use std::sync::Arc;

use super::SlaveEntry;
use super::clock::Clock;
use crate::etf::{TermWriter, key};
use crate::store::{Shows, Store, scan};

/// Which server's state a store shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum StateShape {
    /// `%{data: %{key => value}, slaves: [slave]}`, as `KeyValueStoreReplicated` and `KeyValueStoreDistributed`.
    #[default]
    Replicated,
    /// `%{key => value}`, as `KeyValueStore`, for as long as there are no slaves.
    Plain,
}

/// Writes the state; above `bytes_max` the summary `%{entries: n, bytes: n, slaves: [slave]}`.
pub(super) fn write<S: Store>(
    w: &mut TermWriter<'_>,
    store: &S,
    slaves: &[Arc<SlaveEntry>],
    shape: StateShape,
    clock: &Clock,
    bytes_max: usize,
) {
    let slaves: Vec<&Arc<SlaveEntry>> = slaves.iter().filter(|slave| !slave.machine().is_over()).collect();
    match pairs(store, clock, bytes_max) {
        Some(pairs) if shape == StateShape::Plain && slaves.is_empty() => pairs.write(w),
        Some(pairs) => {
            w.map(2).atom("data");
            pairs.write(w);
            w.atom("slaves");
            write_slaves(w, &slaves);
        }
        None => {
            w.map(3).atom("entries").unsigned(store.len() as u64).atom("bytes").unsigned(store.bytes());
            w.atom("slaves");
            write_slaves(w, &slaves);
        }
    }
}

/// Keys and values, encoded, one after the other.
struct Pairs {
    count: usize,
    bytes: Vec<u8>,
}

impl Pairs {
    fn write(&self, w: &mut TermWriter<'_>) {
        w.map(self.count).raw(&self.bytes);
    }
}

/// All pairs; `None` when they take more than `bytes_max`, or do not come at once. Others may write meanwhile: each key is seen
/// once.
fn pairs<S: Store>(store: &S, clock: &Clock, bytes_max: usize) -> Option<Pairs> {
    if bytes_max == 0 || store.bytes() > bytes_max as u64 {
        return None;
    }
    let mut pairs = Pairs { count: 0, bytes: Vec::new() };
    let mut scan = store.scan(None, Shows::Pairs);
    loop {
        let batch = scan::at_once(&mut *scan)?.ok()?;
        // What is being written without a value has none to be shown yet, or is shown with the one of before.
        for (key, value) in batch.iter().filter_map(|(key, value)| Some((key, clock.shown(value)?))) {
            pairs.count += 1;
            pairs.bytes.extend_from_slice(&key::outgoing(key));
            pairs.bytes.extend_from_slice(value.bytes);
        }
        if pairs.bytes.len() > bytes_max {
            return None;
        }
        if batch.is_last {
            return Some(pairs);
        }
    }
}

fn write_slaves(w: &mut TermWriter<'_>, slaves: &[&Arc<SlaveEntry>]) {
    w.list(slaves.len());
    for slave in slaves {
        slave.name().write(w);
    }
    w.nil();
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::etf::{TermView, Traits, encode};
    use crate::kv::follow::tests::{nobody, now, unfollowed};
    use crate::replica::SlaveName;
    use crate::replica::downstream::Input;
    use crate::store::{MemoryStore, Value};

    fn shown(store: &MemoryStore, slaves: &[Arc<SlaveEntry>], shape: StateShape, bytes_max: usize) -> String {
        let state = encode(|w| write(w, store, slaves, shape, &Clock::new(&nobody()), bytes_max));
        format!("{:?}", TermView::parse(&state).expect("a term"))
    }

    #[test]
    fn a_state_is_that_of_the_elixir_server_and_above_the_bound_a_summary() {
        let store = MemoryStore::default();
        let key = encode(|w| {
            w.atom("k");
        });
        let value = Value::of(&key, Traits::none());
        store.put(&key, value, || panic!("memory answers at once"));
        assert_eq!(shown(&store, &[], StateShape::Plain, 100), "%{k: :k}");
        assert_eq!(shown(&store, &[], StateShape::Replicated, 100), "%{data: %{k: :k}, slaves: []}");
        assert_eq!(shown(&store, &[], StateShape::Plain, 5), "%{entries: 1, bytes: 6, slaves: []}");
        let slaves = [SlaveName::Local("a".into()), SlaveName::global("b")].map(unfollowed);
        assert_eq!(
            shown(&store, &slaves, StateShape::Plain, 100),
            "%{data: %{k: :k}, slaves: [:a, {:global, :b}]}"
        );
        slaves[0].machine().handle(Input::Removed, now());
        assert_eq!(
            shown(&store, &slaves, StateShape::Plain, 0),
            "%{entries: 1, bytes: 6, slaves: [global: :b]}"
        );
    }
}
