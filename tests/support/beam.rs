//! A real BEAM node that evaluates what a test asks for.

use std::collections::HashMap;
use std::fmt;
use std::io::Write;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use super::epmd::Epmd;
use super::netns::{Host, Seat};
use super::otp::Otp;
use super::output::Output;
use super::wait::{PATIENCE, wait_until};

/// What stands before an answer of the driver, in tests/support/driver.ex.
const MARK: &str = "\u{1}kv ";

/// How long an evaluation may take.
const EVAL_PATIENCE: Duration = Duration::from_secs(90);

/// How a node is started.
#[derive(Clone, Debug)]
pub struct BeamOptions {
    name: String,
    cookie: String,
    erl: Vec<String>,
    hidden: bool,
    seat: Option<Seat>,
    long: Option<String>,
    folder: Option<PathBuf>,
}

impl BeamOptions {
    /// `--sname name`, with the cookie of all tests.
    pub fn new(name: &str) -> Self {
        let cookie = super::COOKIE.to_owned();
        Self {
            name: name.to_owned(),
            cookie,
            erl: Vec::new(),
            hidden: false,
            seat: None,
            long: None,
            folder: None,
        }
    }

    /// Another cookie.
    pub fn cookie(mut self, cookie: &str) -> Self {
        cookie.clone_into(&mut self.cookie);
        self
    }

    /// `--hidden`.
    pub fn hidden(mut self) -> Self {
        self.hidden = true;
        self
    }

    /// On another host, by the long name `name@ADDRESS`. The epmd to give then is its network's.
    pub fn on(self, host: &Host) -> Self {
        self.at(host.seat())
    }

    /// The same, with the name that the seat's host has.
    pub fn at(mut self, seat: &Seat) -> Self {
        self.seat = Some(seat.clone());
        self
    }

    /// By this long name, `--name`.
    pub fn named(mut self, full: &str) -> Self {
        self.long = Some(full.to_owned());
        self
    }

    /// `--name name@ADDRESS`, an address of this machine that it listens at alone, without epmd, at the port of all nodes.
    pub fn without_epmd(self, address: Ipv4Addr, port: u16) -> Self {
        let full = format!("{}@{address}", self.name);
        let [a, b, c, d] = address.octets();
        self.named(&full)
            .erl(&format!("-erl_epmd_port {port} -kernel inet_dist_use_interface {{{a},{b},{c},{d}}}"))
    }

    /// Runs in a folder of [`Otp::scratch`] instead of this one.
    pub fn within(mut self, folder: &Path) -> Self {
        self.folder = Some(folder.to_owned());
        self
    }

    /// More for `erl`, as `-kernel net_ticktime 8`.
    pub fn erl(mut self, args: &str) -> Self {
        self.erl.push(args.to_owned());
        self
    }
}

impl From<&str> for BeamOptions {
    fn from(name: &str) -> Self {
        Self::new(name)
    }
}

/// A running node. Dropping it kills it.
pub struct BeamNode {
    label: String,
    name: String,
    child: Child,
    stdin: Mutex<ChildStdin>,
    stdout: Output,
    stderr: Output,
    answers: Answers,
    next_id: AtomicU64,
    // HOME, until the node is gone.
    _home: tempfile::TempDir,
}

type Answers = Arc<Mutex<HashMap<u64, Sender<Answer>>>>;
type Answer = Result<String, EvalError>;

/// Why an evaluation has no value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EvalError {
    /// The code raised, threw or exited.
    Failed {
        /// `error`, `throw` or `exit`.
        kind: String,
        /// The reason as `inspect` shows it.
        reason: String,
        /// The whole of it, as Elixir words it.
        text: String,
    },
    /// It took too long.
    Timeout,
    /// The node is gone.
    NodeDown,
}

impl EvalError {
    /// The exit's reason as `inspect` shows it.
    #[track_caller]
    pub fn exit_reason(&self) -> &str {
        match self {
            Self::Failed { kind, reason, .. } if kind == "exit" => reason,
            other => panic!("not an exit: {other}"),
        }
    }
}

