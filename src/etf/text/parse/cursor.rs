//! A place in a text.

/// A place in a text, between two characters.
#[derive(Clone)]
pub(super) struct Cursor<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Cursor<'a> {
    pub(super) const fn new(text: &'a str) -> Self {
        Self { text, at: 0 }
    }

    /// Bytes before it.
    pub(super) const fn offset(&self) -> usize {
        self.at
    }

    pub(super) fn rest(&self) -> &'a str {
        &self.text[self.at..]
    }

    pub(super) fn peek(&self) -> Option<char> {
        self.rest().chars().next()
    }

    /// Goes on by whole characters; `bytes` is their length.
    pub(super) const fn advance(&mut self, bytes: usize) {
        self.at += bytes;
    }

    pub(super) fn take_char(&mut self, wanted: char) -> bool {
        let found = self.peek() == Some(wanted);
        if found {
            self.at += wanted.len_utf8();
        }
        found
    }

    pub(super) fn take_str(&mut self, wanted: &str) -> bool {
        let found = self.rest().starts_with(wanted);
        if found {
            self.at += wanted.len();
        }
        found
    }

    /// Takes characters of a kind, `count_max` at most.
    pub(super) fn take_while(
        &mut self,
        count_max: usize,
        mut is_wanted: impl FnMut(char) -> bool,
    ) -> &'a str {
        let rest = self.rest();
        let mut chars = rest.char_indices().take(count_max).skip_while(|&(_, char)| is_wanted(char));
        let len = match chars.next() {
            Some((end, _)) => end,
            None => rest.char_indices().nth(count_max).map_or(rest.len(), |(end, _)| end),
        };
        self.at += len;
        &rest[..len]
    }

    pub(super) fn skip_blanks(&mut self) {
        self.take_while(usize::MAX, |char| matches!(char, ' ' | '\t' | '\n' | '\r'));
    }
}
