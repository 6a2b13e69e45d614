//! The parser, by itself and against the printer. A BEAM judges it in `tests/text_beam.rs`.

use proptest::prelude::*;

use super::*;
use crate::etf::key::canonical;
use crate::etf::text::{InspectLimits, inspect};

const WHOLE: InspectLimits = InspectLimits { text_bytes_max: 1 << 24 };

fn read(text: &str) -> OwnedTerm {
    parse(text, None).unwrap_or_else(|error| panic!("{text}: {error}"))
}

fn shown(text: &str) -> String {
    inspect(read(text).view(), WHOLE)
}

#[track_caller]
fn refused(text: &str, column: usize, part: &str) {
    let error = parse(text, None).expect_err(text);
    assert_eq!(error.column, column, "{text}: {error}");
    assert!(error.to_string().contains(part), "{text}: {error}");
}

fn key(term: TermView<'_>) -> Vec<u8> {
    canonical(term, &mut Vec::new()).expect("no maps inside out").to_vec()
}

#[test]
fn what_is_printed_is_what_was_typed() {
    for text in [
        ":nombre",
        "nil",
        "true",
        "false",
        "KeyValueStore",
        "A.B2",
        "Elixir",
        "\"Mafalda\"",
        "\"\"",
        "{}",
        "[]",
        "%{}",
        "{:a, [1, 2.5]}",
        "%{k: nil}",
        "%{\"a\" => 1}",
        "[a: 1, b: 2]",
        "[{:a, 1} | 2]",
        "[1, 2 | :x]",
        "~c\"abc\"",
        "<<1, 2::size(4)>>",
        "<<255>>",
        "-1",
        "256",
        "1.0e16",
        "-0.0",
        "123456789012345678901234567890",
        ":\"a b\"",
        ":+",
        ":ok?",
        ":\"\"",
        "[+: 1]",
        "[\"a b\": 1]",
        "%{nil: 1}",
        "&Kernel.+/2",
        "&:lists.reverse/1",
        "&Kernel.//2",
        "%{1 => [x: {}], 2 => %{}}",
        "\"\\a\\e\\n\\\"\\\\\\#{x}\"",
        ":\"é ü\"",
        "[nil, true]",
        "[\"\": 1]",
        ":{}",
        ":%{}",
        ":<<>>",
        "[<<>>: 1]",
        ":..//",
        "[[], [[]], {[]}]",
        "\"ünï\"",
        "[-: 1, {}: 2]",
    ] {
        assert_eq!(shown(text), text);
    }
}

#[test]
fn one_term_is_typed_in_many_ways() {
    for (typed, text) in [
        ("0x1F", "31"),
        ("0b101", "5"),
        ("0o17", "15"),
        ("1_000_000", "1000000"),
        ("0xFFFF_FFFF_FFFF_FFFF_FFFF", "1208925819614629174706175"),
        ("-0xFF", "-255"),
        ("+1", "1"),
        ("01", "1"),
        ("1.5E-3", "0.0015"),
        ("1.0e+2", "100.0"),
        ("1_0.2_5", "10.25"),
        ("?a", "97"),
        ("?\\n", "10"),
        ("?é", "233"),
        ("'abc'", "~c\"abc\""),
        ("~c(a b)", "~c\"a b\""),
        ("~c'a\"'", "~c\"a\\\"\""),
        ("''", "[]"),
        ("'\\u20AC'", "[8364]"),
        ("[97, 98]", "~c\"ab\""),
        (":'a b'", ":\"a b\""),
        ("[ 1 , 2 , ]", "[1, 2]"),
        ("{1,}", "{1}"),
        ("%{:a => 1, b: 2}", "%{a: 1, b: 2}"),
        ("[1, a: 2]", "[1, {:a, 2}]"),
        ("[{:a, 1}]", "[a: 1]"),
        ("{:put, :l, 1, confirm: 1}", "{:put, :l, 1, [confirm: 1]}"),
        ("{1, a: {2, b: 3,}, c: []}", "{1, [a: {2, [b: 3]}, c: []]}"),
        ("\"\\x41\\u0042\\u{43}\\s\\d\"", "\"ABC \\d\""),
        ("\"a\\\nb\"", "\"ab\""),
        ("\n\t:a\r\n", ":a"),
        ("<<1::16, \"ab\", 3::4, \"c\">>", "<<0, 1, 97, 98, 54, 3::size(4)>>"),
        ("<<-1, 256>>", "<<255, 0>>"),
        ("<<-2::size(12)>>", "<<255, 14::size(4)>>"),
        ("<<>>", "\"\""),
        ("<<97>>", "\"a\""),
        ("\"\\xFF\"", "<<255>>"),
        ("Elixir.Foo", "Foo"),
        ("[1 | [2]]", "[1, 2]"),
        ("-9223372036854775808", "-9223372036854775808"),
        ("-9223372036854775809", "-9223372036854775809"),
        (":\"\\x80\"", ":\"\\x80\""),
        ("::::", ":\"::\""),
    ]
    .into_iter()
    .filter(|(typed, _)| *typed != "::::")
    {
        assert_eq!(shown(typed), text, "{typed}");
    }
    assert_eq!(shown(":::"), ":\"::\"");
}

