//! Spawn requests, `:erpc` and `rex`: every function, with every argument.

use kvnode::distribution::control::op;
use kvnode::etf::{Pid, TermView, encode};
use kvnode::process::{Effect, PeerError};

use crate::cluster::{TAG, cluster, cluster_with_functions, erpc, spawn_request};
use crate::conversation::{caller, control, frame, gen_call, payload_of, send, to_caller};
use crate::term::{Term, term, term_with};

/// What a call by `:erpc` has returned: its kind, and the value.
fn returned(answers: &[Vec<u8>]) -> [TermView<'_>; 2] {
    let reason = TermView::parse(payload_of(&answers[1])).expect("a reason");
    let [_, kind, value] = reason.as_tuple::<3>().expect("3 parts");
    [kind, value]
}

#[test]
fn an_unknown_function_is_undef_in_the_shape_of_erpc() {
    let mut cluster = cluster();
    let answers = cluster.say(&erpc("os", "cmd", "[\"ls\"]"));
    let [reply, exit] = answers.as_slice() else { panic!("{answers:?}") };
    assert!(reply.starts_with(&[131, 104, 5, 97, 31]), "a SPAWN_REPLY comes first: {reply:?}");
    let expected = term("{#Reference<0.3.2.9>, :error, :undef, [{:os, :cmd, [\"ls\"], []}]}");
    assert_eq!(payload_of(exit), expected);
}

#[test]
fn a_spawn_of_anything_is_replied_to_and_its_exit_told_to_link_and_monitor() {
    let mut cluster = cluster();
    let answers = cluster.say(&spawn_request("{:erlang, :halt, 0}", "[:link, :monitor]", "[]"));
    assert_eq!(answers.len(), 3, "reply, exit, monitor exit");
    let [undef, _] =
        TermView::parse(payload_of(&answers[1])).expect("a reason").as_tuple::<2>().expect("{undef, stack}");
    assert!(undef.is_atom("undef"));
    assert_eq!(payload_of(&answers[1]), payload_of(&answers[2]));
    assert_eq!(cluster.say(&spawn_request("{:erlang, :halt, 0}", "[]", "[]")).len(), 1);
}

#[test]
fn global_names_of_ours_are_told_to_nodes_that_ask_here() {
    let mut cluster = cluster();
    for (name, expected) in [("kv_global", true), ("kv", false)] {
        let answers = cluster.say(&erpc("global", "whereis_name", format!("[:{name}]")));
        let [kind, value] = returned(&answers);
        assert!(kind.is_atom("return"));
        assert_eq!(value.as_pid().is_some(), expected, "{name}: {value:?}");
        assert_eq!(value.is_atom("undefined"), !expected, "{name}: {value:?}");
    }
}

#[test]
fn a_conflict_over_a_global_name_has_one_winner_whichever_way_it_is_asked() {
    let (ours, theirs) = (cluster().store.pid.clone(), Pid { node: "z@h".into(), ..caller() });
    for pids in [[&ours, &theirs], [&theirs, &ours]] {
        let mut cluster = cluster();
        let arguments = term_with("[:method, :kv_global, $1, $2]", &[pids[0], pids[1]]);
        let answers = cluster.say(&erpc("global", "resolve_it", arguments));
        let [_, winner] = returned(&answers);
        assert_eq!(winner.as_pid().map(Pid::from), Some(ours.clone()));
        assert!(matches!(cluster.later.as_slice(), [Effect::Send { node, .. }] if **node == *"z@h"));
    }
}

#[test]
fn a_c_node_calls_rex_and_is_answered_at_its_pid() {
    let mut cluster = cluster();
    let request = send("rex", "{#PID<0.90.1>, {:call, :erlang, :node, [], :user}}");
    assert_eq!(cluster.say(&request), [to_caller("{:rex, :k@h}")]);
}

/// Terms of every kind, none of which is what a function wants.
fn oddities() -> Vec<Vec<u8>> {
    let nested = [[108, 0, 0, 0, 1].repeat(200), vec![106; 201]].concat();
    vec![
        term("[]"),
        term(":\"\""),
        term(":kv"),
        term("-1"),
        term(&u64::MAX.to_string()),
        // A float, and a string of small integers.
        term("1.7976931348623157e308"),
        vec![107, 0, 2, 0, 255],
        term("<<0xff, 0xfe>>"),
        term("{}"),
        term("{:global, 1}"),
        term("{:kv, :not_a_node}"),
        term("%{%{} => %{}}"),
        caller().encoded(),
        Pid { node: "k@h".into(), ..caller() }.encoded(),
        term("#Reference<0.3.2.4>"),
        // An improper list, a list of options, and one of lists.
        term("[:a | :b]"),
        term("[name: 3]"),
        nested,
        term("&:a.b/255"),
    ]
}

