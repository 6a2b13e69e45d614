//! Random terms: ours against a second codec, and every encoding of a term against every other.
//!
//! eetf is the oracle of what a term means. It has defects of its own (it writes lists with negative numbers as
//! strings, finds a map in a map by chance only, and takes 0.0 and -0.0 for one key): what meets them is left out.
//! With the feature `eetf`, its terms are also made of ours, and ours of its (etf_agreement/trees.rs).

#[cfg(feature = "eetf")]
#[path = "etf_agreement/trees.rs"]
mod trees;

use std::collections::HashMap;

use eetf::Term as Theirs;
use kvnode::etf::key::{canonical, check_maps};
use kvnode::etf::tag::*;
use kvnode::etf::text::{InspectLimits, inspect};
use kvnode::etf::{Cursor, Pid, Reference, TermError, TermView, TermWriter, encode};
use proptest::prelude::*;

/// A term by its meaning: equal where `=:=` holds, but for the order of a map's pairs.
#[derive(Clone, Debug)]
enum Term {
    Integer(i64),
    Big(u64),
    Float(f64),
    Atom(String),
    Binary(Vec<u8>),
    Bits(Vec<u8>, u8),
    Tuple(Vec<Term>),
    List(Vec<Term>),
    /// Elements, one or more, and a tail that is no list.
    Improper(Vec<Term>, Box<Term>),
    Map(Vec<(Term, Term)>),
    Pid(String, [u32; 3]),
    Reference(String, u32, Vec<u32>),
    Port(String, u32, u32),
    Export(String, String, u8),
}

impl Term {
    /// The same text exactly where the terms are the same.
    fn meaning(&self) -> String {
        let all = |terms: &[Self]| terms.iter().map(Self::meaning).collect::<Vec<_>>().join(",");
        match self {
            Self::Tuple(terms) => format!("{{{}}}", all(terms)),
            Self::List(terms) => format!("[{}]", all(terms)),
            Self::Improper(terms, tail) => format!("[{}|{}]", all(terms), tail.meaning()),
            Self::Map(pairs) => {
                let mut pairs: Vec<_> = pairs
                    .iter()
                    .map(|(key, value)| format!("{}=>{}", key.meaning(), value.meaning()))
                    .collect();
                pairs.sort();
                format!("%{{{}}}", pairs.join(","))
            }
            other => format!("{other:?}"),
        }
    }

    /// Whether a key has a map in it, which eetf hashes by the chance order of its pairs.
    fn has_map_in_key(&self) -> bool {
        match self {
            Self::Tuple(terms) | Self::List(terms) => terms.iter().any(Self::has_map_in_key),
            Self::Improper(terms, tail) => terms.iter().any(Self::has_map_in_key) || tail.has_map_in_key(),
            Self::Map(pairs) => {
                pairs.iter().any(|(key, value)| key.meaning().contains("%{") || value.has_map_in_key())
            }
            _ => false,
        }
    }

    /// In the forms of the writer.
    fn write(&self, out: &mut TermWriter<'_>) {
        let node = |node: &str| node.into();
        match self {
            Self::Integer(value) => _ = out.integer(*value),
            Self::Big(value) => _ = out.unsigned(*value),
            Self::Float(value) => _ = out.float(*value),
            Self::Atom(text) => _ = out.atom(text),
            Self::Binary(bytes) => _ = out.binary(bytes),
            Self::Tuple(terms) => {
                out.tuple(terms.len());
                terms.iter().for_each(|term| term.write(out));
            }
            Self::List(terms) => {
                out.list(terms.len());
                terms.iter().for_each(|term| term.write(out));
                out.nil();
            }
            Self::Improper(terms, tail) => {
                out.list(terms.len());
                terms.iter().for_each(|term| term.write(out));
                tail.write(out);
            }
            Self::Map(pairs) => {
                out.map(pairs.len());
                for (key, value) in pairs {
                    key.write(out);
                    value.write(out);
                }
            }
            Self::Pid(name, [id, serial, creation]) => {
                _ = out.pid(&Pid { node: node(name), id: *id, serial: *serial, creation: *creation });
            }
            Self::Reference(name, creation, words) => {
                _ = out.reference(&Reference { node: node(name), creation: *creation, words: words.clone() });
            }
            // What the writer has no word for.
            Self::Bits(..) | Self::Port(..) | Self::Export(..) => {
                let bytes = self.otherwise(&mut Choices(0));
                _ = out.term(TermView::parse(&bytes).expect("it is one term"));
            }
        }
    }

