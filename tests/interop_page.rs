//! The page in a real browser, of a node with BEAM peers and slaves in every state.
//!
//! `KVNODE_SCREENSHOTS=folder` keeps what was drawn, for eyes. Without a Chromium the test says so and does nothing;
//! `KVNODE_REQUIRE_CHROMIUM` makes that a failure.

#![cfg(feature = "program")]

mod support;

use std::path::{Path, PathBuf};
use std::process::Command;

use support::http::{address, get};
use support::{BeamNode, BeamOptions, Epmd, KvNode, Otp, wait_until};

fn chromium() -> Option<&'static str> {
    let found = ["chromium", "chromium-browser", "google-chrome"].into_iter().find(|program| {
        Command::new(program).arg("--version").output().is_ok_and(|output| output.status.success())
    });
    assert!(found.is_some() || std::env::var_os("KVNODE_REQUIRE_CHROMIUM").is_none(), "there is no Chromium");
    found
}

/// Runs the browser on a page: what it prints, and what it says of errors.
fn browse(program: &str, profile: &Path, url: &str, args: &[String]) -> (String, String) {
    let mut command = Command::new(program);
    command.args([
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-dev-shm-usage",
        "--hide-scrollbars",
    ]);
    command.args(["--no-first-run", "--enable-logging=stderr", "--virtual-time-budget=6000"]).args(args);
    command.arg(format!("--user-data-dir={}", profile.display())).arg(url).env("HOME", profile);
    let output = command.output().expect("it can be run");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (text(&output.stdout), text(&output.stderr))
}

