//! A term that is kept: checked once, then handed around as bytes.

use std::fmt;

use super::{TermError, TermView, TermWriter, Traits, encode};

/// One complete, checked term in memory of its own, without a version byte.
#[derive(Clone, PartialEq, Eq)]
pub struct OwnedTerm {
    bytes: Box<[u8]>,
    traits: Traits,
}

impl OwnedTerm {
    /// Checks that `bytes` (without a version byte) are exactly one term, and keeps them.
    ///
    /// # Errors
    /// What is wrong with the bytes: the fault of whoever encoded them.
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
