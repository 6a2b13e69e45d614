//! Stores asked with the types of their keys and values, in their own node and from another; a BEAM sees the same terms.

#![cfg(feature = "program")]

mod support;

use std::collections::HashMap;
use std::time::Duration;

use kvnode::distribution::{Cookie, NodeName};
use kvnode::etf::{Atom, OwnedTerm, atom};
use kvnode::handle::{Changes, Compared, Error, Expected, Pages, Refusal, Remains, Transacted, WatchEvent};
use kvnode::program::{Config, Program, Snapshot, StoreConfig};
use kvnode::{CallError, Handle, ServerRef, block_on, config};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use smol::stream::StreamExt;
use support::{BeamNode, Epmd, KvNode, Running, at_host, on_every_otp, wait_until};

#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Key {
    User(u64),
    Settings,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename = "Elixir.MyApp.User")]
struct User {
    name: String,
    age: u8,
}

fn user(name: &str) -> User {
    User { name: name.into(), age: 6 }
}

/// Every method, with what it gives.
async fn check_all(users: &Handle<Key, User>, sums: &Handle<String, i64>) -> Result<(), Error> {
    let (one, ana, eva) = (Key::User(1), user("Ana"), user("Eva"));
    assert_eq!((users.get(&one).await?, users.get_revision(&one).await?), (None, None));
    assert_eq!((users.contains(&one).await?, users.ttl(&one).await?), (false, None));
    assert!(!users.replace(&one, &ana).await?);
    assert!(users.put_new(&one, &ana).await? && !users.put_new(&one, &eva).await?);
    assert_eq!(users.get(&one).await?, Some(ana.clone()));
    let (found, first) = users.get_revision(&one).await?.expect("it is there");
    assert!(found == ana && users.replace(&one, &eva).await?);
    assert_eq!(users.ttl(&one).await?, Some(Remains::Always));
    let Compared::Conflict(Some((there, second))) =
        users.compare_and_put(&one, Expected::Revision(first), &ana).await?
    else {
        panic!("it was replaced");
    };
    assert!(there == eva && second > first);
    assert_eq!(users.compare_and_put(&one, Expected::Value(&eva), &ana).await?, Compared::Done);
    assert_eq!(users.compare_and_put(&Key::Settings, Expected::Absent, &eva).await?, Compared::Done);
    assert_eq!(
        users.compare_and_delete(&Key::User(2), Expected::Value(&eva)).await?,
        Compared::Conflict(None)
    );
    let many = users.get_many(&[&one, &Key::Settings, &Key::User(9)]).await?;
    assert_eq!(many, HashMap::from([(one.clone(), ana.clone()), (Key::Settings, eva.clone())]));
    assert_eq!(users.compare_and_delete(&Key::Settings, Expected::Value(&eva)).await?, Compared::Done);
    assert_eq!(users.get_and_put(&one, &eva).await?, Some(ana.clone()));
    assert_eq!((users.pop(&one).await?, users.pop(&one).await?), (Some(eva.clone()), None));
    // Keys that end.
    let hour = Duration::from_secs(3_600);
    let ends = users.clone().with_ttl(hour);
    ends.put(&one, &ana).await?;
    let Some(Remains::For(left)) = users.ttl(&one).await? else { panic!("it ends") };
    assert!(left <= hour && left > hour / 2, "{left:?}");
    assert!(users.persist(&one).await? && !users.persist(&Key::Settings).await?);
    assert_eq!(users.ttl(&one).await?, Some(Remains::Always));
    assert!(users.touch(&one, hour).await? && users.ttl(&one).await? != Some(Remains::Always));
    users.clone().with_ttl(Duration::MAX).put(&one, &ana).await?;
    assert_eq!(users.ttl(&one).await?, Some(Remains::Always));
    // With a `ttl:` that the request does not take.
    ends.delete(&one).await?;
    ends.delete(&one).await?;
    // Sums, and keys that are borrowed otherwise.
    assert_eq!((sums.update_counter("a", 3).await?, sums.update_counter_from("b", -1, 40).await?), (3, 39));
    let large = i128::from(i64::MAX) * 2;
    assert_eq!(sums.update_counter("a", large).await?, large + 3);
    sums.put_many(&[("a", &1), ("b", &2), ("c", &3)]).await?;
    let Transacted::Done(results) = sums
        .transact()
        .if_equal("a", &1)
        .if_present("b")
        .if_absent("d")
        .add("a", 10)
        .put("d", &4)
        .add("d", 1)
        .delete("c")
        .commit()
        .await?
    else {
        panic!("all guards hold");
    };
    assert_eq!(results, [Some(11), None, Some(5), None]);
    let (_, revision) = sums.get_revision("a").await?.expect("it is there");
    let failed = sums.transact().if_revision("a", revision).if_equal("b", &3).delete("a").commit().await?;
    assert_eq!((failed, sums.get("a").await?), (Transacted::Failed(1), Some(11)));
    // Pages.
    let mut keys = Vec::new();
    let mut pages = sums.scan_keys().limit(1);
    keys.extend(pages.next_page().await?.expect("there are some"));
    // Any other may go on with it.
    let mut pages = sums.scan_keys().limit(1).behind(pages.cursor().expect("there are more"));
    while let Some(page) = pages.next_page().await? {
        assert!(page.len() <= 1);
        keys.extend(page);
    }
    keys.sort();
    assert_eq!((keys, pages.next_page().await?), (vec!["a".into(), "b".into(), "d".into()], None));
    users.put(&one, &ana).await?;
    let mut pages = users.scan().bytes(1 << 10).matching(&(atom("user"), atom("_")));
    let mut entries = Vec::new();
    while let Some(page) = pages.next_page().await? {
        entries.extend(page);
    }
    assert_eq!((entries, users.count().await?), (vec![(one.clone(), ana.clone())], 4));
    sums.delete_many(&["a", "b", "c", "d"]).await?;
    assert_eq!(users.count().await?, 1);
    // A primary misses nothing anyway.
    let newest = users.clone().with_linearizable_reads();
    let (found, revision) = newest.get_revision(&one).await?.expect("it is there");
    assert!(found == ana && newest.get(&one).await? == Some(ana.clone()) && newest.contains(&one).await?);
    assert_eq!(newest.ttl(&one).await?, Some(Remains::Always));
    assert_eq!(newest.get_many(&[&one]).await?, HashMap::from([(one.clone(), ana.clone())]));
    assert_eq!(newest.count().await?, 1);
    assert_eq!(newest.scan_keys().next_page().await?, Some(vec![one.clone()]));
    assert_eq!(
        newest.compare_and_put(&one, Expected::Revision(revision), &ana).await?,
        Compared::Done,
        "writes take no such option"
    );
    // What is refused.
    // It is answered so after four seconds, and later on a machine that is busy.
    let patient = sums.clone().with_confirm(1).with_timeout(support::wait::PATIENCE);
    let refused = patient.put("a", &1).await;
    assert_eq!(refused, Err(Error::Refused(Refusal::Unconfirmed { have: 0, wanted: 1 })));
    sums.delete("a").await?;
    let refused = users.update_counter(&one, 1).await;
    assert_eq!(refused, Err(Refusal::NotAnInteger.into()));
    // All keys, whatever their types are, and what was there before.
    let kept = users.get(&one).await?.expect("it is there");
    sums.clear().await?;
    assert_eq!((users.count().await?, users.get(&one).await?, sums.get("a").await?), (0, None, None));
    let refused = sums.clone().with_confirm(1).clear().await;
    assert_eq!(refused, Err(Error::Refused(Refusal::Unconfirmed { have: 0, wanted: 1 })));
    users.put(&one, &kept).await?;
    Ok(())
}

