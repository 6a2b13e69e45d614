//! `:status` and `:slaves`: how a store and its slaves are, for people.

use std::sync::Arc;

use crate::etf::TermWriter;
use crate::replica::{Slave, Standing};
use crate::store::Store;

/// Writes `%{bytes: n, entries: n, role: r, slaves: [%{name: s, node: n, stale_keys: b, state: s}]}`. A store with slaves
/// is a `:primary`. One without is whatever others make of it, `:single`: a slave is not told that it is one.
pub(super) fn write<S: Store>(w: &mut TermWriter<'_>, store: &S, slaves: &[Arc<Slave>]) {
    w.map(4).atom("role").atom(if slaves.is_empty() { "single" } else { "primary" });
    w.atom("entries").unsigned(store.len() as u64).atom("bytes").unsigned(store.bytes());
    w.atom("slaves").list(slaves.len());
    for slave in slaves {
        write_slave(w, slave);
    }
    w.nil();
}

/// Writes the slaves' names.
pub(super) fn slaves(w: &mut TermWriter<'_>, slaves: &[Arc<Slave>]) {
    w.list(slaves.len());
    for slave in slaves {
        slave.name().write(w);
    }
    w.nil();
}

fn write_slave(w: &mut TermWriter<'_>, slave: &Slave) {
    w.map(3).atom("name");
    slave.name().write(w);
    w.atom("state");
    write_standing(w, slave.standing());
    w.atom("stale_keys").atom(if slave.may_be_stale() { "true" } else { "false" });
}

fn write_standing(w: &mut TermWriter<'_>, standing: Standing) {
    let missed = |w: &mut TermWriter<'_>, state: &str, missed: Option<u64>| {
        w.tuple(2).atom(state);
        match missed {
            Some(missed) => w.unsigned(missed),
            None => w.atom("all"),
        };
    };
    match standing {
        Standing::Seeking => _ = w.atom("seeking"),
        Standing::Dropped => _ = w.atom("dropped"),
        Standing::Gone { missed: keys } => missed(w, "gone", keys),
        Standing::Behind { missed: keys } => missed(w, "behind", keys),
        Standing::Copying { done, total } => _ = w.tuple(3).atom("copying").unsigned(done).unsigned(total),
        Standing::InStep { lag } => _ = w.tuple(2).atom("in_step").unsigned(lag),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dist::RemoteProcess;
    use crate::etf::{Pid, TermView, encode};
    use crate::replica::SlaveName;
    use crate::store::MemoryStore;

    fn shown(slaves: &[Arc<Slave>]) -> String {
        let status = encode(|w| write(w, &MemoryStore::default(), slaves));
        format!("{:?}", TermView::parse(&status).expect("a term"))
    }

    #[test]
    fn a_status_has_each_slave_with_its_state() {
        assert_eq!(shown(&[]), "%{role: :single, entries: 0, bytes: 0, slaves: []}");
        let slave = Arc::new(Slave::new(SlaveName::global("s"), 1 << 20));
        let head = "%{role: :primary, entries: 0, bytes: 0, slaves: [%{name: {:global, :s}, state: ";
        let shown = || shown(&[Arc::clone(&slave)]);
        assert_eq!(shown(), format!("{head}:seeking, stale_keys: false}}]}}"));
        slave.found(RemoteProcess::Pid(Pid { node: "b@h".into(), id: 1, serial: 0, creation: 1 }));
        assert_eq!(shown(), format!("{head}{{:copying, 0, 0}}, stale_keys: false}}]}}"));
        slave.gone();
        assert_eq!(shown(), format!("{head}{{:gone, :all}}, stale_keys: false}}]}}"));
    }
}
