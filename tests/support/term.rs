//! Terms in Elixir's syntax, by our own parser: `term("{:put, :nombre, 1}")`.
//!
//! Pids and references in a text are of the peer that a test plays: `#PID<0.90.1>`. What no text says, such as a pid of ours or
//! a map with a key twice, is put where `$1` to `$9` stand in it.

#![allow(dead_code, reason = "not every test uses all of it")]

use kvnode::etf::text::{NodeIdentity, parse};
use kvnode::etf::{OwnedTerm, Pid, Reference, TermView, encode};

/// The node that a test plays, and its life.
pub const PEER: &str = "m@h";
pub const CREATION: u32 = 3;

/// What a test writes as a term: its text, or its bytes without a version.
pub trait Term {
    fn encoded(&self) -> Vec<u8>;
}

impl<T: Term + ?Sized> Term for &T {
    fn encoded(&self) -> Vec<u8> {
        (**self).encoded()
    }
}

impl Term for str {
    #[track_caller]
    fn encoded(&self) -> Vec<u8> {
        term(self)
    }
}

impl Term for String {
    #[track_caller]
    fn encoded(&self) -> Vec<u8> {
        term(self)
    }
}

impl Term for [u8] {
    fn encoded(&self) -> Vec<u8> {
        self.to_vec()
    }
}

impl Term for Vec<u8> {
    fn encoded(&self) -> Vec<u8> {
        self.clone()
    }
}

impl Term for TermView<'_> {
    fn encoded(&self) -> Vec<u8> {
        self.bytes().to_vec()
    }
}

impl Term for Pid {
    fn encoded(&self) -> Vec<u8> {
        encode(|w| _ = w.pid(self))
    }
}

impl Term for Reference {
    fn encoded(&self) -> Vec<u8> {
        encode(|w| _ = w.reference(self))
    }
}

/// Encodes a term that is written in Elixir's syntax.
#[track_caller]
pub fn term(text: &str) -> Vec<u8> {
    term_with(text, &[])
}

/// The same with terms that the text does not say: the first stands where it says `$1`.
#[track_caller]
pub fn term_with(text: &str, parts: &[&dyn Term]) -> Vec<u8> {
    term_of(PEER, CREATION, text, parts)
}

/// The same where pids and references are of another node.
#[track_caller]
pub fn term_of(node: &str, creation: u32, text: &str, parts: &[&dyn Term]) -> Vec<u8> {
    assert!(parts.len() < 10, "one digit names a part");
    let place = |number: usize| format!("${number}");
    let mut quoted = text.to_owned();
    for number in 1..=parts.len() {
        assert!(text.contains(&place(number)), "{} does not stand in {text}", place(number));
        quoted = quoted.replace(&place(number), &format!(":\"{}\"", place(number)));
    }
    let local = NodeIdentity { name: node.to_owned(), creation };
    let parsed = parse(&quoted, Some(&local)).unwrap_or_else(|error| panic!("{text}: {error}"));
    let mut bytes = parsed.into_bytes();
    for (number, part) in (1..).zip(parts) {
        let atom = OwnedTerm::atom(&place(number)).into_bytes();
        bytes = replaced(&bytes, &atom, &part.encoded());
    }
    bytes
}

/// A binary of these bytes.
pub fn binary(bytes: &[u8]) -> Vec<u8> {
    encode(|w| _ = w.binary(bytes))
}

/// No term says how many bytes another one in it has: one may stand in the place of another.
fn replaced(bytes: &[u8], old: &[u8], new: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(bytes.len() + new.len());
    let mut rest = bytes;
    while let Some(at) = rest.windows(old.len()).position(|part| part == old) {
        out.extend_from_slice(&rest[..at]);
        out.extend_from_slice(new);
        rest = &rest[at + old.len()..];
    }
    out.extend_from_slice(rest);
    out
}