#[test]
fn a_handle_reads_and_writes_what_a_beam_sees() {
    on_every_otp(|otp| {
        let epmd = Epmd::start();
        let kvnode = KvNode::start(&epmd, "kvnode", "--global kv --ordered");
        let node = Running::start(&epmd, "other");
        block_on(node.connect_to(kvnode.name())).expect("it is there");
        let store = ServerRef::global("kv");
        let (users, sums) = (node.store(store.clone()), node.store(store.clone()));
        block_on(check_all(&users, &sums)).expect("the store answers");
        block_on(sums.put_many(&[("a", &1), ("b", &2), ("bc", &3), ("z", &4)])).expect("the store answers");
        let keys = |mut pages: Pages<String>| block_on(pages.next_page()).map(Option::unwrap_or_default);
        let named = |names: &[&str]| Ok(names.iter().map(|name| (*name).to_owned()).collect());
        assert_eq!(keys(sums.scan_keys().from("aa").to("y").reverse(true)), named(&["bc", "b"]));
        assert_eq!(keys(sums.scan_keys().prefix("b")), named(&["b", "bc"]));
        assert_eq!(keys(sums.scan_keys().prefix("b").to("z")), Err(Refusal::PrefixAndRange.into()));
        assert_eq!(keys(sums.scan_keys().prefix(&1)), Err(Refusal::BadPrefix.into()));
        block_on(sums.delete_many(&["a", "b", "bc", "z"])).expect("the store answers");
        let beam = BeamNode::start(otp, &epmd, "beam");
        beam.ping(kvnode.name());
        beam.wait_for_global("kv");
        beam.check(
            "GenServer.call({:global, :kv}, {:get, {:user, 1}}) === %{__struct__: MyApp.User, name: \"Ana\", age: 6}",
            "true",
        );
        beam.check("GenServer.call({:global, :kv}, {:put, :settings, %{__struct__: MyApp.User, name: \"Eva\", age: 6}})", ":ok");
        assert_eq!(block_on(users.get(&Key::Settings)), Ok(Some(user("Eva"))));
        // A value of another type, and nobody.
        beam.check("GenServer.call({:global, :kv}, {:put, :settings, {:error, :no_space}})", ":ok");
        let wrong = block_on(users.get(&Key::Settings)).expect_err("it is no user");
        assert!(matches!(wrong, Error::Call(CallError::Unreadable(_))), "{wrong}");
        let terms: Handle<Atom, OwnedTerm> = node.store(store);
        let value = block_on(terms.get(&atom("settings"))).expect("the store answers");
        assert_eq!(format!("{:?}", value.expect("it is there").view()), "{:error, :no_space}");
        // What looks like a refusal, and is what was there.
        beam.check("GenServer.call({:global, :kv}, {:put, :settings, {:error, :busy}})", ":ok");
        let taken = block_on(terms.pop(&atom("settings"))).expect("it is a value");
        assert_eq!(format!("{:?}", taken.expect("it was there").view()), "{:error, :busy}");
        // What is no such value is taken out all the same, and a conflict changes nothing.
        beam.check("GenServer.call({:global, :kv}, {:put, :settings, 1})", ":ok");
        let wrong = block_on(users.compare_and_put(&Key::Settings, Expected::Absent, &user("Ana")));
        assert!(matches!(wrong, Err(Error::Call(CallError::Unreadable(_)))), "{wrong:?}");
        let wrong = block_on(users.pop(&Key::Settings));
        assert!(matches!(wrong, Err(Error::Call(CallError::Unreadable(_)))), "{wrong:?}");
        beam.check("GenServer.call({:global, :kv}, {:member, :settings})", "false");
        let nobody: Handle<Key, User> = node.store(ServerRef::remote("nobody", kvnode.name()));
        assert_eq!(block_on(nobody.count()), Err(CallError::NoProcess.into()));
    });
}