    fn encoded(&self) -> Vec<u8> {
        encode(|out| self.write(out))
    }

    /// In forms that `choices` picks, the writer's or older or wider ones.
    fn otherwise(&self, choices: &mut Choices) -> Vec<u8> {
        let len32 = |len: usize| (len as u32).to_be_bytes();
        let atom = |text: &str, choices: &mut Choices| atom(text, choices.pick(5));
        match self {
            Self::Integer(value) => integer(*value < 0, value.unsigned_abs(), choices),
            Self::Big(value) => integer(false, *value, choices),
            Self::Float(value) if choices.pick(2) == 1 => {
                let text = format!("{value:.20e}");
                [&[FLOAT_EXT], text.as_bytes(), &vec![0; 31 - text.len()]].concat()
            }
            Self::Atom(text) => atom(text, choices),
            Self::Binary(bytes) if choices.pick(2) == 1 && !bytes.is_empty() => {
                [&[BIT_BINARY_EXT][..], &len32(bytes.len()), &[8], bytes].concat()
            }
            Self::Bits(bytes, bits) => {
                let mut bytes = bytes.clone();
                let noise = if choices.pick(2) == 1 { 0xff >> bits } else { 0 };
                *bytes.last_mut().expect("bits are in a byte") |= noise;
                [&[BIT_BINARY_EXT][..], &len32(bytes.len()), &[*bits], &bytes].concat()
            }
            Self::Tuple(terms) => {
                let head = match choices.pick(2) {
                    0 => vec![SMALL_TUPLE_EXT, terms.len() as u8],
                    _ => [&[LARGE_TUPLE_EXT][..], &len32(terms.len())].concat(),
                };
                terms.iter().fold(head, |out, term| [out, term.otherwise(choices)].concat())
            }
            Self::List(terms) => list(terms, None, choices),
            Self::Improper(terms, tail) => list(terms, Some(tail), choices),
            Self::Map(pairs) => {
                let mut pairs: Vec<_> = pairs.iter().collect();
                for at in (1..pairs.len()).rev() {
                    pairs.swap(at, choices.pick(at as u64 + 1) as usize);
                }
                let head = [&[MAP_EXT][..], &len32(pairs.len())].concat();
                pairs.iter().fold(head, |out, (key, value)| {
                    [out, key.otherwise(choices), value.otherwise(choices)].concat()
                })
            }
            Self::Pid(node, [id, serial, creation @ 0..=3]) if choices.pick(2) == 1 => {
                let node = atom(node, choices);
                [&[PID_EXT], &node[..], &id.to_be_bytes(), &serial.to_be_bytes(), &[*creation as u8]].concat()
            }
            Self::Reference(node, creation, words) => {
                let mut words = words.clone();
                let zeros = choices.pick(6 - words.len() as u64) as usize;
                words.resize(words.len() + zeros, 0);
                let (node, len) = (atom(node, choices), [0, words.len() as u8]);
                let old = *creation < 4 && words[0] < 1 << 18 && choices.pick(2) == 1;
                let words: Vec<u8> = words.iter().flat_map(|word| word.to_be_bytes()).collect();
                match old {
                    true => [&[NEW_REFERENCE_EXT], &len[..], &node, &[*creation as u8], &words].concat(),
                    false => {
                        [&[NEWER_REFERENCE_EXT], &len[..], &node, &creation.to_be_bytes(), &words].concat()
                    }
                }
            }
            Self::Port(node, number, creation) => {
                let (node, number) = (atom(node, choices), number.to_be_bytes());
                match choices.pick(3) {
                    0 if *creation < 4 => [&[PORT_EXT], &node[..], &number, &[*creation as u8]].concat(),
                    1 => [&[NEW_PORT_EXT], &node[..], &number, &creation.to_be_bytes()].concat(),
                    _ => [&[V4_PORT_EXT], &node[..], &[0; 4], &number, &creation.to_be_bytes()].concat(),
                }
            }
            Self::Export(module, function, arity) => {
                let (module, function) = (atom(module, choices), atom(function, choices));
                [&[EXPORT_EXT], &module[..], &function, &[SMALL_INTEGER_EXT, *arity]].concat()
            }
            _ => self.encoded(),
        }
    }

