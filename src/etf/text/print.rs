//! Printing a term as Elixir's `inspect/2` does.

use super::super::split::{AtomView, Cursor, TermError, TermView, Traits, float_text};
use super::super::tag::*;
use super::super::{Pid, Reference};
use super::{number, quote};

/// Bytes of a big integer that are printed in any case; a larger one is elided where it cannot fit.
const BIG_FREE: usize = 256;
/// Bytes of the largest integer that is printed: 39,457 digits. The work grows with the square.
const BIG_MAX: usize = 16 << 10;

/// How much of a term is printed.
#[derive(Clone, Copy, Debug)]
pub struct InspectLimits {
    /// Bytes of output after which the rest is elided.
    pub text_bytes_max: usize,
}

impl InspectLimits {
    /// One log line.
    pub const LOG: Self = Self { text_bytes_max: 200 };
}

/// Prints a term as Elixir 1.18 and later do with `inspect(term, limit: :infinity, printable_limit: :infinity)`.
///
/// What is beyond the limit is replaced by `...`. The limit bounds the work too: a large term is not looked at
/// beyond what can be printed of it. So of a list or binary that is cut, the part that is printed decides
/// whether it is shown as text, keywords or plain.
///
/// Where it differs from a BEAM's:
/// - A pid, reference or port shows its node's name, `#PID<node@host.95.0>`: a BEAM has a number there that means
///   something only to itself.
/// - A struct is printed as the map that it is, as Elixir does where its module is not loaded.
/// - The pairs of a map stand in the order that they were received in.
/// - Of a fun there is `#Function<index.uniq/arity in Module>`, without the function that it was made in.
/// - A native record (OTP 29) shows its fields in Elixir's syntax, not in Erlang's.
/// - An atom in Han or in a rare script stands in quotes, and an integer of over 39,000 digits is elided.
pub fn inspect(term: TermView<'_>, limits: InspectLimits) -> String {
    let mut printer = Printer {
        input: term.cursor(),
        text: String::new(),
        text_bytes_max: limits.text_bytes_max,
        work_left: limits.text_bytes_max.saturating_mul(16).saturating_add(1024),
        open: Vec::new(),
    };
    // A checked term gives no error: this is the end of the text, by the limit if not by the term.
    if printer.run().is_err() {
        printer.text.push_str("...");
    }
    printer.text
}

/// The text is as long as it may be, or took as much work as it may.
struct Elided;

impl From<TermError> for Elided {
    fn from(_: TermError) -> Self {
        Self
    }
}

/// A term that has been opened and not closed.
#[derive(Clone, Copy)]
enum Frame<'a> {
    /// Elements that are left.
    Tuple { left: usize, first: bool },
    /// Elements that are left before the tail.
    List { left: usize, first: bool, keywords: bool },
    /// A bracket behind a tail.
    Close,
    /// Pairs that are left; whether the value of the last one is.
    Map { left: usize, first: bool, keywords: bool, value: bool },
    /// Fields that are left, and the names of those.
    Record { left: usize, first: bool, names: Cursor<'a> },
}

/// What a list is shown as.
#[derive(Clone, Copy, PartialEq, Eq)]
enum ListKind {
    Text,
    Keywords,
    Plain,
}

struct Printer<'a> {
    input: Cursor<'a>,
    text: String,
    text_bytes_max: usize,
    /// Steps for looking ahead and for what leaves no text. When they are used up a list is shown as plain.
    work_left: usize,
    open: Vec<Frame<'a>>,
}

