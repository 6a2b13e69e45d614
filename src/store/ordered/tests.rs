//! Pages in order are those of a sorted map, in memory and on disk, whatever is written between two of them.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;
use crate::etf::order::order_key;
use crate::etf::text::parse;
use crate::etf::{Traits, encode};
use crate::store::{MemoryStore, Order, Shows, Store, Value, wait};

fn canonical(term: &[u8]) -> Vec<u8> {
    key::canonical(TermView::parse(term).unwrap(), &mut Vec::new()).unwrap().to_vec()
}

/// Keys near to each other, in canonical form.
fn keys() -> Vec<Vec<u8>> {
    let texts = "1;1.0;2;2.5;-1;0.0;-0.0;:a;:b;:ab;{};{1};{1.0};{:u};{:u,1};{:u,1.0};{:u,2};{:u,1,1};{:u,1,2};{:u,2,1};{:v,1,1};\
        {:u,1,1,1};{:t,1,1,1};{:u,1,[]};{:u,1,2,3,4,5};{:u,0,2,3,4,5};[];[1];[1.0];[1,2];[1,2|3];[2];[1,2,3];[[1],2];\
        \"\";\"a\";\"ab\";\"abc\";\"b\";%{};%{a: 1};%{1 => 2}";
    let texts =
        texts.split(';').map(|text| canonical(&parse(text.trim(), None).expect("a term").into_bytes()));
    // Of these the order keys are cut, behind the same head.
    let texts_of = |lens: [usize; 3]| lens.into_iter().map(|len| encode(|w| _ = w.binary(&vec![b'c'; len])));
    let lists = [20_000, 20_001].map(|len| {
        encode(|w| {
            let w = w.list(len);
            (0..len).for_each(|_| _ = w.integer(7));
            w.nil();
        })
    });
    let lists = lists.map(|list| canonical(&list));
    let odd = [b"no term".to_vec(), vec![b'n'; 61_000]];
    texts.chain(texts_of([59_900, 60_000, 70_000])).chain(lists).chain(odd).collect()
}

#[derive(Clone, Debug)]
enum Step {
    Put(usize),
    Delete(usize),
    Reopen,
}

#[derive(Clone, Debug)]
enum Wanted {
    Between(Option<usize>, Option<usize>),
    Prefix(usize),
}

#[derive(Clone, Debug)]
struct Scan {
    wanted: Wanted,
    reverse: bool,
    limit: usize,
    keys_only: bool,
    /// What is written behind each page.
    between: Vec<Vec<Step>>,
}

fn steps(reopens: bool) -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        60 => (0..50_usize).prop_map(Step::Put),
        50 => (0..50_usize).prop_map(Step::Delete),
        u32::from(reopens) => Just(Step::Reopen),
    ];
    proptest::collection::vec(step, 0..30)
}

fn scan(reopens: bool) -> impl Strategy<Value = Scan> {
    let end = || proptest::option::of(0..50_usize);
    let wanted = prop_oneof![
        (end(), end()).prop_map(|(from, to)| Wanted::Between(from, to)),
        (0..50_usize).prop_map(Wanted::Prefix),
    ];
    let between = proptest::collection::vec(steps(reopens), 0..4);
    (wanted, any::<bool>(), 1..12_usize, any::<bool>(), between).prop_map(
        |(wanted, reverse, limit, keys_only, between)| Scan { wanted, reverse, limit, keys_only, between },
    )
}

/// Whether two keys are `==`.
fn equal(one: TermView<'_>, other: TermView<'_>) -> bool {
    let only = TermRange::default().from(one).unwrap().to(one).unwrap();
    only.see(&order_key(other).unwrap()) == Seen::In
}

