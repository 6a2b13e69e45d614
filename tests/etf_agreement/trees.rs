//! Terms as eetf's trees and back: the same term, in any encoding; and what either side cannot be is refused.

use std::collections::HashMap;

use eetf::{
    Atom, BigInteger, Binary, BitBinary, ByteList, ExternalFun, FixInteger, Float, ImproperList, InternalFun,
    List, Map, Pid, Port, Reference, Tuple,
};
use kvnode::etf::tag::*;
use kvnode::etf::tree::{EetfLimits, EetfTerm, FromEetfError, ToEetfError, to_eetf};
use kvnode::etf::{OwnedTerm, TermError, from_term, to_term};
use proptest::prelude::*;

use super::{Choices, Theirs, key, list, name, term, view};

/// In the one form that this crate gives a tree: lists of bytes as `ByteList`, integers by their size, one list where a
/// tail is a list.
fn normal(tree: &Theirs) -> Theirs {
    let all = |terms: &[Theirs]| terms.iter().map(normal).collect::<Vec<_>>();
    match tree {
        Theirs::BigInteger(integer) => match i32::try_from(&integer.value) {
            Ok(value) => FixInteger::from(value).into(),
            Err(_) => integer.clone().into(),
        },
        Theirs::BitBinary(bits) if bits.tail_bits_size == 8 || bits.bytes.is_empty() => {
            Binary::from(bits.bytes.clone()).into()
        }
        Theirs::ByteList(_) | Theirs::List(_) | Theirs::ImproperList(_) => normal_list(tree),
        Theirs::Tuple(tuple) => Tuple::from(all(&tuple.elements)).into(),
        Theirs::Map(map) => {
            let map: HashMap<_, _> =
                map.map.iter().map(|(key, value)| (normal(key), normal(value))).collect();
            Map::from(map).into()
        }
        Theirs::InternalFun(fun) => {
            let mut fun = fun.clone();
            let (InternalFun::New { free_vars, .. } | InternalFun::Old { free_vars, .. }) = &mut *fun;
            *free_vars = all(free_vars);
            (*fun).into()
        }
        Theirs::Reference(reference) => {
            let mut reference = reference.clone();
            // One and the same with zeros behind.
            let words = reference.id.iter().rposition(|word| *word != 0).map_or(0, |last| last + 1);
            reference.id.resize(words.max(3), 0);
            (*reference).into()
        }
        leaf => leaf.clone(),
    }
}

fn normal_list(list: &Theirs) -> Theirs {
    let (mut elements, mut rest) = (Vec::new(), Some(list));
    while let Some(list) = rest.take() {
        match list {
            Theirs::ByteList(list) => {
                elements.extend(list.bytes.iter().map(|&byte| Theirs::from(FixInteger::from(byte))));
            }
            Theirs::List(list) => elements.extend(list.elements.iter().map(normal)),
            Theirs::ImproperList(list) => {
                elements.extend(list.elements.iter().map(normal));
                rest = Some(&list.last);
            }
            tail => return ImproperList::from((elements, normal(tail))).into(),
        }
    }
    let byte = |term: &Theirs| match term {
        Theirs::FixInteger(integer) => u8::try_from(integer.value).ok(),
        _ => None,
    };
    match elements.iter().map(byte).collect::<Option<Vec<u8>>>() {
        Some(bytes) if (1..=65_535).contains(&bytes.len()) => ByteList::from(bytes).into(),
        _ => List::from(elements).into(),
    }
}

fn tree(bytes: &[u8]) -> Result<Theirs, ToEetfError> {
    Theirs::try_from(view(bytes))
}

fn back(tree: &Theirs) -> Result<Vec<u8>, FromEetfError> {
    OwnedTerm::try_from(tree).map(OwnedTerm::into_bytes)
}