/// So many events, which come.
async fn events<K: DeserializeOwned, V: DeserializeOwned>(
    changes: &mut Changes<K, V>,
    count: usize,
) -> Result<Vec<WatchEvent<K, V>>, Error> {
    let mut told = Vec::new();
    while told.len() < count {
        told.push(changes.next_event().await?.expect("it goes on"));
    }
    Ok(told)
}

fn put(seq: u64, key: &str, value: i64) -> WatchEvent<String, i64> {
    WatchEvent::Put { seq, key: key.into(), value }
}

/// Every kind of watch, of a store that is empty; and what a watch is told.
async fn check_watches(sums: &Handle<String, i64>, texts: &Handle<String, String>) -> Result<(), Error> {
    let own = |key: &str| key.to_owned();
    let mut changes = sums.watch().begin().await?;
    let begun = changes.seq().expect("from now on");
    sums.put("a", &1).await?;
    sums.put_many(&[("b", &2), ("bc", &3)]).await?;
    sums.update_counter("a", 10).await?;
    sums.delete("b").await?;
    sums.clone().with_ttl(Duration::from_millis(1)).put("short", &4).await?;
    let told = events(&mut changes, 7).await?;
    let expected = [
        put(begun + 1, "a", 1),
        put(begun + 2, "b", 2),
        put(begun + 3, "bc", 3),
        put(begun + 4, "a", 11),
        WatchEvent::Delete { seq: begun + 5, key: own("b") },
        put(begun + 6, "short", 4),
        WatchEvent::Expire { seq: begun + 7, key: own("short") },
    ];
    assert_eq!((&told[..], changes.seq()), (&expected[..], Some(begun + 7)));
    // Behind an earlier number, and of some keys alone.
    let mut behind = sums.watch().from(begun + 1).prefix("b").begin().await?;
    let gone = WatchEvent::Delete { seq: begun + 5, key: own("b") };
    assert_eq!(events(&mut behind, 3).await?, [put(begun + 2, "b", 2), put(begun + 3, "bc", 3), gone]);
    let mut keys = sums.watch_keys().from(begun).matching("a").begin().await?;
    let keys_told = [1, 4].map(|at| WatchEvent::Put { seq: begun + at, key: own("a"), value: () });
    assert_eq!(events(&mut keys, 2).await?, keys_told);
    let too_old = sums.watch().from(1).begin().await.err();
    assert_eq!(too_old, Some(Refusal::TooOld.into()));
    let no_prefix = sums.watch().prefix(&1).begin().await.err();
    assert_eq!(no_prefix, Some(Refusal::BadPrefix.into()));
    // With what is there first.
    let mut initial = sums.watch().initial().begin().await?;
    assert_eq!(initial.seq(), None);
    let mut shown = events(&mut initial, 2).await?;
    shown.sort_by_key(|shown| format!("{shown:?}").contains("\"bc\""));
    let [WatchEvent::Put { key: a, value: 11, .. }, WatchEvent::Put { key: bc, value: 3, .. }] = &shown[..]
    else {
        panic!("{shown:?}")
    };
    assert_eq!((a.as_str(), bc.as_str(), initial.seq()), ("a", "bc", None));
    let current = WatchEvent::Current { seq: begun + 7 };
    assert_eq!((events(&mut initial, 1).await?, initial.seq()), (vec![current], Some(begun + 7)));
    // As a stream. What is of another type is said, and what follows comes.
    let mut changes = texts.watch().begin().await?;
    sums.put("a", &5).await?;
    texts.put("a", &own("text")).await?;
    let wrong = changes.next().await.expect("it goes on").expect_err("it is no text");
    assert!(matches!(wrong, Error::Call(CallError::Unreadable(_))), "{wrong}");
    assert_eq!(changes.seq(), Some(begun + 8));
    let text = WatchEvent::Put { seq: begun + 9, key: own("a"), value: own("text") };
    assert_eq!(changes.next().await, Some(Ok(text)));
    sums.clear().await?;
    // Of all keys at once everybody is told.
    let clear = WatchEvent::Clear { seq: begun + 10 };
    assert_eq!(events(&mut behind, 1).await?, [clear]);
    assert_eq!(changes.next().await, Some(Ok(WatchEvent::Clear { seq: begun + 10 })));
    Ok(())
}

