//! The entries of a store, page by page.

use std::fmt;
use std::marker::PhantomData;

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::error::Error;
use super::request::{Options, Request, Target, unknown, written};
use crate::CallError;
use crate::etf::{Binary, ConvertError, OwnedTerm, TermView, atom, from_term};

/// The entries of a store, or its keys, page by page: an entry that is there from the first page to the last comes once,
/// whatever is written meanwhile. How far it has come is here: the store keeps nothing of it.
pub struct Pages<T> {
    target: Target,
    options: Vec<(&'static str, OwnedTerm)>,
    unwritable: Option<ConvertError>,
    cursor: Cursor,
    types: PhantomData<fn() -> T>,
}

/// Where the next page begins.
enum Cursor {
    First,
    Behind(Binary),
    /// There is none.
    Over,
}

/// What a page has: its entries, and where it ends, which is nowhere on the last.
type Page<T> = (Vec<T>, Option<Binary>);

impl<T> Pages<T> {
    pub(super) fn new(target: Target, keys: bool, wanted: &Options) -> Self {
        let (options, cursor) = (Vec::new(), Cursor::First);
        let pages = Self { target, options, unwritable: None, cursor, types: PhantomData };
        let pages = if keys { pages.option("keys", &true) } else { pages };
        match wanted.consistency {
            Some(word) => pages.option("consistency", &atom(word)),
            None => pages,
        }
    }

    fn option(mut self, name: &'static str, value: &(impl Serialize + ?Sized)) -> Self {
        match written(value) {
            Ok(term) => self.options.push((name, term)),
            Err(error) => self.unwritable = Some(error),
        }
        self
    }

    /// So many entries a page at most, from 1 to 16,384; 1,000 unless it is said.
    #[must_use]
    pub fn limit(self, entries: u32) -> Self {
        self.option("limit", &entries)
    }

    /// About so many bytes a page at most, one entry at least: from 1 to 4 MiB; 1 MiB unless it is said.
    #[must_use]
    pub fn bytes(self, bytes: u32) -> Self {
        self.option("bytes", &bytes)
    }

    /// Those entries alone whose keys match a pattern of `:ets.match_object/2` with `:_` for any term:
    /// `.matching(&(atom("user"), atom("_")))`.
    #[must_use]
    pub fn matching(self, pattern: &(impl Serialize + ?Sized)) -> Self {
        self.option("match", pattern)
    }

    /// Begins behind the page with this [cursor](Self::cursor), which another scan, or process, has come to.
    #[must_use]
    pub fn behind(mut self, cursor: &[u8]) -> Self {
        self.cursor = Cursor::Behind(Binary(cursor.to_vec()));
        self
    }

    /// How far it has come, for [`behind`](Self::behind); `None`: nowhere yet, or to the end.
    pub fn cursor(&self) -> Option<&[u8]> {
        if let Cursor::Behind(cursor) = &self.cursor { Some(&cursor.0) } else { None }
    }

    /// In Erlang's order of terms, from a key on, which is in it with all that is `==` to it. Stores in memory have that order where they
    /// were started with it (`--ordered`); those without refuse each of these four by [`Refusal::Unordered`](super::Refusal).
    #[must_use]
    pub fn from(self, key: &(impl Serialize + ?Sized)) -> Self {
        self.option("from", key)
    }

    /// In that order, up to a key, which is in it with all that is `==` to it.
    #[must_use]
    pub fn to(self, key: &(impl Serialize + ?Sized)) -> Self {
        self.option("to", key)
    }

    /// In that order, the keys that begin with the elements of a tuple, with those of a list, or with the bytes of a binary.
    #[must_use]
    pub fn prefix(self, prefix: &(impl Serialize + ?Sized)) -> Self {
        self.option("prefix", prefix)
    }

    /// In that order, the last first where `reverse`.
    #[must_use]
    pub fn reverse(self, reverse: bool) -> Self {
        self.option("reverse", &reverse)
    }
}

impl<T: DeserializeOwned> Pages<T> {
    /// The next page; `None` behind the last. A page may be empty, and others follow. Asked again after an error, it asks for
    /// the same page.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn next_page(&mut self) -> Result<Option<Vec<T>>, Error> {
        if let Some(error) = self.unwritable.clone() {
            return Err(CallError::Unwritable(error).into());
        }
        let mut options: Vec<_> =
            self.options.iter().map(|(name, value)| (atom(name), value.clone())).collect();
        match &self.cursor {
            Cursor::First => {}
            Cursor::Behind(cursor) => {
                options.push((atom("cursor"), written(cursor).map_err(CallError::Unwritable)?));
            }
            Cursor::Over => return Ok(None),
        }
        let asked = Request::new("scan").part(&options).to(self.target.clone());
        let (entries, behind) = asked.answer(page).await?;
        self.cursor = behind.map_or(Cursor::Over, Cursor::Behind);
        Ok(Some(entries))
    }
}

/// `{entries, cursor}` or `{entries, :done}`
fn page<T: DeserializeOwned>(answer: TermView<'_>) -> Result<Page<T>, Error> {
    let [entries, cursor] = answer.as_tuple::<2>().ok_or_else(|| unknown(answer))?;
    let cursor = if cursor.is_atom("done") { None } else { Some(from_term(cursor)?) };
    Ok((from_term(entries)?, cursor))
}

impl<T> fmt::Debug for Pages<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pages").field("store", &format_args!("{}", self.target.store)).finish_non_exhaustive()
    }
}