    /// As eetf has it when it has read what [`write`](Self::write) wrote.
    fn theirs(&self) -> Theirs {
        let all = |terms: &[Self]| terms.iter().map(Self::theirs).collect::<Vec<_>>();
        let node = |name: &str| eetf::Atom::from(name);
        match self {
            Self::Integer(value) => match i32::try_from(*value) {
                Ok(value) => eetf::FixInteger::from(value).into(),
                Err(_) => eetf::BigInteger::from(*value).into(),
            },
            Self::Big(value) => eetf::BigInteger::from(*value).into(),
            Self::Float(value) => eetf::Float { value: *value }.into(),
            Self::Atom(text) => node(text).into(),
            Self::Binary(bytes) => eetf::Binary::from(bytes.clone()).into(),
            Self::Bits(bytes, bits) => {
                let mut bytes = bytes.clone();
                *bytes.last_mut().expect("bits are in a byte") >>= 8 - bits;
                eetf::BitBinary::from((bytes, *bits)).into()
            }
            Self::Tuple(terms) => eetf::Tuple::from(all(terms)).into(),
            Self::List(terms) => eetf::List::from(all(terms)).into(),
            Self::Improper(terms, tail) => eetf::ImproperList::from((all(terms), tail.theirs())).into(),
            Self::Map(pairs) => {
                let map: HashMap<_, _> =
                    pairs.iter().map(|(key, value)| (key.theirs(), value.theirs())).collect();
                eetf::Map::from(map).into()
            }
            Self::Pid(name, [id, serial, creation]) => {
                eetf::Pid { node: node(name), id: *id, serial: *serial, creation: *creation }.into()
            }
            Self::Reference(name, creation, words) => {
                eetf::Reference { node: node(name), id: words.clone(), creation: *creation }.into()
            }
            Self::Port(name, number, creation) => {
                eetf::Port { node: node(name), id: u64::from(*number), creation: *creation }.into()
            }
            Self::Export(module, function, arity) => {
                eetf::ExternalFun { module: node(module), function: node(function), arity: *arity }.into()
            }
        }
    }
}

/// Small numbers from one large one.
struct Choices(u64);

impl Choices {
    fn pick(&mut self, below: u64) -> u64 {
        // xorshift64; 0 stays 0, the writer's forms.
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 20) % below
    }
}

fn integer(negative: bool, magnitude: u64, choices: &mut Choices) -> Vec<u8> {
    let digits = magnitude.to_le_bytes();
    let digits =
        [&digits[..8 - magnitude.leading_zeros() as usize / 8], &[0; 3][..choices.pick(4) as usize]].concat();
    let small = i32::try_from(magnitude).ok().map(|value| if negative { -value } else { value });
    let sign = if negative { 1 + choices.pick(255) as u8 } else { 0 };
    match (choices.pick(4), small) {
        (0, Some(value @ 0..=255)) => vec![SMALL_INTEGER_EXT, value as u8],
        (0 | 1, Some(value)) => [&[INTEGER_EXT][..], &value.to_be_bytes()].concat(),
        (0..=2, _) => [&[SMALL_BIG_EXT, digits.len() as u8, sign], &digits[..]].concat(),
        _ => [&[LARGE_BIG_EXT][..], &(digits.len() as u32).to_be_bytes(), &[sign], &digits].concat(),
    }
}

