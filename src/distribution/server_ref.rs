//! Whom a message goes to: `GenServer.server/0`, `gen_server:server_ref()`.

use std::fmt;
use std::sync::Arc;

use super::RemoteProcess;
use crate::etf::{AtomView, Pid, TermView, TermWriter, encode};

/// How a server is named: what Elixir's `GenServer.call` takes as its first argument.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum ServerRef {
    /// `{:global, name}`, where a name is any term, encoded here.
    Global(Arc<[u8]>),
    /// An atom: registered on the node where it is used.
    Local(Arc<str>),
    /// `{name, node}`
    Remote {
        /// The registered name.
        name: Arc<str>,
        /// Its node.
        node: Arc<str>,
    },
    /// A pid.
    Pid(Pid),
}

impl ServerRef {
    /// `{:global, name}` with an atom.
    pub fn global(name: &str) -> Self {
        let name = encode(|w| {
            w.atom(name);
        });
        Self::Global(name.into())
    }

    /// A name that is registered on the node where it is used. An Elixir module's is written out:
    /// `Elixir.KeyValueStore`.
    pub fn local(name: &str) -> Self {
        Self::Local(name.into())
    }

    /// `{name, node}`, with the node's full name.
    pub fn remote(name: &str, node: &str) -> Self {
        Self::Remote { name: name.into(), node: node.into() }
    }

    /// Reads it as it is given to `GenServer.call`; `None` for what names no process.
    pub fn read(term: TermView<'_>) -> Option<Self> {
        let shared = |atom: AtomView<'_>| -> Arc<str> { atom.to_str().into() };
        if let Some(name) = term.as_atom() {
            return Some(Self::Local(shared(name)));
        }
        if let Some(pid) = term.as_pid() {
            return Some(Self::Pid(pid.into()));
        }
        let [first, second] = term.as_tuple::<2>()?;
        if first.is_atom("global") {
            return Some(Self::Global(second.bytes().into()));
        }
        Some(Self::Remote { name: shared(first.as_atom()?), node: shared(second.as_atom()?) })
    }

    /// The same as it is named on other nodes, where it is used on this one: a local name is `{name, node}` there.
    pub fn on(&self, node: &Arc<str>) -> Self {
        match self {
            Self::Local(name) => Self::Remote { name: Arc::clone(name), node: Arc::clone(node) },
            other => other.clone(),
        }
    }

    /// Writes it as it is given to `GenServer.call`.
    pub fn write(&self, writer: &mut TermWriter<'_>) {
        match self {
            Self::Global(name) => writer.tuple(2).atom("global").raw(name),
            Self::Local(name) => writer.atom(name),
            Self::Remote { name, node } => writer.tuple(2).atom(name).atom(node),
            Self::Pid(pid) => writer.pid(pid),
        };
    }
}

impl From<Pid> for ServerRef {
    fn from(pid: Pid) -> Self {
        Self::Pid(pid)
    }
}

impl From<RemoteProcess> for ServerRef {
    fn from(process: RemoteProcess) -> Self {
        match process {
            RemoteProcess::Pid(pid) => Self::Pid(pid),
            RemoteProcess::Name { name, node } => Self::Remote { name, node },
        }
    }
}

impl fmt::Display for ServerRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let term = encode(|w| self.write(w));
        let term = TermView::parse(&term).expect("it was written by our own writer");
        write!(f, "{term:?}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_and_written_as_genserver_takes_them() {
        let pid = Pid { node: "b@h".into(), id: 1, serial: 0, creation: 1 };
        let names = [
            ServerRef::global("s"),
            ServerRef::local("s"),
            ServerRef::remote("s", "b@h"),
            ServerRef::Pid(pid),
        ];
        for name in names {
            let bytes = encode(|w| name.write(w));
            let term = TermView::parse(&bytes).expect("our own term");
            assert_eq!(ServerRef::read(term), Some(name));
        }
        let number = encode(|w| {
            w.integer(1);
        });
        assert_eq!(ServerRef::read(TermView::parse(&number).expect("our own term")), None);
    }
}
