//! Stores asked with the types of their keys and values, in their own node and from another; a BEAM sees the same terms.

#![cfg(feature = "program")]

mod support;

use std::collections::HashMap;
use std::time::Duration;

use kvnode::distribution::{Cookie, NodeName};
use kvnode::etf::{Atom, OwnedTerm, atom};
use kvnode::handle::{Compared, Error, Expected, Pages, Refusal, Remains, Transacted};
use kvnode::program::{Config, Program, StoreConfig};
use kvnode::{CallError, Handle, ServerRef, block_on, config};
use serde::{Deserialize, Serialize};
use support::{BeamNode, Epmd, KvNode, Running, at_host, on_every_otp};

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
    assert_eq!((entries, users.count().await?), (vec![(one.clone(), ana)], 4));
    sums.delete_many(&["a", "b", "c", "d"]).await?;
    assert_eq!(users.count().await?, 1);
    // What is refused.
    let refused = sums.clone().with_confirm(1).put("a", &1).await;
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

#[test]
fn a_handle_needs_no_socket_in_the_node_of_its_store() {
    let epmd = Epmd::start();
    let node = config::Config {
        node_name: NodeName::new(&at_host("own")).expect("a node name"),
        cookie: Cookie::new(support::COOKIE),
        bind: None,
        dist_port: 0,
        epmd: Some(epmd.config()),
        connect: Vec::new(),
        allow: Vec::new(),
        net_ticktime_secs: 60,
        fragments: true,
        tls: None,
        limits: config::Limits::default(),
    };
    let names = StoreConfig { global: Vec::new(), local: vec!["kv".into()] };
    let program =
        block_on(Program::start(Config { stores: vec![names], ..Config::new(node) })).expect("it starts");
    let node = program.node();
    let store = ServerRef::local("kv");
    block_on(check_all(&node.store(store.clone()), &node.store(store))).expect("the store answers");
    assert!(node.snapshot().peers.is_empty());
    block_on(node.stop());
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
        "the store is a slave, and takes no writes: ask its primary, {:global, :kv}"
    );
}
