//! Real BEAMs as judges of what Rust types are written as, and as senders of what they are read from.
//!
//! On each OTP version present, terms of Elixir (structs, keyword lists, charlists, large integers, maps) are read
//! into Rust types and written back, and have to be `===` there; and values of Rust have to be the terms that an
//! Elixir expression says. `serde_beam.exs` is the other side.

#![allow(clippy::print_stderr, reason = "how much was compared is said")]

mod support;

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use kvnode::etf::{
    Atom, Binary, Charlist, ElixirStruct, Keyword, OwnedTerm, Pid, Reference, TermView, atom, from_term,
    to_term, with,
};
use serde::de::DeserializeOwned;
use serde::ser::SerializeTuple;
use serde::{Deserialize, Serialize, Serializer};
use support::judge::{Judge, lengthened};
use support::{Otp, on_every_otp_from};

#[derive(Serialize, Deserialize)]
#[serde(rename = "Elixir.MyApp.User", deny_unknown_fields)]
struct User {
    name: String,
    age: u8,
    tags: Vec<Option<Atom>>,
    address: Option<Address>,
}

#[derive(Serialize, Deserialize)]
#[serde(rename = "Elixir.MyApp.Address", deny_unknown_fields)]
struct Address {
    street: String,
    zip: Charlist,
}