fn atom(text: &str, form: u64) -> Vec<u8> {
    let latin1: Option<Vec<u8>> = text.chars().map(|char| u8::try_from(char).ok()).collect();
    match (form, latin1) {
        (1, Some(text)) if text.len() < 256 => [&[SMALL_ATOM_EXT, text.len() as u8], &text[..]].concat(),
        (2, Some(text)) => [&[ATOM_EXT, 0, text.len() as u8], &text[..]].concat(),
        (3, _) => [&[ATOM_UTF8_EXT], &(text.len() as u16).to_be_bytes()[..], text.as_bytes()].concat(),
        _ => encode(|out| _ = out.atom(text)),
    }
}

/// In one or more pieces, each the tail of the one before, of which some may be strings.
fn list(terms: &[Term], tail: Option<&Term>, choices: &mut Choices) -> Vec<u8> {
    let mut out = Vec::new();
    let mut rest = terms;
    loop {
        let (piece, after) = rest.split_at(match choices.pick(3) {
            0 => rest.len(),
            _ => choices.pick(rest.len() as u64 + 1) as usize,
        });
        rest = after;
        let bytes: Option<Vec<u8>> = piece
            .iter()
            .map(|term| match term {
                Term::Integer(value) => u8::try_from(*value).ok(),
                _ => None,
            })
            .collect();
        match (bytes, tail) {
            // A string has no tail.
            (Some(bytes), None) if rest.is_empty() && choices.pick(2) == 0 => {
                out.push(STRING_EXT);
                out.extend((bytes.len() as u16).to_be_bytes());
                out.extend(bytes);
                return out;
            }
            _ => {
                out.push(LIST_EXT);
                out.extend((piece.len() as u32).to_be_bytes());
                piece.iter().for_each(|term| out.extend(term.otherwise(choices)));
            }
        }
        if rest.is_empty() {
            match tail {
                Some(tail) => out.extend(tail.otherwise(choices)),
                None => out.push(NIL_EXT),
            }
            return out;
        }
    }
}

fn name() -> impl Strategy<Value = String> {
    prop_oneof!["[a-z]{0,4}", "[a-zé]{1,3}@[a-z]{1,3}", "[aéß日🙂]{0,8}", "é{120,140}"]
}

fn leaf() -> impl Strategy<Value = Term> {
    let words = (1_u32..).prop_flat_map(|last| {
        prop::collection::vec(any::<u32>(), 0..5).prop_map(move |mut words| {
            words.push(last);
            words
        })
    });
    prop_oneof![
        (-300_i64..300).prop_map(Term::Integer),
        any::<i32>().prop_map(|value| Term::Integer(i64::from(value))),
        any::<i64>().prop_map(Term::Integer),
        (i64::MAX as u64 + 1..).prop_map(Term::Big),
        // eetf reads the text form as a 32-bit float; the binary form is exact.
        any::<f64>()
            .prop_filter("finite", |value| value.is_finite())
            .prop_map(|value| Term::Float(value + 0.0)),
        name().prop_map(Term::Atom),
        prop::collection::vec(any::<u8>(), 0..20).prop_map(Term::Binary),
        (prop::collection::vec(any::<u8>(), 1..5), 1_u8..8).prop_map(|(mut bytes, bits)| {
            *bytes.last_mut().expect("one at least") &= !(0xff >> bits);
            Term::Bits(bytes, bits)
        }),
        (name(), any::<[u32; 2]>(), prop_oneof![0_u32..4, any::<u32>()])
            .prop_map(|(node, [id, serial], creation)| Term::Pid(node, [id, serial, creation])),
        (name(), prop_oneof![0_u32..4, any::<u32>()], words)
            .prop_map(|(node, creation, words)| Term::Reference(node, creation, words)),
        (name(), any::<u32>(), prop_oneof![0_u32..4, any::<u32>()])
            .prop_map(|(node, number, creation)| Term::Port(node, number, creation)),
        // eetf takes no arity of 255.
        (name(), name(), 0_u8..255)
            .prop_map(|(module, function, arity)| Term::Export(module, function, arity)),
        prop::collection::vec(0_i64..256, 0..10)
            .prop_map(|bytes| Term::List(bytes.into_iter().map(Term::Integer).collect())),
    ]
}

