//! Reading a term as Elixir writes it.

mod cursor;
mod error;
mod identifiers;
mod names;
mod numbers;
mod quoted;
#[cfg(test)]
mod tests;

pub use error::{ParseError, ParseProblem};
pub use identifiers::NodeIdentity;

use super::super::key::check_maps;
use super::super::split::STRING_LEN_MAX;
use super::super::tag::{BIT_BINARY_EXT, EXPORT_EXT, STRING_EXT};
use super::super::{OwnedTerm, TermView, TermWriter, Traits};
use cursor::Cursor;
use numbers::Number;
use quoted::HexEscape;

/// Bits of the longest segment of a bit string.
const SEGMENT_BITS_MAX: usize = 1 << 16;

/// Reads one term in Elixir's syntax: what [`inspect`](super::inspect) prints, and the other ways to write the same.
///
/// Numbers with underscores and to the bases 2, 8 and 16, `?a`, floats, atoms with and without quotes, aliases
/// (`KeyValueStore` is `:"Elixir.KeyValueStore"`), strings and charlists in both quotes and by `~c`, bit strings of
/// integers and strings (`<<1, 2::size(4)>>`), tuples, lists with keywords and tails, maps, external funs
/// (`&Kernel.+/2`); pids, references and ports of the node that `local` names, as that node or we print them.
///
/// Nothing is evaluated: variables, operators, calls and interpolation are refused. Structs are, as the
/// fields that are left out stand in a module that is not here; `%{__struct__: Name}` is the map that one is. Where
/// a map has a key twice, which Elixir takes with a warning, it is refused.
///
/// It needs no stack however deep the term is, and memory in proportion to the text.
///
/// ```
/// use kvnode::etf::text::parse;
///
/// let term = parse("{:put, :nombre, \"Mafalda\"}", None)?;
/// assert_eq!(format!("{term:?}"), "{:put, :nombre, \"Mafalda\"}");
/// assert_eq!(parse("{:a, }}", None).unwrap_err().to_string(), "column 7: the end of the text should stand here");
/// # Ok::<(), kvnode::etf::text::ParseError>(())
/// ```
///
/// # Errors
/// See [`ParseError`]: the fault of the person who typed it.
pub fn parse(text: &str, local: Option<&NodeIdentity>) -> Result<OwnedTerm, ParseError> {
    let mut parser =
        Parser { cursor: Cursor::new(text), local, leaves: Vec::new(), parts: Vec::new(), open: Vec::new() };
    let parsed = parser.run().and_then(|()| parser.written());
    parsed.map_err(|problem| ParseError::at(text, parser.cursor.offset(), problem))
}

/// A piece of the term, in order.
enum Part {
    /// A term without parts, or what begins one: bytes of `leaves` up to here.
    Leaf { end: usize },
    /// A tuple's head, with its arity.
    Tuple(usize),
    /// A list's head, with its elements before the tail.
    List(usize),
    /// A map's head, with its pairs and where it begins in the text.
    Map { pairs: usize, offset: usize },
    /// `[]`
    Nil,
}

/// A term that has been opened and not closed; `part` is its head.
enum Frame {
    Tuple {
        part: usize,
        arity: usize,
    },
    /// `bare`: one of keywords that ends a tuple and has no brackets of its own.
    List {
        part: usize,
        len: usize,
        keywords: bool,
        tail: bool,
        bare: bool,
    },
    Map {
        part: usize,
        pairs: usize,
        keywords: bool,
        value: bool,
    },
}

/// What has been found where a term is due.
enum Found {
    Leaf,
    Opened,
}

struct Parser<'a> {
    cursor: Cursor<'a>,
    local: Option<&'a NodeIdentity>,
    leaves: Vec<u8>,
    parts: Vec<Part>,
    open: Vec<Frame>,
}

