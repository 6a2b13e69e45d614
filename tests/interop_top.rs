//! `kvnode top` in a real terminal, tmux's.

#![cfg(feature = "program")]
#![allow(clippy::print_stderr, reason = "the screen is shown when a test fails")]

mod support;

use std::process::{Command, Stdio};

use support::kvnode::program;
use support::{BeamNode, COOKIE, Epmd, KvNode, Otp, wait_until};

/// A terminal of 80 columns and 24 lines with a shell in it, and a tmux of its own.
struct Terminal {
    socket: String,
    home: tempfile::TempDir,
}

impl Terminal {
    fn open(epmd: &Epmd) -> Option<Self> {
        if !Command::new("tmux").arg("-V").output().is_ok_and(|output| output.status.success()) {
            assert!(std::env::var_os("KVNODE_REQUIRE_TMUX").is_none(), "there is no tmux");
            eprintln!("skipped: there is no tmux");
            return None;
        }
        let terminal = Self {
            socket: format!("kvnode-test-{}-{}", std::process::id(), epmd.port()),
            home: tempfile::tempdir().expect("a folder can be made"),
        };
        terminal.tmux(
            &[
                "-f",
                "/dev/null",
                "new-session",
                "-d",
                "-x",
                "80",
                "-y",
                "24",
                "env",
                "PS1=> ",
                "LC_ALL=C.UTF-8",
                "sh",
            ],
            Some(epmd),
        );
        Some(terminal)
    }

    fn tmux(&self, args: &[&str], epmd: Option<&Epmd>) -> String {
        let mut tmux = Command::new("tmux");
        tmux.args(["-u", "-L", &self.socket]).args(args).env("HOME", self.home.path()).stdin(Stdio::null());
        tmux.env_remove("TMUX").env_remove("NO_COLOR");
        if let Some(epmd) = epmd {
            tmux.env("ERL_EPMD_PORT", epmd.port().to_string());
        }
        let output = tmux.output().expect("it is there");
        assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).expect("it is text")
    }

    fn types(&self, keys: &[&str]) {
        self.tmux(&[&["send-keys"], keys].concat(), None);
    }

    fn screen(&self) -> String {
        self.tmux(&["capture-pane", "-p"], None)
    }

    #[track_caller]
    fn shows(&self, parts: &[&str]) -> String {
        let mut screen = String::new();
        wait_until(&format!("{parts:?} on the screen"), || {
            screen = self.screen();
            let all = parts.iter().all(|part| screen.contains(part));
            if !all && std::env::var_os("KVNODE_SHOW_SCREEN").is_some() {
                eprintln!("{screen}");
            }
            all
        });
        screen
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{}", self.screen());
        }
        let _ = Command::new("tmux")
            .args(["-L", &self.socket, "kill-server"])
            .env("HOME", self.home.path())
            .output();
    }
}

fn top(node: &str) -> String {
    format!("{} top --node {node} --cookie {COOKIE}; echo ended $?", program().display())
}

#[test]
fn top_shows_a_node_live_and_gives_the_terminal_back() {
    let epmd = Epmd::start();
    let Some(terminal) = Terminal::open(&epmd) else { return };
    let otp = Otp::newest();
    let node = KvNode::start(
        &epmd,
        "watched",
        "--slave global:slave --slave global:nobody --connect gone@localhost",
    );
    let beam = BeamNode::start(&otp, &epmd, "beam");
    beam.run("{:ok, _} = KeyValueStoreDistributed.start_link(:slave)");
    beam.ping(node.name());
    terminal.types(&["-l", &top(node.name())]);
    terminal.types(&["Enter"]);
    let screen = terminal.shows(&[
        node.name(),
        "ready",
        "global:watched",
        "primary",
        "{:global, :slave} at beam@",
        "in step",
        "{:global, :nobody}",
        "not found yet",
        "gone@localhost",
        "not connected",
        "last warnings",
        "q quits",
    ]);
    assert_eq!(screen.lines().count(), 24);
    beam.run("for n <- 1..300, do: GenServer.call({:global, :watched}, {:put, n, n})");
    beam.run(
        "{:error, _} = GenServer.call({:global, :watched}, {:compare_and_put, 1, :absent, 2})
         :ok = GenServer.call({:global, :watched}, {:put, 1, 1, ttl: 600_000})",
    );
    let screen = terminal.shows(&[
        "  300 ",
        "answers: half ",
        "1 key with a deadline, 0 expired/s",
        "conflicts 0/s: conflict 1",
    ]);
    assert!(!screen.contains("half in –"), "{screen}");
    if let Some(path) = std::env::var_os("KVNODE_TOP_SCREEN") {
        std::fs::write(path, terminal.tmux(&["capture-pane", "-p", "-e"], None)).expect("it can be written");
    }
    // A node that ends and comes back.
    let name = node.name().to_owned();
    node.kill(&epmd);
    terminal.shows(&["no answer"]);
    let node = KvNode::start(&epmd, "watched", "");
    terminal.shows(&["ready", "serving", "q quits"]);
    assert_eq!(node.name(), name);
    // A wider one.
    terminal.tmux(&["resize-window", "-x", "120", "-y", "40"], None);
    wait_until("it is drawn as wide", || terminal.screen().lines().any(|line| line.chars().count() > 110));
    terminal.types(&["q"]);
    let screen = terminal.shows(&["ended 0"]);
    assert!(!screen.contains("q quits"), "the screen of before is back: {screen}");
    // What is typed is seen again, and ends lines.
    terminal.types(&["-l", "echo typed $((1 + 1))"]);
    terminal.types(&["Enter"]);
    terminal.shows(&["echo typed $((1 + 1))\n", "typed 2"]);
    for key in ["C-c", "Escape"] {
        terminal.types(&["-l", &format!("clear; {}", top(node.name()))]);
        terminal.types(&["Enter"]);
        terminal.shows(&["q quits"]);
        terminal.types(&[key]);
        terminal.shows(&["ended 0"]);
    }
}

#[test]
fn top_tells_a_beam_from_a_kvnode_and_a_pipe_from_a_terminal() {
    let (otp, epmd) = (Otp::newest(), Epmd::start());
    let beam = BeamNode::start(&otp, &epmd, "nofigures");
    beam.run("{:ok, _} = KeyValueStoreDistributed.start_link(:master)");
    let node = KvNode::start(&epmd, "figures", "");
    let run = |args: &[&str]| {
        let mut command = Command::new(program());
        command.arg("top").args(args).args(["--cookie", COOKIE]).stdin(Stdio::null());
        let output = command.env("ERL_EPMD_PORT", epmd.port().to_string()).output().expect("it was built");
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        (output.status.code(), text(&output.stdout), text(&output.stderr))
    };
    let (code, _, stderr) = run(&["--node", beam.name(), "--json"]);
    assert!(code == Some(3) && stderr.contains("it is a BEAM"), "{stderr}");
    beam.check("KeyValueStoreDistributed.put(1, 2)", ":ok");
    let (code, _, stderr) = run(&["--node", node.name()]);
    assert!(code == Some(2) && stderr.contains("--json"), "{stderr}");
    let (code, stdout, stderr) = run(&["--node", node.name(), "--json"]);
    assert_eq!(code, Some(0), "{stderr}");
    let look: serde_json::Value = serde_json::from_str(&stdout).expect("it is JSON");
    assert_eq!((&look["node"], &look["stores"][0]["up"]), (&node.name().into(), &true.into()));
}