fn term() -> impl Strategy<Value = Term> {
    leaf().prop_recursive(4, 40, 6, |inner| {
        let terms = prop::collection::vec(inner.clone(), 0..6);
        let pairs = prop::collection::vec((inner.clone(), inner.clone()), 0..6);
        prop_oneof![
            terms.clone().prop_map(Term::Tuple),
            terms.clone().prop_map(Term::List),
            (terms, inner).prop_map(|(terms, tail)| match (terms, tail) {
                (terms, tail @ (Term::List(_) | Term::Improper(..))) =>
                    Term::Tuple([terms, vec![tail]].concat()),
                (terms, tail) if terms.is_empty() => tail,
                (terms, tail) => Term::Improper(terms, Box::new(tail)),
            }),
            pairs.prop_map(|mut pairs| {
                let mut keys = std::collections::HashSet::new();
                pairs.retain(|(key, _)| keys.insert(key.meaning()));
                Term::Map(pairs)
            }),
        ]
    })
}

fn view(bytes: &[u8]) -> TermView<'_> {
    TermView::parse(bytes).unwrap_or_else(|error| panic!("{error}: {bytes:?}"))
}

fn try_key(bytes: &[u8]) -> Result<Vec<u8>, TermError> {
    canonical(view(bytes), &mut Vec::new()).map(<[u8]>::to_vec)
}

fn key(bytes: &[u8]) -> Vec<u8> {
    try_key(bytes).unwrap_or_else(|error| panic!("{error}: {bytes:?}"))
}