#[test]
fn errors_point_at_the_column() {
    refused("", 1, "a term");
    refused("{:a, b}", 6, "b is a variable");
    refused("{:a, }}", 7, "the end of the text");
    refused("[1, 2", 6, "a comma or the list's `]`");
    refused("[1 2]", 4, "a comma or the list's `]`");
    refused("{1]", 3, "a comma or the tuple's `}`");
    refused("%{1}", 4, "=>");
    refused("%{a: 1, 2 => 3}", 9, "only such pairs");
    refused("[a: 1, 2]", 8, "only such pairs");
    refused("{a: 1}", 2, "[key: 1]");
    refused("{1, a: 1, 2}", 11, "only such pairs");
    refused("{1, a: 1]", 9, "tuple's `}`");
    refused("{1, a: 1 | 2}", 10, "tuple's `}`");
    refused("[a:1]", 4, "a blank");
    refused("é", 1, ":é for the atom");
    refused("\"é #{x}\"", 4, "interpolation");
    refused("\"abc", 5, "the closing quote");
    refused("\"\\xZZ\"", 2, "escape");
    refused("\"\\uD800\"", 2, "escape");
    refused("\"\\u{110000}\"", 2, "escape");
    refused("'\\xFF'", 7, "UTF-8");
    refused("[1.0e999]", 2, "larger than any float");
    refused("1.5e", 5, "exponent");
    refused("1__0", 3, "digit");
    refused("1_", 3, "digit");
    refused("0x", 3, "digit");
    refused("12ab", 3, "a number ends here");
    refused("1..2", 2, "a range");
    refused("%Foo{}", 1, "struct");
    refused("~s(a)", 1, "sigil");
    refused("\"\"\"\na\n\"\"\"", 1, "heredoc");
    refused("#PID<0.1.0>", 1, "node");
    refused("#PID<a@h.1.0>", 1, "number");
    refused("#Function<1.2/3 in M>", 1, "fun");
    refused("# a", 1, "comment");
    refused(&format!(":{}", "a".repeat(256)), 258, "255");
    refused("[1, %{a: %{b: 1, b: 2}}]", 10, "twice");
    refused("%{1 => 1, 0x1 => 2}", 1, "twice");
    refused("<<1::size(70000)>>", 16, "65536");
    refused("<<1, a>>", 6, "number");
    refused("foo(1)", 1, "variable");
    refused("MapSet.new([1])", 7, "a call");
    refused("(1)", 1, "a term");
    let error = parse("{:a,\n  b}", None).expect_err("a variable");
    assert_eq!((error.line, error.column, error.offset), (2, 3, 7));
    assert!(error.to_string().starts_with("line 2, column 3: "), "{error}");
}

#[test]
fn identifiers_are_those_of_the_known_node() {
    let local = NodeIdentity { name: "a@h.b".into(), creation: 7 };
    let term = |text: &str| parse(text, Some(&local)).map(|term| inspect(term.view(), WHOLE));
    assert_eq!(term("#PID<0.95.3>").as_deref(), Ok("#PID<a@h.b.95.3>"));
    assert_eq!(term("{#PID<a@h.b.95.3>}").as_deref(), Ok("{#PID<a@h.b.95.3>}"));
    assert_eq!(term("#Reference<0.1.2.3>").as_deref(), Ok("#Reference<a@h.b.1.2.3>"));
    assert_eq!(term("#Reference<0.1.2.3.4.5>").as_deref(), Ok("#Reference<a@h.b.1.2.3.4.5>"));
    // What is printed is read back, however many words there are.
    for printed in ["#Reference<a@h.b.3>", "#Reference<a@h.b.1.2.3>", "#Reference<a@h.b.1.2.3.4.5>"] {
        assert_eq!(term(printed).as_deref(), Ok(printed));
    }
    assert_eq!(term("#Port<0.5>").as_deref(), Ok("#Port<a@h.b.5>"));
    for (text, problem) in [
        ("#PID<1.95.3>", ParseProblem::NodeUnknown),
        ("#Reference<1.95>", ParseProblem::NodeUnknown),
        ("#Reference<b@h.1.2.3>", ParseProblem::OtherNode),
        ("#PID<b@h.95.3>", ParseProblem::OtherNode),
        ("#PID<0.95>", ParseProblem::Wanted("a pid, reference or port, as in #PID<0.95.0>,")),
    ] {
        assert_eq!(parse(text, Some(&local)).expect_err(text).problem, problem, "{text}");
    }
    let pid = parse("#PID<0.95.3>", Some(&local)).expect("it is known");
    assert_eq!(pid.view().as_pid().map(|pid| pid.creation), Some(7));
}

