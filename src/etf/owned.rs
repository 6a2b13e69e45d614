//! A term that is kept: checked once, then handed around as bytes.

use std::fmt;

use super::{TermError, TermView, TermWriter, Traits, encode};

/// A term of any shape, held as the bytes that it came in: checked, and written back byte for byte.
///
/// What no Rust type stands for (an improper list, a fun, a port, a bit string that is no binary, an integer of
/// more than 128 bits) can be held in a field of this type, and so can what is only passed on. Where the bytes
/// outlive the value, a field of the type [`TermView`] borrows them instead.
///
/// Two are equal when their bytes are; for `===` compare what [`canonical`](super::key::canonical) makes
/// of them. It can only be read from a term: not from other formats of serde, where it is written as bytes, and
/// not from behind `#[serde(flatten)]`, `#[serde(untagged)]` or `#[serde(tag)]`, where serde no longer has the
/// term.
///
/// ```
/// use kvnode::etf::{OwnedTerm, TermView, from_term, to_term};
///
/// // {:store, [1 | 2]}: no type of Rust is an improper list.
/// let bytes = [104, 2, 119, 5, b's', b't', b'o', b'r', b'e', 108, 0, 0, 0, 1, 97, 1, 97, 2];
/// #[derive(serde::Serialize, serde::Deserialize)]
/// #[serde(rename_all = "snake_case")]
/// enum Request {
///     Store(OwnedTerm),
/// }
/// let request: Request = from_term(TermView::parse(&bytes)?)?;
/// let Request::Store(value) = &request;
/// assert_eq!(format!("{value:?}"), "[1 | 2]");
/// assert_eq!(to_term(&request)?, bytes);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct OwnedTerm {
    bytes: Box<[u8]>,
    traits: Traits,
}

impl OwnedTerm {
    /// Checks that `bytes` (without a version byte) are exactly one term, and keeps them.
    ///
    /// # Errors
    /// What is wrong with the bytes: the fault of the program that encoded them.
    pub fn parse(bytes: Vec<u8>) -> Result<Self, TermError> {
        let traits = TermView::parse(&bytes)?.traits();
        Ok(Self { bytes: bytes.into(), traits })
    }

    /// Keeps what `write` writes, which has to be exactly one term.
    ///
    /// # Errors
    /// The writer's fault: it announced more elements than it wrote, or wrote more than one term.
    pub fn write(write: impl FnOnce(&mut TermWriter<'_>)) -> Result<Self, TermError> {
        Self::parse(encode(write))
    }

    /// An atom.
    pub fn atom(text: &str) -> Self {
        let bytes = encode(|w| {
            w.atom(text);
        });
        Self { bytes: bytes.into(), traits: Traits::none() }
    }

    /// The term, to be looked into.
    pub const fn view(&self) -> TermView<'_> {
        TermView::trusted(&self.bytes, self.traits)
    }

    /// The encoded term.
    pub fn into_bytes(self) -> Vec<u8> {
        self.bytes.into()
    }
}

impl From<TermView<'_>> for OwnedTerm {
    fn from(view: TermView<'_>) -> Self {
        Self { bytes: view.bytes().into(), traits: view.traits() }
    }
}

impl fmt::Debug for OwnedTerm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.view().fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_one_whole_term_is_kept() {
        assert!(OwnedTerm::write(|w| _ = w.tuple(2).atom("a").atom("b")).is_ok());
        assert!(OwnedTerm::write(|w| _ = w.tuple(2).atom("a")).is_err(), "an element is missing");
        assert!(OwnedTerm::write(|w| _ = w.atom("a").atom("b")).is_err(), "one term too many");
        assert!(OwnedTerm::atom("noproc").view().is_atom("noproc"));
    }
}
