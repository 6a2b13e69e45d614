//! Real Elixirs as judges of the parser of terms: what it reads is what `Code.eval_string/1` makes of the same text, and
//! what `inspect/2` prints is read back as the same term.

#![cfg(feature = "program")]
#![allow(clippy::print_stderr, reason = "how much was compared is said")]

mod support;

use kvnode::etf::key::canonical;
use kvnode::etf::tag::VERSION_MAGIC;
use kvnode::etf::text::{InspectLimits, NodeIdentity, ParseProblem, inspect, parse};
use kvnode::etf::{OwnedTerm, TermView};
use support::{BeamNode, Epmd, on_every_otp};

const WHOLE: InspectLimits = InspectLimits { text_bytes_max: 64 << 20 };

/// Every way to write a term that is read, and is Elixir on every version from 1.10 on.
const TYPED: &[&str] = &[
    ":nombre",
    "nil",
    "true",
    "false",
    ":nil",
    "KeyValueStore",
    "A.B2",
    "Elixir",
    "Elixir.Foo",
    "Elixir.Elixir.Foo",
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
    "[1 | [2]]",
    "'abc'",
    "~c\"abc\"",
    "~c(a b)",
    "~c[x]",
    "~c{x}",
    "~c<x>",
    "~c|x|",
    "~c/x/",
    "~c'x\"'",
    "''",
    "'\\u20AC'",
    "'\\xE9' ++ []",
    "<<1, 2::size(4)>>",
    "<<255>>",
    "<<256, -1>>",
    "<<>>",
    "<<1::16, \"ab\", 3::4, \"c\">>",
    "<<-2::size(12)>>",
    "<<1::size(0)>>",
    "<<0xFFFF_FFFF_FFFF_FFFF_FF::70>>",
    "<<-12345678901234567890123::100>>",
    "-1",
    "+1",
    "256",
    "01",
    "1_000_000",
    "0x1F",
    "0xdead_BEEF",
    "0b101",
    "0o17",
    "-0xFF",
    "0xFFFF_FFFF_FFFF_FFFF_FFFF",
    "123456789012345678901234567890",
    "-123456789012345678901234567890",
    "-9223372036854775808",
    "9223372036854775808",
    "18446744073709551615",
    "1.0e16",
    "1.5E-3",
    "1.0e+2",
    "1_0.2_5",
    "-1.5",
    "5.0e-324",
    "1.7976931348623157e308",
    "0.1",
    "?a",
    "?\\n",
    "?é",
    "?\\s",
    "?\\\\",
    "?{",
    ":\"a b\"",
    ":'a b'",
    ":+",
    ":ok?",
    ":ok!",
    ":\"\"",
    ":a@b",
    ":_",
    ":__x__",
    ":Foo",
    ":é",
    "[+: 1]",
    "[\"a b\": 1]",
    "%{nil: 1}",
    "[Foo: 1]",
    "[if: 1, do: 2, end: 3]",
    "[ok?: 1]",
    "&Foo.+/2",
    "&:lists.reverse/1",
    "&Enum.map/2",
    "&Foo.//2",
    "%{1 => [x: {}], 2 => %{}}",
    "%{:a => 1, b: 2}",
    "[1, a: 2]",
    "{1, [a: 2]}",
    "{1, a: 2}",
    "{:put, :l, 1, confirm: 1, b: {2, c: 3}}",
    "[{1, a: 2,} | {2, \"b c\": []}]",
    "%{{1, a: 2} => {3, a: %{b: {4, c: 5}}}}",
    "[ 1 , 2 , ]",
    "{1,}",
    "%{a: 1,}",
    "\"\\x41\\u0042\\u{43}\\s\\d\\e\\a\\b\\f\\v\\t\\r\\n\\0\"",
    "\"\\xFF\"",
    "\"a\\\nb\"",
    "\"a\nb\"",
    "\"\\q\\'\\\"\"",
    "\"\\#{x}\"",
    "\"#x\"",
    "\"é ü 日本 🦀\"",
    "\n\t:a\n",
    "[[], [[]], {[]}]",
    "{\n  :a,\n  %{\n    b: 1\n  }\n}",
    ":{}",
    ":%{}",
    ":<<>>",
    ":..",
    ":...",
    ":->",
    ":<-",
    ":::",
    ":&&&",
    ":<>",
    ":|>",
    ":|",
    ":||",
    ":!==",
    ":=~",
    ":\\\\",
    ":@",
    ":^^^",
    ":and",
    ":when",
    ":in",
    ":not",
    "[and: 1, or: 2]",
    "[nil, true]",
    "{nil, Nil}",
    "[<<>>: 1, {}: 2, %{}: 3]",
    "[..: 1, -: 2, ->: 3, .: 4]",
    "'é'",
    "'\\''",
    "\"'\"",
    "'\"'",
    "%{[] => %{{} => \"\"}}",
    "{-1, - 1}",
    "[\"\": 1]",
];