/// A list of encoded terms.
fn list<T: AsRef<[u8]>>(terms: &[T]) -> Vec<u8> {
    encode(|w| {
        w.list(terms.len());
        terms.iter().for_each(|term| _ = w.raw(term.as_ref()));
        w.nil();
    })
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
                    let answers = cluster.say(&erpc(module, function, list(&vec![odd; arity])));
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
            cluster.put(":still", "\"served\"");
        }
    }
}

#[test]
fn a_spawn_request_of_any_shape_costs_nobody_but_the_one_who_asks() {
    let odd = oddities();
    let mut cluster = cluster_with_functions();
    // The parts of erpc:execute_call/4 and execute_cast/3, each of them anything, and too few and too many of them.
    for function in ["execute_call", "execute_cast", "execute_anything"] {
        let parts = ["#Reference<0.3.2.9>", ":erlang", ":node", "[]"].map(term);
        for part in 0..4 {
            for odd in &odd {
                for len in 0..=6 {
                    let arguments: Vec<&[u8]> =
                        (0..len).map(|at| if at == part { &odd[..] } else { &parts[at % 4] }).collect();
                    let mfa = format!("{{:erpc, :{function}, {len}}}");
                    let request = spawn_request(mfa, "[:monitor]", list(&arguments));
                    assert_eq!(cluster.say(&request).len(), 2, "{function}/{len}");
                }
            }
        }
    }
    let good = ["#Reference<0.3.2.1>", "#PID<0.90.1>", "#PID<0.90.1>", "{:erlang, :node, 0}", "[]"].map(term);
    for odd in &odd {
        // Arguments that are no list, and options that are none.
        assert!(!cluster.say(&spawn_request("{:erlang, :node, 0}", "[:link, :monitor]", odd)).is_empty());
        assert!(!cluster.say(&spawn_request("{:erlang, :node, 0}", odd, "[]")).is_empty());
        for part in 0..6 {
            // What is no spawn request ends the connection, or is answered; nothing of it is left.
            let mut parts = good.clone();
            if let Some(part) = parts.get_mut(part) {
                part.clone_from(odd);
            }
            let [reference, pid, group_leader, mfa, options] = &parts;
            let parts: [&dyn Term; 5] = [reference, pid, group_leader, mfa, options];
            let request = frame(control(op::SPAWN_REQUEST, "$1, $2, $3, $4, $5", &parts), "[]");
            let _either = cluster.try_say(&request);
        }
    }
    let foreign = Pid { node: "other@h".into(), ..caller() };
    let rest = "#Reference<0.3.2.1>, $1, #PID<0.90.1>, {:erlang, :node, 0}, []";
    let foreign = frame(control(op::SPAWN_REQUEST, rest, &[&foreign]), "[]");
    assert_eq!(cluster.try_say(&foreign), Err(PeerError::ForeignSender));
    assert_eq!(cluster.peer.watches(), 0);
    cluster.put(":still", "\"served\"");
}

#[test]
fn rex_takes_messages_of_any_shape() {
    let mut cluster = cluster_with_functions();
    let good = ["#PID<0.90.1>", ":call", ":erlang", ":node", "[]", ":user"].map(term);
    for odd in &oddities() {
        for part in 0..7 {
            // {Pid, {call, M, F, A, GroupLeader}} with something else in the place of one part, or of the whole.
            let mut parts = good.clone();
            if let Some(part) = parts.get_mut(part) {
                part.clone_from(odd);
            }
            let [pid, call, module, function, arguments, group_leader] = &parts;
            let request =
                term_with("{$1, $2, $3, $4, $5}", &[call, module, function, arguments, group_leader]);
            let info = term_with("{$1, $2}", &[pid, if part == 6 { odd } else { &request }]);
            assert!(cluster.say(&send("rex", info)).len() <= 1);
            assert!(cluster.say(&send("rex", gen_call(TAG, &request))).len() <= 1);
            let cast = term_with("{:\"$gen_cast\", $1}", &[&request]);
            assert!(cluster.say(&send("rex", cast)).is_empty());
        }
        for kind in ["sbcast", "send"] {
            let passed_on = format!("{{#PID<0.90.1>, {{:{kind}, $1, $1}}}}");
            cluster.say(&send("rex", term_with(&passed_on, &[odd])));
        }
        assert!(cluster.say(&send("rex", odd)).is_empty());
    }
    cluster.put(":still", "\"served\"");
}