#[derive(Serialize, Deserialize)]
#[serde(rename = "Elixir.MyApp.Wallet", deny_unknown_fields)]
struct Wallet {
    big: i128,
    small: i8,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Options {
    timeout: u16,
    retries: Option<u8>,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Request {
    Stop,
    Get(String),
    Put(String, OwnedTerm),
    Expire { key: String, after_ms: Option<u64> },
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Reason {
    Enoent,
    Timeout,
}

#[derive(Serialize, Deserialize)]
#[serde(tag = "__struct__")]
enum Shape {
    #[serde(rename = "Elixir.Circle")]
    Circle { radius: f64 },
    #[serde(rename = "Elixir.Square")]
    Square { side: u8 },
}

#[derive(Serialize, Deserialize)]
struct Fetch {
    #[serde(with = "with::millis")]
    pause: Duration,
    #[serde(with = "with::timeout")]
    limit: Duration,
    #[serde(with = "with::undefined")]
    proxy: Option<String>,
    #[serde(with = "with::bytes")]
    body: Vec<u8>,
}

#[derive(Serialize)]
struct Outer<'a> {
    text: &'a str,
    inner: Inner<'a>,
}

#[derive(Serialize)]
struct Inner<'a> {
    list: &'a [i64],
    #[serde(rename = "odd name?")]
    odd: (),
}

/// Into a Rust type and back.
fn through<T: Serialize + DeserializeOwned>(name: &str, term: TermView<'_>) -> Vec<u8> {
    let value: T = from_term(term).unwrap_or_else(|error| panic!("{name}: {error}"));
    to_term(&value).unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// Results of several values, which are written as those of a tuple: so they are written here as the BEAM had them.
fn through_results_of_several(name: &str, term: TermView<'_>) -> Vec<u8> {
    type Several = Result<(u8, String), (Reason, u32)>;
    let values: Vec<Several> = from_term(term).unwrap_or_else(|error| panic!("{name}: {error}"));
    let terms = values.into_iter().map(|value| match value {
        Ok((number, text)) => OwnedTerm::from_value(&(atom("ok"), number, text)),
        Err((reason, line)) => OwnedTerm::from_value(&(atom("error"), reason, line)),
    });
    let terms: Result<Vec<OwnedTerm>, _> = terms.collect();
    to_term(&terms.expect("they are terms")).expect("it is a term")
}

/// A struct by its fields' names: one is read, and another one is changed and changed back.
fn through_a_struct(name: &str, term: TermView<'_>) -> Vec<u8> {
    let read: ElixirStruct = from_term(term).unwrap_or_else(|error| panic!("{name}: {error}"));
    assert_eq!(read.module, "Elixir.MyApp.User");
    assert_eq!(read.field::<u8>("age"), Ok(6));
    let address: ElixirStruct = read.field("address").expect("it is a struct");
    assert_eq!(address.field::<Charlist>("zip").expect("it is there"), "1000");
    let tags: OwnedTerm = read.field("tags").expect("it is there");
    let changed = read.with("tags", &()).and_then(|changed| changed.with("tags", &tags));
    to_term(&changed.expect("its fields are terms")).expect("it is a term")
}

fn there_and_back(name: &str, bytes: &[u8]) -> Vec<u8> {
    let term = TermView::parse(bytes).expect("a BEAM has written it");
    let through: fn(&str, TermView<'_>) -> Vec<u8> = match name {
        "user" => through::<User>,
        "users" => through::<Vec<User>>,
        "wallet" => through::<Wallet>,
        "integers" => through::<Vec<i64>>,
        "floats" => through::<Vec<f64>>,
        "charlist" => through::<Charlist>,
        "binaries" => through::<Vec<Binary>>,
        "keywords" => through::<Vec<(Atom, OwnedTerm)>>,
        "options" => through::<Keyword<Options>>,
        "map" => through::<HashMap<u8, String>>,
        "atoms" => through::<BTreeMap<Atom, f32>>,
        "tuples" => through::<Vec<(Atom, i32, String)>>,
        "requests" => through::<Vec<Request>>,
        "results" => through::<Vec<Result<u8, Reason>>>,
        "dones" => through::<Vec<Result<(), String>>>,
        "identifiers" => through::<(Pid, Reference, Vec<Pid>)>,
        "term" => through::<OwnedTerm>,
        "shapes" => through::<Vec<Shape>>,
        "fetches" => through::<Vec<Fetch>>,
        "several" => through_results_of_several,
        "struct" => through_a_struct,
        "structs" => through::<Vec<ElixirStruct>>,
        _ => panic!("there is no type for {name}"),
    };
    through(name, term)
}

fn is<T: Serialize + ?Sized>(elixir: &'static str, value: &T) -> (&'static str, Vec<u8>) {
    (elixir, to_term(value).unwrap_or_else(|error| panic!("{elixir}: {error}")))
}

/// A tuple over 255 elements, which no type of Rust is.
struct Large;

impl Serialize for Large {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut tuple = serializer.serialize_tuple(300)?;
        (1..=300).try_for_each(|n| tuple.serialize_element(&n))?;
        tuple.end()
    }
}

/// Values of Rust, each with what it is in Elixir.
fn written() -> Vec<(&'static str, Vec<u8>)> {
    let many: BTreeMap<u32, u32> = (1..=100).map(|n| (n, n * n)).collect();
    let address = || Address { street: "Chile 371".into(), zip: Charlist("1000".into()) };
    vec![
        is("nil", &()),
        is("nil", &None::<u8>),
        is("true", &true),
        is("0", &0_u8),
        is("255", &255_i32),
        is("256", &256_u64),
        is("-1", &-1_i8),
        is("2 ** 31", &(1_u32 << 31)),
        is("-(2 ** 31) - 1", &(-(1_i64 << 31) - 1)),
        is("2 ** 63", &(1_u64 << 63)),
        is("-(2 ** 63)", &i128::from(i64::MIN)),
        is("-(2 ** 63) - 1", &(i128::from(i64::MIN) - 1)),
        is("2 ** 64", &(1_u128 << 64)),
        is("2 ** 128 - 1", &u128::MAX),
        is("-(2 ** 127)", &i128::MIN),
        is("1.5", &1.5_f32),
        is("0.1", &0.1_f64),
        is("5.0e-324", &5.0e-324_f64),
        is("\"日本 🙂\"", &"日本 🙂"),
        is("\"é\"", &'é'),
        is("<<0, 255>>", &Binary(vec![0, 255])),
        is(":put", &atom("put")),
        is(":\"日本 é\"", &atom("日本 é")),
        is(
            "String.to_atom(String.duplicate(\"é\", 255))",
            &Atom::try_from("é".repeat(255)).expect("it fits"),
        ),
        is("~c\"abc\"", &Charlist("abc".into())),
        is("~c\"日本\"", &Charlist("日本".into())),
        is("List.duplicate(0, 65_535)", &vec![0_u8; 65_535]),
        is("List.duplicate(0, 65_536)", &vec![0_u8; 65_536]),
        is("[1, 256, -1]", &[1, 256, -1].as_slice()),
        is("[]", &Vec::<u8>::new()),
        is("List.to_tuple(Enum.to_list(1..300))", &Large),
        is("{:put, \"k\", 1}", &(atom("put"), "k", 1)),
        is("[:stop, {:get, \"k\"}]", &vec![Request::Stop, Request::Get("k".into())]),
        is("{:expire, %{key: \"k\", after_ms: 5}}", &Request::Expire { key: "k".into(), after_ms: Some(5) }),
        is("{:ok, [1, nil]}", &Ok::<_, ()>(vec![Some(1), None])),
        is(":ok", &Ok::<(), ()>(())),
        is("{:error, :enoent}", &Err::<(), _>(Reason::Enoent)),
        is(":error", &Err::<(), _>(())),
        is("Map.new(1..100, &{&1, &1 * &1})", &many),
        is("[timeout: 5, retries: nil]", &Keyword(Options { timeout: 5, retries: None })),
        is("%{timeout: 5, retries: 1}", &Options { timeout: 5, retries: Some(1) }),
        is("%MyApp.Address{street: \"Chile 371\"}", &address()),
        is(
            "%MyApp.User{name: \"x\", age: 1, address: %MyApp.Address{street: \"Chile 371\"}}",
            &User { name: "x".into(), age: 1, tags: vec![], address: Some(address()) },
        ),
        is("%{__struct__: Circle, radius: 0.5}", &Shape::Circle { radius: 0.5 }),
        is(
            "%{text: \"t\", inner: %{list: [-1, 2 ** 40], \"odd name?\": nil}}",
            &Outer { text: "t", inner: Inner { list: &[-1, 1 << 40], odd: () } },
        ),
        is(
            "%{pause: 1500, limit: :infinity, proxy: :undefined, body: <<0, 255>>}",
            &Fetch {
                pause: Duration::from_millis(1500),
                limit: Duration::MAX,
                proxy: None,
                body: vec![0, 255],
            },
        ),
        is(
            "%MyApp.User{name: \"x\", age: 1}",
            &ElixirStruct::new(atom("Elixir.MyApp.User"))
                .with("name", "x")
                .and_then(|user| user.with("age", &1)?.with("tags", &Vec::<u8>::new())?.with("address", &()))
                .expect("its fields are terms"),
        ),
        is("\"127.0.0.1\"", &std::net::Ipv4Addr::LOCALHOST),
    ]
}

fn split(mut bytes: &[u8]) -> Vec<&[u8]> {
    let mut parts = Vec::new();
    while let Some((len, rest)) = bytes.split_first_chunk() {
        let (part, rest) = rest.split_at(u32::from_be_bytes(*len) as usize);
        parts.push(part);
        bytes = rest;
    }
    parts
}

fn judged(otp: &Otp) {
    let mut judge = Judge::start(otp, "serde_beam.exs", include_str!("serde_beam.exs"));
    let said = judge.line();
    let terms = judge.read("terms");
    let back: Vec<Vec<u8>> = split(&terms)
        .chunks_exact(2)
        .map(|pair| there_and_back(std::str::from_utf8(pair[0]).expect("a name"), pair[1]))
        .collect();
    assert_eq!(said, format!("terms {}", back.len()));
    let written = written();
    judge.write("back", &lengthened(back.iter().map(Vec::as_slice)));
    judge.write("written", &lengthened(written.iter().flat_map(|(code, bytes)| [code.as_bytes(), bytes])));
    judge.must_say(&format!("judged {} {}", back.len(), written.len()));
    eprintln!("    {} terms came back, {} were written as meant", back.len(), written.len());
}

#[test]
fn terms_come_back_from_rust_and_values_are_what_elixir_says() {
    // Elixir's syntax in the script is that of 1.13 and later.
    on_every_otp_from(25, judged);
}
