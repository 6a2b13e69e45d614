//! Spawn requests, `:erpc` and `rex`: every function, with every argument.

use kvnode::distribution::control::op;
use kvnode::etf::{Pid, TermView, TermWriter, encode};
use kvnode::process::{Effect, PeerError};

use crate::cluster::{
    atom, caller, cluster, cluster_with_functions, erpc, frame, gen_call, message, payload_of, raw,
    reference, spawn_request, tag_ref, to_name,
};

#[test]
fn an_unknown_function_is_undef_in_the_shape_of_erpc() {
    let mut cluster = cluster();
    let command = encode(|w| {
        w.binary(b"ls");
    });
    let answers = cluster.say(&erpc("os", "cmd", std::slice::from_ref(&command)));
    let [reply, exit] = answers.as_slice() else { panic!("{answers:?}") };
    assert!(reply.starts_with(&[131, 104, 5, 97, 31]), "a SPAWN_REPLY comes first: {reply:?}");
    let expected = encode(|w| {
        w.tuple(4).reference(&reference(9)).atom("error").atom("undef");
        w.list(1).tuple(4).atom("os").atom("cmd").list(1);
        raw(w, &command);
        w.nil().nil().nil();
    });
    assert_eq!(payload_of(exit), expected);
}

#[test]
fn a_spawn_of_anything_is_replied_to_and_its_exit_told_to_link_and_monitor() {
    let mut cluster = cluster();
    let answers = cluster.say(&spawn_request(("erlang", "halt", 0), &["link", "monitor"], vec![106]));
    assert_eq!(answers.len(), 3, "reply, exit, monitor exit");
    let [undef, _] =
        TermView::parse(payload_of(&answers[1])).expect("a reason").as_tuple::<2>().expect("{undef, stack}");
    assert!(undef.is_atom("undef"));
    assert_eq!(payload_of(&answers[1]), payload_of(&answers[2]));
    assert_eq!(cluster.say(&spawn_request(("erlang", "halt", 0), &[], vec![106])).len(), 1);
}

#[test]
fn global_names_of_ours_are_told_to_nodes_that_ask_here() {
    let mut cluster = cluster();
    for (name, expected) in [("kv_global", true), ("kv", false)] {
        let answers = cluster.say(&erpc("global", "whereis_name", &[atom(name)]));
        let [_, kind, value] =
            TermView::parse(payload_of(&answers[1])).expect("a reason").as_tuple::<3>().expect("3 parts");
        assert!(kind.is_atom("return"));
        assert_eq!(value.as_pid().is_some(), expected, "{name}: {value:?}");
        assert_eq!(value.is_atom("undefined"), !expected, "{name}: {value:?}");
    }
}

#[test]
fn a_conflict_over_a_global_name_has_one_winner_whichever_way_it_is_asked() {
    let (ours, theirs) = (cluster().store.pid.clone(), Pid { node: "z@h".into(), ..caller() });
    let encoded = |pid: &Pid| {
        encode(|w| {
            w.pid(pid);
        })
    };
    for pids in [[&ours, &theirs], [&theirs, &ours]] {
        let mut cluster = cluster();
        let arguments = [atom("method"), atom("kv_global"), encoded(pids[0]), encoded(pids[1])];
        let answers = cluster.say(&erpc("global", "resolve_it", &arguments));
        let [_, _, winner] =
            TermView::parse(payload_of(&answers[1])).expect("a reason").as_tuple::<3>().expect("3 parts");
        assert_eq!(winner.as_pid().map(Pid::from), Some(ours.clone()));
        assert!(matches!(cluster.later.as_slice(), [Effect::Send { node, .. }] if **node == *"z@h"));
    }
}

#[test]
fn a_c_node_calls_rex_and_is_answered_at_its_pid() {
    let mut cluster = cluster();
    let request = message(to_name("rex"), |w| {
        w.tuple(2).pid(&caller()).tuple(5).atom("call").atom("erlang").atom("node").nil().atom("user");
    });
    let expected = message(
        |w| {
            w.tuple(3).unsigned(op::SEND).atom("").pid(&caller());
        },
        |w| {
            w.tuple(2).atom("rex").atom("k@h");
        },
    );
    assert_eq!(cluster.say(&request), [expected]);
}