impl fmt::Display for EvalError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Failed { text, .. } => f.write_str(text),
            Self::Timeout => write!(f, "no answer for {EVAL_PATIENCE:?}"),
            Self::NodeDown => f.write_str("the node is gone"),
        }
    }
}

/// An evaluation that runs.
pub struct Pending<'a> {
    node: &'a BeamNode,
    answer: Receiver<Answer>,
}

impl Pending<'_> {
    /// Waits for its end.
    ///
    /// # Errors
    /// As [`BeamNode::eval`].
    pub fn outcome(self) -> Answer {
        self.answer.recv_timeout(EVAL_PATIENCE).unwrap_or_else(|error| match error {
            RecvTimeoutError::Timeout => Err(EvalError::Timeout),
            RecvTimeoutError::Disconnected => Err(EvalError::NodeDown),
        })
    }

    /// Waits for its value.
    #[track_caller]
    pub fn value(self) -> String {
        let node = self.node;
        self.outcome().unwrap_or_else(|error| panic!("on {}: {error}", node.name))
    }
}

impl BeamNode {
    /// Starts a node of this version, with the modules of `tests/elixir` loaded, and waits until it is up.
    #[track_caller]
    pub fn start(otp: &Otp, epmd: &Epmd, options: impl Into<BeamOptions>) -> Self {
        let options = options.into();
        let home = otp.scratch();
        let mut command = match &options.folder {
            Some(folder) => {
                let mut command = otp.command("env");
                command.arg("-C").arg(otp.inside(folder)).arg("elixir");
                command
            }
            None => otp.command("elixir"),
        };
        let mut name = ["--sname".to_owned(), options.name.clone()];
        if let Some(seat) = &options.seat {
            command = seat.around(&command);
            name = seat.typed(&options.name);
        }
        if let Some(long) = &options.long {
            name = ["--name".to_owned(), long.clone()];
        }
        command.env("HOME", otp.inside(home.path())).env("ERL_EPMD_PORT", epmd.port().to_string());
        command.env("LC_ALL", "C.UTF-8").env("ERL_CRASH_DUMP", "/dev/null").env_remove("ERL_LIBS");
        command.args(name).args(["--cookie", &options.cookie]);
        // erl starts an epmd that outlives it wherever it finds none; the tests have their own.
        command.args(["--erl", &format!("-start_epmd false {}", options.erl.join(" "))]);
        if options.hidden {
            command.arg("--hidden");
        }
        command.arg("-pa").arg(otp.modules()).args(["-e", "KvNodeTest.Driver.main()"]);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("elixir can be started");

        let (ready, first) = channel();
        let answers: Answers = Arc::new(Mutex::new(HashMap::from([(0, ready)])));
        let stdout = child.stdout.take().expect("it is piped");
        let mut node = Self {
            label: otp.label.clone(),
            name: options.name,
            stdin: Mutex::new(child.stdin.take().expect("it is piped")),
            stderr: Output::of(child.stderr.take().expect("it is piped")),
            stdout: Output::with(stdout, dispatch(Arc::clone(&answers))),
            child,
            answers,
            next_id: AtomicU64::new(1),
            _home: home,
        };
        let name = Pending { node: &node, answer: first }.value();
        node.name = name.trim_matches([':', '"']).to_owned();
        node
    }

    /// The full name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Evaluates Elixir code in the node's long-lived process, which keeps bindings and mailbox from one
    /// call to the next, and returns the value as `inspect` shows it.
    ///
    /// # Errors
    /// What the code raised, threw or exited with, or that the node does not answer.
    pub fn eval(&self, code: &str) -> Answer {
        self.request("main", code).outcome()
    }

    /// The same where the code must not fail.
    #[track_caller]
    pub fn run(&self, code: &str) -> String {
        self.request("main", code).value()
    }

