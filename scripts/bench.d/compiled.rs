//! What has to be compiled before a server can be started, with the compilers that are installed, into a folder that
//! goes away: once a run, when it is first asked for.

use std::cell::OnceCell;
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::children::on_path;
use crate::{Failure, Result, failure};

/// Why something is not there.
#[derive(Clone, Debug)]
pub struct Unavailable {
    text: String,
    /// What it takes is not installed, which is no failure of ours.
    not_installed: bool,
}

impl fmt::Display for Unavailable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl std::error::Error for Unavailable {}

/// What is said of something that is not installed.
pub fn not_installed(text: &str) -> Failure {
    Unavailable { text: text.to_owned(), not_installed: true }.into()
}

/// Whether that is all that is wrong.
pub fn is_not_installed(error: &Failure) -> bool {
    error.downcast_ref::<Unavailable>().is_some_and(|unavailable| unavailable.not_installed)
}

type Once = OnceCell<std::result::Result<PathBuf, Unavailable>>;

/// All that was compiled.
pub struct Compiled {
    folder: PathBuf,
    elixir: Once,
    cnode: Once,
    jinterface: Once,
    jar: Once,
}

impl Compiled {
    /// Nothing yet, and into this folder.
    pub fn new(folder: &Path) -> Self {
        let [elixir, cnode, jinterface, jar] = [const { OnceCell::new() }; 4];
        Self { folder: folder.to_owned(), elixir, cnode, jinterface, jar }
    }

    /// The folder with the Elixir modules.
    pub fn elixir(&self) -> Result<&Path> {
        once(&self.elixir, || {
            if !on_path("elixir") || !on_path("erl") {
                return Err(not_installed("Elixir is not installed (apt: elixir)"));
            }
            let beams = self.folder.join("beams");
            fs::create_dir(&beams)?;
            let mut command = self.command("elixirc");
            command.arg("-o").arg(&beams);
            for folder in ["tests/elixir/lib", "scripts/bench.d"] {
                let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join(folder);
                let mut sources: Vec<PathBuf> =
                    fs::read_dir(folder)?.flatten().map(|entry| entry.path()).collect();
                sources.retain(|path| path.extension().is_some_and(|extension| extension == "ex"));
                command.args(sources);
            }
            run(&mut command)?;
            Ok(beams)
        })
    }

    /// The program of the C node.
    pub fn cnode(&self) -> Result<&Path> {
        once(&self.cnode, || {
            if !on_path("gcc") {
                return Err(not_installed("gcc is not installed (apt: gcc libc6-dev)"));
            }
            let home = self.otp_library("erl_interface")?;
            let home = home.filter(|home| home.join("include/ei.h").is_file());
            let home =
                home.ok_or_else(|| not_installed("erl_interface is not installed (apt: erlang-dev)"))?;
            let program = self.folder.join("cnode");
            let mut command = self.command("gcc");
            command.args(["-O2", "-Wall", "-o"]).arg(&program).arg(source("cnode.c"));
            command.arg("-I").arg(home.join("include")).arg("-L").arg(home.join("lib"));
            run(command.args(["-lei", "-lpthread"]))?;
            Ok(program)
        })
    }

    /// The class path of the Jinterface server: Jinterface's archive where it is installed, else its sources, which
    /// then are compiled with it.
    pub fn jinterface(&self) -> Result<String> {
        let jar = once(&self.jar, || {
            if !on_path("java") || !on_path("javac") {
                return Err(not_installed("Java is not installed (apt: default-jdk-headless)"));
            }
            let home = self.otp_library("jinterface")?;
            let parts = home.iter().flat_map(|home| [home.join("priv/OtpErlang.jar"), home.join("java_src")]);
            parts
                .into_iter()
                .find(|part| part.exists())
                .ok_or_else(|| not_installed("Jinterface is not installed (apt: erlang-jinterface)"))
        })?;
        let classes = once(&self.jinterface, || {
            let classes = self.folder.join("classes");
            let mut command = self.command("javac");
            // Said, as Eclipse's compiler, which may be what is called javac, has another default.
            command.args(["-nowarn", "-proc:none", "-source", "11", "-target", "11"]);
            command.arg(if jar.is_file() { "-classpath" } else { "-sourcepath" }).arg(jar);
            run(command.arg("-d").arg(&classes).arg(source("JinterfaceServer.java")))?;
            Ok(classes)
        })?;
        Ok(format!("{}:{}", classes.display(), jar.display()))
    }

    /// Where a library of OTP is, if it is installed.
    fn otp_library(&self, name: &str) -> Result<Option<PathBuf>> {
        if !on_path("erl") {
            return Ok(None);
        }
        let ask =
            format!("case code:lib_dir({name}) of {{error, _}} -> ok; Dir -> io:put_chars(Dir) end, halt().");
        let found = run(self.command("erl").args(["-noinput", "-eval", &ask]))?;
        Ok(Some(found).filter(|found| !found.is_empty()).map(PathBuf::from))
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        environment(&mut command, &self.folder);
        command
    }
}

fn source(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/bench.d").join(name)
}

fn once(cell: &Once, make: impl FnOnce() -> Result<PathBuf>) -> Result<&Path> {
    let made = cell.get_or_init(|| {
        make()
            .map_err(|error| Unavailable { text: error.to_string(), not_installed: is_not_installed(&error) })
    });
    made.as_deref().map_err(|unavailable| unavailable.clone().into())
}

/// What the settings of the user who runs this must not change.
pub fn environment(command: &mut Command, home: &Path) {
    command.env("HOME", home).env("LC_ALL", "C.UTF-8").env("ERL_CRASH_DUMP_BYTES", "0");
    for variable in ["ERL_EPMD_ADDRESS", "ERL_FLAGS", "ERL_AFLAGS", "ERL_ZFLAGS", "ELIXIR_ERL_OPTIONS"] {
        command.env_remove(variable);
    }
}

/// Runs a command to its end and gives what it printed.
fn run(command: &mut Command) -> Result<String> {
    let output = command.stdin(Stdio::null()).output()?;
    if !output.status.success() {
        let said = [output.stdout, output.stderr].concat();
        let program = command.get_program().display().to_string();
        return Err(failure(format!("{program} failed:\n{}", String::from_utf8_lossy(&said))));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
