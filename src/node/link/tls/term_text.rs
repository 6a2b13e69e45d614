//! Erlang terms as text, as far as configuration is made of them: lists, tuples, atoms, strings, binaries, integers.
//!
//! What would have to be run is refused with its line: variables, funs, calls, maps, comprehensions. See "Terms" and
//! "Character Set and Source File Encoding" in the Erlang Reference Manual. Only files of this machine come here.

use std::iter::Peekable;
use std::str::Chars;

/// Lists and tuples in each other past which a file is no configuration.
const DEPTH_MAX: usize = 64;

/// A term and where it begins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Located {
    /// From 1.
    pub line: usize,
    pub term: Term,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Term {
    Atom(String),
    Integer(i64),
    /// A string, or a binary that is written as one.
    Text(String),
    List(Vec<Located>),
    Tuple(Vec<Located>),
}

/// What is no plain data, or no term at all.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct TextError {
    /// From 1.
    pub line: usize,
    pub reason: String,
}

/// Reads a text with one term and a full stop.
pub(super) fn read(text: &str) -> Result<Located, TextError> {
    let mut reader = Reader { rest: text.chars().peekable(), line: 1 };
    let term = reader.term(0)?;
    reader.blanks();
    match reader.next() {
        Some('.') => {}
        Some(other) => return Err(reader.not_expected(other, "a full stop behind the term")),
        None => return Err(reader.error("a full stop is missing at the end")),
    }
    reader.blanks();
    match reader.next() {
        None => Ok(term),
        Some(_) => Err(reader.error("there is more than one term; one list is wanted")),
    }
}

struct Reader<'a> {
    rest: Peekable<Chars<'a>>,
    line: usize,
}