fn elements(term: TermView<'_>) -> Option<Vec<TermView<'_>>> {
    let mut cursor = term.cursor();
    let len = cursor.tuple().ok()?;
    (0..len).map(|_| cursor.term().ok()).collect()
}

/// The elements of a list, proper or not.
fn heads(term: TermView<'_>) -> Option<Vec<TermView<'_>>> {
    let mut cursor = term.cursor();
    match cursor.list() {
        Ok(len) => (0..len).map(|_| cursor.term().ok()).collect(),
        Err(_) => term.elements(usize::MAX),
    }
}

/// Whether a term begins with another one, by its elements.
fn begins(term: TermView<'_>, with: TermView<'_>) -> bool {
    let starts = |term: Option<Vec<TermView<'_>>>, with: Vec<TermView<'_>>| {
        term.is_some_and(|term| {
            term.len() >= with.len() && term.iter().zip(&with).all(|(one, other)| equal(*one, *other))
        })
    };
    match (with.tuple_arity(), with.elements(usize::MAX), with.as_binary()) {
        (Some(_), ..) => starts(elements(term), elements(with).unwrap()),
        (_, Some(with), _) => term.is_list() && starts(heads(term), with),
        (.., Some(with)) => term.as_binary().is_some_and(|term| term.starts_with(with)),
        _ => false,
    }
}

impl Wanted {
    fn range(&self, keys: &[Vec<u8>]) -> Option<TermRange> {
        let term = |at: usize| TermView::parse(keys.get(at)?).ok();
        match self {
            Self::Between(from, to) => {
                let mut range = TermRange::default();
                if let Some(from) = from {
                    range = range.from(term(*from)?).unwrap();
                }
                if let Some(to) = to {
                    range = range.to(term(*to)?).unwrap();
                }
                Some(range)
            }
            Self::Prefix(with) => TermRange::prefix(term(*with)?).unwrap(),
        }
    }

    /// The same without an index.
    fn has(&self, keys: &[Vec<u8>], key: &[u8]) -> bool {
        let Ok(term) = TermView::parse(key) else {
            return matches!(self, Self::Between(_, None));
        };
        let order = order_key(term).unwrap();
        let bound = |at: &usize| TermView::parse(&keys[*at]).unwrap();
        match self {
            Self::Between(from, to) => {
                let above = |from| order >= order_key(bound(from)).unwrap() || equal(bound(from), term);
                let below = |to| order <= order_key(bound(to)).unwrap() || equal(bound(to), term);
                from.as_ref().is_none_or(above) && to.as_ref().is_none_or(below)
            }
            Self::Prefix(with) => begins(term, bound(with)),
        }
    }
}

/// A store, which may be opened again.
struct Stores<S> {
    store: Option<S>,
    open: Box<dyn Fn() -> S>,
}

impl<S: Store> Stores<S> {
    fn new(open: impl Fn() -> S + 'static) -> Self {
        Self { store: Some(open()), open: Box::new(open) }
    }

    fn store(&self) -> &S {
        self.store.as_ref().expect("it is open")
    }

    fn carry_out(&mut self, keys: &[Vec<u8>], steps: &[Step], there: &mut BTreeSet<usize>) {
        for step in steps {
            match step {
                Step::Put(at) | Step::Delete(at) if *at >= keys.len() => {}
                Step::Put(at) => {
                    let value = Value::of(&[97, 1], Traits::none());
                    self.store().put(&keys[*at], value, || Box::new(|result| _ = result.unwrap()));
                    there.insert(*at);
                }
                Step::Delete(at) => {
                    self.store().delete(&keys[*at], || Box::new(|result| _ = result.unwrap()));
                    there.remove(at);
                }
                Step::Reopen => {
                    let told = wait(|done| {
                        if let Some(now) = self.store().barrier(|| done) {
                            now.unwrap();
                        }
                    });
                    assert!(matches!(told, None | Some(Ok(()))), "{told:?}");
                    drop(self.store.take());
                    self.store = Some((self.open)());
                }
            }
        }
    }

    /// Shows a page; gives where the next begins.
    fn page(
        &self,
        scan: &Scan,
        range: &TermRange,
        after: Option<&[u8]>,
        seen: &mut Vec<Vec<u8>>,
    ) -> Option<Vec<u8>> {
        let shows = if scan.keys_only { Shows::Keys } else { Shows::Pairs };
        let (before, mut backs) = (seen.len(), scan.limit.is_multiple_of(3));
        let order = Order::OfTerms { range, reverse: scan.reverse };
        let page = self.store().page(order, after, shows, &mut |key, value| {
            assert_eq!(value.map(|value| value.bytes), (!scan.keys_only).then_some(&[97, 1][..]));
            if seen.len() > before && std::mem::take(&mut backs) {
                return Visit::Back;
            }
            seen.push(key.to_vec());
            if seen.len() - before >= scan.limit { Visit::Enough } else { Visit::Next }
        });
        match page.unwrap() {
            Page::Behind(place) => Some(place),
            Page::Last => None,
            page => panic!("{page:?}"),
        }
    }
}

fn check_scans<S: Store>(mut stores: Stores<S>, first: &[Step], scans: &[Scan]) -> Result<(), TestCaseError> {
    let keys = keys();
    let places: Vec<_> = keys.iter().map(|key| place_of(key)).collect();
    let mut there = BTreeSet::new();
    stores.carry_out(&keys, first, &mut there);
    for scan in scans {
        let Some(range) = scan.wanted.range(&keys) else { continue };
        let (mut stays, mut ever) = (there.clone(), there.clone());
        let (mut seen, mut after, mut between) = (Vec::new(), None::<Vec<u8>>, scan.between.iter());
        loop {
            after = stores.page(scan, &range, after.as_deref(), &mut seen);
            if after.is_none() {
                break;
            }
            for step in between.next().into_iter().flatten() {
                stores.carry_out(&keys, std::slice::from_ref(step), &mut there);
                ever.extend(&there);
                stays.retain(|at| there.contains(at));
            }
        }
        let mut seen: Vec<_> =
            seen.iter().map(|key| keys.iter().position(|known| known == key).expect("it was put")).collect();
        if scan.reverse {
            seen.reverse();
        }
        prop_assert!(
            seen.windows(2).all(|pair| places[pair[0]] < places[pair[1]]),
            "in order, and each once"
        );
        let has: Vec<bool> = keys.iter().map(|key| scan.wanted.has(&keys, key)).collect();
        for at in &seen {
            prop_assert!(has[*at] && ever.contains(at), "key {at} is none of these");
        }
        for at in stays.iter().filter(|at| has[**at]) {
            prop_assert!(seen.contains(at), "key {at} stays, and is missing");
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn pages_of_a_store_in_memory_are_those_of_a_sorted_map(
        first in steps(false), scans in proptest::collection::vec(scan(false), 1..6),
    ) {
        let store = || MemoryStore::ordered_within(std::sync::Arc::default());
        check_scans(Stores::new(store), &first, &scans)?;
    }
}

#[cfg(feature = "disk")]
proptest! {
    #![proptest_config(ProptestConfig { cases: 12, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn pages_of_a_store_on_disk_are_those_of_a_sorted_map(
        first in steps(true), scans in proptest::collection::vec(scan(true), 1..6),
    ) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().to_owned();
        let open = move || {
            let disk = crate::store::Disk::open(&path, crate::store::SyncPolicy::Never, u64::MAX).unwrap();
            disk.store(&["global:a".into()]).unwrap()
        };
        check_scans(Stores::new(open), &first, &scans)?;
        let read_only = crate::store::disk::ReadOnlyDisk::open(dir.path()).unwrap();
        read_only.check(&mut |_, _| true).unwrap();
    }
}

#[test]
fn a_tuple_prefix_looks_at_one_key_for_each_size_that_has_none() {
    let store = MemoryStore::ordered_within(std::sync::Arc::default());
    let put = |size: usize, first: &str, last: i64| {
        let key = encode(|w| {
            let w = w.tuple(size).atom(first);
            (2..size).for_each(|_| _ = w.integer(0));
            if size > 1 {
                w.integer(last);
            }
        });
        store.put(&key, Value::of(&[97, 1], Traits::none()), || unreachable!("at once"));
    };
    for size in 1..=60 {
        (0..200).for_each(|last| put(size, if last % 2 == 0 { "a" } else { "c" }, last));
    }
    (0..5).for_each(|last| put(30, "b", last));
    let prefix = encode(|w| _ = w.tuple(1).atom("b"));
    let range = TermRange::prefix(TermView::parse(&prefix).unwrap()).unwrap().unwrap();
    for reverse in [false, true] {
        let (mut shown, order) = (0, Order::OfTerms { range: &range, reverse });
        let page = store.page(order, None, Shows::Keys, &mut |_, _| {
            shown += 1;
            Visit::Next
        });
        // One page looks at 4,096 places at most, and there are some 8,000.
        assert_eq!((page, shown), (Ok(Page::Last), 5));
    }
}

#[test]
fn places_that_were_made_up_show_what_is_behind_them_or_are_refused() {
    let store = MemoryStore::ordered_within(std::sync::Arc::default());
    for number in 0..10 {
        let key = encode(|w| _ = w.integer(number));
        store.put(&key, Value::of(&[97, 1], Traits::none()), || unreachable!("at once"));
    }
    let range = TermRange::default();
    let page = |place: &[u8], reverse| {
        let mut shown = 0;
        let order = Order::OfTerms { range: &range, reverse };
        let page = store.page(order, Some(place), Shows::Keys, &mut |_, _| {
            shown += 1;
            Visit::Next
        });
        (page.unwrap(), shown)
    };
    for reverse in [false, true] {
        assert_eq!(page(b"", reverse), (Page::Foreign, 0));
        assert_eq!(page(b"d", reverse), (Page::Foreign, 0));
        assert_eq!(page(&[&b"o"[..], &vec![7; PLACE_MAX + 1]].concat(), reverse), (Page::Foreign, 0));
    }
    assert_eq!([page(b"o", false), page(b"o\xff", true)], [(Page::Last, 10), (Page::Last, 10)]);
    assert_eq!([page(b"o", true), page(b"o\xff", false)], [(Page::Last, 0), (Page::Last, 0)]);
    let (max, all) = (&[&b"o"[..], &vec![0xff; PLACE_MAX]].concat(), (Page::Last, 10));
    assert_eq!([page(max, true), page(max, false)], [all, (Page::Last, 0)]);
}