impl<'a> Printer<'a> {
    fn run(&mut self) -> Result<(), Elided> {
        self.term()?;
        while let Some(frame) = self.open.pop() {
            match frame {
                Frame::Tuple { left: 0, .. } => self.push("}")?,
                Frame::Tuple { left, first } => {
                    self.separate(first)?;
                    self.open.push(Frame::Tuple { left: left - 1, first: false });
                    self.term()?;
                }
                Frame::List { left, first, keywords } => self.next_of_list(left, first, keywords)?,
                Frame::Close => self.push("]")?,
                Frame::Map { left, keywords, value: true, .. } => {
                    self.push(" => ")?;
                    self.open.push(Frame::Map { left, first: false, keywords, value: false });
                    self.term()?;
                }
                Frame::Map { left: 0, .. } => self.push("}")?,
                Frame::Map { left, first, keywords, .. } => {
                    self.separate(first)?;
                    if keywords {
                        self.key()?;
                    }
                    self.open.push(Frame::Map { left: left - 1, first: false, keywords, value: !keywords });
                    self.term()?;
                }
                Frame::Record { left: 0, .. } => self.push("}")?,
                Frame::Record { left, first, mut names } => {
                    let name = quote::erlang_atom(&names.atom()?.to_str());
                    self.push(if first { "" } else { "," })?;
                    self.push(&name)?;
                    self.push(" = ")?;
                    self.open.push(Frame::Record { left: left - 1, first: false, names });
                    self.term()?;
                }
            }
        }
        Ok(())
    }

    /// Bytes of text that there is room for.
    const fn room(&self) -> usize {
        self.text_bytes_max - self.text.len()
    }

    fn push(&mut self, part: &str) -> Result<(), Elided> {
        if part.len() <= self.room() {
            self.text.push_str(part);
            return Ok(());
        }
        self.text.push_str(&part[..part.floor_char_boundary(self.room())]);
        Err(Elided)
    }

    fn separate(&mut self, first: bool) -> Result<(), Elided> {
        self.push(if first { "" } else { ", " })
    }

    fn work(&mut self, steps: usize) -> Result<(), Elided> {
        self.work_left = self.work_left.checked_sub(steps).ok_or(Elided)?;
        Ok(())
    }

    /// Prints a term that has no parts, or opens one that has.
    fn term(&mut self) -> Result<(), Elided> {
        let tag = self.input.peek()?;
        match tag {
            SMALL_ATOM_UTF8_EXT | ATOM_UTF8_EXT | ATOM_EXT | SMALL_ATOM_EXT => {
                let text = quote::atom(&self.input.atom()?.to_str());
                self.push(&text)
            }
            SMALL_INTEGER_EXT | INTEGER_EXT | SMALL_BIG_EXT | LARGE_BIG_EXT => self.integer(),
            NEW_FLOAT_EXT => {
                let [_, value @ ..] = self.input.array::<9>()?;
                self.push(&number::float(f64::from_be_bytes(value)))
            }
            FLOAT_EXT => {
                self.input.u8()?;
                let value = float_text(self.input.take(31)?)?;
                self.push(&number::float(value))
            }
            BINARY_EXT => {
                let bytes = self.input.binary()?;
                self.binary(bytes)
            }
            BIT_BINARY_EXT => {
                let (bits, bytes) = super::super::key::bit_binary(&mut self.input)?;
                match bytes.split_last() {
                    Some((last, whole)) if bits < 8 => self.bits(whole, Some((last >> (8 - bits), bits))),
                    _ => self.binary(bytes),
                }
            }
            NIL_EXT => {
                self.input.u8()?;
                self.push("[]")
            }
            STRING_EXT | LIST_EXT => self.list(),
            SMALL_TUPLE_EXT | LARGE_TUPLE_EXT => {
                let left = self.input.tuple()?;
                self.open.push(Frame::Tuple { left, first: true });
                self.push("{")
            }
            MAP_EXT => {
                let left = self.input.map()?;
                let keywords = left > 0 && self.has_keys_only(self.input, left);
                self.open.push(Frame::Map { left, first: true, keywords, value: false });
                self.push("%{")
            }
            NEW_PID_EXT | PID_EXT => {
                let pid = Pid::from(self.input.pid()?);
                self.push(&format!("{pid:?}"))
            }
            NEWER_REFERENCE_EXT | NEW_REFERENCE_EXT | REFERENCE_EXT => {
                let reference = Reference::from(self.input.reference()?);
                self.push(&format!("{reference:?}"))
            }
            V4_PORT_EXT | NEW_PORT_EXT | PORT_EXT => self.port(tag),
            EXPORT_EXT => {
                self.input.u8()?;
                let (module, function) = (self.input.atom()?, self.input.atom()?);
                let [_, arity] = self.input.array()?;
                let (module, function) = (quote::atom(&module.to_str()), quote::call(&function.to_str()));
                self.push(&format!("&{module}.{function}/{arity}"))
            }
            NEW_FUN_EXT => self.fun(),
            FUN_EXT => self.old_fun(),
            RECORD_EXT => self.record(),
            _ => Err(Elided),
        }
    }