    /// Evaluates code in a process of its own, at the same time as whatever comes next.
    pub fn spawn(&self, code: &str) -> Pending<'_> {
        self.request("spawn", code)
    }

    /// Asserts what the code's value is.
    #[track_caller]
    pub fn check(&self, code: &str, value: &str) {
        assert_eq!(self.run(code), value, "on {} ({}): {code}", self.name, self.label);
    }

    /// Evaluates the code until it has this value: for what is true only after a message has passed.
    #[track_caller]
    pub fn check_soon(&self, code: &str, value: &str) {
        let mut last = String::new();
        let start = std::time::Instant::now();
        while start.elapsed() < PATIENCE {
            last = self.eval(code).unwrap_or_else(|error| error.to_string());
            if last == value {
                return;
            }
            std::thread::sleep(Duration::from_millis(25));
        }
        panic!("on {} ({}): {code}\n is {last}\n not {value}", self.name, self.label);
    }

    /// Waits until the node knows the holder of this name in `:global`.
    #[track_caller]
    pub fn wait_for_global(&self, name: &str) {
        self.check_soon(&format!("is_pid(:global.whereis_name(:{name}))"), "true");
    }

    /// Waits until this name has no holder in `:global` any more.
    #[track_caller]
    pub fn wait_for_no_global(&self, name: &str) {
        self.check_soon(&format!(":global.whereis_name(:{name})"), ":undefined");
    }

    /// Connects to a node by pinging it.
    #[track_caller]
    pub fn ping(&self, node: &str) {
        self.check(&format!("Node.ping(:\"{node}\")"), ":pong");
    }

    /// What the node has logged so far.
    pub fn log(&self) -> String {
        format!("{}\n{}", self.stdout.text(), self.stderr.text())
    }

    /// Sends a signal to the node's process.
    pub fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).expect("our child, not yet waited for");
    }

    /// Kills the node as `kill -9` does, and waits until epmd has forgotten it.
    pub fn kill(mut self, epmd: &Epmd) {
        self.end();
        let name = self.name.split('@').next().unwrap_or_default();
        wait_until("epmd has forgotten the node", || {
            epmd.names().is_none_or(|names| names.iter().all(|known| known != name))
        });
    }

    fn end(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    fn request(&self, mode: &str, code: &str) -> Pending<'_> {
        let id = self.next_id.fetch_add(1, Ordering::Relaxed);
        let (sender, answer) = channel();
        self.answers.lock().expect("no thread panics with it").insert(id, sender);
        let line = format!("{id} {mode} {}\n", to_hex(code));
        let written = self.stdin.lock().expect("no thread panics with it").write_all(line.as_bytes());
        if written.is_err() {
            self.answers.lock().expect("no thread panics with it").remove(&id);
        }
        Pending { node: self, answer }
    }
}

impl Drop for BeamNode {
    fn drop(&mut self) {
        self.end();
        if std::thread::panicking() {
            eprintln!("=== {} ({}) said:\n{}\n", self.name, self.label, self.log());
        }
    }
}

/// Hands each answer to its caller. The end of the output drops all callers that wait.
fn dispatch(answers: Answers) -> impl FnMut(&str) -> bool {
    struct End(Answers);
    impl Drop for End {
        fn drop(&mut self) {
            self.0.lock().expect("no thread panics with it").clear();
        }
    }
    let end = End(answers);
    move |line| {
        let Some((_, rest)) = line.split_once(MARK) else { return false };
        let mut words = rest.split(' ');
        let id = words.next().and_then(|id| id.parse().ok()).expect("the driver sends an id");
        let kind = words.next().expect("the driver sends a kind").to_owned();
        let mut text = || from_hex(words.next().unwrap_or_default());
        let first = text();
        let answer = match kind.as_str() {
            "ok" => Ok(first),
            _ => Err(EvalError::Failed { kind, reason: first, text: text() }),
        };
        if let Some(sender) = end.0.lock().expect("no thread panics with it").remove(&id) {
            let _ = sender.send(answer);
        }
        true
    }
}

fn to_hex(text: &str) -> String {
    text.bytes().map(|byte| format!("{byte:02x}")).collect()
}

fn from_hex(hex: &str) -> String {
    let digit = |byte: u8| (byte as char).to_digit(16).expect("the driver sends hexadecimal digits") as u8;
    let bytes = hex.as_bytes().chunks_exact(2).map(|pair| digit(pair[0]) << 4 | digit(pair[1])).collect();
    String::from_utf8(bytes).expect("inspect makes UTF-8")
}
