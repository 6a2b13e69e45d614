//! Terms and Rust types, from the outside: what is written reads as Elixir would write it, comes back as it was,
//! and what does not fit is told in words.

use std::collections::{BTreeMap, HashMap};
use std::fmt::Debug;
use std::time::Duration;

use kvnode::etf::convert::DEPTH_MAX;
use kvnode::etf::{
    Atom, Binary, Charlist, ConvertError, ConvertProblem, ElixirStruct, Keyword, OwnedTerm, Pid, Reference,
    TermView, TermWriter, Traits, atom, atoms, encode, from_term, to_term, with, write_term,
};
use proptest::prelude::*;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

fn shown<T: Serialize + ?Sized>(value: &T) -> String {
    format!("{:?}", TermView::parse(&to_term(value).expect("it is a term")).expect("it is well formed"))
}

/// That a value is written as this and comes back.
#[track_caller]
fn both_ways<T: Serialize + DeserializeOwned + PartialEq + Debug>(value: T, text: &str) {
    let bytes = to_term(&value).expect("it is a term");
    let term = TermView::parse(&bytes).expect("it is well formed");
    assert_eq!(format!("{term:?}"), text);
    assert_eq!(from_term::<T>(term).expect("it comes back"), value);
}

/// Reads what another type has written.
fn read<T: DeserializeOwned>(value: &impl Serialize) -> Result<T, ConvertError> {
    from_bytes(&to_term(value).expect("it is a term"))
}

fn from_bytes<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, ConvertError> {
    from_term(TermView::parse(bytes).expect("it is well formed"))
}

#[track_caller]
fn refused<T: DeserializeOwned + Debug>(value: &impl Serialize, text: &str) {
    let error = read::<T>(value).expect_err("it does not fit");
    assert_eq!(error.to_string(), text);
}

fn ok() -> Atom {
    atom("ok")
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Shape {
    Nothing,
    Circle(f64),
    Line(i32, i32),
    Box { width: u8, height: Option<u8> },
    Empty(),
    Bare {},
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
struct Options {
    timeout: u64,
    #[serde(default)]
    name: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename = "Elixir.MyApp.User")]
struct User {
    name: String,
    age: u8,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename = "done")]
struct Done;

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Meters(i64);

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Pair(i64, String);

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "__struct__")]
enum OneOf {
    #[serde(rename = "Elixir.Dog")]
    Dog { name: String },
    #[serde(rename = "Elixir.Cat")]
    Cat { lives: u8 },
}

#[test]
fn scalars_are_what_elixir_calls_them() {
    both_ways(true, "true");
    both_ways(false, "false");
    both_ways((), "nil");
    both_ways(None::<u8>, "nil");
    both_ways(Some(5), "5");
    both_ways(-5_i8, "-5");
    both_ways(1.0_f64, "1.0");
    both_ways(0.1_f32, "0.10000000149011612");
    both_ways('é', "\"é\"");
    both_ways("Mafalda".to_owned(), "\"Mafalda\"");
    both_ways(atom("a b"), ":\"a b\"");
    both_ways(Done, ":done");
    both_ways(Meters(5), "5");
    both_ways(Binary(vec![255, 0]), "<<255, 0>>");
    both_ways(Binary(b"abc".to_vec()), "\"abc\"");
    both_ways(Charlist("abc".into()), "~c\"abc\"");
    both_ways(Charlist("日本".into()), "[26085, 26412]");
    both_ways(Charlist(String::new()), "[]");
}

#[test]
fn integers_of_all_widths_come_back() {
    both_ways(u64::MAX, "18446744073709551615");
    both_ways(i64::MIN, "-9223372036854775808");
    both_ways(u128::MAX, &u128::MAX.to_string());
    both_ways(i128::MIN, &i128::MIN.to_string());
    both_ways(i128::MAX, &i128::MAX.to_string());
    both_ways(i128::from(u64::MAX) + 1, "18446744073709551616");
    both_ways(-(1_i128 << 64), "-18446744073709551616");
    assert_eq!(read::<i128>(&5_u8), Ok(5));
    assert_eq!(read::<u8>(&5_u128), Ok(5));
    refused::<u8>(&256, "wanted u8, met integer `256`");
    refused::<u8>(&-1, "wanted u8, met integer `-1`");
    refused::<i64>(&(1_u64 << 63), "wanted i64, met integer `9223372036854775808`");
    refused::<i128>(&u128::MAX, "wanted i128, met the integer 340282366920938463463374607431768211455");
    let huge = [&[110, 17, 0][..], &[0; 16], &[1]].concat();
    let error = from_bytes::<u128>(&huge).unwrap_err().to_string();
    assert_eq!(error, "wanted u128, met the integer 340282366920938463463374607431768211456");
}