/// Trees of any kind, with what no BEAM knows among them.
fn any_tree() -> impl Strategy<Value = Theirs> {
    let atom = || prop_oneof![9 => name(), 1 => "[aé]{254,257}"].prop_map(Atom::from).boxed();
    let words = || prop::collection::vec(any::<u32>(), 0..7);
    let number = || prop_oneof![Just(0_u64), any::<u32>().prop_map(u64::from), any::<u64>()];
    let pid = (atom(), any::<[u32; 3]>()).prop_map(|(node, [id, serial, creation])| Pid {
        node,
        id,
        serial,
        creation,
    });
    let leaf = prop_oneof![
        atom().prop_map(Theirs::from),
        prop_oneof![-300_i32..300, any::<i32>()].prop_map(|value| FixInteger::from(value).into()),
        prop_oneof![-300_i64..300, any::<i64>()].prop_map(|value| BigInteger::from(value).into()),
        (prop::collection::vec(any::<u8>(), 9..300), any::<bool>()).prop_map(|(digits, is_negative)| {
            let len = (digits.len() as u32).to_be_bytes();
            let wire = [&[131, LARGE_BIG_EXT][..], &len, &[u8::from(is_negative)], &digits].concat();
            Theirs::decode(&wire[..]).expect("it reads the digits")
        }),
        any::<f64>().prop_map(|value| Float { value }.into()),
        pid.clone().prop_map(Theirs::from),
        (atom(), number(), any::<u32>()).prop_map(|(node, id, creation)| Port { node, id, creation }.into()),
        (atom(), words(), any::<u32>())
            .prop_map(|(node, id, creation)| Reference { node, id, creation }.into()),
        (atom(), atom(), any::<u8>()).prop_map(|(module, function, arity)| ExternalFun {
            module,
            function,
            arity
        }
        .into()),
        prop::collection::vec(any::<u8>(), 0..9).prop_map(|bytes| Binary::from(bytes).into()),
        (prop::collection::vec(0_u8..9, 0..4), 0_u8..10).prop_map(|bits| BitBinary::from(bits).into()),
        prop::collection::vec(any::<u8>(), 0..9).prop_map(|bytes| ByteList::from(bytes).into()),
        Just(List::nil().into()),
    ];
    leaf.prop_recursive(4, 40, 6, move |inner| {
        let terms = || prop::collection::vec(inner.clone(), 0..5);
        let fun = (atom(), pid.clone(), terms(), any::<[u8; 16]>(), any::<(u8, u32, i32, i32)>());
        prop_oneof![
            terms().prop_map(|terms| Tuple::from(terms).into()),
            terms().prop_map(|terms| List::from(terms).into()),
            (terms(), inner.clone()).prop_map(|list| ImproperList::from(list).into()),
            prop::collection::hash_map(inner.clone(), inner.clone(), 0..4)
                .prop_map(|map| Map::from(map).into()),
            fun.prop_map(|(module, pid, free_vars, uniq, (arity, index, old_index, old_uniq))| {
                match arity % 4 {
                    0 => InternalFun::Old { module, pid, free_vars, index: old_index, uniq: old_uniq },
                    _ => InternalFun::New { module, arity, pid, free_vars, index, uniq, old_index, old_uniq },
                }
                .into()
            }),
        ]
    })
}

/// Whether a part of a tree, keys and all, is something.
fn some(tree: &Theirs, is: &dyn Fn(&Theirs) -> bool) -> bool {
    let any = |terms: &[Theirs]| terms.iter().any(|term| some(term, is));
    is(tree)
        || match tree {
            Theirs::Tuple(tuple) => any(&tuple.elements),
            Theirs::List(list) => any(&list.elements),
            Theirs::ImproperList(list) => any(&list.elements) || some(&list.last, is),
            Theirs::Map(map) => map.map.iter().any(|(key, value)| some(key, is) || some(value, is)),
            Theirs::InternalFun(fun) => {
                let (InternalFun::New { free_vars, .. } | InternalFun::Old { free_vars, .. }) = &**fun;
                any(free_vars)
            }
            _ => false,
        }
}

