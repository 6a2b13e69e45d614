//! Pids, references and ports, as iex and as we print them.
//!
//! A BEAM prints its node as a number that means something to itself alone, with 0 for itself; we print the node's
//! name. Neither says of which of the node's lives an identifier is, so that those of one known node can be read.

use super::{Cursor, ParseProblem};
use crate::etf::split::REFERENCE_WORDS_MAX;
use crate::etf::tag::V4_PORT_EXT;
use crate::etf::{Pid, Reference, encode};

/// The node whose identifiers are read: as it is now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeIdentity {
    /// Its full name.
    pub name: String,
    /// Its present life.
    pub creation: u32,
}

const WANTED: ParseProblem = ParseProblem::Wanted("a pid, reference or port, as in #PID<0.95.0>,");

/// Reads one; the cursor is at its `#`. Gives the encoded term.
///
/// # Errors
/// What is wrong, at the cursor.
pub(super) fn read(cursor: &mut Cursor<'_>, local: Option<&NodeIdentity>) -> Result<Vec<u8>, ParseProblem> {
    let rest = cursor.rest();
    if rest.starts_with("#Function<") {
        return Err(ParseProblem::Unsupported(
            "a fun, whose code is not in its text; only &Module.function/arity is read",
        ));
    }
    let kinds = ["#PID<", "#Reference<", "#Port<"];
    let Some(kind) = kinds.into_iter().find(|kind| rest.starts_with(kind)) else {
        return Err(ParseProblem::Unsupported(
            "a comment, a native record, or the view of something that Elixir cannot read back either",
        ));
    };
    let body = &rest[kind.len()..];
    // A node's name may have no such sign, nor a blank.
    let Some(end) = body.find('>') else {
        cursor.advance(rest.len());
        return Err(ParseProblem::Ends { wanted: "`>`" });
    };
    let body = &body[..end];
    let encoded = match kind {
        "#PID<" => {
            let (node, [id, serial]) = split::<2>(body).ok_or(WANTED)?;
            let (id, serial) = (word(id)?, word(serial)?);
            let local = known(node, local)?;
            let pid = Pid { node: local.name.as_str().into(), id, serial, creation: local.creation };
            encode(|w| _ = w.pid(&pid))
        }
        "#Port<" => {
            let (node, [number]) = split::<1>(body).ok_or(WANTED)?;
            let number: u64 = number.parse().map_err(|_| WANTED)?;
            let local = known(node, local)?;
            encode(|w| {
                w.raw(&[V4_PORT_EXT]).atom(&local.name);
                w.raw(&number.to_be_bytes()).raw(&local.creation.to_be_bytes());
            })
        }
        _ => reference(body, local)?,
    };
    cursor.advance(kind.len() + end + 1);
    Ok(encoded)
}

fn reference(body: &str, local: Option<&NodeIdentity>) -> Result<Vec<u8>, ParseProblem> {
    let (first, rest) = body.split_once('.').ok_or(WANTED)?;
    let of_local =
        local.and_then(|local| Some((&*local.name, body.strip_prefix(&local.name)?.strip_prefix('.')?)));
    let (node, mut words): (&str, Vec<&str>) = if is_number(first) {
        (first, rest.split('.').collect())
    } else if let Some((node, words)) = of_local.filter(|(_, words)| words.split('.').all(is_number)) {
        // However many there are: its name is known.
        (node, words.split('.').collect())
    } else {
        // A name's host may end in numbers: three words, which all have but aliases of OTP 29 and very old ones.
        let (node, words) = split::<3>(body).ok_or(WANTED)?;
        (node, words.to_vec())
    };
    if words.len() > REFERENCE_WORDS_MAX {
        return Err(WANTED);
    }
    words.reverse();
    let words = words.into_iter().map(word).collect::<Result<_, _>>()?;
    let local = known(node, local)?;
    let reference = Reference { node: local.name.as_str().into(), creation: local.creation, words };
    Ok(encode(|w| _ = w.reference(&reference)))
}

/// What stands before the last `N` numbers, and those.
fn split<const N: usize>(body: &str) -> Option<(&str, [&str; N])> {
    let mut numbers = [""; N];
    let mut rest = body;
    for slot in numbers.iter_mut().rev() {
        (rest, *slot) = rest.rsplit_once('.')?;
    }
    Some((rest, numbers))
}

fn word(digits: &str) -> Result<u32, ParseProblem> {
    digits.parse().map_err(|_| WANTED)
}

fn known<'a>(node: &str, local: Option<&'a NodeIdentity>) -> Result<&'a NodeIdentity, ParseProblem> {
    match local {
        Some(local) if node == "0" || node == local.name => Ok(local),
        Some(_) if !is_number(node) => Err(ParseProblem::OtherNode),
        _ => Err(ParseProblem::NodeUnknown),
    }
}

fn is_number(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}