#[test]
fn lists_tuples_and_maps_are_such() {
    both_ways(vec![Some(1), None], "[1, nil]");
    both_ways(Vec::<i32>::new(), "[]");
    both_ways((1, "a".to_owned(), 2.5), "{1, \"a\", 2.5}");
    both_ways(Pair(1, "a".into()), "{1, \"a\"}");
    both_ways([1, 2, 3], "{1, 2, 3}");
    both_ways(BTreeMap::from([("a".to_owned(), 1), ("b".into(), 2)]), "%{\"a\" => 1, \"b\" => 2}");
    both_ways(BTreeMap::from([(1, vec![1]), (2, vec![])]), "%{1 => [1], 2 => []}");
    both_ways(vec![(atom("a"), 1), (atom("a"), 2)], "[a: 1, a: 2]");
    both_ways(Keyword(Options { timeout: 5, name: None }), "[timeout: 5, name: nil]");
    both_ways(Keyword(BTreeMap::from([("a".to_owned(), 1)])), "[a: 1]");
    both_ways(Keyword(BTreeMap::<Atom, u8>::new()), "[]");
    both_ways(Options { timeout: 5, name: Some("x".into()) }, "%{timeout: 5, name: \"x\"}");
    both_ways(User { name: "x".into(), age: 6 }, "%{__struct__: MyApp.User, name: \"x\", age: 6}");
    // A keyword list in a keyword list has to say so itself.
    assert_eq!(shown(&Keyword(BTreeMap::from([("a", Options::default())]))), "[a: %{timeout: 0, name: nil}]");
}

#[test]
fn a_list_of_bytes_is_written_as_a_beam_writes_it() {
    assert_eq!(to_term(&vec![1, 2, 255]).unwrap(), [107, 0, 3, 1, 2, 255]);
    assert_eq!(to_term(&vec![1, 256]).unwrap()[0], 108);
    for len in [65_535, 65_536] {
        let list = vec![97_u8; len];
        let bytes = to_term(&list).unwrap();
        assert_eq!(bytes[0], if len > 65_535 { 108 } else { 107 });
        assert_eq!(from_bytes::<Vec<u8>>(&bytes).unwrap(), list);
        assert_eq!(from_bytes::<Charlist>(&bytes).unwrap().0, "a".repeat(len));
    }
    // Its elements are read as those of any other list.
    let string = &[107, 0, 2, 1, 97];
    assert_eq!(from_bytes::<Vec<f64>>(string).unwrap(), [1.0, 97.0]);
    assert_eq!(from_bytes::<Vec<char>>(string).unwrap(), ['\u{1}', 'a']);
    assert_eq!(from_bytes::<Vec<Option<Meters>>>(string).unwrap(), [Some(Meters(1)), Some(Meters(97))]);
    assert_eq!(from_bytes::<Vec<OwnedTerm>>(string).unwrap()[1].view().bytes(), [97, 97]);
    assert_eq!(from_bytes::<[u8; 2]>(string).unwrap(), [1, 97]);
    assert_eq!(
        from_bytes::<Vec<String>>(string).unwrap_err().to_string(),
        "wanted a string, met the integer 1, at [0]"
    );
}

#[test]
fn enums_are_atoms_and_tagged_tuples() {
    both_ways(Shape::Nothing, ":nothing");
    both_ways(Shape::Circle(1.5), "{:circle, 1.5}");
    both_ways(Shape::Line(1, 2), "{:line, 1, 2}");
    both_ways(Shape::Box { width: 1, height: None }, "{:box, %{width: 1, height: nil}}");
    both_ways(Shape::Empty(), "{:empty}");
    both_ways(Shape::Bare {}, "{:bare, %{}}");
    assert_eq!(read(&"nothing"), Ok(Shape::Nothing));
    assert_eq!(read(&("line", 1, 2)), Ok(Shape::Line(1, 2)));
    let keywords = (atom("box"), Keyword(BTreeMap::from([("width", 1)])));
    assert_eq!(read(&keywords), Ok(Shape::Box { width: 1, height: None }));
    both_ways(OneOf::Dog { name: "x".into() }, "%{__struct__: Dog, name: \"x\"}");
    both_ways(vec![OneOf::Cat { lives: 9 }], "[%{__struct__: Cat, lives: 9}]");
}

#[test]
fn results_are_what_elixir_functions_answer() {
    type Answer<T> = Result<T, String>;
    both_ways(Answer::Ok(5), "{:ok, 5}");
    both_ways(Answer::Ok(()), ":ok");
    both_ways(Answer::<()>::Err("no".into()), "{:error, \"no\"}");
    both_ways(Result::<u8, ()>::Err(()), ":error");
    both_ways(Answer::Ok(None::<u8>), "{:ok, nil}");
    both_ways(Answer::Ok(Answer::Ok(())), "{:ok, :ok}");
    both_ways(Answer::Ok((1, ())), "{:ok, {1, nil}}");
    both_ways(Answer::Ok(vec![()]), "{:ok, [nil]}");
    both_ways(Answer::Ok(ok()), "{:ok, :ok}");
    assert_eq!(read(&ok()), Ok(()), "as a function with nothing else to say answers");
    refused::<Answer<u8>>(&ok(), "wanted a tuple of 2, met the atom :ok");
}