impl Parser<'_> {
    fn run(&mut self) -> Result<(), ParseProblem> {
        loop {
            self.cursor.skip_blanks();
            // A container that was opened has its first element next, unless it is empty.
            let mut complete = match self.term()? {
                Found::Leaf => true,
                Found::Opened => self.closes()?,
            };
            while complete {
                if self.open.is_empty() {
                    self.cursor.skip_blanks();
                    return match self.cursor.peek() {
                        None => Ok(()),
                        Some(_) => Err(ParseProblem::Wanted("the end of the text")),
                    };
                }
                complete = self.after_element()?;
            }
        }
    }

    /// The term as bytes.
    fn written(&mut self) -> Result<OwnedTerm, ParseProblem> {
        let (mut out, mut start) = (Vec::with_capacity(self.leaves.len() + self.parts.len()), 0);
        let mut maps = Vec::new();
        for part in &self.parts {
            if let Part::Map { offset, .. } = part {
                maps.push((out.len(), *offset));
            }
            let mut w = TermWriter::new(&mut out);
            match *part {
                #[expect(clippy::indexing_slicing, reason = "a leaf ends where the next begins")]
                Part::Leaf { end } => {
                    w.raw(&self.leaves[start..end]);
                    start = end;
                }
                Part::Tuple(arity) => _ = w.tuple(arity),
                Part::List(len) => _ = w.list(len),
                Part::Map { pairs, .. } => _ = w.map(pairs),
                Part::Nil => _ = w.nil(),
            }
        }
        let term = OwnedTerm::parse(out).map_err(|_| ParseProblem::Unwritable)?;
        if term.view().traits().contains(Traits::MAP) && check_maps(term.view()).is_err() {
            self.point_at_duplicate(&term, &maps);
            return Err(ParseProblem::DuplicateKey);
        }
        Ok(term)
    }

    /// Moves to the map with the double key: the innermost one, as those around it are wrong only by that.
    fn point_at_duplicate(&mut self, term: &OwnedTerm, maps: &[(usize, usize)]) {
        let bytes = term.view().bytes();
        let is_wrong = |&&(at, _): &&(usize, usize)| {
            #[expect(clippy::indexing_slicing, reason = "`written` has written a map there")]
            let mut rest = super::super::Cursor::new(&bytes[at..]);
            rest.term().is_ok_and(|map: TermView<'_>| check_maps(map).is_err())
        };
        let offset = maps.iter().rev().find(is_wrong).map_or(0, |&(_, offset)| offset);
        self.cursor = Cursor::new("");
        self.cursor.advance(offset);
    }

    /// Where a container has been opened: whether it closes at once. Else its first element's key is read.
    fn closes(&mut self) -> Result<bool, ParseProblem> {
        self.cursor.skip_blanks();
        if self.close()? {
            return Ok(true);
        }
        self.begin_element()?;
        Ok(false)
    }

    /// Takes the innermost container's closing bracket, if it stands here.
    #[expect(
        clippy::indexing_slicing,
        reason = "a frame has its part from when it was opened, and no part goes"
    )]
    fn close(&mut self) -> Result<bool, ParseProblem> {
        let bracket = match self.open.last() {
            Some(Frame::List { bare: false, .. }) => ']',
            _ => '}',
        };
        if !self.cursor.take_char(bracket) {
            return Ok(false);
        }
        match self.open.pop() {
            Some(Frame::Tuple { part, arity }) => self.parts[part] = Part::Tuple(arity),
            Some(Frame::List { part, len, tail, bare, .. }) => {
                self.parts[part] = Part::List(len);
                if !tail {
                    self.parts.push(Part::Nil);
                }
                // The bracket was that of the tuple, whose last element this is.
                if bare && let Some(Frame::Tuple { part, arity }) = self.open.pop() {
                    self.parts[part] = Part::Tuple(arity + 1);
                }
            }
            Some(Frame::Map { part, pairs, .. }) => {
                if let Part::Map { pairs: announced, .. } = &mut self.parts[part] {
                    *announced = pairs;
                }
            }
            None => {}
        }
        Ok(true)
    }

    /// At an element: reads `key:`, if the container may have such and one stands here.
    fn begin_element(&mut self) -> Result<(), ParseProblem> {
        let before = self.cursor.clone();
        let Some(key) = self.key()? else {
            if let Some(Frame::List { keywords: true, .. } | Frame::Map { keywords: true, .. }) =
                self.open.last()
            {
                return Err(ParseProblem::AfterKeywords);
            }
            return Ok(());
        };
        match self.open.last() {
            Some(Frame::Tuple { arity: 0, .. }) => {
                self.cursor = before;
                return Err(ParseProblem::Unsupported(
                    "a key at the beginning of a tuple; write a list, as in {[key: 1]}, or a map, as in %{key: 1}",
                ));
            }
            Some(Frame::Tuple { .. }) => {
                let frame = |part| Frame::List { part, len: 0, keywords: true, tail: false, bare: true };
                self.opened(Part::List(0), frame);
            }
            _ => {}
        }
        if let Some(Frame::List { .. }) = self.open.last() {
            self.parts.push(Part::Tuple(2));
        }
        self.leaf(|w| _ = w.atom(&key));
        match self.open.last_mut() {
            Some(Frame::List { keywords, .. }) => *keywords = true,
            Some(Frame::Map { keywords, value, .. }) => (*keywords, *value) = (true, true),
            _ => {}
        }
        Ok(())
    }

    /// `key:` with the blank behind it.
    fn key(&mut self) -> Result<Option<String>, ParseProblem> {
        let mut after = self.cursor.clone();
        let quote = after.peek().filter(|char| matches!(char, '"' | '\''));
        let name = match quote {
            // A string that is none of ours to judge yet: it is read again where it is not followed by a colon.
            Some(quote) => {
                after.advance(1);
                if quoted::read(&mut after, quote, HexEscape::Byte).is_err() {
                    return Ok(None);
                }
                None
            }
            None => match names::word(&mut after).or_else(|| key_operator(&mut after)) {
                Some(name) => Some(name.to_owned()),
                None => return Ok(None),
            },
        };
        if !after.rest().starts_with(':') || after.rest().starts_with("::") {
            return Ok(None);
        }
        let name = match (name, quote) {
            (None, Some(quote)) => {
                let read = names::quoted_atom(&mut self.cursor, quote)?;
                after = self.cursor.clone();
                read
            }
            (name, _) => name.unwrap_or_default(),
        };
        after.advance(1);
        if !after.peek().is_some_and(|char| matches!(char, ' ' | '\t' | '\n' | '\r')) {
            self.cursor = after;
            return Err(ParseProblem::KeyWithoutBlank);
        }
        if name.chars().count() > 255 {
            return Err(ParseProblem::AtomTooLong);
        }
        self.cursor = after;
        Ok(Some(name))
    }

    /// Behind an element of the innermost container: whether that closes here. Else the next element is begun.
    fn after_element(&mut self) -> Result<bool, ParseProblem> {
        self.cursor.skip_blanks();
        let wanted = match self.open.last_mut() {
            Some(Frame::Map { value: value @ false, .. }) => {
                if !self.cursor.take_str("=>") {
                    return Err(self.missing("`=>` and the value"));
                }
                *value = true;
                return Ok(false);
            }
            Some(Frame::Map { value, pairs, .. }) => {
                (*value, *pairs) = (false, *pairs + 1);
                "a comma or the map's `}`"
            }
            Some(Frame::Tuple { arity, .. }) => {
                *arity += 1;
                "a comma or the tuple's `}`"
            }
            Some(Frame::List { tail: true, .. }) => {
                return if self.close()? { Ok(true) } else { Err(self.missing("the list's `]`")) };
            }
            Some(Frame::List { len, keywords, tail, bare, .. }) => {
                *len += 1;
                if !*keywords && self.cursor.rest().starts_with('|') && !self.cursor.rest().starts_with("||")
                {
                    self.cursor.advance(1);
                    *tail = true;
                    return Ok(false);
                }
                if *bare { "a comma or the tuple's `}`" } else { "a comma or the list's `]`" }
            }
            None => return Ok(true),
        };
        if self.cursor.take_char(',') {
            return self.closes();
        }
        if self.close()? { Ok(true) } else { Err(self.missing(wanted)) }
    }

    fn missing(&self, wanted: &'static str) -> ParseProblem {
        if self.cursor.rest().is_empty() {
            ParseProblem::Ends { wanted }
        } else {
            ParseProblem::Wanted(wanted)
        }
    }

    fn leaf(&mut self, write: impl FnOnce(&mut TermWriter<'_>)) {
        write(&mut TermWriter::new(&mut self.leaves));
        self.parts.push(Part::Leaf { end: self.leaves.len() });
    }

    fn opened(&mut self, part: Part, frame: impl FnOnce(usize) -> Frame) -> Found {
        self.open.push(frame(self.parts.len()));
        self.parts.push(part);
        Found::Opened
    }

    /// Reads a term that has no parts, or opens one that has.
    fn term(&mut self) -> Result<Found, ParseProblem> {
        let Some(first) = self.cursor.peek() else { return Err(ParseProblem::Ends { wanted: "a term" }) };
        let offset = self.cursor.offset();
        match first {
            '{' => {
                self.cursor.advance(1);
                return Ok(self.opened(Part::Tuple(0), |part| Frame::Tuple { part, arity: 0 }));
            }
            '[' => {
                self.cursor.advance(1);
                let frame = |part| Frame::List { part, len: 0, keywords: false, tail: false, bare: false };
                return Ok(self.opened(Part::List(0), frame));
            }
            '%' => {
                if self.cursor.rest()[1..].starts_with(|char: char| char.is_uppercase() || char == ':') {
                    return Err(ParseProblem::Unsupported(
                        "a struct, whose module is not here; write the map that it is, as in %{__struct__: Name, …}",
                    ));
                }
                if !self.cursor.take_str("%{") {
                    return Err(ParseProblem::Wanted("a map, as in %{key: 1},"));
                }
                let frame = |part| Frame::Map { part, pairs: 0, keywords: false, value: false };
                return Ok(self.opened(Part::Map { pairs: 0, offset }, frame));
            }
            '"' => {
                let bytes = self.quoted('"')?;
                self.leaf(|w| _ = w.binary(&bytes));
            }
            '\'' => {
                let text = self.quoted('\'')?;
                self.charlist(&text)?;
            }
            '~' => self.sigil()?,
            ':' => {
                self.cursor.advance(1);
                let name = names::atom(&mut self.cursor)?;
                self.leaf(|w| _ = w.atom(&name));
            }
            '<' if self.cursor.rest().starts_with("<<") => self.bit_string()?,
            '?' => self.character()?,
            '&' => self.export()?,
            '#' => {
                let encoded = identifiers::read(&mut self.cursor, self.local)?;
                self.leaf(|w| _ = w.raw(&encoded));
            }
            '0'..='9' | '-' | '+' => {
                let number = numbers::read(&mut self.cursor)?.encoded();
                self.leaf(|w| _ = w.raw(&number));
            }
            first if first.is_alphabetic() || first == '_' => self.word()?,
            '}' | ']' | ')' | ',' | '>' => return Err(ParseProblem::Wanted("a term")),
            _ => return Err(ParseProblem::Wanted("a term, and this begins none: it")),
        }
        Ok(Found::Leaf)
    }

    fn word(&mut self) -> Result<(), ParseProblem> {
        let start = self.cursor.clone();
        let word = names::word(&mut self.cursor).unwrap_or_default();
        let name = match word {
            "nil" | "true" | "false" => word.to_owned(),
            _ if word.starts_with(char::is_uppercase) => {
                let name = names::alias(&mut self.cursor, word)?;
                if self.cursor.rest().starts_with('.') {
                    return Err(ParseProblem::Unsupported(
                        "a call, which nobody evaluates here; write the value itself",
                    ));
                }
                name
            }
            _ => {
                let name = word.to_owned();
                self.cursor = start;
                return Err(ParseProblem::Variable(name));
            }
        };
        self.leaf(|w| _ = w.atom(&name));
        Ok(())
    }

    /// What stands between quotes; the cursor is at the opening one.
    fn quoted(&mut self, quote: char) -> Result<Vec<u8>, ParseProblem> {
        if self.cursor.rest().starts_with("\"\"\"") || self.cursor.rest().starts_with("'''") {
            return Err(ParseProblem::Unsupported(
                "a heredoc; write the text in plain quotes, with \\n for line ends",
            ));
        }
        self.cursor.advance(1);
        let close = quoted::closing(quote).unwrap_or(quote);
        quoted::read(&mut self.cursor, close, HexEscape::Byte)
    }

    fn charlist(&mut self, text: &[u8]) -> Result<(), ParseProblem> {
        let text = std::str::from_utf8(text).map_err(|_| ParseProblem::NotUtf8)?;
        let len = text.chars().count();
        if len == 0 {
            self.leaf(|w| _ = w.nil());
        } else if len <= STRING_LEN_MAX && text.chars().all(|char| u32::from(char) < 256) {
            // As a BEAM writes it.
            let bytes: Vec<u8> = text.chars().map(|char| char as u8).collect();
            self.leaf(|w| _ = w.raw(&[STRING_EXT]).raw(&(len as u16).to_be_bytes()).raw(&bytes));
        } else {
            self.leaf(|w| {
                w.list(len);
                text.chars().for_each(|char| _ = w.unsigned(u64::from(char)));
                w.nil();
            });
        }
        Ok(())
    }

    fn sigil(&mut self) -> Result<(), ParseProblem> {
        let mut after = self.cursor.clone();
        after.advance(1);
        let open = after.rest().strip_prefix('c').and_then(|rest| rest.chars().next());
        let Some(open) = open.filter(|&open| quoted::closing(open).is_some()) else {
            return Err(ParseProblem::Unsupported(
                "a sigil; of those only ~c\"…\" is read: write a plain text or list",
            ));
        };
        after.advance(1);
        self.cursor = after;
        let text = self.quoted(open)?;
        self.charlist(&text)
    }

    /// `?a`, `?\n`: the number of a character.
    fn character(&mut self) -> Result<(), ParseProblem> {
        self.cursor.advance(1);
        let mut bytes = Vec::new();
        match self.cursor.peek() {
            None => return Err(ParseProblem::Ends { wanted: "the character" }),
            Some('\\') => quoted::escape(&mut self.cursor, &mut bytes, HexEscape::Character)?,
            Some(char) => {
                self.cursor.advance(char.len_utf8());
                bytes.extend_from_slice(char.encode_utf8(&mut [0; 4]).as_bytes());
            }
        }
        let char = std::str::from_utf8(&bytes).ok().and_then(|text| text.chars().next());
        let char = char.ok_or(ParseProblem::Escape)?;
        self.leaf(|w| _ = w.unsigned(u64::from(char)));
        Ok(())
    }

    /// `&Module.function/arity`
    fn export(&mut self) -> Result<(), ParseProblem> {
        const WANTED: ParseProblem =
            ParseProblem::Wanted("a function, as in &Kernel.+/2 or &:lists.reverse/1,");
        self.cursor.advance(1);
        let module = if self.cursor.take_char(':') {
            names::atom(&mut self.cursor)?
        } else {
            match names::word(&mut self.cursor) {
                Some(word) if word.starts_with(char::is_uppercase) => names::alias(&mut self.cursor, word)?,
                _ => return Err(WANTED),
            }
        };
        if !self.cursor.take_char('.') {
            return Err(WANTED);
        }
        // `&Kernel.//2` is the operator `/`, and `//` is one too.
        let function = match self.cursor.peek() {
            Some('/') if self.cursor.rest()[1..].starts_with('/') => {
                self.cursor.advance(1);
                "/".to_owned()
            }
            _ => names::atom(&mut self.cursor)?,
        };
        if !self.cursor.take_char('/') {
            return Err(WANTED);
        }
        let digits = self.cursor.take_while(3, |char| char.is_ascii_digit());
        let arity: u8 = digits.parse().map_err(|_| ParseProblem::Number("an arity is at most 255"))?;
        self.leaf(|w| _ = w.raw(&[EXPORT_EXT]).atom(&module).atom(&function).unsigned(arity.into()));
        Ok(())
    }

    /// `<<1, 2::size(4), "abc">>`
    fn bit_string(&mut self) -> Result<(), ParseProblem> {
        self.cursor.advance(2);
        let mut bits = Bits::default();
        self.cursor.skip_blanks();
        while !self.cursor.take_str(">>") {
            self.segment(&mut bits)?;
            self.cursor.skip_blanks();
            if self.cursor.take_char(',') {
                self.cursor.skip_blanks();
            } else if !self.cursor.rest().starts_with(">>") {
                return Err(self.missing("a comma or `>>`"));
            }
        }
        let Bits { bytes, used } = bits;
        if used == 0 {
            self.leaf(|w| _ = w.binary(&bytes));
        } else {
            let len = u32::try_from(bytes.len()).map_err(|_| ParseProblem::Unwritable)?;
            self.leaf(|w| _ = w.raw(&[BIT_BINARY_EXT]).raw(&len.to_be_bytes()).raw(&[used]).raw(&bytes));
        }
        Ok(())
    }

    fn segment(&mut self, bits: &mut Bits) -> Result<(), ParseProblem> {
        match self.cursor.peek() {
            None => return Err(ParseProblem::Ends { wanted: "`>>`" }),
            Some('"') => {
                let text = self.quoted('"')?;
                bits.push_bytes(&text);
                return Ok(());
            }
            _ => {}
        }
        let Number::Integer(value) = numbers::read(&mut self.cursor)? else {
            return Err(ParseProblem::Unsupported(
                "a float in a bit string; only integers and strings are read",
            ));
        };
        let mut size = 8;
        if self.cursor.take_str("::") {
            let in_words = self.cursor.take_str("size(");
            let digits = self.cursor.take_while(8, |char| char.is_ascii_digit());
            size = digits.parse().map_err(|_| ParseProblem::Wanted("a size, as in ::size(4) or ::4,"))?;
            if size > SEGMENT_BITS_MAX {
                return Err(ParseProblem::SegmentTooLong);
            }
            if in_words && !self.cursor.take_char(')') {
                return Err(self.missing("the `)` behind the size"));
            }
        }
        value.low_bits(size).into_iter().for_each(|bit| bits.push(bit));
        Ok(())
    }
}

