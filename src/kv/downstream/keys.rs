//! The keys that a slave has: read by its primary before it copies, for what the slave has too much.
//!
//! Of a BEAM's GenServer there is `:sys.get_state/1` alone, which copies the whole state, first in its node and then onto
//! the wire: so its size is asked for before, and a large one is left alone. (What a kvnode is sent takes the place of what
//! it had: its keys are not read.)

use std::fmt;
use std::time::Duration;

use crate::distribution::ServerRef;
use crate::etf::tag::NIL_EXT;
use crate::etf::{Cursor, OwnedTerm, Pid, TermError, TermView};
use crate::node::erpc::ErpcError;
use crate::{Client, Node};

/// How long one answer may take: a large state is copied, and the process may be at something else.
const LIMIT: Duration = Duration::from_secs(10);
/// A state is read when its process's heap and the binaries that it refers to take no more, in bytes. On the wire that is
/// about half, far below the largest frame; copying it stops the slave for some 50 ms.
const STATE_BYTES_MAX: u64 = 32 << 20;

/// Why a slave's keys could not be read.
#[derive(Debug)]
pub(super) enum KeysError {
    /// Its state takes so many bytes, which is more than is read.
    TooLarge(u64),
    /// It shows another state than the servers of the protocol.
    Foreign,
    /// It did not answer.
    NoAnswer,
    /// Its node did not say how large it is.
    Erpc(ErpcError),
}

impl fmt::Display for KeysError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooLarge(bytes) => {
                write!(
                    f,
                    "its state takes {bytes} bytes, too many for :sys.get_state; start it again empty to be sure"
                )
            }
            Self::Foreign => f.write_str("it shows no state of the protocol's servers"),
            Self::NoAnswer => f.write_str("it does not answer :sys.get_state"),
            Self::Erpc(error) => write!(f, "its node does not answer: {error}"),
        }
    }
}

impl From<TermError> for KeysError {
    fn from(_: TermError) -> Self {
        Self::Foreign
    }
}

