//! Atoms and strings in Elixir's syntax: what needs quotes, and what is escaped inside of them.
//!
//! The rules are those of Elixir 1.18 and later (`Macro.inspect_atom/2`, `Inspect.BitString`), with one
//! simplification: of the letters beyond ASCII only those of a few scripts count as such ([`script`]), as which
//! others may go without quotes changes from one version of Elixir to the next. With quotes it is the same atom.

/// Operators that are atoms without quotes, as in `:+`.
pub(super) const OPERATOR_ATOMS: [&str; 53] = [
    "!", "!=", "!==", "%", "%{}", "&", "&&", "&&&", "*", "**", "+", "++", "+++", "-", "--", "---", "->", ".",
    "..", "...", "..//", "/", "<", "<-", "<<<", "<<>>", "<<~", "<=", "<>", "<~", "<~>", "=", "==", "===",
    "=~", ">", ">=", ">>>", "@", "\\\\", "^", "{}", "|", "|>", "||", "|||", "~>", "~>>", "and", "in", "not",
    "or", "when",
];

/// Operators that a function call needs no quotes for, as in `&Kernel.+/2`.
const OPERATOR_CALLS: [&str; 48] = [
    "!", "!=", "!==", "&", "&&", "&&&", "*", "**", "+", "++", "+++", "-", "--", "---", "/", "::", "<", "<-",
    "<<<", "<<~", "<=", "<>", "<|>", "<~", "<~>", "=", "==", "===", "=~", ">", ">=", ">>>", "@", "\\\\", "^",
    "^^^", "|", "|>", "||", "|||", "~>", "~>>", "~~~", "and", "in", "not", "or", "when",
];

/// An atom on its own: `:foo`, `:"foo bar"`, `nil`, `Foo.Bar`.
pub(super) fn atom(text: &str) -> String {
    if matches!(text, "nil" | "true" | "false") {
        return text.to_owned();
    }
    match alias(text) {
        Some(alias) => alias.to_owned(),
        None if needs_no_quotes(text) => format!(":{text}"),
        None => format!(":{}", quoted(text)),
    }
}

/// A key of a keyword list or a map of atoms, with its colon.
pub(super) fn key(text: &str) -> String {
    if needs_no_quotes(text) && text != "Elixir" { format!("{text}:") } else { format!("{}:", quoted(text)) }
}

/// Whether an atom may be a key before a colon: Elixir takes none that begins as its modules do.
pub(super) fn is_key(text: &str) -> bool {
    !text.starts_with("Elixir.")
}

/// The name of a function behind a module and a dot.
pub(super) fn call(text: &str) -> String {
    let identifier = is_identifier(text) && !text.contains('@') && !text.starts_with(char::is_uppercase);
    if identifier || OPERATOR_CALLS.contains(&text) { text.to_owned() } else { quoted(text) }
}

/// An atom in Erlang's syntax.
pub(super) fn erlang_atom(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'@';
    if text.starts_with(|first: char| first.is_ascii_lowercase()) && text.bytes().all(plain) {
        text.to_owned()
    } else {
        format!("'{}'", text.replace('\\', "\\\\").replace('\'', "\\'"))
    }
}

/// What a module's name looks like: `Foo.Bar` for `Elixir.Foo.Bar`.
fn alias(text: &str) -> Option<&str> {
    if text == "Elixir" {
        return Some(text);
    }
    let name = text.strip_prefix("Elixir.")?;
    let part = |part: &str| {
        part.starts_with(|first: char| first.is_ascii_uppercase())
            && part.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
    };
    if !name.split('.').all(part) {
        return None;
    }
    // `Elixir.Elixir.Foo` would otherwise be read back as `Elixir.Foo`.
    Some(if name == "Elixir" || name.starts_with("Elixir.") { text } else { name })
}

fn needs_no_quotes(text: &str) -> bool {
    is_identifier(text) || OPERATOR_ATOMS.contains(&text)
}

