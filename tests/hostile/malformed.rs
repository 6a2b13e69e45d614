//! After the cookie is proved: what is malformed.

use std::io::Write;

use kvnode::distribution::control::op;
use kvnode::etf::{Pid, encode};

use crate::scene::{STORE, Scene, memory};
use crate::support::{Scripted, binary, term, term_with};

#[test]
fn frames_that_are_none_end_that_connection_alone() {
    let mut scene = Scene::start("");
    let length = |length: u32| length.to_be_bytes().to_vec();
    let fragment = |number: u64| {
        let head = [&[131, 69][..], &7_u64.to_be_bytes(), &number.to_be_bytes(), &[0]].concat();
        [length(head.len() as u32), head].concat()
    };
    let bad = [
        // A length that never comes to be: the bytes behind it are no frame's.
        [length(u32::MAX), vec![0; 8]].concat(),
        [length(8), vec![0; 8]].concat(),
        [length(3), vec![131, 68, 9]].concat(),
        [length(2), vec![131, 70]].concat(),
        [length(19), vec![131, 70], vec![7; 17]].concat(),
        fragment(0),
        fragment(u64::MAX),
    ];
    for (number, bytes) in bad.into_iter().enumerate() {
        let mut peer = scene.peer("bad@h");
        let _gone = peer.send(&bytes);
        if number == 0 || number == 6 {
            // Nothing is wrong until bytes are: a claim takes no memory, and the peer may still send.
            drop(peer);
            scene.all_is_well(0);
        } else {
            scene.must_end(peer, 0);
        }
    }
}

#[test]
fn a_frame_over_the_bound_takes_no_memory_and_must_say_what_it_is() {
    let mut scene = Scene::start("--frame-bytes-max 1MiB");
    let mut peer = scene.peer("bad@h");
    let dropped = |sent: &[u8], peer: &mut Scripted| {
        let sent = [&(200_u32 << 20).to_be_bytes()[..], sent].concat();
        assert!(peer.send(&sent), "it is open");
        let part = vec![7; 1 << 20];
        let mut left = (200 << 20) + 4 - sent.len();
        while left > 0 {
            let len = left.min(part.len());
            if !peer.send(&part[..len]) {
                return;
            }
            left -= len;
        }
    };
    let control = peer.control(op::REG_SEND, "#PID<0.90.1>, :\"\", KeyValueStore", &[]);
    // {:"$gen_cast", and no more.
    let cast = [&[104, 2], &term(":\"$gen_cast\"")[..]].concat();
    dropped(&[&[131, 68, 0][..], &control, &cast].concat(), &mut peer);
    scene.kv.wait_for_log(&["bad@h", "a cast or other message", "209715200 bytes", "--frame-bytes-max"]);
    peer.use_the_store();
    scene.all_is_well(0);
    // Its beginning says nothing.
    dropped(&[131, 68, 0], &mut peer);
    scene.must_end(peer, 0);
    scene.kv.wait_for_log(&["bad@h", "its beginning says nothing"]);
}

#[test]
fn fragments_without_bytes_and_without_end_are_bounded() {
    let mut scene = Scene::start("");
    let mut peer = scene.peer("bad@h");
    let mut bytes = Vec::new();
    for sequence in 0..200_000_u64 {
        let head = [&[131, 69][..], &sequence.to_be_bytes(), &2_u64.to_be_bytes(), &[0]].concat();
        bytes.extend((head.len() as u32).to_be_bytes());
        bytes.extend(head);
    }
    let _gone = peer.send(&bytes);
    scene.must_end(peer, 0);
}