#[test]
fn results_of_several_values_are_read_as_those_of_a_tuple() {
    type Answer<T> = Result<T, String>;
    let many = (ok(), 1, "x");
    assert_eq!(read(&many), Ok(Answer::Ok((1, "x".to_owned()))));
    assert_eq!(read(&many), Ok(Answer::Ok(Pair(1, "x".into()))));
    assert_eq!(read(&many), Ok(Answer::Ok(Some((1, "x".to_owned())))));
    assert_eq!(read(&(ok(), 1, 2, 3)), Ok(Answer::Ok([1, 2, 3])));
    let failed = (atom("error"), 5, "syntax");
    assert_eq!(read(&failed), Ok(Result::<(), _>::Err((5, "syntax".to_owned()))));
    assert_eq!(read(&vec![many.clone()]), Ok(vec![Answer::Ok((1, "x".to_owned()))]), "what follows is found");
    // Written they are what serde calls them.
    both_ways(Answer::Ok((1, "x".to_owned())), "{:ok, {1, \"x\"}}");

    let text = "wanted a tuple of 2, met the tuple {:ok, 1, \"x\"}";
    refused::<Answer<u8>>(&many, text);
    refused::<Answer<Vec<OwnedTerm>>>(&many, text);
    refused::<Answer<OwnedTerm>>(&many, text);
    refused::<Answer<Atom>>(&many, text);
    refused::<Answer<serde_json::Value>>(&many, text);
    refused::<Answer<()>>(&many, text);
    refused::<Answer<(u8,)>>(&many, text);
    refused::<Answer<(u8, String, u8)>>(&many, "wanted a tuple of 4, met the tuple {:ok, 1, \"x\"}");
    refused::<Answer<(u8, u8)>>(&many, "wanted u8, met the binary \"x\", at {2}");
    refused::<Shape>(&(atom("circle"), 1.0, 2.0), "wanted a tuple of 2, met the tuple {:circle, 1.0, 2.0}");
}

/// A value with something of each of `etf::with`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Attributes {
    #[serde(with = "with::millis")]
    pause: Duration,
    #[serde(with = "with::timeout")]
    limit: Duration,
    #[serde(default, with = "with::undefined")]
    proxy: Option<Atom>,
    #[serde(with = "with::bytes")]
    body: Vec<u8>,
}

