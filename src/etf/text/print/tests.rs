use super::*;
use crate::etf::{TermWriter, encode};

const ALL: InspectLimits = InspectLimits { text_bytes_max: usize::MAX / 2 };

fn shown(bytes: &[u8]) -> String {
    inspect(TermView::parse(bytes).unwrap(), ALL)
}

fn written(write: impl FnOnce(&mut TermWriter<'_>)) -> String {
    shown(&encode(write))
}

fn cut(bytes: &[u8], text_bytes_max: usize) -> String {
    let text = inspect(TermView::parse(bytes).unwrap(), InspectLimits { text_bytes_max });
    assert!(text.len() <= text_bytes_max + 3, "{text}");
    text
}

#[test]
fn atoms_stand_as_in_source_code() {
    for (atom, text) in [
        ("foo", ":foo"),
        ("foo bar", ":\"foo bar\""),
        ("", ":\"\""),
        ("nil", "nil"),
        ("true", "true"),
        ("Elixir", "Elixir"),
        ("Elixir.Foo", "Foo"),
        ("Elixir.Foo.Bar9_x", "Foo.Bar9_x"),
        ("Elixir.Elixir.Foo", "Elixir.Elixir.Foo"),
        ("Elixir.ElixirFoo", "ElixirFoo"),
        ("Elixir.foo", ":\"Elixir.foo\""),
        ("Elixir.Foo.", ":\"Elixir.Foo.\""),
        ("Elixir.Éa", ":\"Elixir.Éa\""),
        ("Foo", ":Foo"),
        ("foo?", ":foo?"),
        ("foo?a", ":\"foo?a\""),
        ("a@b", ":a@b"),
        ("@a", ":\"@a\""),
        ("9a", ":\"9a\""),
        ("_", ":_"),
        ("+", ":+"),
        ("..//", ":..//"),
        ("::", ":\"::\""),
        ("%{}", ":%{}"),
        ("[]", ":\"[]\""),
        ("é1", ":é1"),
        ("日本", ":\"日本\""),
        ("カナ", ":カナ"),
        ("ЁЖ", ":ЁЖ"),
        ("aд", ":\"aд\""),
        ("a_д", ":a_д"),
        ("a\n\u{200b}\x01\u{80}#{", ":\"a\\n\\u200B\\x01\\x80\\#{\""),
    ] {
        assert_eq!(written(|out| _ = out.atom(atom)), text);
    }
    assert_eq!(shown(&[115, 1, 233]), ":é");
}

#[test]
fn binaries_are_text_where_they_can_be_read() {
    for (bytes, text) in [
        (&b"abc"[..], r#""abc""#),
        (b"", r#""""#),
        (b"a\"b\\", r#""a\"b\\""#),
        (b"a#{b}#b#", r##""a\#{b}#b#""##),
        (b"\n\t\r\x1b\x07\x08\x0c\x0b\x7f", r#""\n\t\r\e\a\b\f\v\d""#),
        (b"\n\0", "<<10, 0>>"),
        (&[255], "<<255>>"),
        ("é🙂\u{ad}".as_bytes(), "\"é🙂\u{ad}\""),
        ("\u{a0}\u{2028}\u{feff}".as_bytes(), r#""\u00A0\u2028\uFEFF""#),
        ("\u{80}".as_bytes(), "<<194, 128>>"),
        ("\u{ffff}".as_bytes(), "<<239, 191, 191>>"),
    ] {
        assert_eq!(written(|out| _ = out.binary(bytes)), text);
    }
    assert_eq!(shown(&[77, 0, 0, 0, 1, 3, 0b0010_0000]), "<<1::size(3)>>");
    assert_eq!(shown(&[77, 0, 0, 0, 2, 1, b'a', 255]), "<<97, 1::size(1)>>");
    assert_eq!(shown(&[77, 0, 0, 0, 2, 8, b'a', b'b']), "\"ab\"");
}

#[test]
fn lists_are_text_keywords_or_plain() {
    assert_eq!(shown(&[106]), "[]");
    assert_eq!(shown(&[107, 0, 3, b'a', b'"', b'c']), r#"~c"a\"c""#);
    assert_eq!(shown(&[107, 0, 2, b'#', b'{']), r##"~c"\#{""##);
    assert_eq!(shown(&[108, 0, 0, 0, 1, 97, b'#', 107, 0, 1, b'{']), r##"~c"\#{""##);
    assert_eq!(shown(&[108, 0, 0, 0, 1, 98, 0, 0, 0, b'a', 106]), "~c\"a\"");
    assert_eq!(shown(&[108, 0, 0, 0, 0, 108, 0, 0, 0, 1, 97, b'a', 106]), "~c\"a\"");
    assert_eq!(shown(&[108, 0, 0, 0, 0, 107, 0, 1, b'a']), "~c\"a\"");
    assert_eq!(shown(&[108, 0, 0, 0, 0, 119, 1, b'a']), ":a");
    assert_eq!(shown(&[108, 0, 0, 0, 0, 106]), "[]");
    assert_eq!(shown(&[107, 0, 2, b'a', 0]), "[97, 0]");
    assert_eq!(shown(&[108, 0, 0, 0, 1, 97, b'a', 107, 0, 2, b'b', 1]), "[97, 98, 1]");
    assert_eq!(shown(&[108, 0, 0, 0, 1, 106, 107, 0, 2, b'b', b'c']), "[[], 98, 99]");
    assert_eq!(shown(&[108, 0, 0, 0, 1, 97, b'a', 97, b'b']), "[97 | 98]");
    assert_eq!(shown(&[108, 0, 0, 0, 2, 106, 104, 0, 104, 1, 106]), "[[], {} | {[]}]");
    let pair = |key: &str| encode(|out| _ = out.tuple(2).atom(key).integer(1));
    let list = |keys: &[&str], tail: u8| {
        let mut bytes = [&[108][..], &(keys.len() as u32).to_be_bytes()].concat();
        keys.iter().for_each(|key| bytes.extend(pair(key)));
        bytes.push(tail);
        shown(&bytes)
    };
    assert_eq!(list(&["a", "b c", "nil", "+"], 106), "[a: 1, \"b c\": 1, nil: 1, +: 1]");
    assert_eq!(list(&["a", "Elixir.Foo"], 106), "[{:a, 1}, {Foo, 1}]");
    assert_eq!(list(&["Elixir"], 106), "[\"Elixir\": 1]");
    assert_eq!(shown(&[&[108, 0, 0, 0, 1][..], &pair("a"), &[97, 1]].concat()), "[{:a, 1} | 1]");
}

#[test]
fn maps_keep_the_order_that_they_came_in() {
    assert_eq!(written(|out| _ = out.map(0)), "%{}");
    assert_eq!(written(|out| _ = out.map(2).atom("b").integer(1).atom("a").nil()), "%{b: 1, a: []}");
    assert_eq!(
        written(|out| _ = out.map(2).integer(1).atom("x").atom("a").map(1).binary(b"k").integer(2)),
        "%{1 => :x, :a => %{\"k\" => 2}}"
    );
    assert_eq!(
        written(|out| _ = out.map(2).atom("__struct__").atom("Elixir.Foo").atom("a").integer(1)),
        "%{__struct__: Foo, a: 1}"
    );
    assert_eq!(written(|out| _ = out.map(1).atom("Elixir.Foo").integer(1)), "%{Foo => 1}");
}

#[test]
fn identifiers_show_their_node() {
    let pid = Pid { node: "n@h".into(), id: 95, serial: 2, creation: 7 };
    assert_eq!(written(|out| _ = out.pid(&pid)), "#PID<n@h.95.2>");
    let reference = Reference { node: "n@h".into(), creation: 7, words: vec![5, 6, 7] };
    assert_eq!(written(|out| _ = out.reference(&reference)), "#Reference<n@h.7.6.5>");
    assert_eq!(shown(&[120, 119, 1, b'n', 0, 0, 0, 1, 0, 0, 0, 5, 0, 0, 0, 1]), "#Port<n.4294967301>");
    assert_eq!(shown(&[102, 119, 1, b'n', 0, 0, 0, 5, 1]), "#Port<n.5>");
    assert_eq!(shown(&[113, 119, 1, b'm', 119, 1, b'+', 97, 2]), "&:m.+/2");
    assert_eq!(shown(&[113, 119, 1, b'm', 119, 1, b'A', 97, 2]), "&:m.\"A\"/2");
    let record = [&[67, 0, 0, 0, 2, 0][..], b"w\x01rw\x03vecw\x01xw\x01ya\x01a\x02"].concat();
    assert_eq!(shown(&record), "#r:vec{x = 1,y = 2}");
}

#[test]
fn a_cut_is_made_between_characters_at_every_length() {
    let bytes = encode(|out| {
        out.tuple(3).list(2).integer(7).float(1.5).nil().binary("añ🙂\u{2028}".as_bytes());
        out.map(2).atom("kλ").binary(&[0, 1]).atom("b").integer(-1);
    });
    let all = shown(&bytes);
    assert_eq!(all, "{[7, 1.5], \"añ🙂\\u2028\", %{\"kλ\": <<0, 1>>, b: -1}}");
    for len in 0..all.len() {
        let text = cut(&bytes, len);
        let kept = text.strip_suffix("...").expect("it is cut");
        assert!(kept.len() + 6 > len, "{kept:?} at {len}");
    }
    assert_eq!(cut(&bytes, all.len()), all);
}

#[test]
fn large_terms_cost_what_is_printed_of_them() {
    let many = |part: &[u8], count: u32| {
        [&[108][..], &count.to_be_bytes(), &part.repeat(count as usize), &[106]].concat()
    };
    let mut terms = vec![
        encode(|out| _ = out.binary(&vec![b'a'; 16 << 20])),
        encode(|out| _ = out.binary(&vec![0; 16 << 20])),
        many(&[97, b'a'], 4 << 20),
        many(&[104, 2, 119, 1, b'a', 106], 1 << 20),
        many(&[111, 0, 0, 255, 255, 0].iter().copied().chain([1; 65_535]).collect::<Vec<_>>(), 100),
        [[108, 0, 0, 0, 0].repeat(1 << 20), vec![106]].concat(),
        [[108, 0, 0, 0, 1, 104, 2, 119, 1, b'a'].repeat(1 << 20), vec![106], vec![106; 1 << 20]].concat(),
        [[116, 0, 0, 0, 1, 119, 1, b'a'].repeat(1 << 20), vec![106]].concat(),
        [[104, 1].repeat(4 << 20), vec![106]].concat(),
    ];
    terms.push(
        [&[117, 0, 0, 0, 1, 103, 119, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 119, 0, 97, 0, 97, 0][..], &terms[2]]
            .concat(),
    );
    let views: Vec<_> = terms.iter().map(|term| TermView::parse(term).unwrap()).collect();
    // A look at all of it would take minutes, and the runner ends tests that hang.
    for _ in 0..100 {
        for view in &views {
            assert!(inspect(*view, InspectLimits::LOG).ends_with("..."));
        }
    }
}

#[test]
fn deep_terms_are_printed_without_stack() {
    let deep = [[104, 1].repeat(300_000), vec![106]].concat();
    assert_eq!(shown(&deep).len(), 600_002);
    let deep = [[108, 0, 0, 0, 1].repeat(300_000), vec![106; 300_001]].concat();
    assert_eq!(shown(&deep).len(), 600_002);
    // With work for 16 steps a byte, keywords inside of keywords end up as plain lists.
    let deep = [[108, 0, 0, 0, 1, 104, 2, 119, 1, b'a'].repeat(3000), vec![106; 3001]].concat();
    let text = cut(&deep, 100_000);
    assert!(text.starts_with("[a: [a: [a: ") && text.ends_with("]]]"), "{text}");
}

#[test]
fn huge_integers_are_elided() {
    let big = |len: u32| [&[111][..], &len.to_be_bytes(), &[0], &vec![1; len as usize]].concat();
    assert_eq!(shown(&big(16 << 10)).len(), 39_455);
    assert_eq!(shown(&big((16 << 10) + 1)), "...");
    assert_eq!(cut(&big(1000), 200), "...");
}