fn read_by_them(bytes: &[u8]) -> (Theirs, usize) {
    let wire = [&[VERSION_MAGIC], bytes].concat();
    let mut rest = &wire[..];
    let term = Theirs::decode(&mut rest).unwrap_or_else(|error| panic!("{error}: {bytes:?}"));
    (term, rest.len())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn the_oracle_reads_what_was_meant_and_ends_where_we_end(term in term()) {
        let bytes = term.encoded();
        let (theirs, left) = read_by_them(&[&bytes[..], &[1, 2, 3]].concat());
        if !term.has_map_in_key() {
            prop_assert_eq!(theirs, term.theirs());
        }
        prop_assert_eq!(left, 3);
        let more = [&bytes[..], &[1, 2, 3]].concat();
        let mut cursor = Cursor::new(&more);
        prop_assert_eq!(cursor.term().map(|view| view.bytes()), Ok(&bytes[..]));
        prop_assert_eq!(check_maps(view(&bytes)), Ok(()));
    }

    #[test]
    fn every_encoding_of_a_term_is_one_key(term in term(), choices: [u64; 4]) {
        let bytes = term.encoded();
        let one = key(&bytes);
        prop_assert_eq!(&key(&one), &one);
        for seed in choices {
            let other = term.otherwise(&mut Choices(seed));
            prop_assert_eq!(check_maps(view(&other)), Ok(()));
            let other = key(&other);
            prop_assert!(one == other, "{term:?}\n{one:?}\n{other:?}");
        }
        // They still read the same term, wherever they read it right: strings are a type of their own to them.
        let (again, left) = read_by_them(&one);
        prop_assert_eq!(left, 0);
        let mut wire = Vec::new();
        let negatives = term.meaning().contains("Integer(-");
        if !negatives && again.encode(&mut wire).is_ok() {
            prop_assert_eq!(&key(&wire[1..]), &one);
        }
    }

    #[test]
    fn different_terms_are_different_keys(one in term(), other in term(), choices: [u64; 2]) {
        let same = one.meaning() == other.meaning();
        let keys = [key(&one.otherwise(&mut Choices(choices[0]))), key(&other.otherwise(&mut Choices(choices[1])))];
        prop_assert_eq!(keys[0] == keys[1], same, "{:?}\n{:?}", one, other);
    }

    #[test]
    fn a_key_that_occurs_twice_is_found_in_any_encoding(
        key in term(), more in prop::collection::vec(term(), 0..5), choices: [u64; 2], at: prop::sample::Index
    ) {
        let mut keys: Vec<Vec<u8>> = more.iter().map(Term::encoded).collect();
        keys.insert(at.index(keys.len() + 1), key.otherwise(&mut Choices(choices[0])));
        keys.push(key.otherwise(&mut Choices(choices[1])));
        let pairs = keys.iter().flat_map(|key| [&key[..], &[NIL_EXT]].concat());
        let map = [&[MAP_EXT][..], &(keys.len() as u32).to_be_bytes(), &pairs.collect::<Vec<_>>()].concat();
        prop_assert_eq!(check_maps(view(&map)), Err(TermError::DuplicateKey));
        prop_assert_eq!(try_key(&map), Err(TermError::DuplicateKey));
        let inside = [&[MAP_EXT, 0, 0, 0, 1][..], &map, &[NIL_EXT]].concat();
        prop_assert_eq!(check_maps(view(&inside)), Err(TermError::DuplicateKey));
    }

    #[test]
    fn every_cut_is_an_error(term in term(), choices: u64) {
        for bytes in [term.encoded(), term.otherwise(&mut Choices(choices))] {
            for len in 0..bytes.len() {
                prop_assert!(TermView::parse(&bytes[..len]).is_err(), "{:?}", &bytes[..len]);
            }
        }
    }

    #[test]
    fn no_changed_byte_is_a_panic(term in term(), choices: u64, byte: u8) {
        let mut bytes = term.otherwise(&mut Choices(choices));
        for at in 0..bytes.len() {
            for byte in [byte, bytes[at] ^ 1, 0, 255, LIST_EXT, MAP_EXT] {
                let kept = std::mem::replace(&mut bytes[at], byte);
                if let Ok(view) = TermView::parse(&bytes) {
                    let mut scratch = Vec::new();
                    if let Ok(key) = canonical(view, &mut scratch) {
                        prop_assert_eq!(check_maps(view), Ok(()));
                        prop_assert_eq!(self::key(key), key);
                    }
                    prop_assert!(inspect(view, InspectLimits::LOG).len() <= 203);
                }
                bytes[at] = kept;
            }
        }
    }

    #[test]
    fn a_text_is_whole_or_cut_at_the_limit(term in term(), len in 0_usize..300) {
        let bytes = term.encoded();
        let whole = inspect(view(&bytes), InspectLimits { text_bytes_max: 1 << 20 });
        let cut = inspect(view(&bytes), InspectLimits { text_bytes_max: len });
        if whole.len() <= len {
            prop_assert_eq!(cut, whole);
        } else {
            prop_assert!(cut.ends_with("...") && cut.len() <= len + 3, "{cut}");
        }
    }

    #[test]
    fn random_bytes_are_no_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        if let Ok(view) = TermView::parse(&bytes) {
            _ = canonical(view, &mut Vec::new());
            _ = check_maps(view);
            _ = inspect(view, InspectLimits::LOG);
        }
    }
}