#[test]
fn control_messages_that_are_none_are_skipped_or_end_the_connection() {
    let mut scene = Scene::start("");
    let good = &scene.good;
    let control = |operation, rest: &str| good.control(operation, rest, &[]);
    let altact = |rest: &str| control(op::ALTACT_SIG_SEND, rest);
    let too_large = [&[110, 255, 1][..], &[255; 255]].concat();
    // A tuple of 255 of which 4 are there.
    let mut of_255 = altact("8, #PID<0.90.1>, KeyValueStore");
    of_255[1] = 255;
    let bad = [
        term("{}"),
        term("{:send}"),
        term(&format!("{{{}}}", op::SEND)),
        control(op::SEND, ":\"\", :\"no pid\""),
        control(op::REG_SEND, "#PID<0.90.1>, :\"\", 7"),
        control(op::MONITOR_P, "#PID<0.90.1>, KeyValueStore, :\"no reference\""),
        control(op::LINK, "#PID<0.90.1>"),
        control(op::SPAWN_REQUEST, "[], [], [], [], []"),
        // ALTACT_SIG_SEND: of the wrong size, of flags that are none, of flags that contradict the rest.
        term(&format!("{{{}}}", op::ALTACT_SIG_SEND)),
        altact("0, #PID<0.90.1>"),
        altact(":flags, #PID<0.90.1>, #PID<0.90.1>"),
        altact("-1, #PID<0.90.1>, #PID<0.90.1>"),
        good.control(op::ALTACT_SIG_SEND, "$1, #PID<0.90.1>, #PID<0.90.1>", &[&too_large]),
        altact("0, #PID<0.90.1>, KeyValueStore"),
        altact("4, #PID<0.90.1>, #PID<0.90.1>"),
        altact("8, #PID<0.90.1>, #PID<0.90.1>"),
        altact("8, #PID<0.90.1>, \"no name\""),
        altact("16, #PID<0.90.1>, KeyValueStore"),
        altact(&format!("{}, #PID<0.90.1>, KeyValueStore", 4 | 8)),
        altact(&format!("{}, #PID<0.90.1>, KeyValueStore", 2 | 8)),
        of_255,
        // The flags of an exit signal, and no reason.
        altact(&format!("{}, #PID<0.90.1>, KeyValueStore", 8 | 16)),
        vec![104, 255],
        vec![105, 255, 255, 255, 255],
        vec![],
        vec![77; 64],
        [&[104, 1][..], &[110, 255, 0], &[255; 255]].concat(),
    ];
    for control in bad {
        let mut peer = scene.peer("bad@h");
        let frames = [peer.frame(&control, &[]), peer.call_frame(STORE, 1, "{:get, :good}")].concat();
        let _gone = peer.send(&frames);
        // One or the other: it would wait for ever for neither.
        let answer = peer.next_frame();
        println!("{control:?}: {}", if answer.is_some() { "skipped" } else { "ended" });
        scene.all_is_well(0);
    }
    let mut peer = scene.peer("odd@h");
    for operation in [0, 9, 10, 99, 255, 65_536, u64::MAX] {
        let signal = peer.signal(operation, "[]", &[]);
        assert!(peer.send(&signal));
    }
    peer.use_the_store();
    // Bits that mean nothing yet, and elements more: the signal is what it would be without them.
    for (number, flags) in [8, 8 | 0xe0, 9].into_iter().enumerate() {
        let number = 1_000 + number as u32;
        let flags = [&[110, 40, 0, flags][..], &[255; 39]].concat();
        let control = peer.control(op::ALTACT_SIG_SEND, "$1, #PID<0.90.1>, KeyValueStore, [], []", &[&flags]);
        let frame = peer.frame(&control, &peer.gen_call(&peer.pid(), number, "{:get, :good}"));
        assert!(peer.send(&frame));
        peer.answer(number);
    }
    scene.all_is_well(0);
    scene.kv.wait_for_log(&["unknown control message", "odd@h"]);
}

#[test]
fn signals_in_the_name_of_another_node_end_the_connection() {
    let mut scene = Scene::start("");
    let other = Pid { node: "good@h".into(), id: 1, serial: 0, creation: 77 };
    let spawn = "#Reference<0.3.2.1>, $1, $1, {:erlang, :node, 0}, []";
    for control in [
        scene.good.control(op::MONITOR_P, "$1, KeyValueStore, #Reference<0.3.2.1>", &[&other]),
        scene.good.control(op::SPAWN_REQUEST, spawn, &[&other]),
    ] {
        let mut peer = scene.peer("bad@h");
        let frame = peer.frame(&control, &[106]);
        let _gone = peer.send(&frame);
        scene.must_end(peer, 0);
    }
}

