//! A canonical key as others are sent it.
//!
//! Canonical is for our own tables: a reference has no zero words behind its third there, so that it is one key in
//! whatever length it comes. A BEAM of OTP 27 or 29 gives an alias five words of which the last is zero most of the time,
//! and finds it in its maps by five words alone (seen; OTP 25 finds it by four as well). References of four words are made
//! by nobody.

use std::borrow::Cow;

use super::super::split::{Cursor, TermError, Traits};
use super::super::tag::*;

/// The words of a reference that has more than three.
const LONG_WORDS: u8 = 5;

/// The key that was put, as every release decodes it: the bytes themselves but for references of four words, which get
/// their fifth back.
pub fn outgoing(key: &[u8]) -> Cow<'_, [u8]> {
    if !key.contains(&NEWER_REFERENCE_EXT) {
        return Cow::Borrowed(key);
    }
    // A key has been checked when it came.
    match widened(key) {
        Ok(Some(widened)) => Cow::Owned(widened),
        Ok(None) | Err(_) => Cow::Borrowed(key),
    }
}

#[cold]
fn widened(key: &[u8]) -> Result<Option<Vec<u8>>, TermError> {
    let (mut cursor, mut out) = (Cursor::new(key), Vec::with_capacity(key.len() + 4));
    // As in `Cursor::skip`: terms that are still to come, and those at the ends of open funs.
    let (mut pending, mut ends, mut traits) = (1, Vec::new(), Traits::none());
    // Where the sizes of the open funs stand in the output.
    let mut sizes: Vec<usize> = Vec::new();
    let mut is_changed = false;
    while pending > 0 {
        pending -= 1;
        let (before, open) = (cursor.rest(), ends.len());
        let is_long =
            before.first() == Some(&NEWER_REFERENCE_EXT) && cursor.clone().reference()?.words().len() == 4;
        pending += cursor.step(&mut traits, pending, &mut ends)?;
        let begins = out.len();
        #[expect(clippy::indexing_slicing, reason = "what is left is the end of what there was")]
        out.extend_from_slice(&before[..before.len() - cursor.rest().len()]);
        if is_long {
            is_changed = true;
            // Tag, and a length of 16 bits.
            if let Some(len) = out.get_mut(begins + 2) {
                *len = LONG_WORDS;
            }
            out.extend_from_slice(&[0; 4]);
        }
        if ends.len() > open {
            sizes.push(begins + 1);
        }
        while ends.last().is_some_and(|&(_, after)| pending <= after)
            && let Some(at) = sizes.pop()
        {
            ends.pop();
            let size = u32::try_from(out.len() - at).map_err(|_| TermError::KeyTooComplex)?;
            if let Some(bytes) = out.get_mut(at..at + 4) {
                bytes.copy_from_slice(&size.to_be_bytes());
            }
        }
    }
    Ok(is_changed.then_some(out))
}

#[cfg(test)]
mod tests {
    use super::super::canonical;
    use super::*;
    use crate::etf::{Pid, Reference, TermView, TermWriter, encode};

    fn reference(words: &[u32]) -> Reference {
        Reference { node: "m@h".into(), creation: 3, words: words.to_vec() }
    }

    fn comes_back(write: impl Fn(&mut TermWriter<'_>)) -> Vec<u8> {
        let put = encode(&write);
        let mut scratch = Vec::new();
        let key = canonical(TermView::parse(&put).expect("a term"), &mut scratch).expect("a key").to_vec();
        assert_eq!(outgoing(&key), put, "what was put");
        let mut scratch = Vec::new();
        let again = outgoing(&key).into_owned();
        let again = canonical(TermView::parse(&again).expect("a term"), &mut scratch).expect("a key");
        assert_eq!(again, key, "and the same key");
        key
    }

    #[test]
    fn an_alias_gets_its_zero_word_back_wherever_it_stands() {
        let alias = reference(&[1, 2, 3, 4, 0]);
        let short = comes_back(|w| _ = w.reference(&alias));
        assert_eq!(short.len() + 4, encode(|w| _ = w.reference(&alias)).len());
        comes_back(|w| _ = w.tuple(2).reference(&alias).list(1).reference(&alias).reference(&alias));
        comes_back(|w| _ = w.map(1).reference(&alias).reference(&reference(&[1, 2, 3])));
        comes_back(|w| _ = w.reference(&reference(&[1, 2, 3, 4, 5])));
        comes_back(|w| _ = w.binary(&[NEWER_REFERENCE_EXT, 0, 4, 119, 1, 1]));
    }

    #[test]
    fn a_fun_that_has_closed_over_an_alias_has_its_size() {
        let alias = reference(&[1, 2, 3, 4, 0]);
        let pid = Pid { node: "nonode@nohost".into(), id: 0, serial: 0, creation: 0 };
        let fun = |inner: Option<&[u8]>| {
            let body = encode(|w| {
                w.raw(&[0]).raw(&[7; 16]).raw(&[0, 0, 0, 1, 0, 0, 0, 2]);
                w.atom("m").unsigned(1).unsigned(9).pid(&pid).reference(&alias);
                match inner {
                    Some(inner) => w.raw(inner),
                    None => w.atom("x"),
                };
            });
            let size = (body.len() as u32 + 4).to_be_bytes();
            [&[NEW_FUN_EXT][..], &size, &body].concat()
        };
        let inner = fun(None);
        comes_back(|w| _ = w.raw(&inner));
        comes_back(|w| _ = w.list(1).raw(&fun(Some(&inner))).reference(&alias));
    }
}
