//! What stands between quotes: escapes (Elixir, *Syntax reference*, "Strings"; `elixir_interpolation.erl`).

use super::{Cursor, ParseProblem};

/// How `\xHH` is taken.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum HexEscape {
    /// As a byte, which is what Elixir does.
    Byte,
    /// As a character. `inspect` shows U+0080 to U+009F of an atom so, and as bytes they would be no UTF-8.
    Character,
}

/// What opens quotes, and what closes them: the delimiters of a sigil.
pub(super) const fn closing(open: char) -> Option<char> {
    Some(match open {
        '"' | '\'' | '/' | '|' => open,
        '(' => ')',
        '[' => ']',
        '{' => '}',
        '<' => '>',
        _ => return None,
    })
}

/// Reads up to the closing quote; the cursor is behind the opening one.
///
/// # Errors
/// What is wrong, at the cursor.
pub(super) fn read(cursor: &mut Cursor<'_>, close: char, hex: HexEscape) -> Result<Vec<u8>, ParseProblem> {
    let mut bytes = Vec::new();
    loop {
        let rest = cursor.rest();
        let plain = rest.find([close, '\\', '#']).ok_or(()).map_err(|()| {
            cursor.advance(rest.len());
            ParseProblem::Ends { wanted: "the closing quote" }
        })?;
        bytes.extend(rest.bytes().take(plain));
        cursor.advance(plain);
        if cursor.take_char(close) {
            return Ok(bytes);
        }
        if cursor.rest().starts_with("#{") {
            return Err(ParseProblem::Unsupported(
                "interpolation, which nobody evaluates here; write \\#{ for the characters",
            ));
        }
        if cursor.take_char('#') {
            bytes.push(b'#');
            continue;
        }
        escape(cursor, &mut bytes, hex)?;
    }
}

/// One escape sequence. The cursor is at the backslash, and stays there when it is wrong.
pub(super) fn escape(
    cursor: &mut Cursor<'_>,
    bytes: &mut Vec<u8>,
    hex: HexEscape,
) -> Result<(), ParseProblem> {
    let mut after = cursor.clone();
    after.advance(1);
    let Some(char) = after.peek() else {
        *cursor = after;
        return Err(ParseProblem::Ends { wanted: "the rest of an escape sequence" });
    };
    after.advance(char.len_utf8());
    let plain = match char {
        '0' => '\0',
        'a' => '\x07',
        'b' => '\x08',
        'd' => '\x7f',
        'e' => '\x1b',
        'f' => '\x0c',
        'n' => '\n',
        'r' => '\r',
        's' => ' ',
        't' => '\t',
        'v' => '\x0b',
        'x' if !after.rest().starts_with('{') => {
            let digits = after.take_while(2, |char| char.is_ascii_hexdigit());
            let byte = u8::from_str_radix(digits, 16).map_err(|_| ParseProblem::Escape)?;
            // One digit is a character, says Elixir; below 16 that is the same.
            match hex {
                HexEscape::Byte => bytes.push(byte),
                HexEscape::Character => push(bytes, char::from(byte)),
            }
            *cursor = after;
            return Ok(());
        }
        'x' | 'u' => code_point(&mut after).ok_or(ParseProblem::Escape)?,
        '\n' => {
            // The line goes on.
            *cursor = after;
            return Ok(());
        }
        other => other,
    };
    push(bytes, plain);
    *cursor = after;
    Ok(())
}

fn code_point(cursor: &mut Cursor<'_>) -> Option<char> {
    let digits = if cursor.take_char('{') {
        let digits = cursor.take_while(6, |char| char.is_ascii_hexdigit());
        cursor.take_char('}').then_some(digits)?
    } else {
        let digits = cursor.take_while(4, |char| char.is_ascii_hexdigit());
        (digits.len() == 4).then_some(digits)?
    };
    char::from_u32(u32::from_str_radix(digits, 16).ok()?)
}

fn push(bytes: &mut Vec<u8>, char: char) {
    bytes.extend_from_slice(char.encode_utf8(&mut [0; 4]).as_bytes());
}