#[test]
fn terms_that_are_none_end_the_connection_and_take_no_memory() {
    let mut scene = Scene::start("");
    let deep =
        |head: &[u8], tail: &[u8]| [head.repeat(10_000_000), vec![106], tail.repeat(10_000_000)].concat();
    let claim = u32::MAX.to_be_bytes();
    let bad: Vec<(&str, Vec<u8>)> = vec![
        ("a tuple of 2^32-1", [&[105][..], &claim].concat()),
        ("a list of 2^32-1", [&[108][..], &claim].concat()),
        ("a map of 2^32-1", [&[116][..], &claim].concat()),
        ("a binary of 2^32-1", [&[109][..], &claim].concat()),
        ("a big integer of 2^32-1", [&[111][..], &claim, &[0]].concat()),
        ("an atom of 256 characters", [&[118, 1, 0][..], &[b'a'; 256]].concat()),
        ("an atom that is no UTF-8", vec![119, 2, 0xc3, 0x28]),
        ("an atom of a cache", vec![82, 0]),
        ("a list 10^7 deep without an end", deep(&[108, 0, 0, 0, 1], &[])),
        ("a tag that is none", vec![1]),
        ("a bomb", bomb(64 << 20, 0)),
        ("a bomb that claims less", bomb(64 << 20, 100)),
        ("nothing", vec![]),
    ];
    for (what, term) in bad {
        let mut peer = scene.peer("bad@h");
        let request = [&[104, 3, 119, 3][..], b"put", &[97, 1], &term].concat();
        let request = if what.contains("bomb") { term } else { peer.gen_call(&peer.pid(), 1, &request) };
        let frame = peer.reg_send(STORE, &request);
        let data = frame.len() as u64 * 4;
        let _gone = peer.send(&frame);
        peer.wait_for_end();
        println!("{what}: {} MiB", memory(&scene.kv, "VmHWM") >> 20);
        scene.all_is_well(data);
    }
}

/// A compressed binary of zeros that claims this size; 0: the right one.
fn bomb(size: usize, claimed: u32) -> Vec<u8> {
    let term = binary(&vec![0; size]);
    let claimed = if claimed == 0 { term.len() as u32 } else { claimed };
    let mut zlib = flate2::write::ZlibEncoder::new(
        [&[80][..], &claimed.to_be_bytes()].concat(),
        flate2::Compression::best(),
    );
    zlib.write_all(&term).expect("memory");
    zlib.finish().expect("memory")
}

#[test]
fn a_message_cut_at_any_byte_ends_the_connection() {
    let mut scene = Scene::start("");
    let whole = scene.good.call_frame(STORE, 1, "{:put, [:é | \"k\"], %{1.5 => -70_000}}");
    for len in 5..whole.len() {
        let mut peer = scene.peer("bad@h");
        let cut = [&(len as u32 - 4).to_be_bytes()[..], &whole[4..len]].concat();
        let _gone = peer.send(&cut);
        peer.wait_for_end();
    }
    scene.all_is_well(0);
}

#[test]
fn duplicate_map_keys_end_the_call_and_depth_is_served() {
    let mut scene = Scene::start("");
    let mut peer = scene.peer("deep@h");
    // %{1 => 1, 1 => 2}
    let twice = encode(|w| _ = w.map(2).integer(1).integer(1).integer(1).integer(2));
    let frame = peer.call_frame(STORE, 500, term_with("{:put, :k, $1}", &[&twice]));
    assert!(peer.send(&frame));
    let deep = |depth: usize| [[104, 1].repeat(depth), vec![106]].concat();
    for depth in [1_000, 1_000_000] {
        let value = deep(depth);
        let request = [&[104, 3, 119, 3][..], b"put", &[97, 1], &value].concat();
        let number = depth as u32;
        let frame = peer.call_frame(STORE, number, &request);
        assert!(peer.send(&frame));
        assert_eq!(peer.answer(number), term(":ok"));
        assert_eq!(peer.call("{:get, 1}"), value);
        // The same as a key, which is looked at from all sides.
        let as_key = [&[104, 2, 119, 3][..], b"get", &value].concat();
        let frame = peer.call_frame(STORE, number + 1, &as_key);
        assert!(peer.send(&frame));
        peer.answer(number + 1);
    }
    scene.all_is_well(8 << 20);
}