/// Whether a part is what this error is about.
fn is_why(error: FromEetfError, part: &Theirs) -> bool {
    let atoms = |part: &Theirs| -> Vec<usize> {
        let atoms: Vec<&Atom> = match part {
            Theirs::Atom(atom) => vec![atom],
            Theirs::Pid(pid) => vec![&pid.node],
            Theirs::Port(port) => vec![&port.node],
            Theirs::Reference(reference) => vec![&reference.node],
            Theirs::ExternalFun(fun) => vec![&fun.module, &fun.function],
            Theirs::InternalFun(fun) => {
                let (InternalFun::New { module, pid, .. } | InternalFun::Old { module, pid, .. }) = &**fun;
                vec![module, &pid.node]
            }
            _ => vec![],
        };
        atoms.iter().map(|atom| atom.name.chars().count()).collect()
    };
    match (error, part) {
        (FromEetfError::Atom { chars }, part) => chars > 255 && atoms(part).contains(&chars),
        (FromEetfError::Float, Theirs::Float(float)) => !float.value.is_finite(),
        (FromEetfError::BitString { tail_bits_size }, Theirs::BitBinary(bits)) => {
            bits.tail_bits_size == tail_bits_size
                && (!(1..=8).contains(&tail_bits_size)
                    || bits.bytes.last().is_none_or(|last| u32::from(*last) >> tail_bits_size > 0))
        }
        (FromEetfError::Reference { words }, Theirs::Reference(reference)) => {
            reference.id.len() == words && !(1..=5).contains(&words)
        }
        (FromEetfError::NoElements, Theirs::ImproperList(list)) => list.elements.is_empty(),
        (FromEetfError::DuplicateKey, Theirs::Map(map)) => map.map.len() > 1,
        _ => false,
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn every_encoding_of_a_term_is_one_tree_and_comes_back(term in term(), choices: [u64; 4]) {
        for seed in choices {
            let bytes = term.otherwise(&mut Choices(seed));
            let tree = match tree(&bytes) {
                Ok(tree) => tree,
                Err(error) => {
                    prop_assert!(error == ToEetfError::MapInKey && term.has_map_in_key(), "{error}");
                    continue;
                }
            };
            prop_assert_eq!(normal(&tree), normal(&term.theirs()));
            let back = back(&tree).unwrap_or_else(|error| panic!("{error}: {tree}"));
            prop_assert_eq!(key(&back), key(&bytes));
            // The forms that a BEAM writes are read by eetf itself as that tree.
            let wire = [&[VERSION_MAGIC], &back[..]].concat();
            prop_assert_eq!(Theirs::decode(&wire[..]).expect("eetf reads it"), tree);
        }
    }

    #[test]
    fn a_tree_is_a_term_or_is_refused_for_what_is_in_it(tree in any_tree()) {
        match OwnedTerm::try_from(&tree) {
            Ok(term) => {
                prop_assert_eq!(&OwnedTerm::try_from(tree.clone()).expect("once more"), &term);
                match Theirs::try_from(&term) {
                    Ok(again) => prop_assert_eq!(normal(&again), normal(&tree)),
                    Err(error) => prop_assert!(
                        matches!(error, ToEetfError::MapInKey | ToEetfError::EqualKeys), "{error}: {tree}"
                    ),
                }
            }
            Err(error) => prop_assert!(some(&tree, &|part| is_why(error, part)), "{error}: {tree}"),
        }
    }

    #[test]
    fn no_changed_byte_is_a_panic_and_what_is_read_can_be_written(term in term(), choices: u64, byte: u8) {
        let mut bytes = term.otherwise(&mut Choices(choices));
        for at in 0..bytes.len() {
            for byte in [byte, bytes[at] ^ 1, 0, 255, LIST_EXT, MAP_EXT, NEW_FUN_EXT] {
                let kept = std::mem::replace(&mut bytes[at], byte);
                if let Ok(term) = super::TermView::parse(&bytes)
                    && let Ok(tree) = Theirs::try_from(term)
                {
                    prop_assert!(back(&tree).is_ok(), "{tree}");
                }
                bytes[at] = kept;
            }
        }
    }
}

const NODE: [u8; 3] = [119, 1, b'n'];

fn fun(free: &[u8], free_count: u8, old_uniq: &[u8]) -> Vec<u8> {
    let pid = [&[88][..], &NODE, &[0, 0, 0, 1, 0, 0, 0, 2, 0, 0, 0, 3]].concat();
    let head = [&[2][..], &[7; 16], &[0, 0, 0, 9, 0, 0, 0, free_count], &NODE, &[97, 4]].concat();
    let rest = [&head[..], old_uniq, &pid, free].concat();
    [&[112][..], &(rest.len() as u32 + 4).to_be_bytes(), &rest].concat()
}

#[test]
fn funs_come_back_as_they_were() {
    let bytes = fun(&[107, 0, 1, 5, 106], 2, &[98, 7, 7, 7, 7]);
    let tree = tree(&bytes).expect("it is one");
    let Theirs::InternalFun(inner) = &tree else { panic!("{tree}") };
    let InternalFun::New { arity: 2, index: 9, old_index: 4, old_uniq: 0x0707_0707, free_vars, .. } =
        &**inner
    else {
        panic!("{tree}")
    };
    assert_eq!(free_vars[..], [ByteList::from(vec![5]).into(), List::nil().into()]);
    assert_eq!(back(&tree).expect("it is written"), bytes);
    let old = [&[117, 0, 0, 0, 1, 103][..], &NODE, &[0, 0, 0, 1, 0, 0, 0, 2, 3], &NODE, &[97, 1, 97, 1, 106]];
    let tree = Theirs::try_from(view(&old.concat())).expect("it is one");
    let again = Theirs::try_from(view(&back(&tree).expect("it is written"))).expect("it is one");
    assert_eq!(again, tree);
}

#[test]
fn what_eetf_has_no_room_for_is_refused() {
    let refused = |bytes: &[u8]| tree(bytes).expect_err("it is refused");
    assert_eq!(refused(&[67, 0, 0, 0, 1, 0, 119, 0, 119, 0, 119, 0, 106]), ToEetfError::NativeRecord);
    assert_eq!(refused(&fun(&[], 0, &[110, 5, 0, 1, 2, 3, 4, 5])), ToEetfError::FunNumber);
    let twice = [116, 0, 0, 0, 2, 97, 1, 106, 98, 0, 0, 0, 1, 106];
    assert_eq!(refused(&twice), ToEetfError::Term(TermError::DuplicateKey));
    let zeros =
        [&[116, 0, 0, 0, 2, 70][..], &0_f64.to_be_bytes(), &[106, 70], &(-0_f64).to_be_bytes(), &[106]];
    assert_eq!(refused(&zeros.concat()), ToEetfError::EqualKeys);
    // In a key of two pairs; of one it is found again, and as a value it may have any number.
    let map = |pairs: u8| {
        let pairs: Vec<u8> = (0..pairs).flat_map(|n| [97, n, 106]).collect();
        [&[116, 0, 0, 0, (pairs.len() / 3) as u8][..], &pairs].concat()
    };
    let keyed = |key: &[u8], value: &[u8]| [&[116, 0, 0, 0, 1][..], key, value].concat();
    assert_eq!(refused(&keyed(&[&[104, 1][..], &map(2)].concat(), &[106])), ToEetfError::MapInKey);
    assert!(tree(&keyed(&map(1), &map(9))).is_ok());
}

#[test]
fn what_eetf_gets_wrong_is_right() {
    // Negative numbers are not bytes, a long list of bytes is no short one, and a port keeps its number.
    let list = Theirs::from(List::from(vec![Theirs::from(FixInteger::from(-1))]));
    assert_eq!(back(&list).expect("a list"), [108, 0, 0, 0, 1, 98, 255, 255, 255, 255, 106]);
    let long = Theirs::from(ByteList::from(vec![7; 65_536]));
    assert_eq!(back(&long).expect("a list")[..7], [108, 0, 1, 0, 0, 97, 7]);
    let port = Theirs::from(Port { node: "n".into(), id: 1 << 28, creation: 3 });
    assert_eq!(back(&port).expect("a port")[0], V4_PORT_EXT);
    // The text form of a float, Latin-1, any sign that is not 0, a list whose tail is a list.
    let float = [b"c1.00000000000000005551e-01".as_slice(), &[0; 5]].concat();
    assert_eq!(tree(&float).expect("a float"), Float { value: 0.1 }.into());
    assert_eq!(tree(&[115, 1, 233]).expect("an atom"), Atom::from("é").into());
    assert_eq!(tree(&[110, 1, 255, 5]).expect("an integer"), FixInteger::from(-5).into());
    let lists = [108, 0, 0, 0, 1, 97, 1, 108, 0, 0, 0, 1, 106, 106];
    let elements = vec![FixInteger::from(1).into(), List::nil().into()];
    assert_eq!(tree(&lists).expect("a list"), List::from(elements).into());
    // And what is no term is none.
    let refused = |tree: Theirs| OwnedTerm::try_from(tree).expect_err("it is refused");
    assert_eq!(refused(Atom::from("é".repeat(256)).into()), FromEetfError::Atom { chars: 256 });
    assert_eq!(refused(Float { value: f64::NAN }.into()), FromEetfError::Float);
    assert_eq!(refused(BitBinary::from((vec![8], 3)).into()), FromEetfError::BitString { tail_bits_size: 3 });
    let one: [Theirs; 2] = [FixInteger::from(1).into(), BigInteger::from(1_u8).into()];
    let map = Map::from(one.map(|key| (key, List::nil().into())));
    assert_eq!(refused(map.into()), FromEetfError::DuplicateKey);
    let mut digits = vec![1; (4 << 20) - 7];
    digits.splice(..0, [131, LARGE_BIG_EXT, 0, 63, 255, 249, 0]);
    let integer = Theirs::decode(&digits[..]).expect("eetf reads it");
    assert_eq!(refused(integer), FromEetfError::Integer);
}

#[test]
fn the_deepest_tree_needs_no_large_stack() {
    let heads: [&[u8]; 4] = [&[104, 1], &[108, 0, 0, 0, 1], &[116, 0, 0, 0, 1, 106], &[105, 0, 0, 0, 1]];
    for head in heads {
        let nested = |levels: usize| {
            // The tails of the lists.
            let tails = if head[0] == LIST_EXT { vec![NIL_EXT; levels - 1] } else { vec![] };
            [head.repeat(levels - 1), vec![119, 0], tails].concat()
        };
        let work = move || {
            let deepest = tree(&nested(256)).expect("it is within the limit");
            assert!(tree(&nested(257)) == Err(ToEetfError::TooDeep { depth_max: 256 }));
            assert_eq!(deepest.clone(), deepest);
            assert!(format!("{deepest} {deepest:?}").len() > 256);
            let term = OwnedTerm::try_from(&deepest).expect("it is within the limit");
            assert!(key(term.view().bytes()) == key(&nested(256)));
            let outer = Theirs::from(Tuple::from(vec![deepest]));
            assert!(OwnedTerm::try_from(&outer) == Err(FromEetfError::TooDeep { depth_max: 256 }));
            outer.encode(&mut Vec::new()).expect("eetf writes it");
        };
        let thread = std::thread::Builder::new().stack_size(1 << 20).spawn(work).expect("a thread");
        thread.join().expect("the stack suffices");
    }
}

#[test]
fn a_tree_has_no_more_terms_than_the_limit() {
    let limits = |terms_max| EetfLimits::DEFAULT.with_terms_max(terms_max);
    let refused = |bytes: &[u8], terms: usize| {
        assert!(to_eetf(view(bytes), limits(terms)).is_ok());
        let over = to_eetf(view(bytes), limits(terms - 1));
        assert_eq!(over, Err(ToEetfError::TooManyTerms { terms_max: terms - 1 }));
    };
    refused(&[104, 3, 97, 1, 97, 2, 106], 4);
    refused(&[108, 0, 0, 0, 2, 97, 1, 106, 106], 3);
    refused(&[107, 0, 3, 1, 2, 3], 1);
    refused(&[108, 0, 0, 0, 1, 106, 107, 0, 3, 1, 2, 3], 5);
    refused(&[116, 0, 0, 0, 2, 97, 1, 106, 97, 2, 106], 5);
    refused(&fun(&[106], 1, &[97, 1]), 2);
    // A million elements of one byte each are refused before there is room for them.
    let many = [&[108, 0, 15, 66, 64][..], &[106; 1_000_001]].concat();
    let refused = tree(&many).expect_err("it is refused");
    assert_eq!(refused.to_string(), "the term has more than 1000000 parts");
}

#[test]
fn serde_takes_trees_within_other_types() {
    #[derive(serde::Serialize, serde::Deserialize, PartialEq, Debug)]
    #[serde(rename_all = "snake_case")]
    enum Request {
        Put(String, EetfTerm),
    }
    let value = Theirs::from(ImproperList::from((vec![Atom::from("a").into()], Atom::from("b").into())));
    let request = Request::Put("k".into(), value.into());
    let bytes = to_term(&request).expect("it is written");
    assert_eq!(format!("{:?}", view(&bytes)), "{:put, \"k\", [:a | :b]}");
    assert_eq!(from_term::<Request>(view(&bytes)).expect("it is read"), request);
    let wrong = to_term(&EetfTerm(Float { value: f64::INFINITY }.into())).expect_err("no term");
    assert!(wrong.to_string().contains("not a finite number"), "{wrong}");
    let record = [67, 0, 0, 0, 0, 0, 119, 0, 119, 0];
    let wrong = from_term::<EetfTerm>(view(&record)).expect_err("no tree");
    assert!(wrong.to_string().contains("native record"), "{wrong}");
    // Of bytes in pieces it is one list.
    let pieces = list(&[super::Term::Integer(1), super::Term::Integer(2)], None, &mut Choices(0x1234_5678));
    assert_eq!(tree(&pieces).expect("a list"), ByteList::from(vec![1, 2]).into());
}