/// A bit string that grows.
#[derive(Default)]
struct Bits {
    bytes: Vec<u8>,
    /// Bits of the last byte that count; 0: all.
    used: u8,
}

impl Bits {
    fn push(&mut self, bit: bool) {
        if self.used == 0 {
            self.bytes.push(0);
        }
        if let Some(last) = self.bytes.last_mut() {
            *last |= u8::from(bit) << (7 - self.used);
        }
        self.used = (self.used + 1) % 8;
    }

    fn push_bytes(&mut self, bytes: &[u8]) {
        if self.used == 0 {
            self.bytes.extend_from_slice(bytes);
            return;
        }
        for byte in bytes {
            (0..8).for_each(|at| self.push(byte >> (7 - at) & 1 == 1));
        }
    }
}

/// An operator that is a key: only where its colon is behind it, as `-` begins numbers and `{` tuples.
fn key_operator(cursor: &mut Cursor<'_>) -> Option<&'static str> {
    let mut after = cursor.clone();
    let operator = names::operator(&mut after)?;
    let is_key = after.rest().starts_with(':') && !after.rest().starts_with("::");
    let is_key = is_key && after.rest()[1..].starts_with([' ', '\t', '\n', '\r']);
    if is_key {
        *cursor = after;
    }
    is_key.then_some(operator)
}