#[test]
fn a_browser_draws_the_cluster_in_both_themes_and_all_sizes() {
    let Some(program) = chromium() else {
        eprintln!("skipped: there is no Chromium");
        return;
    };
    let (otp, epmd) = (Otp::newest(), Epmd::start());
    let primary = KvNode::start(
        &epmd,
        "mafalda",
        "--http 0 --store global:mafalda,local:KeyValueStore --global libertad --global paz --slave global:felipe --slave global:susanita \
         --slave global:manolito --slave global:miguelito --connect guille@localhost",
    );
    let at = address(&primary);
    let felipe = BeamNode::start(&otp, &epmd, "felipe");
    felipe.run("{:ok, _} = KeyValueStoreDistributed.start_link(:felipe)");
    felipe.ping(primary.name());
    let susanita = BeamNode::start(&otp, &epmd, BeamOptions::new("susanita").hidden());
    susanita.ping(primary.name());
    let manolito = KvNode::start(&epmd, "manolito", &format!("--connect {}", felipe.name()));
    // A name that has to be cut, as commands have it.
    let _long = KvNode::start(&epmd, "kvnode-4ebde490b0223ad", &format!("--connect {}", primary.name()));
    let gone = BeamNode::start(&otp, &epmd, "miguelito");
    gone.run("{:ok, _} = KeyValueStoreDistributed.start_link(:miguelito)");
    gone.ping(primary.name());
    let states = |wanted: &[&str]| {
        let status: serde_json::Value =
            serde_json::from_str(&get(at, "/status.json").body).expect("it is JSON");
        let slaves = status["stores"][0]["slaves"].as_array().expect("a list");
        slaves.iter().map(|slave| slave["state"].as_str().expect("a text")).eq(wanted.iter().copied())
    };
    wait_until("the slaves are found", || states(&["in_step", "seeking", "in_step", "in_step"]));
    gone.kill(&epmd);
    let quino = KvNode::start(&epmd, "quino", &format!("--slave global:paz --connect {}", primary.name()));
    let stands = |wanted: &str| {
        let status: serde_json::Value =
            serde_json::from_str(&get(at, "/status.json").body).expect("it is JSON");
        status["stores"][2]["primary_standing"]["state"] == wanted
    };
    wait_until("it is followed", || stands("following"));
    quino.kill(&epmd);
    wait_until("its loss is seen", || stands("gone"));
    wait_until("one is missed", || states(&["in_step", "seeking", "in_step", "gone"]));
    // Another one's slave.
    felipe.run("{:ok, _} = KeyValueStoreDistributed.start_link(:master); KeyValueStoreDistributed.add_slave(:libertad)");
    felipe.run("for n <- 1..20, do: KeyValueStoreDistributed.put(n, n)");
    // A watch, keys that end, and requests that are not done.
    felipe.run(
        "{:ok, _, _} = GenServer.call({:global, :mafalda}, {:watch, match: :seen})
         for n <- 1..40, do: :ok = GenServer.call({:global, :mafalda}, {:put, {:ends, n}, n, ttl: if(rem(n, 2) == 0, do: 1, else: 600_000)})
         for _ <- 1..3, do: {:error, {:conflict, _}} = GenServer.call({:global, :mafalda}, {:compare_and_put, :none, {:value, 1}, 2})
         {:error, {:failed, _}} = GenServer.call({:global, :mafalda}, {:transact, [present: :none], []})
         {:error, :not_an_integer} = GenServer.call({:global, :mafalda}, {:update_counter, :none, :one})
         {:error, {:unconfirmed, _, 9}} = GenServer.call({:global, :mafalda}, {:put, :seen, 1, confirm: 9})",
    );
    let _load = felipe.spawn(
        "until = System.monotonic_time(:millisecond) + 120_000
         call = &GenServer.call({:global, :mafalda}, &1)
         loop = fn loop, n ->
           if System.monotonic_time(:millisecond) < until do
             call.({:put, rem(n, 500), String.duplicate(\"x\", 100)})
             for _ <- 1..3, do: call.({:get, rem(n, 700)})
             if rem(n, 7) == 0, do: call.({:delete, rem(n, 500)})
             if rem(n, 50) == 0, do: Process.sleep(20)
             loop.(loop, n + 1)
           end
         end
         loop.(loop, 1)",
    );
    wait_until("there is something to plot", || {
        let status: serde_json::Value =
            serde_json::from_str(&get(at, "/status.json").body).expect("it is JSON");
        status["history"].as_array().is_some_and(|moments| moments.len() >= 12)
    });

    let folder = tempfile::tempdir().expect("a folder can be made");
    let kept = std::env::var_os("KVNODE_SCREENSHOTS").map_or_else(|| folder.path().to_owned(), PathBuf::from);
    let url = format!("http://{at}/");
    let (page, said) =
        browse(program, folder.path(), &url, &["--dump-dom".into(), "--window-size=1920,1080".into()]);
    assert!(!said.contains("CONSOLE"), "{said}");
    for part in [
        primary.name(),
        "felipe",
        "susanita",
        "manolito",
        "miguelito",
        "guille@localhost",
        "global:libertad",
        "in step",
        "gone, misses",
        "1 watch, 0 events/s",
        "20 keys with a deadline, 0 expired/s",
        "failed 0/s: unconfirmed 1",
        "refused 0/s: not_an_integer 1",
        "conflicts 0/s: conflict 3, guard_failed 1",
    ] {
        assert!(page.contains(part), "{part} is not in {page}");
    }
    assert!(page.contains("slave of felipe"), "who replicates to it is shown");
    assert!(page.contains("pill bad\">slave of quino, gone<"), "a lost primary is shown as lost: {page}");
    assert!(page.contains("data-drawn=") && !page.contains(">no answer<"), "{page}");
    assert!(page.matches("class=\"arrow ").count() >= 4, "each slave has an arrow, and so has the primary");
    let mut shots = Vec::new();
    for (theme, flag) in [
        ("light", "--blink-settings=preferredColorScheme=1"),
        ("dark", "--blink-settings=preferredColorScheme=0"),
    ] {
        for (width, height) in [(390, 844), (390, 2600), (1280, 800), (1920, 1080)] {
            let path = kept.join(format!("page-{theme}-{width}x{height}.png"));
            let args = [
                flag.to_owned(),
                format!("--screenshot={}", path.display()),
                format!("--window-size={width},{height}"),
            ];
            let (_, said) = browse(program, folder.path(), &url, &args);
            let image = std::fs::read(&path).unwrap_or_else(|error| panic!("{error}: {said}"));
            // PNG (second edition), 11.2.2: the head has width and height.
            let number = |at: usize| u32::from_be_bytes(image[at..at + 4].try_into().expect("four bytes"));
            assert_eq!((number(16), number(20)), (width, height));
            shots.push(image);
        }
    }
    assert_ne!(shots[0], shots[4], "the themes differ");
    drop(manolito);
}