#[test]
fn a_handle_needs_no_socket_in_the_node_of_its_store() {
    let epmd = Epmd::start();
    let name = NodeName::new(&at_host("own")).expect("a node name");
    let node = config::Config::new(name, Cookie::new(support::COOKIE)).with_epmd(epmd.config());
    let names = StoreConfig::default().with_name(config::ServerName::local("kv"));
    let program = block_on(Program::start(Config::new(node).with_stores(vec![names]))).expect("it starts");
    let node = program.node();
    let store = ServerRef::local("kv");
    block_on(check_all(&node.store(store.clone()), &node.store(store.clone()))).expect("the store answers");
    let sums: Handle<String, i64> = node.store(store.clone());
    block_on(sums.clear()).expect("the store answers");
    block_on(check_watches(&sums, &node.store(store))).expect("the store answers");
    wait_until("watches end where they are dropped", || program.snapshot().stores[0].watches.watchers == 0);
    assert!(node.snapshot().peers.is_empty());
    // The store ends, and is started again; then all does.
    let mut changes = block_on(sums.watch().begin()).expect("the store answers");
    let pid = node.whereis_local("kv").expect("it is there");
    node.process_at(&pid).expect("it is there").kill();
    let killed = Error::Ended(CallError::Exit(OwnedTerm::atom("killed")));
    assert_eq!(block_on(changes.next_event()), Err(killed));
    assert_eq!(block_on(changes.next_event()), Ok(None));
    wait_until("the store is started again", || node.whereis_local("kv").is_some());
    let mut changes = block_on(sums.watch().begin()).expect("the store answers");
    block_on(node.stop());
    let ended = block_on(changes.next_event());
    assert!(matches!(ended, Err(Error::Ended(_))), "{ended:?}");
    assert_eq!(block_on(changes.next_event()), Ok(None));
}