/// Letters, digits, `_` and `@`, not beginning with a digit or `@`, and at most one `?` or `!` at the end.
fn is_identifier(text: &str) -> bool {
    let body = text.strip_suffix(['?', '!']).unwrap_or(text);
    let mut chars = body.chars();
    if !chars.next().is_some_and(|first| first == '_' || script(first).is_some()) {
        return false;
    }
    // Between underscores, letters are of one script.
    let one_script = |part: &str| {
        let mut scripts = part.chars().filter_map(script);
        let first = scripts.next();
        scripts.all(|script| Some(script) == first)
    };
    chars.all(|char| char == '_' || char == '@' || char.is_ascii_digit() || script(char).is_some())
        && body.split('_').all(one_script)
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Script {
    Latin,
    Greek,
    Cyrillic,
    Hebrew,
    Kana,
    Hangul,
}

/// The script of a letter that an atom may have without quotes.
fn script(letter: char) -> Option<Script> {
    match letter {
        'a'..='z' | 'A'..='Z' => Some(Script::Latin),
        // Latin-1 and Latin Extended-A without the letters that Unicode advises against in identifiers.
        'À'..='Ö' | 'Ø'..='ö' | 'ø'..='ē' | 'Ė'..='ī' | 'Į'..='ı' | 'Ĵ'..='ķ' | 'Ĺ'..='ľ' => {
            Some(Script::Latin)
        }
        'Ł'..='ň' | 'Ŋ'..='ō' | 'Ő'..='ŕ' | 'Ř'..='š' | 'Ť'..='ž' => Some(Script::Latin),
        'Ά' | 'Έ'..='Ί' | 'Ό' | 'Ύ'..='Ρ' | 'Σ'..='ώ' => Some(Script::Greek),
        'Ё'..='Ќ' | 'Ў'..='я' | 'ё'..='ќ' | 'ў'..='џ' => Some(Script::Cyrillic),
        'א'..='ת' => Some(Script::Hebrew),
        'ぁ'..='ゖ' | 'ァ'..='ヺ' => Some(Script::Kana),
        '가'..='힣' => Some(Script::Hangul),
        _ => None,
    }
}

/// A text in quotes, for an atom.
fn quoted(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    escape(text, &mut |part| out.push_str(part));
    out.push('"');
    out
}

/// Whether a binary with this character is still text to Elixir (`String.printable?/1`).
pub(super) const fn is_printable(char: char) -> bool {
    matches!(char,
        '\x07'..='\x0d' | '\x1b' | ' '..='\x7f' | '\u{a0}'..='\u{d7ff}' | '\u{e000}'..='\u{fffd}' | '\u{10000}'..)
}

/// Whether a list with this integer is still text to Elixir (`List.ascii_printable?/2`).
pub(super) const fn is_printable_ascii(value: u64) -> bool {
    matches!(value, 7..=13 | 27 | 32..=126)
}

/// Gives the text, as it stands between quotes, to `push`, in pieces.
pub(super) fn escape(text: &str, push: &mut impl FnMut(&str)) {
    let mut plain = 0;
    for (at, char) in text.char_indices() {
        let escaped = match char {
            '#' if text[at + 1..].starts_with('{') => "\\#",
            '"' => "\\\"",
            '\\' => "\\\\",
            '\0' => "\\0",
            '\x07' => "\\a",
            '\x08' => "\\b",
            '\t' => "\\t",
            '\n' => "\\n",
            '\x0b' => "\\v",
            '\x0c' => "\\f",
            '\r' => "\\r",
            '\x1b' => "\\e",
            '\x7f' => "\\d",
            '\x01'..='\x1f' | '\u{80}'..='\u{9f}' => &format!("\\x{:02X}", u32::from(char)),
            '\u{fffe}'..='\u{ffff}' => &format!("\\x{{{:X}}}", u32::from(char)),
            // What cannot be seen, or turns the text around it.
            '\u{a0}' | '\u{34f}' | '\u{61c}' | '\u{2000}'..='\u{200f}' | '\u{2028}'..='\u{202e}' => {
                &unicode(char)
            }
            '\u{205f}'..='\u{2064}' | '\u{2066}'..='\u{2069}' | '\u{feff}' | '\u{fff9}'..='\u{fffc}' => {
                &unicode(char)
            }
            _ => continue,
        };
        push(&text[plain..at]);
        push(escaped);
        plain = at + char.len_utf8();
    }
    push(&text[plain..]);
}

fn unicode(char: char) -> String {
    format!("\\u{:04X}", u32::from(char))
}