/// Texts that are Elixir to newer versions only, or that Elixir evaluates and nobody does here.
fn is_judged(text: &str, otp: u32) -> bool {
    // Evaluated, and so no term here: `++`, and the minus with a blank behind it.
    if text.contains("++") || text.contains("- 1") {
        return false;
    }
    // The atom :.. and its kin came with Elixir 1.12 and later.
    otp >= 25 || !(text.contains("..") || text.contains("/x/"))
}

fn key(term: TermView<'_>) -> Vec<u8> {
    canonical(term, &mut Vec::new()).unwrap_or_else(|error| panic!("{error}: {term:?}")).to_vec()
}

/// The term that the node has encoded to hexadecimal digits.
fn received(hex: &str) -> OwnedTerm {
    let bytes = unhex(hex);
    assert_eq!(bytes[0], VERSION_MAGIC);
    OwnedTerm::parse(bytes[1..].to_vec()).unwrap_or_else(|error| panic!("{error}: {hex}"))
}

fn unhex(hex: &str) -> Vec<u8> {
    let digit = |byte: u8| (byte as char).to_digit(16).unwrap_or_else(|| panic!("{hex}")) as u8;
    hex.as_bytes().chunks(2).map(|pair| digit(pair[0]) << 4 | digit(pair[1])).collect()
}

fn hex(text: &str) -> String {
    text.bytes().map(|byte| format!("{byte:02X}")).collect()
}

/// What a node makes of a text.
fn evaluated(beam: &BeamNode, text: &str) -> OwnedTerm {
    let code = format!(
        "{{term, _}} = Code.eval_string(Base.decode16!(\"{}\")); String.to_atom(\"x\"); \
         IO.iodata_to_binary(Base.encode16(:erlang.term_to_binary(term)))",
        hex(text)
    );
    let answer = beam.eval(&code).unwrap_or_else(|error| panic!("{text}: {error}"));
    received(answer.trim_matches('"'))
}

#[test]
fn what_is_read_is_what_elixir_makes_of_it() {
    on_every_otp(|otp| {
        let epmd = Epmd::start();
        let beam = BeamNode::start(otp, &epmd, "beam");
        let mut compared = 0;
        for text in TYPED.iter().filter(|text| is_judged(text, otp.release)) {
            let ours = parse(text, None).unwrap_or_else(|error| panic!("{text}: {error}"));
            assert_eq!(key(ours.view()), key(evaluated(&beam, text).view()), "{text}");
            // And what is printed of it is Elixir too. Before 1.11 or so an operator key was written in quotes.
            let shown = inspect(ours.view(), WHOLE);
            if otp.release >= 27 {
                assert_eq!(key(ours.view()), key(evaluated(&beam, &shown).view()), "{shown}");
            }
            compared += 1;
        }
        eprintln!("    {compared} texts compared");
        // The sign of zero.
        assert_eq!(parse("-0.0", None).expect("a float").view().bytes()[1], 0x80);
    });
}

#[test]
fn what_inspect_prints_is_read_back() {
    on_every_otp(|otp| {
        let epmd = Epmd::start();
        let beam = BeamNode::start(otp, &epmd, "beam");
        let creation = beam.run(":erlang.system_info(:creation)").parse().expect("a number");
        let local = NodeIdentity { name: beam.name().to_owned(), creation };
        beam.run("terms = KvNodeTest.Terms.all() ++ [self(), {make_ref(), hd(Port.list())}, &Enum.map/2, [self() | self()]]; :ok");
        beam.run(
            "texts = for term <- terms, byte_size(:erlang.term_to_binary(term)) < 100_000 do
               text = inspect(term, limit: :infinity, printable_limit: :infinity)
               {Base.encode16(text), Base.encode16(:erlang.term_to_binary(term))}
             end; length(texts)",
        );
        let count: usize = beam.run("length(texts)").parse().expect("a number");
        let (mut read, mut refused) = (0, Vec::new());
        for at in 0..count {
            let pair = beam.run(&format!("{{text, term}} = Enum.at(texts, {at}); text <> \" \" <> term"));
            let (text, term) = pair.trim_matches('"').split_once(' ').expect("both");
            let text = String::from_utf8(unhex(text)).expect("inspect makes UTF-8");
            match parse(&text, Some(&local)) {
                Ok(ours) => {
                    assert_eq!(key(ours.view()), key(received(term).view()), "{text}");
                    read += 1;
                }
                // Structs and their sigils, funs, other nodes' pids: what cannot be read.
                Err(error) => {
                    let known = matches!(
                        error.problem,
                        ParseProblem::Unsupported(_) | ParseProblem::NodeUnknown | ParseProblem::OtherNode
                    );
                    assert!(known, "{text}: {error}");
                    refused.push(text);
                }
            }
        }
        eprintln!("    {read} of {count} read back");
        assert!(read >= 300, "{refused:?}");
    });
}
