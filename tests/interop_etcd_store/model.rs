//! A store in etcd is a map, through reopenings and with a second process that writes the same.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::support::wait_until;
use super::*;

type Model = BTreeMap<Vec<u8>, Vec<u8>>;

#[derive(Clone, Debug)]
enum Step {
    Put(u8, usize),
    Delete(u8),
    /// Adds to the value, twice in one batch: a short value gets longer, a longer one goes, the longest stays.
    Append(u8),
    Get(u8),
    /// Writes and clears, all asked for before the first is answered.
    Burst(Vec<(u8, usize)>),
    Clear,
    /// The other process does it.
    Elsewhere(u8, usize),
    Reopen,
}

const CLEARS: u8 = 12;

fn step() -> impl Strategy<Value = Step> {
    let write = (0_u8..12, 0_usize..3);
    prop_oneof![
        6 => write.clone().prop_map(|(key, size)| Step::Put(key, size)),
        2 => (0_u8..12).prop_map(Step::Delete),
        3 => (0_u8..12).prop_map(Step::Append),
        3 => (0_u8..12).prop_map(Step::Get),
        2 => prop::collection::vec((0..=CLEARS, 0_usize..3), 0..40).prop_map(Step::Burst),
        1 => Just(Step::Clear),
        3 => write.prop_map(|(key, size)| Step::Elsewhere(key, size)),
        1 => Just(Step::Reopen),
    ]
}

fn key_of(number: u8) -> Vec<u8> {
    if number == 0 { binary(&[109; 70_000]) } else { binary(&vec![number; usize::from(number)]) }
}

fn bytes_of(mark: usize, size: usize) -> Vec<u8> {
    let mut bytes = vec![mark as u8; [4, 100, 70_000][size]];
    bytes[..4].copy_from_slice(&(mark as u32).to_be_bytes());
    binary(&bytes)
}

/// As `Append` says.
fn appended(present: Option<&[u8]>) -> Option<Option<Vec<u8>>> {
    match present {
        Some(present) if present.len() > 20_000 => None,
        Some(present) if present.len() > 12 => Some(None),
        present => Some(Some(binary(&[&present.unwrap_or(&[0; 5])[5..], b"more"].concat()))),
    }
}

fn all(store: &EtcdStore) -> Model {
    let mut seen = Model::new();
    let mut scan = store.scan(None, kvnode::store::Shows::Pairs);
    loop {
        let batch = kvnode::store::scan::at_once(&mut *scan).unwrap().unwrap();
        for (key, value) in batch.iter() {
            // What is being told of comes again, or is not told of yet.
            let Some(value) = value.map(|value| value.bytes.to_vec()) else { continue };
            assert!(seen.insert(key.to_vec(), value).is_none(), "a key is shown twice");
        }
        if batch.is_last {
            return seen;
        }
    }
}

/// What a follower of the store comes to, from empty.
fn followed(told: &[Wrote]) -> Model {
    let mut model = Model::new();
    for wrote in told {
        if wrote.changes.is_empty() {
            model.clear();
        }
        for (key, value) in &wrote.changes {
            match value {
                Some((bytes, _)) => _ = model.insert(key.clone(), bytes.clone()),
                None => _ = model.remove(key),
            }
        }
    }
    model
}

#[test]
fn it_is_a_map_through_reopenings_and_writes_of_another_process() {
    let cluster = EtcdCluster::start(1);
    let mut runner = proptest::test_runner::TestRunner::new(ProptestConfig {
        cases: 12,
        failure_persistence: None,
        ..ProptestConfig::default()
    });
    let case = std::cell::Cell::new(0);
    let steps = prop::collection::vec(step(), 1..60);
    let run = runner.run(&steps, |steps| {
        case.set(case.get() + 1);
        let names = names(&format!("s{}", case.get()));
        let elsewhere = engine(&cluster);
        let there = elsewhere.open(&names).unwrap();
        let told = others(&there);
        let mut here_engine = engine(&cluster);
        let mut here = here_engine.open(&names).unwrap();
        let (mut model, mut mark, mut own) = (Model::new(), 0, 0);
        for step in steps {
            match step {
                Step::Put(key, size) => {
                    mark += 1;
                    let (key, bytes) = (key_of(key), bytes_of(mark, size));
                    prop_assert!(put(&here, &key, &bytes).is_ok());
                    model.insert(key, bytes);
                }
                Step::Delete(key) => {
                    prop_assert!(delete(&here, &key_of(key)).is_ok());
                    model.remove(&key_of(key));
                }
                Step::Clear => {
                    prop_assert!(
                        asked(|done| assert!(here.clear(|| done).is_none())).recv().unwrap().is_ok()
                    );
                    model.clear();
                }
                Step::Append(key) => {
                    let key = key_of(key);
                    let told = [(); 2].map(|()| update(&here, &key, Arc::new(appended)));
                    for told in told.map(|told| told.recv().unwrap().unwrap()) {
                        let expected = appended(model.get(&key).map(Vec::as_slice));
                        prop_assert_eq!(told.is_some(), expected.is_some());
                        match expected {
                            Some(Some(bytes)) => _ = model.insert(key.clone(), bytes),
                            Some(None) => _ = model.remove(&key),
                            None => {}
                        }
                    }
                }
                Step::Get(key) => {
                    let found = get(&here, &key_of(key)).map(|(bytes, _)| bytes);
                    prop_assert_eq!(found.as_ref(), model.get(&key_of(key)));
                }
                Step::Burst(burst) => {
                    let mut answers = Vec::new();
                    for (key, size) in burst {
                        mark += 1;
                        if key == CLEARS {
                            answers.push(asked(|done| _ = here.clear(|| done)));
                            model.clear();
                            continue;
                        }
                        let (key, bytes) = (key_of(key), bytes_of(mark, size));
                        answers.push(asked(|done| _ = here.put(&key, value(&bytes), || done)));
                        let found = get(&here, &key).map(|(bytes, _)| bytes);
                        prop_assert_eq!(found.as_ref(), Some(&bytes), "a get finds the put before it");
                        model.insert(key, bytes);
                    }
                    let mut last = here.seq().saturating_sub(answers.len() as u64);
                    for answer in answers {
                        let wrote = answer.recv().unwrap().unwrap().unwrap();
                        prop_assert!(wrote.seq > last, "in their order");
                        last = wrote.seq;
                    }
                }
                Step::Elsewhere(key, size) => {
                    mark += 1;
                    own += 1;
                    let (key, bytes) = (key_of(key), bytes_of(mark, size));
                    prop_assert!(put(&there, &key, &bytes).is_ok());
                    wait_until("it comes here", || get(&here, &key).is_some_and(|found| found.0 == bytes));
                    model.insert(key, bytes);
                }
                Step::Reopen => {
                    here_engine.close();
                    here_engine = engine(&cluster);
                    here = here_engine.open(&names).unwrap();
                }
            }
            prop_assert_eq!(settle(&here), Ok(()));
            prop_assert_eq!(here.len(), model.len());
        }
        prop_assert_eq!(&all(&here), &model);
        wait_until("the other one has all", || all(&there) == model);
        // No number is left out, and the writes that were told of make the entries.
        catch_up(&there);
        let mut told = told.lock().clone();
        prop_assert_eq!(there.seq(), 1 + told.len() as u64 + own);
        prop_assert!(told.is_sorted_by(|one, other| one.seq < other.seq));
        if own == 0 {
            prop_assert_eq!(followed(&told), model);
        }
        told.clear();
        here_engine.close();
        elsewhere.close();
        Ok(())
    });
    run.unwrap();
}