#[test]
fn fields_are_what_their_attribute_says() {
    let value = Attributes {
        pause: Duration::from_millis(1500),
        limit: Duration::MAX,
        proxy: None,
        body: vec![0, 255],
    };
    both_ways(value.clone(), "%{pause: 1500, limit: :infinity, proxy: :undefined, body: <<0, 255>>}");
    let value = Attributes { limit: Duration::ZERO, proxy: Some(ok()), body: vec![], ..value };
    both_ways(value, "%{pause: 1500, limit: 0, proxy: :ok, body: \"\"}");
    both_ways(Duration::from_millis(1500), "%{secs: 1, nanos: 500000000}");

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Millis(#[serde(with = "with::millis")] Duration);
    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Timeout(#[serde(with = "with::timeout")] Duration);
    refused::<Millis>(&-1, "wanted milliseconds, met integer `-1`");
    refused::<Millis>(&1.0, "wanted milliseconds, met the float 1.0");
    refused::<Millis>(&atom("infinity"), "wanted milliseconds, met the atom :infinity");
    refused::<Millis>(
        &(i128::from(i64::MIN) - 1),
        "wanted milliseconds, met the integer -9223372036854775809",
    );
    refused::<Timeout>(&-1, "wanted milliseconds or :infinity, met integer `-1`");
    refused::<Timeout>(&atom("forever"), "wanted milliseconds or :infinity, met the atom :forever");
    refused::<Timeout>(&(), "wanted milliseconds or :infinity, met the atom nil");
    refused::<Timeout>(&1.5, "wanted milliseconds or :infinity, met the float 1.5");
    refused::<Vec<Timeout>>(&vec![(1, 2)], "wanted milliseconds or :infinity, met the tuple {1, 2}, at [0]");

    // `nil` is nothing there too; without the attribute `:undefined` is an atom as any other.
    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Undefined<T>(
        #[serde(with = "with::undefined", bound(deserialize = "T: Deserialize<'de>"))] Option<T>,
    )
    where
        T: Serialize;
    assert_eq!(read(&()), Ok(Undefined::<u8>(None)));
    assert_eq!(read(&atom("undefined")), Ok(Undefined::<u8>(None)));
    assert_eq!(read(&atom("undefined")), Ok(Some(atom("undefined"))));
    refused::<Undefined<u8>>(&ok(), "wanted u8, met the atom :ok");
    // Of an option in an option the outer one alone has the other word.
    both_ways(Undefined(Some(vec![None, Some(1)])), "[nil, 1]");
    assert_eq!(shown(&Undefined(Some(None::<u8>))), "nil");
    assert_eq!(shown(&(Undefined(None::<u8>), None::<u8>)), "{:undefined, nil}");

    #[derive(Debug, Serialize, Deserialize)]
    #[serde(transparent)]
    struct Endless(#[serde(with = "with::undefined")] Option<Box<Endless>>);
    assert_eq!(read::<Endless>(&5).unwrap_err().problem(), &ConvertProblem::TooDeep);

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Digest(#[serde(with = "with::bytes")] [u8; 2]);
    both_ways(Digest([1, 2]), "<<1, 2>>");
    refused::<Vec<Digest>>(&vec!["abc"], "wanted a binary of another length, met 3 bytes, at [0]");
    refused::<Digest>(&vec![1, 2], "wanted a binary, met the list [1, 2]");
}

#[test]
fn a_struct_of_any_module_is_read_without_a_type_for_it() {
    let user = ElixirStruct::new(atom("Elixir.MyApp.User")).with("age", &6).unwrap();
    let user = user.with("name", "x").unwrap();
    both_ways(user.clone(), "%{__struct__: MyApp.User, age: 6, name: \"x\"}");
    both_ways(ElixirStruct::new(atom("plain")), "%{__struct__: :plain}");
    assert_eq!(read(&user), Ok(User { name: "x".into(), age: 6 }));
    assert_eq!(read(&User { name: "x".into(), age: 6 }).as_ref(), Ok(&user));
    assert_eq!((user.field("age"), user.field("name")), (Ok(6), Ok("x")));
    assert_eq!(user.field::<Option<Atom>>("age").unwrap_err().path(), ".age");
    let missing = user.field::<u8>("email").unwrap_err().to_string();
    assert_eq!(missing, "wanted the field email, met the struct %MyApp.User{} without it");
    let nan = user.clone().with("height", &vec![f64::NAN]).unwrap_err();
    assert_eq!((nan.problem(), nan.path()), (&ConvertProblem::Float, ".height[0]".to_owned()));
    assert_eq!(user.clone().with(&"x".repeat(256), &1).unwrap_err().problem(), &ConvertProblem::Atom);
    let twice = user.with("__struct__", &1).unwrap();
    assert_eq!(to_term(&twice).unwrap_err().problem(), &ConvertProblem::DuplicateKey);

    refused::<ElixirStruct>(&BTreeMap::from([(atom("a"), 1)]), "the field __struct__ is missing");
    refused::<ElixirStruct>(&BTreeMap::from([("a", 1)]), "wanted an atom, met the binary \"a\", at [\"a\"]");
    refused::<ElixirStruct>(
        &BTreeMap::from([(atom("__struct__"), 1)]),
        "wanted an atom, met the integer 1, at .__struct__",
    );
    refused::<ElixirStruct>(&ok(), "wanted a struct of Elixir, met the atom :ok");
}

#[test]
fn names_of_atoms_are_constants() {
    atoms! { FIRST = "first" }
    atoms! {
        /// With an attribute.
        pub SECOND = "second";
        THIRD = "third"
    }
    atoms! {}
    assert_eq!(shown(&(FIRST, SECOND, THIRD)), "{:first, :second, :third}");
}

#[test]
fn structs_are_read_from_what_elixir_people_pass() {
    let options = Options { timeout: 5, name: None };
    assert_eq!(read(&vec![(atom("timeout"), 5)]), Ok(options.clone()));
    assert_eq!(read(&vec![("timeout", 5)]), Ok(options.clone()));
    assert_eq!(read(&HashMap::from([("timeout", 5)])), Ok(options.clone()));
    // Keys that are no field's: the number 0 is not the first field either.
    let other = "%{0 => 1, {} => 2, :more => 3, :timeout => 5}";
    let bytes = encode(|out| {
        out.map(4).integer(0).integer(1).tuple(0).integer(2).atom("more").integer(3);
        out.atom("timeout").integer(5);
    });
    assert_eq!(format!("{:?}", TermView::parse(&bytes).unwrap()), other);
    assert_eq!(from_bytes(&bytes), Ok(options));
    let map = BTreeMap::from([(atom("a"), 1)]);
    assert_eq!(read(&vec![(atom("a"), 1)]), Ok(map.clone()));
    assert_eq!(read(&map), Ok(BTreeMap::from([("a".to_owned(), 1)])));
}

#[test]
fn a_struct_of_a_module_is_read_from_no_other() {
    #[derive(Serialize)]
    struct Plain {
        name: &'static str,
        age: u8,
    }
    #[derive(Serialize)]
    #[serde(rename = "Elixir.MyApp.Pet")]
    struct Pet {
        name: &'static str,
    }
    refused::<User>(
        &Plain { name: "x", age: 1 },
        "wanted the struct %MyApp.User{}, met the map %{name: \"x\", age: 1}",
    );
    refused::<User>(
        &Pet { name: "x" },
        "wanted the struct %MyApp.User{}, met the map %{__struct__: MyApp.Pet, name: \"x\"}",
    );
    refused::<User>(&Vec::<u8>::new(), "wanted struct User, met the list []");
    // Wherever it stands in the map.
    let bytes = encode(|out| {
        out.map(3).atom("name").binary(b"x").atom("age").integer(6);
        out.atom("__struct__").atom("Elixir.MyApp.User");
    });
    assert_eq!(from_bytes(&bytes), Ok(User { name: "x".into(), age: 6 }));
    // A plain struct does not look at it.
    assert!(read::<Options>(&vec![(atom("__struct__"), 1), (atom("timeout"), 1)]).is_ok());
    let bytes = encode(|out| _ = out.map(1).atom("__struct__").atom("Elixir.MyApp.User"));
    assert_eq!(from_bytes::<User>(&bytes).unwrap_err().problem(), &ConvertProblem::MissingField("name"));
}

#[test]
fn strings_are_borrowed() {
    #[derive(Deserialize)]
    struct Borrowed<'a> {
        text: &'a str,
        bytes: &'a [u8],
        #[serde(borrow)]
        term: TermView<'a>,
    }
    let bytes = encode(|out| {
        out.map(3).atom("text").binary(b"abc").atom("bytes").binary(&[255]);
        out.atom("term").tuple(0);
    });
    let Borrowed { text, bytes: binary, term } = from_term(TermView::parse(&bytes).unwrap()).unwrap();
    let range = bytes.as_ptr_range();
    for part in [text.as_bytes(), binary, term.bytes()] {
        assert!(range.contains(&part.as_ptr()));
    }
    assert_eq!((text, binary, term.bytes()), ("abc", &[255][..], &[104, 0][..]));
}

#[test]
fn identifiers_are_such_also_behind_flatten_and_untagged() {
    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Outer {
        #[serde(flatten)]
        inner: Inner,
        more: Option<Pid>,
    }
    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Inner {
        from: Pid,
        tag: Reference,
        name: Atom,
        data: Binary,
    }
    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    #[serde(untagged)]
    enum Target {
        Process(Pid),
        Name(Atom),
    }
    let pid = Pid { node: "n@h".into(), id: 1, serial: 2, creation: 3 };
    let tag = Reference { node: "n@h".into(), creation: 3, words: vec![1, 2, 3] };
    let inner = Inner { from: pid.clone(), tag, name: atom("a"), data: Binary(vec![131, 1]) };
    let outer = Outer { inner, more: Some(pid.clone()) };
    assert_eq!(read(&outer), Ok(outer));
    both_ways(Target::Process(pid.clone()), "#PID<n@h.1.2>");
    both_ways(Target::Name(atom("a")), ":a");
    refused::<Pid>(&ok(), "wanted a pid, met the atom :ok");
    refused::<Reference>(&pid, "wanted a reference, met the pid #PID<n@h.1.2>");
    refused::<serde_json::Value>(
        &vec![pid],
        "wanted any valid JSON value, met the pid #PID<n@h.1.2>, at [0]",
    );
}

#[test]
fn dynamic_values_are_read_as_they_look() {
    let bytes = encode(|out| {
        out.map(4).atom("nil").atom("nil").binary(b"list").list(3).atom("true").float(1.5);
        out.tuple(1).atom("ok").nil().atom("big").unsigned(u64::MAX).atom("text");
        out.binary("é".as_bytes());
    });
    let value: serde_json::Value = from_bytes(&bytes).unwrap();
    let wanted = serde_json::json!({"nil": null, "list": [true, 1.5, ["ok"]], "big": u64::MAX, "text": "é"});
    assert_eq!(value, wanted);
    assert_eq!(read::<serde_json::Value>(&value), Ok(wanted));
    let improper = [108, 0, 0, 0, 1, 97, 1, 97, 2];
    let error = from_bytes::<serde_json::Value>(&improper).unwrap_err().to_string();
    assert_eq!(error, "wanted a proper list, met the list [1 | 2]");
    assert_eq!(from_bytes::<OwnedTerm>(&improper).unwrap().view().bytes(), improper);
    let bits = [77, 0, 0, 0, 1, 3, 160];
    let error = from_bytes::<serde_json::Value>(&bits).unwrap_err().to_string();
    assert_eq!(error, "wanted any valid JSON value, met the bit string <<5::size(3)>>");
}

#[test]
fn an_error_says_what_and_where() {
    #[derive(Debug, Deserialize)]
    #[expect(dead_code, reason = "it is never made")]
    struct Nested {
        data: Vec<(u8, BTreeMap<String, bool>)>,
        #[serde(default)]
        shape: Option<Shape>,
    }
    let deep = BTreeMap::from([("data", vec![(1, BTreeMap::from([("k", "x")]))])]);
    refused::<Nested>(&deep, "wanted a boolean, met the binary \"x\", at [\"data\"][0]{1}[\"k\"]");
    refused::<Nested>(&(1, 2), "wanted struct Nested, met the tuple {1, 2}");
    refused::<Nested>(&vec![1], "wanted struct Nested, met the list [1]");
    refused::<Nested>(&vec![(1, 2), (3, 4)], "the field data is missing");
    refused::<Nested>(&vec![1_000], "wanted a pair, met the integer 1000, at [0]");
    let cases: [(Vec<u8>, &str); 7] = [
        (
            to_term(&(atom("circle"), 1.0, 2.0)).unwrap(),
            "wanted a tuple of 2, met the tuple {:circle, 1.0, 2.0}, at [\"shape\"]",
        ),
        (to_term(&atom("line")).unwrap(), "wanted a tuple of 3, met the atom :line, at [\"shape\"]"),
        (
            to_term(&(atom("nothing"), 1)).unwrap(),
            "wanted an atom alone, met the tuple {:nothing, 1}, at [\"shape\"]",
        ),
        (to_term(&(atom("line"), 1, "x")).unwrap(), "wanted i32, met the binary \"x\", at [\"shape\"]{2}"),
        (
            to_term(&(atom("box"), 1)).unwrap(),
            "wanted struct variant Shape::Box, met the integer 1, at [\"shape\"]{1}",
        ),
        (to_term(&(1, 2)).unwrap(), "wanted the name of a variant, met the integer 1, at [\"shape\"]{0}"),
        (
            to_term(&atom("x")).unwrap(),
            "wanted one of nothing, circle, line, box, empty, bare, met x, at [\"shape\"]",
        ),
    ];
    for (bytes, text) in cases {
        refused::<Nested>(&BTreeMap::from([("shape", OwnedTerm::parse(bytes.clone()).unwrap())]), text);
    }
    refused::<String>(&ok(), "wanted a string, met the atom :ok");
    refused::<String>(&Binary(vec![255]), "wanted a string, met the binary <<255>>, which is not UTF-8");
    let hint = "`kvnode::etf::Binary` or `#[serde(with = \"kvnode::etf::with::bytes\")]` reads one";
    refused::<Vec<u8>>(&"abc", &format!("wanted a sequence, met the binary \"abc\"; {hint}"));
    refused::<(u8, Vec<u8>)>(
        &(1, "abc"),
        &format!("wanted a sequence, met the binary \"abc\"; {hint}, at {{1}}"),
    );
    refused::<Vec<String>>(&"", &format!("wanted a sequence, met the binary \"\"; {hint}"));
    let long = read::<Vec<u8>>(&Binary(vec![255; 1 << 20])).unwrap_err().to_string();
    assert!(long.ends_with(hint) && long.len() < 500, "{long}");
    refused::<Vec<u8>>(&(1, 2), "wanted a sequence, met the tuple {1, 2}");
    refused::<(u8, u8)>(&(1, 2, 3), "wanted a tuple of size 2, met the tuple {1, 2, 3}");
    refused::<(u8, u8)>(&vec![1, 2, 3], "wanted 2 elements, met more in the list [1, 2, 3]");
    refused::<(u8, u8)>(&vec![1], "wanted a tuple of size 2, met 1 of them");
    refused::<f64>(&(u64::MAX - 1), "wanted f64, met the integer 18446744073709551614");
    refused::<f32>(&1.0e300, "wanted f32, met the float 1.0e300");
    refused::<i32>(&1.0, "wanted i32, met the float 1.0");
    refused::<Done>(&ok(), "wanted the atom :done, met the atom :ok");
    refused::<Charlist>(&vec![0xD800], "wanted a charlist, met the list [55296]");
    refused::<char>(&"ab", "wanted a character, met string \"ab\"");
    // However much was sent.
    let error = read::<u8>(&"x".repeat(1 << 20)).unwrap_err().to_string();
    assert!(error.len() < 500, "{error}");
}

#[test]
fn what_is_no_term_is_not_written() {
    assert_eq!(to_term(&f64::NAN).unwrap_err().problem(), &ConvertProblem::Float);
    let error = to_term(&BTreeMap::from([("k", vec![(1, f32::INFINITY)])])).unwrap_err();
    assert_eq!((error.problem(), error.path()), (&ConvertProblem::Float, "[\"k\"][0]{1}".to_owned()));
    let mut out = vec![1, 2];
    assert!(write_term(&(1, vec![f64::NAN]), &mut TermWriter::new(&mut out)).is_err());
    assert_eq!(out, [1, 2], "nothing is left of it");
    write_term(&5, &mut TermWriter::new(&mut out)).unwrap();
    assert_eq!(out, [1, 2, 97, 5]);

    #[derive(Serialize)]
    struct Doubled {
        a: u8,
        #[serde(flatten)]
        more: BTreeMap<String, u8>,
    }
    let doubled = Doubled { a: 1, more: BTreeMap::from([("a".into(), 2)]) };
    assert_eq!(to_term(&doubled).unwrap_err().problem(), &ConvertProblem::DuplicateKey);
    let error = to_term(&Keyword(BTreeMap::from([(1, 1)]))).unwrap_err().to_string();
    assert_eq!(error, "wanted an atom or a string as a key of a keyword list, met 1");
    let long = Keyword(BTreeMap::from([("x".repeat(256), 1)]));
    assert_eq!(to_term(&long).unwrap_err().problem(), &ConvertProblem::Atom);

    #[derive(Serialize)]
    #[serde(rename = "$kvnode::Term")]
    struct Forged(Binary);
    assert!(to_term(&Forged(Binary(vec![108, 0]))).is_err());
}

#[test]
fn a_type_in_itself_has_an_end() {
    #[derive(Debug, Default, PartialEq, Serialize, Deserialize)]
    struct Nest(Vec<Nest>);
    #[derive(Debug, Deserialize)]
    #[expect(dead_code, reason = "it is never made")]
    struct Endless(Option<Box<Endless>>);
    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    enum Chain {
        Link(Box<Chain>),
        End,
    }
    #[derive(Debug, Serialize, Deserialize)]
    #[serde(untagged)]
    enum Any {
        Number(u8),
        List(Vec<Any>),
    }
    let deep = |depth: usize| [[108, 0, 0, 0, 1].repeat(depth - 1), vec![106], vec![106; depth - 1]].concat();
    let nest: Nest = from_bytes(&deep(DEPTH_MAX)).unwrap();
    assert_eq!(to_term(&nest).unwrap(), deep(DEPTH_MAX));
    let error = from_bytes::<Nest>(&deep(DEPTH_MAX + 1)).unwrap_err();
    assert_eq!(error.problem(), &ConvertProblem::TooDeep);
    assert_eq!(to_term(&Nest(vec![nest])).unwrap_err().problem(), &ConvertProblem::TooDeep);
    assert!(from_bytes::<Nest>(&deep(100_000)).is_err());
    assert!(from_bytes::<Any>(&deep(DEPTH_MAX)).is_ok());
    assert!(from_bytes::<Any>(&deep(DEPTH_MAX + 1)).is_err());
    assert!(from_bytes::<serde_json::Value>(&deep(100_000)).is_err());
    assert_eq!(read::<Endless>(&5).unwrap_err().problem(), &ConvertProblem::TooDeep);
    let chain = (0..DEPTH_MAX).fold(Chain::End, |chain, _| Chain::Link(Box::new(chain)));
    assert_eq!(read(&chain), Ok(chain));
    // What is passed over or held is not gone into.
    assert!(from_bytes::<OwnedTerm>(&deep(100_000)).is_ok());
    assert!(from_bytes::<serde::de::IgnoredAny>(&deep(100_000)).is_ok());
}

#[test]
fn odd_encodings_are_the_terms_that_they_are() {
    // [1 | [2 | "ab"]], in pieces as tails.
    let pieces = [108, 0, 0, 0, 1, 97, 1, 108, 0, 0, 0, 0, 108, 0, 0, 0, 1, 97, 2, 107, 0, 2, 97, 98];
    assert_eq!(from_bytes::<Vec<u8>>(&pieces).unwrap(), [1, 2, 97, 98]);
    assert_eq!(from_bytes::<(Vec<u8>, u8)>(&[&[104, 2][..], &pieces, &[97, 3]].concat()).unwrap().1, 3);
    assert_eq!(from_bytes::<Charlist>(&pieces).unwrap().0, "\u{1}\u{2}ab");
    // A keyword list in pieces.
    let keywords = encode(|out| {
        out.list(1).tuple(2).atom("name").binary(b"x");
        out.list(1).tuple(2).atom("timeout").integer(5).nil();
    });
    assert_eq!(from_bytes(&keywords), Ok(Options { timeout: 5, name: Some("x".into()) }));
    // Latin-1 atoms, a binary as a bit string, a float as text, large forms.
    assert_eq!(from_bytes::<Atom>(&[115, 1, 233]).unwrap(), "é");
    assert_eq!(from_bytes::<BTreeMap<String, u8>>(&[116, 0, 0, 0, 1, 115, 1, 233, 97, 1]).unwrap()["é"], 1);
    assert_eq!(from_bytes::<String>(&[77, 0, 0, 0, 1, 8, 97]).unwrap(), "a");
    let float = [b"c1.50000000000000000000e+00".as_slice(), &[0; 5]].concat();
    assert_eq!(from_bytes::<f64>(&float).unwrap(), 1.5);
    assert_eq!(from_bytes::<(u8,)>(&[105, 0, 0, 0, 1, 111, 0, 0, 0, 2, 0, 7, 0]).unwrap(), (7,));
}

/// A type with something of everything.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Everything {
    flag: bool,
    small: i8,
    wide: i128,
    unsigned: u128,
    float: f64,
    char: char,
    text: String,
    data: Binary,
    name: Atom,
    charlist: Charlist,
    optional: Option<i32>,
    list: Vec<u16>,
    bytes: Vec<u8>,
    tuple: (u8, String),
    map: BTreeMap<i64, String>,
    atoms: BTreeMap<Atom, bool>,
    keywords: Keyword<Options>,
    user: User,
    shapes: Vec<Shape>,
    result: Result<i32, String>,
    done: Result<(), Done>,
    attributes: Attributes,
}

fn shapes() -> impl Strategy<Value = Vec<Shape>> {
    let shape = prop_oneof![
        Just(Shape::Nothing),
        any::<i32>().prop_map(|value| Shape::Circle(value.into())),
        any::<(i32, i32)>().prop_map(|(from, to)| Shape::Line(from, to)),
        any::<(u8, Option<u8>)>().prop_map(|(width, height)| Shape::Box { width, height }),
    ];
    prop::collection::vec(shape, 0..4)
}

fn attributes() -> impl Strategy<Value = Attributes> {
    let limit = prop_oneof![Just(Duration::MAX), any::<u64>().prop_map(Duration::from_millis)];
    let proxy = prop::option::of("[a-tv-z]{0,9}");
    (any::<u64>(), limit, proxy, any::<Vec<u8>>()).prop_map(|(pause, limit, proxy, body)| Attributes {
        pause: Duration::from_millis(pause),
        limit,
        // `:nil` is nothing.
        proxy: proxy.filter(|name| name != "nil").map(|name| name.try_into().expect("short")),
        body,
    })
}

fn everything() -> impl Strategy<Value = Everything> {
    let scalars = any::<(bool, i8, i128, u128, char, String, Vec<u8>, Option<i32>, Vec<u16>, Vec<u8>)>();
    let compounds = (
        any::<(u8, String)>(),
        any::<BTreeMap<i64, String>>(),
        prop::collection::btree_map("[a-zé]{0,9}", any::<bool>(), 0..4),
    );
    let rest = (
        prop::num::f64::NORMAL | prop::num::f64::ZERO,
        any::<(u64, Option<String>)>(),
        shapes(),
        any::<Result<i32, String>>(),
        any::<bool>(),
        attributes(),
    );
    (scalars, compounds, rest).prop_map(|(scalars, (tuple, map, atoms), rest)| {
        let (flag, small, wide, unsigned, char, text, data, optional, list, bytes) = scalars;
        let (float, (timeout, name), shapes, result, done, attributes) = rest;
        Everything {
            flag,
            small,
            wide,
            unsigned,
            float,
            char,
            charlist: Charlist(text.clone()),
            name: Atom::try_from(text.chars().take(255).collect::<String>()).expect("short enough"),
            user: User { name: text.clone(), age: small.unsigned_abs() },
            text,
            data: Binary(data),
            optional,
            list,
            bytes,
            tuple,
            map,
            atoms: atoms.into_iter().map(|(key, value)| (key.try_into().expect("short"), value)).collect(),
            keywords: Keyword(Options { timeout, name }),
            shapes,
            result,
            done: if done { Ok(()) } else { Err(Done) },
            attributes,
        }
    })
}

proptest! {
    #[test]
    fn everything_comes_back(value in everything()) {
        let bytes = to_term(&value).unwrap();
        let term = TermView::parse(&bytes).unwrap();
        prop_assert_eq!(from_term::<Everything>(term).unwrap(), value);
        let owned: OwnedTerm = from_term(term).unwrap();
        prop_assert_eq!(to_term(&owned).unwrap(), bytes);
    }

    /// What a peer sends is any term: with a byte changed or cut, what is still one is read or refused.
    #[test]
    fn changed_terms_are_read_or_refused(value in everything(), at: prop::sample::Index, byte: u8) {
        let mut bytes = to_term(&value).unwrap();
        let at = at.index(bytes.len());
        bytes[at] = byte;
        if let Ok(term) = TermView::parse(&bytes) {
            if let Ok(value) = from_term::<Everything>(term) {
                prop_assert!(to_term(&value).is_ok());
            }
            if let Ok(value) = from_term::<serde_json::Value>(term) {
                prop_assert!(to_term(&value).is_ok());
            }
            if let Ok(owned) = from_term::<OwnedTerm>(term) {
                prop_assert_eq!(owned.view().traits().contains(Traits::MAP), term.traits().contains(Traits::MAP));
            }
        }
    }
}
