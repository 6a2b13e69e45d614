//! What is done to the keys of an election, to its etcd, and to a slave that takes part.

use rustix::process::Signal;

use super::support::{EtcdCluster, Otp};
use super::{Kept, Scene, at, check_served, primary};

#[test]
fn a_primary_whose_keys_are_deleted_has_its_place_again_and_without_it_a_slave_is_promoted_by_force_alone() {
    let etcd = EtcdCluster::start(1);
    let mut scene = Scene::start(&Otp::newest(), &etcd, Kept::Memory);
    let before = primary(&scene.beam);
    scene.beam.check("GenServer.call({:global, :kv}, {:put, 1, 2})", ":ok");
    etcd.ctl(&["del", "--prefix", "kvnode/"]);
    check_served(&scene.beam, "{:put, 1, 3}", ":ok");
    assert_eq!(primary(&scene.beam), before);
    scene.wait_until_counted(2);
    scene.check_same();
    // Nobody is left that could say what it had.
    scene.node(before).signal(Signal::STOP);
    etcd.ctl(&["del", "--prefix", "kvnode/"]);
    let others = [(before + 1) % 3, (before + 2) % 3];
    for other in others {
        scene.node(other).wait_for_log(&["etcd knows of none before", "kvnode promote --force"]);
    }
    scene.kill(before);
    scene.beam.check(&at(scene.node(others[0]), "{:promote, force: true}"), ":ok");
    check_served(&scene.beam, "{:get, 1}", "3");
    scene.wait_until_counted(1);
    scene.beam.check("GenServer.call({:global, :kv}, {:put, 1, 4})", ":ok");
}

#[test]
fn an_etcd_that_is_wiped_knows_the_former_primary_again() {
    for restart in [false, true] {
        let mut etcd = EtcdCluster::start(1);
        let mut scene = Scene::start(&Otp::newest(), &etcd, Kept::Disk);
        let before = primary(&scene.beam);
        scene.beam.check("GenServer.call({:global, :kv}, {:put, 1, 2})", ":ok");
        etcd.kill(0);
        etcd.wipe(0);
        if restart {
            (0..3).for_each(|at| scene.kill(at));
        }
        etcd.run(0);
        etcd.wait_until_healthy(0);
        if restart {
            scene.run(before);
            (0..3).filter(|at| *at != before).for_each(|at| scene.run(at));
        }
        check_served(&scene.beam, "{:put, 1, 3}", ":ok");
        assert_eq!(primary(&scene.beam), before);
        scene.wait_until_counted(2);
        scene.check_same();
    }
}

#[test]
fn a_slave_that_is_removed_and_takes_part_is_a_slave_again() {
    let etcd = EtcdCluster::start(1);
    let scene = Scene::start(&Otp::newest(), &etcd, Kept::Memory);
    let before = primary(&scene.beam);
    let slave = format!("{{:kv, :\"{}\"}}", scene.node((before + 1) % 3).name());
    scene.beam.check(&format!("GenServer.call({{:global, :kv}}, {{:remove_slave, {slave}}})"), ":ok");
    scene.node(before).wait_for_log(&["these take part in the election, and are its slaves again"]);
    scene.wait_until_counted(2);
    scene.beam.check("GenServer.call({:global, :kv}, {:put, 1, 2, confirm: 2})", ":ok");
    scene.check_same();
}