/// Terms of every kind, none of which is what a function wants.
fn oddities() -> Vec<Vec<u8>> {
    vec![
        encode(|w| _ = w.nil()),
        encode(|w| _ = w.atom("")),
        encode(|w| _ = w.atom("kv")),
        encode(|w| _ = w.integer(-1)),
        encode(|w| _ = w.unsigned(u64::MAX)),
        // A float, and a string of small integers.
        encode(|w| raw(w, &[70, 0x7f, 0xef, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff])),
        encode(|w| raw(w, &[107, 0, 2, 0, 255])),
        encode(|w| _ = w.binary(b"\xff\xfe")),
        encode(|w| _ = w.tuple(0)),
        encode(|w| _ = w.tuple(2).atom("global").integer(1)),
        encode(|w| _ = w.tuple(2).atom("kv").atom("not_a_node")),
        encode(|w| _ = w.map(1).map(0).map(0)),
        encode(|w| _ = w.pid(&caller())),
        encode(|w| _ = w.pid(&Pid { node: "k@h".into(), ..caller() })),
        encode(|w| _ = w.reference(&reference(4))),
        // An improper list, a list of options, and one of lists.
        encode(|w| _ = w.list(1).atom("a").atom("b")),
        encode(|w| _ = w.list(1).tuple(2).atom("name").integer(3).nil()),
        encode(|w| {
            (0..200).for_each(|_| _ = w.list(1));
            (0..201).for_each(|_| _ = w.nil());
        }),
        // &Mod.fun/255
        encode(|w| raw(w, &[113, 119, 1, b'a', 119, 1, b'b', 97, 255])),
    ]
}

/// Every function that is served there; each takes fewer arguments than four.
const SERVED: &[(&str, &[&str])] = &[
    (
        "erlang",
        &[
            "apply",
            "node",
            "is_alive",
            "whereis",
            "is_process_alive",
            "processes",
            "registered",
            "process_info",
        ],
    ),
    ("Elixir.Process", &["whereis", "alive?", "list", "registered", "info"]),
    ("Elixir.Node", &["self", "alive?", "ping"]),
    ("Elixir.GenServer", &["call", "cast", "whereis"]),
    ("gen_server", &["call", "cast"]),
    ("net_adm", &["ping"]),
    ("global", &["whereis_name", "registered_names", "resolve_it"]),
    ("Elixir.KeyValueStore", &["put", "get", "delete", "add_slave"]),
    ("Elixir.KeyValueStoreReplicated", &["put", "get", "delete", "add_slave"]),
    ("Elixir.KeyValueStoreDistributed", &["put", "get", "delete", "add_slave", "start_link"]),
];

#[test]
fn no_argument_of_a_function_panics_or_goes_unanswered() {
    for (module, functions) in SERVED {
        for function in *functions {
            let mut cluster = cluster_with_functions();
            for arity in 0..=4 {
                for odd in oddities() {
                    let arguments = vec![odd; arity];
                    let answers = cluster.say(&erpc(module, function, &arguments));
                    let reply = answers.first().expect("a spawn request is replied to");
                    assert!(
                        reply.starts_with(&[131, 104, 5, 97, 31]),
                        "{module}:{function}/{arity}: {reply:?}"
                    );
                    // By now, or once a server has answered.
                    assert!(answers.len() <= 2, "{module}:{function}/{arity}: {answers:?}");
                }
            }
            assert_eq!(cluster.registry.by_name("kv").map(|(_, kv)| kv.id), Some(cluster.store.id));
            cluster.put("still", "served");
        }
    }
}