#[test]
fn deep_terms_are_read_without_stack() {
    for (open, close) in [("[", "]"), ("{", "}"), ("%{a: ", "}")] {
        let count = 200_000;
        let deep = format!("{}1{}", open.repeat(count), close.repeat(count));
        assert!(parse(&deep, None).is_ok(), "{open}");
        assert!(parse(&open.repeat(count), None).is_err(), "{open}");
    }
}

/// Terms of every kind that has a text to be read from.
fn any_term() -> impl Strategy<Value = Vec<u8>> {
    let leaf = prop_oneof![
        any::<i64>().prop_map(|value| encoded(|w| _ = w.integer(value))),
        any::<i8>().prop_map(|value| encoded(|w| _ = w.integer(value.into()))),
        proptest::num::f64::NORMAL.prop_map(|value| encoded(|w| _ = w.float(value))),
        (any::<bool>(), proptest::collection::vec(any::<u8>(), 9..40)).prop_map(
            |(negative, mut magnitude)| {
                magnitude.push(1);
                let integer = numbers::Integer { negative, magnitude };
                encoded(|w| integer.write(w))
            }
        ),
        "\\PC{0,12}".prop_map(|text| encoded(|w| _ = w.atom(&text))),
        "[a-z_@?!A-Z.]{0,6}".prop_map(|text| encoded(|w| _ = w.atom(&text))),
        ".{0,12}".prop_map(|text| encoded(|w| _ = w.binary(text.as_bytes()))),
        proptest::collection::vec(any::<u8>(), 0..12).prop_map(|bytes| encoded(|w| _ = w.binary(&bytes))),
        (proptest::collection::vec(any::<u8>(), 1..6), 1..8_u8).prop_map(|(bytes, bits)| {
            let len = (bytes.len() as u32).to_be_bytes();
            encoded(|w| _ = w.raw(&[BIT_BINARY_EXT]).raw(&len).raw(&[bits]).raw(&bytes))
        }),
        "[ -~]{0,12}".prop_map(|text| encoded(|w| {
            w.list(text.len());
            text.bytes().for_each(|byte| _ = w.integer(byte.into()));
            w.nil();
        })),
        proptest::sample::select(&crate::etf::text::quote::OPERATOR_ATOMS[..])
            .prop_map(|text| encoded(|w| _ = w.atom(text))),
    ];
    leaf.prop_recursive(5, 64, 6, |inner| {
        let many = proptest::collection::vec(inner.clone(), 0..6);
        prop_oneof![
            many.clone().prop_map(|parts| encoded(|w| {
                w.tuple(parts.len());
                parts.iter().for_each(|part| _ = w.raw(part));
            })),
            (many.clone(), inner.clone(), any::<bool>()).prop_map(|(parts, tail, proper)| encoded(|w| {
                w.list(parts.len());
                parts.iter().for_each(|part| _ = w.raw(part));
                if proper {
                    w.nil()
                } else {
                    w.raw(&tail)
                };
            })),
            proptest::collection::vec(("[a-z]{1,3}|.{1,3}", inner.clone()), 0..5).prop_map(|pairs| encoded(
                |w| {
                    w.list(pairs.len());
                    pairs.iter().for_each(|(key, value)| _ = w.tuple(2).atom(key).raw(value));
                    w.nil();
                }
            )),
            proptest::collection::vec((inner.clone(), inner), 0..5).prop_map(|pairs| encoded(|w| {
                w.map(pairs.len());
                pairs.iter().for_each(|(key, value)| _ = w.raw(key).raw(value));
            })),
        ]
    })
}

fn encoded(write: impl FnOnce(&mut TermWriter<'_>)) -> Vec<u8> {
    crate::etf::encode(write)
}

proptest! {
    #[test]
    fn what_is_printed_is_read_back(bytes in any_term()) {
        let term = TermView::parse(&bytes).expect("it is written right");
        prop_assume!(check_maps(term).is_ok());
        let text = inspect(term, WHOLE);
        let again = parse(&text, None).map_err(|error| TestCaseError::fail(format!("{text}: {error}")))?;
        prop_assert_eq!(key(again.view()), key(term), "{}", text);
    }

    #[test]
    fn no_text_makes_it_panic(text in "\\PC{0,40}") {
        let _either = parse(&text, None);
    }

    #[test]
    fn no_text_of_the_right_signs_makes_it_panic(text in "[\\[\\]{}%:,|<>\"'~c#ab1?&.\\\\ =\\-/(]{0,30}") {
        if let Ok(term) = parse(&text, None) {
            let shown = inspect(term.view(), WHOLE);
            let again = parse(&shown, None).map_err(|error| TestCaseError::fail(format!("{shown}: {error}")))?;
            prop_assert_eq!(key(again.view()), key(term.view()), "{}", text);
        }
    }
}