/// Shows all keys of a slave, as it encodes them.
///
/// # Errors
/// The slave's, or its node's: see [`KeysError`]. Some keys may have been shown.
pub(super) async fn read(
    node: &Node,
    client: &Client,
    slave: &Pid,
    mut show: impl FnMut(TermView<'_>),
) -> Result<(), KeysError> {
    let bytes = state_bytes(client, slave).await?;
    if bytes > STATE_BYTES_MAX {
        return Err(KeysError::TooLarge(bytes));
    }
    let state = state_of(node, slave).await.ok_or(KeysError::NoAnswer)?;
    show_state(state.view(), &mut show)
}

/// Whether the state of a process on a BEAM is that of a server of the protocol.
///
/// # Errors
/// That it is not, or cannot be said: see [`KeysError`].
pub(super) async fn check_state(node: &Node, client: &Client, slave: &Pid) -> Result<(), KeysError> {
    let bytes = state_bytes(client, slave).await?;
    if bytes > STATE_BYTES_MAX {
        return Err(KeysError::TooLarge(bytes));
    }
    let state = state_of(node, slave).await.ok_or(KeysError::NoAnswer)?;
    count(unwrapped(state.view())).map(|_| ()).ok_or(KeysError::Foreign)
}

/// How many keys are in `%{data: %{key => value}, slaves: [slave]}`; `None`: it is something else.
pub(super) fn count(state: TermView<'_>) -> Option<usize> {
    let mut cursor = state.cursor();
    let (mut keys, mut slaves) = (None, false);
    for _ in 0..cursor.map().ok()? {
        let (name, value) = pair(&mut cursor).ok()?;
        if name.is_atom("data") {
            keys = Some(value.cursor().map().ok()?);
        } else if name.is_atom("slaves") {
            slaves = value.tag() == NIL_EXT || value.cursor().list().is_ok();
        }
    }
    keys.filter(|_| slaves)
}

/// The state without the `:ok` that it comes with from OTP 26 on.
fn unwrapped(state: TermView<'_>) -> TermView<'_> {
    match state.as_tuple::<2>() {
        Some([ok, state]) if ok.is_atom("ok") => state,
        _ => state,
    }
}

/// What the state of a process on a BEAM takes there, roughly: its heap first, then what that refers to.
async fn state_bytes(client: &Client, slave: &Pid) -> Result<u64, KeysError> {
    let ask = async |item: &str| {
        let arguments = |w: &mut crate::etf::TermWriter<'_>| _ = w.pid(slave).atom(item);
        let info = client.erpc(&slave.node, ("erlang", "process_info"), 2, arguments, LIMIT).await;
        info.map_err(KeysError::Erpc)
    };
    let memory = ask("memory").await?;
    let memory = memory.view().as_tuple::<2>().and_then(|[_, bytes]| bytes.as_unsigned());
    let memory = memory.ok_or(KeysError::NoAnswer)?;
    if memory > STATE_BYTES_MAX {
        return Ok(memory);
    }
    // A binary takes at least 64 bytes of the heap, so that their list is bounded by now.
    let binaries = ask("binary").await?;
    let [_, list] = binaries.view().as_tuple::<2>().ok_or(KeysError::NoAnswer)?;
    let mut cursor = list.cursor();
    let mut bytes = memory;
    for _ in 0..cursor.list()? {
        let [_, size, _] = cursor.term()?.as_tuple::<3>().ok_or(KeysError::Foreign)?;
        bytes = bytes.saturating_add(size.as_unsigned().unwrap_or(0));
    }
    Ok(bytes)
}

/// `:sys.get_state/1`, asked by the node: the slave's primary may have other questions there.
async fn state_of(node: &Node, slave: &Pid) -> Option<OwnedTerm> {
    let request = |w: &mut crate::etf::TermWriter<'_>| _ = w.atom("get_state");
    node.client().system_call(&ServerRef::Pid(slave.clone()), request, LIMIT).await.ok()
}

/// The keys of `%{data: %{key => value}, slaves: [slave]}`, in `{:ok, state}` from OTP 26 on.
fn show_state(state: TermView<'_>, show: &mut impl FnMut(TermView<'_>)) -> Result<(), KeysError> {
    let mut cursor = unwrapped(state).cursor();
    for _ in 0..cursor.map()? {
        let (name, value) = pair(&mut cursor)?;
        if name.is_atom("data") {
            let mut data = value.cursor();
            for _ in 0..data.map()? {
                show(pair(&mut data)?.0);
            }
            return Ok(());
        }
    }
    Err(KeysError::Foreign)
}

fn pair<'a>(cursor: &mut Cursor<'a>) -> Result<(TermView<'a>, TermView<'a>), TermError> {
    Ok((cursor.term()?, cursor.term()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::etf::encode;

    #[test]
    fn keys_are_read_from_a_state_in_either_form_and_from_nothing_else() {
        let keys = |wrapped: bool, data: &str| {
            let state = encode(|w| {
                if wrapped {
                    w.tuple(2).atom("ok");
                }
                w.map(2).atom(data).map(2).unsigned(1).atom("a").unsigned(2).atom("b").atom("slaves").nil();
            });
            let mut keys = Vec::new();
            let read = show_state(TermView::parse(&state).expect("a term"), &mut |key| {
                keys.push(key.as_unsigned().expect("a number"));
            });
            read.ok().map(|()| keys)
        };
        assert_eq!(keys(false, "data"), Some(vec![1, 2]));
        assert_eq!(keys(true, "data"), Some(vec![1, 2]));
        assert_eq!(keys(true, "other"), None);
    }

    #[test]
    fn a_state_of_the_protocols_servers_has_data_and_slaves() {
        let count = |slaves: &str| {
            let state = encode(|w| {
                w.map(2).atom("data").map(1).unsigned(1).atom("a").atom(slaves).list(1).atom("s").nil();
            });
            count(TermView::parse(&state).expect("a term"))
        };
        assert_eq!((count("slaves"), count("others")), (Some(1), None));
        // A plain store that has such a key.
        let plain = encode(|w| _ = w.map(1).atom("data").map(0));
        assert_eq!(super::count(TermView::parse(&plain).expect("a term")), None);
    }
}