#[test]
fn a_spawn_request_of_any_shape_costs_nobody_but_the_one_who_asks() {
    let odd = oddities();
    let mut cluster = cluster_with_functions();
    // The parts of erpc:execute_call/4 and execute_cast/3, each of them anything, and too few and too many of them.
    for function in ["execute_call", "execute_cast", "execute_anything"] {
        for part in 0..4 {
            for odd in &odd {
                let parts: [&[u8]; 4] =
                    [&encode(|w| _ = w.reference(&reference(9))), &atom("erlang"), &atom("node"), &[106]];
                for len in 0..=6 {
                    let arguments = encode(|w| {
                        w.list(len);
                        for at in 0..len {
                            raw(w, if at == part { odd } else { parts[at % 4] });
                        }
                        w.nil();
                    });
                    let request = spawn_request(("erpc", function, len as i64), &["monitor"], arguments);
                    assert_eq!(cluster.say(&request).len(), 2, "{function}/{len}");
                }
            }
        }
    }
    for odd in &odd {
        // Arguments that are no list, and options that are none.
        assert!(
            !cluster.say(&spawn_request(("erlang", "node", 0), &["link", "monitor"], odd.clone())).is_empty()
        );
        let request = frame(
            |w| {
                w.tuple(6).unsigned(op::SPAWN_REQUEST).reference(&reference(1)).pid(&caller()).pid(&caller());
                w.tuple(3).atom("erlang").atom("node").integer(0);
                raw(w, odd);
            },
            Some(vec![106]),
        );
        assert!(!cluster.say(&request).is_empty());
        for part in 0..6 {
            // What is no spawn request ends the connection, or is answered; nothing of it is left.
            let request = frame(
                |w| {
                    w.tuple(6).unsigned(op::SPAWN_REQUEST);
                    let reference = encode(|w| _ = w.reference(&reference(1)));
                    let (pid, mfa) = (
                        encode(|w| _ = w.pid(&caller())),
                        encode(|w| _ = w.tuple(3).atom("erlang").atom("node").integer(0)),
                    );
                    let parts: [&[u8]; 5] = [&reference, &pid, &pid, &mfa, &[106]];
                    parts
                        .iter()
                        .enumerate()
                        .for_each(|(at, good)| raw(w, if at == part { odd } else { good }));
                },
                Some(vec![106]),
            );
            let _either = cluster.try_say(&request);
        }
    }
    let foreign = frame(
        |w| {
            let foreign = Pid { node: "other@h".into(), ..caller() };
            w.tuple(6).unsigned(op::SPAWN_REQUEST).reference(&reference(1)).pid(&foreign).pid(&caller());
            w.tuple(3).atom("erlang").atom("node").integer(0).nil();
        },
        Some(vec![106]),
    );
    assert_eq!(cluster.try_say(&foreign), Err(PeerError::ForeignSender));
    assert_eq!(cluster.peer.watches(), 0);
    cluster.put("still", "served");
}

#[test]
fn rex_takes_messages_of_any_shape() {
    let odd = oddities();
    let mut cluster = cluster_with_functions();
    for odd in &odd {
        for part in 0..7 {
            // {Pid, {call, M, F, A, GroupLeader}} with something else in the place of one part, or of the whole.
            let pid = encode(|w| _ = w.pid(&caller()));
            let parts: [&[u8]; 6] =
                [&pid, &atom("call"), &atom("erlang"), &atom("node"), &[106], &atom("user")];
            let part_at = |at: usize| if at == part { odd } else { parts[at] };
            let request = |w: &mut TermWriter<'_>| {
                w.tuple(5);
                (1..6).for_each(|at| raw(w, part_at(at)));
            };
            let info = message(to_name("rex"), |w| {
                raw(w.tuple(2), part_at(0));
                if part == 6 { raw(w, odd) } else { request(w) }
            });
            assert!(cluster.say(&info).len() <= 1);
            let call = message(to_name("rex"), |w| gen_call(w, &caller(), tag_ref, request));
            assert!(cluster.say(&call).len() <= 1);
            let cast = message(to_name("rex"), |w| request(w.tuple(2).atom("$gen_cast")));
            assert!(cluster.say(&cast).is_empty());
        }
        for kind in ["sbcast", "send"] {
            let passed_on = message(to_name("rex"), |w| {
                raw(w.tuple(2).pid(&caller()).tuple(3).atom(kind), odd);
                raw(w, odd);
            });
            cluster.say(&passed_on);
        }
        assert!(cluster.say(&message(to_name("rex"), |w| raw(w, odd))).is_empty());
    }
    cluster.put("still", "served");
}