impl Reader<'_> {
    fn error(&self, reason: impl Into<String>) -> TextError {
        TextError { line: self.line, reason: reason.into() }
    }

    fn not_expected(&self, found: char, wanted: &str) -> TextError {
        self.error(format!("{found:?} stands where {wanted} should be"))
    }

    fn next(&mut self) -> Option<char> {
        let next = self.rest.next();
        self.line += usize::from(next == Some('\n'));
        next
    }

    /// Skips blanks and comments.
    fn blanks(&mut self) {
        while let Some(&next) = self.rest.peek() {
            if next == '%' {
                while self.rest.peek().is_some_and(|next| *next != '\n') {
                    self.next();
                }
            } else if next.is_whitespace() {
                self.next();
            } else {
                break;
            }
        }
    }

    fn term(&mut self, depth: usize) -> Result<Located, TextError> {
        self.blanks();
        let line = self.line;
        if depth > DEPTH_MAX {
            return Err(self.error("lists and tuples are nested too deep"));
        }
        let Some(&first) = self.rest.peek() else {
            return Err(self.error("the text ends where a term should be"));
        };
        let term = match first {
            '[' => Term::List(self.items(']', depth)?),
            '{' => Term::Tuple(self.items('}', depth)?),
            '"' => Term::Text(self.strings()?),
            '\'' => Term::Atom(self.quoted('\'')?),
            '<' => Term::Text(self.binary()?),
            '-' | '+' | '0'..='9' => Term::Integer(self.integer()?),
            '#' => {
                return Err(
                    self.error("a map or record: only lists, tuples, atoms, strings and numbers are read")
                );
            }
            'A'..='Z' | '_' => {
                let name = self.word();
                return Err(self.error(format!("{name} is a variable: only plain data is read")));
            }
            _ if first.is_lowercase() => self.atom()?,
            _ => return Err(self.not_expected(first, "a term")),
        };
        Ok(Located { line, term })
    }

    fn items(&mut self, end: char, depth: usize) -> Result<Vec<Located>, TextError> {
        self.next();
        let mut items = Vec::new();
        self.blanks();
        if self.rest.peek() == Some(&end) {
            self.next();
            return Ok(items);
        }
        loop {
            items.push(self.term(depth + 1)?);
            self.blanks();
            match self.next() {
                Some(',') => {}
                Some(found) if found == end => return Ok(items),
                Some(found) => return Err(self.not_expected(found, &format!("a comma or {end:?}"))),
                None => return Err(self.error(format!("the text ends where a comma or {end:?} should be"))),
            }
        }
    }

    fn word(&mut self) -> String {
        let mut word = String::new();
        while let Some(&next) = self.rest.peek()
            && (next.is_alphanumeric() || matches!(next, '_' | '@'))
        {
            word.push(next);
            self.next();
        }
        word
    }

    fn atom(&mut self) -> Result<Term, TextError> {
        let word = self.word();
        if word == "fun" {
            return Err(self.error("a fun: only plain data is read, nothing is run"));
        }
        if matches!(self.rest.peek(), Some(':' | '(')) {
            return Err(self
                .error(format!("{word} is called as a function: only plain data is read, nothing is run")));
        }
        Ok(Term::Atom(word))
    }

    /// One string, or several in a row, which are one.
    fn strings(&mut self) -> Result<String, TextError> {
        let mut text = String::new();
        while self.rest.peek() == Some(&'"') {
            text.push_str(&self.quoted('"')?);
            self.blanks();
        }
        Ok(text)
    }

    fn quoted(&mut self, quote: char) -> Result<String, TextError> {
        let start = self.line;
        self.next();
        let mut text = String::new();
        loop {
            match self.next() {
                None => {
                    return Err(TextError { line: start, reason: format!("the {quote} is never closed") });
                }
                Some('\\') => text.push(self.escaped()?),
                Some(end) if end == quote => return Ok(text),
                Some(character) => text.push(character),
            }
        }
    }

    fn escaped(&mut self) -> Result<char, TextError> {
        Ok(match self.next() {
            Some('n') => '\n',
            Some('t') => '\t',
            Some('r') => '\r',
            Some('s') => ' ',
            Some(same @ ('\\' | '"' | '\'')) => same,
            Some(other) => {
                return Err(self.error(format!("\\{other} in a string or quoted atom is not read here")));
            }
            None => return Err(self.error("the text ends within a string")),
        })
    }

    /// `<<"text">>`, which may say its encoding.
    fn binary(&mut self) -> Result<String, TextError> {
        let wrong = "a binary that is not of the form <<\"text\">>";
        for _ in 0..2 {
            if self.next() != Some('<') {
                return Err(self.error(wrong));
            }
        }
        self.blanks();
        let text = self.strings()?;
        if self.rest.peek() == Some(&'/') {
            self.next();
            if self.word() != "utf8" {
                return Err(self.error(wrong));
            }
        }
        self.blanks();
        for _ in 0..2 {
            if self.next() != Some('>') {
                return Err(self.error(wrong));
            }
        }
        Ok(text)
    }

    fn integer(&mut self) -> Result<i64, TextError> {
        let mut digits = String::new();
        if let Some(&sign @ ('-' | '+')) = self.rest.peek() {
            digits.push(sign);
            self.next();
        }
        digits.push_str(&self.word());
        digits.parse().map_err(|_| self.error(format!("{digits} is not a number that is read here")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reason(text: &str) -> String {
        let error = read(text).unwrap_err();
        format!("{}: {}", error.line, error.reason)
    }

    fn at(line: usize, term: Term) -> Located {
        Located { line, term }
    }

    #[test]
    fn plain_data_is_read_with_its_lines() {
        let text = "%% -*- erlang -*-\n[{server,\n  [{certfile, \"a\" \"/b.pem\"}, % the chain\n   {'tlsv1.2', -3}, <<\"x\\\"y\"/utf8>>, []]}].\n";
        let atom = |name: &str| Term::Atom(name.into());
        let pair = |line, a, b| at(line, Term::Tuple(vec![at(line, a), at(line, b)]));
        let options = Term::List(vec![
            pair(3, atom("certfile"), Term::Text("a/b.pem".into())),
            pair(4, atom("tlsv1.2"), Term::Integer(-3)),
            at(4, Term::Text("x\"y".into())),
            at(4, Term::List(Vec::new())),
        ]);
        let server = at(2, Term::Tuple(vec![at(2, atom("server")), at(3, options)]));
        assert_eq!(read(text), Ok(at(2, Term::List(vec![server]))));
    }

    #[test]
    fn what_would_have_to_be_run_is_refused_with_its_line() {
        assert!(reason("[\n {verify_fun, {fun M:f/3, []}}].").starts_with("2: a fun"));
        assert!(reason("[{password,\n\n Secret}].").starts_with("3: Secret is a variable"));
        assert!(reason("[_].").starts_with("1: _ is a variable"));
        assert!(reason("[os:getenv(\"X\")].").starts_with("1: os is called"));
        assert!(reason("[f()].").starts_with("1: f is called"));
        assert!(reason("[#{a => 1}].").starts_with("1: a map"));
    }

    #[test]
    fn what_is_no_term_is_refused() {
        for bad in [
            "",
            "[",
            "[a",
            "[a b].",
            "[a]",
            "[a]. [b].",
            "{a,}.",
            "\"a",
            "<<1,2>>.",
            "<<\"a\">.",
            "1.5.",
            "\"\\x41\".",
            "-.",
            "*.",
        ] {
            assert!(read(bad).is_err(), "{bad}");
        }
        assert!(reason(&"[".repeat(100_000)).contains("too deep"));
        assert!(reason("[a,\n\"b\n\n").starts_with("2: the \""));
    }
}
