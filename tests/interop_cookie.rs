//! A wrong cookie keeps a node out, in both directions, and both sides can read why.

#![cfg(feature = "program")]

mod support;

use support::{BeamNode, BeamOptions, Epmd, KvNode, at_host, on_every_otp};

const OTHER: &str = "another_secret_cookie";

#[test]
fn a_beam_with_another_cookie_is_refused() {
    on_every_otp(|otp| {
        let epmd = Epmd::start();
        let kv = KvNode::start(&epmd, "kv", "");
        let stranger = BeamNode::start(otp, &epmd, BeamOptions::new("stranger").cookie(OTHER));
        stranger.check(&format!("Node.ping(:\"{}\")", kv.name()), ":pang");
        kv.wait_for_log(&[stranger.name(), "cookie"]);
        let friend = BeamNode::start(otp, &epmd, "friend");
        friend.ping(kv.name());
        // Told the right cookie, the stranger is let in by the same node.
        stranger.run(&format!("Node.set_cookie(:\"{}\", :{})", kv.name(), support::COOKIE));
        stranger.check_soon(&format!("Node.ping(:\"{}\")", kv.name()), ":pong");
        says_no_cookie(kv);
    });
}

#[test]
fn kvnode_is_refused_by_a_beam_with_another_cookie_and_goes_on() {
    on_every_otp(|otp| {
        let epmd = Epmd::start();
        let stranger = BeamNode::start(otp, &epmd, BeamOptions::new("stranger").cookie(OTHER));
        let friend = BeamNode::start(otp, &epmd, "friend");
        let args = format!("--connect {} --connect {}", stranger.name(), friend.name());
        let kv = KvNode::start(&epmd, "kv", &args);
        kv.wait_for_log(&[stranger.name(), "cookie"]);
        friend.wait_for_global("kv");
        friend.check("GenServer.call({:global, :kv}, {:put, 1, 2})", ":ok");
        stranger.check("Node.list(:connected)", "[]");
        // It keeps trying: once the BEAM has the right cookie, the two are connected.
        stranger.run(&format!("Node.set_cookie(:{})", support::COOKIE));
        stranger.check_soon(&format!(":\"{}\" in Node.list(:connected)", kv.name()), "true");
        says_no_cookie(kv);
    });
}

#[test]
fn two_kvnodes_with_different_cookies_stay_apart() {
    let epmd = Epmd::start();
    let one = KvNode::start(&epmd, "one", "");
    let other = KvNode::start(&epmd, "other", &format!("--cookie {OTHER} --connect {}", at_host("one")));
    one.wait_for_log(&[other.name(), "cookie"]);
    other.wait_for_log(&[one.name(), "cookie"]);
    says_no_cookie(one);
    says_no_cookie(other);
}

#[test]
fn a_second_node_under_a_connected_name_takes_its_place_only_with_the_cookie() {
    on_every_otp(|otp| {
        let (epmd, elsewhere) = (Epmd::start(), Epmd::start());
        let kv = KvNode::start(&epmd, "kv", "");
        let first = BeamNode::start(otp, &epmd, "twin");
        first.ping(kv.name());
        first.wait_for_global("kv");
        first.run(&format!("Node.monitor(:\"{}\", true)", kv.name()));
        // An epmd of its own lets a node take the same name; told the port, it finds kvnode from there.
        let port = epmd.port_of("kv").expect("it is registered");
        let _found = elsewhere.register("kv", port);
        let imposter = BeamNode::start(otp, &elsewhere, BeamOptions::new("twin").cookie(OTHER));
        imposter.check(&format!("Node.ping(:\"{}\")", kv.name()), ":pang");
        first.check("receive do m -> m after 500 -> nil end", "nil");
        first.check("GenServer.call({:global, :kv}, {:put, 1, 2})", ":ok");
        // Proved, the newcomer is the node of that name now.
        imposter.run(&format!("Node.set_cookie(:{})", support::COOKIE));
        imposter.check_soon(&format!("Node.ping(:\"{}\")", kv.name()), ":pong");
        first.check(
            &format!("receive do m -> m == {{:nodedown, :\"{}\"}} after 20_000 -> nil end", kv.name()),
            "true",
        );
    });
}

/// Neither cookie stands anywhere in what a node printed.
#[track_caller]
fn says_no_cookie(kv: KvNode) {
    let name = kv.name().to_owned();
    let ended = kv.terminate();
    for text in [&ended.stdout, &ended.stderr] {
        assert!(!text.contains(OTHER) && !text.contains(support::COOKIE), "{name} printed a cookie:\n{text}");
    }
}