    fn integer(&mut self) -> Result<(), Elided> {
        let tag = self.input.peek()?;
        if tag == SMALL_INTEGER_EXT {
            let [_, value] = self.input.array()?;
            return self.push(&value.to_string());
        }
        if tag == INTEGER_EXT {
            let [_, value @ ..] = self.input.array::<5>()?;
            return self.push(&i32::from_be_bytes(value).to_string());
        }
        let (sign, digits) = super::super::key::big(&mut self.input)?;
        // Every byte gives more than two digits.
        if digits.len() > BIG_FREE && digits.len().saturating_mul(2) > self.room() || digits.len() > BIG_MAX {
            return Err(Elided);
        }
        self.push(&number::big(sign != 0, digits))
    }

    fn binary(&mut self, bytes: &[u8]) -> Result<(), Elided> {
        // What is beyond this cannot be printed, and need not be looked at.
        let visible = bytes.get(..self.room()).unwrap_or(bytes);
        let text = match std::str::from_utf8(visible) {
            Ok(text) => Some(text),
            // A character may be cut where the room ends.
            Err(error) if error.error_len().is_none() && visible.len() < bytes.len() => {
                visible.utf8_chunks().next().map(|chunk| chunk.valid())
            }
            Err(_) => None,
        };
        let Some(text) = text.filter(|text| text.chars().all(quote::is_printable)) else {
            return self.bits(bytes, None);
        };
        self.push("\"")?;
        self.escaped(text)?;
        if visible.len() < bytes.len() {
            return Err(Elided);
        }
        self.push("\"")
    }

    fn escaped(&mut self, text: &str) -> Result<(), Elided> {
        let mut result = Ok(());
        quote::escape(text, &mut |part| {
            if result.is_ok() {
                result = self.push(part);
            }
        });
        result
    }

    /// `<<1, 2, 3::size(4)>>`
    fn bits(&mut self, bytes: &[u8], rest: Option<(u8, u8)>) -> Result<(), Elided> {
        self.push("<<")?;
        for (at, byte) in bytes.iter().enumerate() {
            self.separate(at == 0)?;
            self.push(&byte.to_string())?;
        }
        if let Some((value, bits)) = rest {
            self.separate(bytes.is_empty())?;
            self.push(&format!("{value}::size({bits})"))?;
        }
        self.push(">>")
    }

    /// The input is at a list that is not `NIL_EXT`.
    fn list(&mut self) -> Result<(), Elided> {
        let mut left = 0;
        // A list of no elements is its tail, which may be another.
        while left == 0 && self.input.peek()? == LIST_EXT {
            left = self.input.list()?;
            self.work(usize::from(left == 0))?;
        }
        if left == 0 && self.input.peek()? != STRING_EXT {
            // Not a list, so this goes no deeper.
            return self.term();
        }
        match self.list_kind(self.input, left) {
            ListKind::Text => self.charlist(left),
            kind => {
                self.push("[")?;
                let keywords = kind == ListKind::Keywords;
                self.open.push(Frame::List { left, first: true, keywords });
                Ok(())
            }
        }
    }

