//! A server of the protocol on a BEAM: it knows the two casts and `get`, and answers for nobody else's writes.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use kvnode::etf::TermView;
use kvnode::kv::Cast;
use kvnode::kv::SlaveEntry;
use kvnode::kv::figures::PrimaryFigures;
use kvnode::process::{Caller, GenServer, Turn};
use kvnode::replica::Source;
use parking_lot::Mutex;

use super::node::Served;
use super::shelf::{Data, number};

#[derive(Default)]
pub struct Beam {
    data: Mutex<Data>,
    /// The newest value of each key from each node.
    seen: Mutex<BTreeMap<(String, u64), u64>>,
    /// Nodes that have written.
    writers: Mutex<BTreeSet<String>>,
    /// Nodes whose stores have followed others: what these send may be older than what they sent before.
    unsteady: Mutex<BTreeSet<String>>,
}

impl Beam {
    /// One that has this from its start.
    pub fn holding(data: Data) -> Self {
        Self { data: Mutex::new(data), ..Self::default() }
    }

    fn see(&self, from: &str, key: u64, value: u64) {
        if self.unsteady.lock().contains(from) {
            return;
        }
        let seen = self.seen.lock().insert((from.into(), key), value).unwrap_or(0);
        assert!(seen <= value, "key {key} went back from {seen} to {value}, sent by {from}");
    }
}

impl GenServer for Beam {
    fn handle_call(&self, request: TermView<'_>, caller: &Caller<'_>, turn: &mut Turn<'_>) {
        let [get, key] = request.as_tuple::<2>().expect("a question");
        assert!(get.is_atom("get"), "{request:?}");
        let value = key.as_unsigned().and_then(|key| self.data.lock().get(&key).copied());
        turn.reply(caller, |w| match value {
            Some(value) => _ = w.unsigned(value),
            None => _ = w.atom("nil"),
        });
    }

    fn handle_cast(&self, request: TermView<'_>, turn: &mut Turn<'_>) {
        self.writers.lock().insert(turn.peer.to_string());
        match Cast::read(request) {
            Some(Cast::ReplicatePut { key, value }) => {
                let (key, value) = (number(key.bytes()), number(value.bytes()));
                self.see(turn.peer, key, value);
                self.data.lock().insert(key, value);
            }
            Some(Cast::ReplicateDelete { key }) => _ = self.data.lock().remove(&number(key.bytes())),
            _ => panic!("it would end at {request:?}"),
        }
    }
}

impl Served for Beam {
    fn source(&self) -> &dyn Source {
        panic!("nobody is its slave")
    }

    fn slaves(&self) -> Vec<Arc<SlaveEntry>> {
        Vec::new()
    }

    fn primary(&self) -> Option<PrimaryFigures> {
        None
    }

    fn changes(&self) -> u64 {
        0
    }

    fn data(&self) -> Data {
        self.data.lock().clone()
    }

    fn data_at(&self, _seq: u64) -> Data {
        self.data()
    }

    fn revisions(&self) -> Data {
        panic!("it has none")
    }

    fn ends(&self) -> Data {
        panic!("it knows of no end")
    }

    fn next_due(&self) -> Option<u64> {
        None
    }

    fn take_replaced(&self) -> Option<Data> {
        None
    }

    fn writers(&self) -> usize {
        self.writers.lock().len()
    }

    fn has_other_writers(&self, node: &str) -> bool {
        self.writers.lock().iter().any(|writer| *writer != *node)
    }

    fn note_unsteady(&self, node: &str) {
        self.unsteady.lock().insert(node.into());
    }
}