#[test]
fn a_slave_says_where_its_primary_is() {
    let epmd = Epmd::start();
    let slave = KvNode::start(&epmd, "slave", "--global kv_slave");
    let primary = KvNode::start(
        &epmd,
        "primary",
        &format!("--global kv --connect {} --slave global:kv_slave", slave.name()),
    );
    let node = Running::start(&epmd, "other");
    for kvnode in [&slave, &primary] {
        block_on(node.connect_to(kvnode.name())).expect("it is there");
    }
    let sums: Handle<Atom, i64> = node.store(ServerRef::global("kv"));
    let copy: Handle<Atom, i64> = node.store(ServerRef::global("kv_slave"));
    primary.wait_for_log(&["slave is up to date"]);
    block_on(sums.clone().with_confirm(1).with_timeout(Duration::from_secs(20)).put(&atom("a"), &1))
        .expect("it is confirmed");
    assert_eq!(block_on(copy.get(&atom("a"))), Ok(Some(1)));
    let refused = block_on(copy.put(&atom("a"), &2)).expect_err("it is a slave");
    assert_eq!(refused, Error::Refused(Refusal::SlaveOf(ServerRef::global("kv"))));
    assert_eq!(
        refused.to_string(),
        "the store is a slave, which takes no writes and may lack what is newest: ask its primary, {:global, :kv}"
    );
    // So is what misses nothing: a slave does not know what its primary has answered since.
    let newest = copy.clone().with_linearizable_reads();
    assert_eq!(block_on(newest.get(&atom("a"))), Err(refused.clone()));
    assert_eq!(block_on(newest.count()), Err(refused.clone()));
    assert_eq!(block_on(newest.scan().next_page()).map(drop), Err(refused));
    assert_eq!(block_on(newest.with_session_reads().get(&atom("a"))), Ok(Some(1)));
}

/// Watches of the first store of a node, as it says itself.
fn watchers(node: &Running, kvnode: &KvNode) -> u64 {
    let status = ServerRef::remote("kvnode", kvnode.name());
    let snapshot: Snapshot =
        block_on(node.client().call_as(&status, &atom("status"), support::wait::PATIENCE))
            .expect("it answers");
    snapshot.stores[0].watches.watchers
}

#[test]
fn a_store_of_another_node_tells_its_changes() {
    let epmd = Epmd::start();
    let kvnode = KvNode::start(&epmd, "kvnode", "--global kv");
    let node = Running::start(&epmd, "other");
    let store = ServerRef::remote("kv", kvnode.name());
    let sums: Handle<String, i64> = node.store(ServerRef::global("kv"));
    block_on(node.connect_to(kvnode.name())).expect("it is there");
    block_on(check_watches(&sums, &node.store(ServerRef::global("kv")))).expect("the store answers");
    wait_until("watches end where they are dropped", || watchers(&node, &kvnode) == 0);
    let nobody: Handle<String, i64> = node.store(store);
    assert_eq!(block_on(nobody.watch().begin()).err(), Some(CallError::NoProcess.into()));
    // Its node is gone.
    let mut changes = block_on(sums.watch().begin()).expect("the store answers");
    let name = kvnode.name().to_owned();
    kvnode.kill(&epmd);
    let lost = Error::Ended(CallError::NodeDown(name.as_str().into()));
    assert_eq!(block_on(changes.next_event()), Err(lost));
    assert_eq!(block_on(changes.next_event()), Ok(None));
}