    fn next_of_list(&mut self, mut left: usize, mut first: bool, keywords: bool) -> Result<(), Elided> {
        while left == 0 {
            match self.input.peek()? {
                LIST_EXT => {
                    left = self.input.list()?;
                    self.work(usize::from(left == 0))?;
                }
                NIL_EXT => {
                    self.input.u8()?;
                    return self.push("]");
                }
                STRING_EXT => {
                    for byte in self.string()? {
                        self.separate(first)?;
                        self.push(&byte.to_string())?;
                        first = false;
                    }
                    return self.push("]");
                }
                _ => {
                    self.push(" | ")?;
                    self.open.push(Frame::Close);
                    return self.term();
                }
            }
        }
        self.separate(first)?;
        if keywords {
            self.input.tuple()?;
            self.key()?;
        }
        self.open.push(Frame::List { left: left - 1, first: false, keywords });
        self.term()
    }

    fn string(&mut self) -> Result<&'a [u8], Elided> {
        let [_, len @ ..] = self.input.array::<3>()?;
        Ok(self.input.take(usize::from(u16::from_be_bytes(len)))?)
    }

    /// `key: `
    fn key(&mut self) -> Result<(), Elided> {
        let key = quote::key(&self.input.atom()?.to_str());
        self.push(&key)?;
        self.push(" ")
    }

    /// The integers of a list that was found to be text.
    fn charlist(&mut self, mut left: usize) -> Result<(), Elided> {
        self.push("~c\"")?;
        let (room, mut text) = (self.room(), String::new());
        // What is longer than the room is cut there: escaping makes it no shorter.
        while text.len() <= room {
            if left > 0 {
                left -= 1;
                text.push(char::from(self.input.unsigned()? as u8));
                continue;
            }
            match self.input.peek()? {
                LIST_EXT => {
                    left = self.input.list()?;
                    self.work(usize::from(left == 0))?;
                }
                STRING_EXT => {
                    let bytes = self.string()?;
                    text.extend(bytes.iter().take(room + 1).map(|&byte| char::from(byte)));
                    break;
                }
                _ => {
                    self.input.u8()?;
                    break;
                }
            }
        }
        self.escaped(&text)?;
        self.push("\"")
    }

    /// What the list of `left` elements at `cursor`, and what is in its tail, is shown as. Looks no further than
    /// there is room for text.
    fn list_kind(&mut self, mut cursor: Cursor<'a>, mut left: usize) -> ListKind {
        let kind = match cursor.peek() {
            Ok(SMALL_TUPLE_EXT | LARGE_TUPLE_EXT) => ListKind::Keywords,
            Ok(SMALL_INTEGER_EXT | INTEGER_EXT | SMALL_BIG_EXT | STRING_EXT) => ListKind::Text,
            _ => ListKind::Plain,
        };
        let mut room = self.room();
        let is_kind = |printer: &mut Self, cursor: &mut Cursor<'a>, room: &mut usize| match kind {
            ListKind::Text => cursor.unsigned().is_ok_and(quote::is_printable_ascii),
            ListKind::Keywords => {
                cursor.tuple() == Ok(2)
                    && cursor.atom().is_ok_and(|key| quote::is_key(&key.to_str()))
                    && printer.skip(cursor, room)
            }
            ListKind::Plain => false,
        };
        while room > 0 && self.work(1).is_ok() {
            room -= 1;
            if left > 0 {
                left -= 1;
                if !is_kind(self, &mut cursor, &mut room) {
                    return ListKind::Plain;
                }
                continue;
            }
            match cursor.peek() {
                Ok(NIL_EXT) => return kind,
                Ok(LIST_EXT) => left = cursor.list().unwrap_or(0),
                Ok(STRING_EXT) if kind == ListKind::Text => {
                    let visible = cursor.rest().get(3..).unwrap_or_default();
                    let [_, len @ ..] = cursor.array::<3>().unwrap_or_default();
                    let mut visible = visible.iter().take(u16::from_be_bytes(len).into()).take(room);
                    let text = visible.all(|&byte| quote::is_printable_ascii(u64::from(byte)));
                    return if text { ListKind::Text } else { ListKind::Plain };
                }
                _ => return ListKind::Plain,
            }
        }
        // The text ends before the list does; or looking ahead has become too much work.
        if room == 0 { kind } else { ListKind::Plain }
    }

    /// Whether the keys of the map of `left` pairs at `cursor` are all printed before colons.
    fn has_keys_only(&mut self, mut cursor: Cursor<'a>, left: usize) -> bool {
        let mut room = self.room();
        for _ in 0..left {
            let key = |key: AtomView<'_>| quote::is_key(&key.to_str());
            if self.work(1).is_err() || !cursor.atom().is_ok_and(key) {
                return false;
            }
            if !self.skip(&mut cursor, &mut room) {
                return false;
            }
            if room == 0 {
                return true;
            }
        }
        true
    }

    /// Passes over a term. Ends early when the term alone takes more room than there is, with no room left: every
    /// step of it would be a byte of text at least. False when it is too much work.
    fn skip(&mut self, cursor: &mut Cursor<'a>, room: &mut usize) -> bool {
        let (mut traits, mut funs) = (Traits::none(), Vec::new());
        let mut pending = 1;
        while pending > 0 && *room > 0 {
            let Ok(children) = cursor.step(&mut traits, pending, &mut funs) else { return false };
            funs.clear();
            pending = pending - 1 + children;
            *room -= 1;
            if self.work(1).is_err() {
                return false;
            }
        }
        true
    }

    fn port(&mut self, tag: u8) -> Result<(), Elided> {
        self.input.u8()?;
        let node = self.input.atom()?.to_str();
        let high = if tag == V4_PORT_EXT { self.input.u32()? } else { 0 };
        let number = u64::from(high) << 32 | u64::from(self.input.u32()?);
        self.input.take(if tag == PORT_EXT { 1 } else { 4 })?;
        self.push(&format!("#Port<{node}.{number}>"))
    }

    /// Size:32, arity:8, uniq:128, index:32, free:32, module, old index, old uniq, pid, free variables.
    fn fun(&mut self) -> Result<(), Elided> {
        self.input.u8()?;
        let mut head = self.input;
        let size = self.input.len32()?;
        self.input.take(size.saturating_sub(4))?;
        head.u32()?;
        let arity = head.u8()?;
        head.take(16)?;
        let index = head.u32()?;
        head.u32()?;
        let module = quote::atom(&head.atom()?.to_str());
        head.skip()?;
        let uniq = head.term()?;
        let uniq = inspect(uniq, InspectLimits::LOG);
        self.push(&format!("#Function<{index}.{uniq}/{arity} in {module}>"))
    }

    /// Free:32, pid, module, index, uniq, free variables.
    fn old_fun(&mut self) -> Result<(), Elided> {
        self.input.u8()?;
        let free = self.input.u32()?;
        self.input.pid()?;
        let module = quote::atom(&self.input.atom()?.to_str());
        let (index, uniq) = (self.input.term()?, self.input.term()?);
        let (index, uniq) = (inspect(index, InspectLimits::LOG), inspect(uniq, InspectLimits::LOG));
        self.push(&format!("#Function<{index}.{uniq} in {module}>"))?;
        // None of this is printed, so it takes no room.
        let (mut cursor, mut room) = (self.input, usize::MAX);
        for _ in 0..free {
            if !self.skip(&mut cursor, &mut room) {
                return Err(Elided);
            }
        }
        self.input = cursor;
        Ok(())
    }

    /// Arity:32, flags:8, module, name, the fields' names, their values.
    fn record(&mut self) -> Result<(), Elided> {
        let (left, [module, name]) = super::super::key::record_head(&mut self.input)?;
        let (module, name) = (quote::erlang_atom(&module.to_str()), quote::erlang_atom(&name.to_str()));
        self.push(&format!("#{module}:{name}{{"))?;
        let names = self.input;
        for _ in 0..left {
            self.work(1)?;
            self.input.atom()?;
        }
        self.open.push(Frame::Record { left, first: true, names });
        Ok(())
    }
}

#[cfg(test)]
mod tests;