#[test]
fn changes_that_nobody_takes_are_not_kept_without_a_bound() {
    let epmd = Epmd::start();
    let kvnode = KvNode::start(&epmd, "kvnode", "--global kv");
    let limits = config::Limits::default().with_mailbox_messages_max(3);
    let node = Running::start_with(&epmd, "other", limits);
    block_on(node.connect_to(kvnode.name())).expect("it is there");
    let sums: Handle<String, i64> = node.store(ServerRef::global("kv"));
    let mut changes = block_on(sums.watch().begin()).expect("the store answers");
    let begun = changes.seq().expect("from now on");
    for value in 1..=10 {
        block_on(sums.put("a", &value)).expect("the store answers");
    }
    // The store is told at once.
    wait_until("the watch ends", || watchers(&node, &kvnode) == 0);
    let told = block_on(events(&mut changes, 4)).expect("three, and that there were more");
    let expected =
        [put(begun + 1, "a", 1), put(begun + 2, "a", 2), put(begun + 3, "a", 3), WatchEvent::Overrun];
    assert_eq!((&told[..], block_on(changes.next_event())), (&expected[..], Ok(None)));
    // A watcher that goes on there misses nothing.
    assert_eq!(changes.seq(), Some(begun + 3));
    drop(changes);
    let rest = sums.watch().from(begun + 8).begin();
    let mut rest = block_on(rest).expect("the store knows");
    assert_eq!(block_on(events(&mut rest, 2)), Ok(vec![put(begun + 9, "a", 9), put(begun + 10, "a", 10)]));
}

#[test]
fn an_elixir_server_is_asked_what_it_knows_and_nothing_else() {
    on_every_otp(|otp| {
        let epmd = Epmd::start();
        let node = Running::start(&epmd, "other");
        let beam = BeamNode::start(otp, &epmd, "beam");
        beam.run(
            "{:ok, store} = KeyValueStore.start_link(); Process.unlink(store); KeyValueStore.put(:a, 1)",
        );
        let name = at_host("beam");
        let sums: Handle<Atom, i64> =
            Handle::new(node.client(), ServerRef::remote("Elixir.KeyValueStore", &name));
        let (a, b) = (atom("a"), atom("b"));
        block_on(async {
            assert_eq!((sums.get(&a).await?, sums.get(&b).await?), (Some(1), None));
            sums.put(&b, &2).await?;
            sums.delete(&a).await?;
            assert_eq!((sums.get(&a).await?, sums.get(&b).await?), (None, Some(2)));
            let foreign = Err(Error::NotKvnode(name.as_str().into()));
            assert_eq!(sums.count().await, foreign);
            assert_eq!(sums.update_counter(&b, 1).await.map(|_| 0), foreign);
            assert_eq!(sums.clone().with_confirm(1).put(&b, &3).await.map(|()| 0), foreign);
            assert_eq!(sums.clone().with_ttl(Duration::MAX).put(&b, &3).await.map(|()| 0), foreign);
            assert_eq!(sums.clone().with_linearizable_reads().get(&b).await.map(|_| 0), foreign);
            assert_eq!(sums.scan().next_page().await.map(|_| 0), foreign);
            assert_eq!(sums.transact().delete(&b).commit().await.map(|_| 0), foreign);
            assert_eq!(sums.watch().begin().await.map(|_| 0), foreign);
            Ok::<(), Error>(())
        })
        .expect("the server answers");
        beam.check("Process.alive?(store)", "true");
        beam.check("KeyValueStore.get(:b)", "2");
    });
}
