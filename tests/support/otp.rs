//! The OTP versions of this machine: the system's, and those that `scripts/otp` has put into root folders.

use std::ffi::OsStr;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};
use std::process::Command;

/// One Erlang/OTP with its Elixir.
#[derive(Clone, Debug)]
pub struct Otp {
    /// What to call it in output: `OTP 27 (trixie)`.
    pub label: String,
    /// The release: 25, 27, 29.
    pub release: u32,
    /// The folder that is its `/`; `None` for the system's own.
    root: Option<PathBuf>,
}

/// Runs `test` on every OTP version that is present, and prints on which.
///
/// # Panics
/// Where none is present, or one that `KVNODE_REQUIRE_OTP` names is not.
#[track_caller]
pub fn on_every_otp(mut test: impl FnMut(&Otp)) {
    for otp in Otp::all() {
        eprintln!("--- on {}", otp.label);
        test(&otp);
    }
}

/// As [`on_every_otp`], on versions from `release` on; says which it leaves out.
///
/// # Panics
/// As [`on_every_otp`].
#[track_caller]
pub fn on_every_otp_from(release: u32, mut test: impl FnMut(&Otp)) {
    on_every_otp(|otp| {
        if otp.release >= release {
            test(otp);
        } else {
            eprintln!("    left out: this test is for OTP {release} and later");
        }
    });
}

/// The same, on all versions at once: for tests that spend their time waiting.
///
/// # Panics
/// As [`on_every_otp`].
#[track_caller]
pub fn at_once_on_every_otp(test: impl Fn(&Otp) + Sync) {
    at_once_on(&Otp::all(), test);
}

/// The same, on the oldest and the newest version that form one cluster with each other: for tests that start many nodes.
///
/// # Panics
/// As [`on_every_otp`].
#[track_caller]
pub fn at_once_on_oldest_and_newest(test: impl Fn(&Otp) + Sync) {
    let mut versions: Vec<Otp> = Otp::all().into_iter().filter(|otp| otp.release >= 25).collect();
    if versions.len() > 2 {
        versions.drain(1..versions.len() - 1);
    }
    at_once_on(&versions, test);
}

fn at_once_on(versions: &[Otp], test: impl Fn(&Otp) + Sync) {
    std::thread::scope(|scope| {
        for otp in versions {
            eprintln!("--- on {}", otp.label);
            scope.spawn(|| test(otp));
        }
    });
}

impl Otp {
    /// All versions that are present, oldest first.
    ///
    /// # Panics
    /// As [`on_every_otp`].
    pub fn all() -> Vec<Self> {
        let mut found: Vec<Self> = Self::of_system().into_iter().chain(Self::in_cache()).collect();
        found.sort_by_key(|otp| otp.release);
        let required = std::env::var("KVNODE_REQUIRE_OTP").unwrap_or_default();
        for release in required.split(',').map(str::trim).filter(|release| !release.is_empty()) {
            let present = found.iter().any(|otp| otp.release.to_string() == release);
            assert!(present, "KVNODE_REQUIRE_OTP asks for OTP {release}; there is only {found:?}");
        }
        assert!(!found.is_empty(), "no Erlang and Elixir here: run scripts/test, or install both");
        found
    }

    /// The system's version, for tests to which versions make no difference; where there is none, another.
    pub fn usual() -> Self {
        let mut all = Self::all();
        let at = all.iter().position(|otp| otp.root.is_none()).unwrap_or(0);
        all.swap_remove(at)
    }

    /// The newest version that is present.
    pub fn newest() -> Self {
        Self::all().pop().expect("there is one at least")
    }

    fn of_system() -> Option<Self> {
        let erl = in_path("erl")?.canonicalize().ok()?;
        in_path("elixir")?;
        // .../lib/erlang/bin/erl
        Self::installed(erl.parent()?.parent()?, None, "the system's")
    }

    fn in_cache() -> Vec<Self> {
        let cache = std::env::var_os("KVNODE_OTP_CACHE").unwrap_or_else(|| "/var/cache/kvnode-otp".into());
        let Ok(folders) = std::fs::read_dir(cache) else { return Vec::new() };
        let roots: Vec<PathBuf> = folders
            .filter_map(|folder| Some(folder.ok()?.path()))
            .filter(|root| root.join("usr/bin/elixir").exists())
            .collect();
        if !roots.is_empty() && !rustix::process::geteuid().is_root() {
            eprintln!("--- not run, as only root may chroot: {roots:?}");
            return Vec::new();
        }
        roots.iter().filter_map(|root| Self::in_root(root)).collect()
    }

    fn in_root(root: &Path) -> Option<Self> {
        let label = root.file_name()?.to_str()?;
        if !root.join("etc/hosts").exists() {
            // Else the host's own name is asked of a name server, which does not know it.
            let _ = std::fs::copy("/etc/hosts", root.join("etc/hosts"));
        }
        Self::installed(&root.join("usr/lib/erlang"), Some(root.to_owned()), label)
    }

    fn installed(erlang: &Path, root: Option<PathBuf>, label: &str) -> Option<Self> {
        // "ERTS-VERSION RELEASE"
        let data = std::fs::read_to_string(erlang.join("releases/start_erl.data")).ok()?;
        let release = data.split_whitespace().nth(1)?.parse().ok()?;
        Some(Self { label: format!("OTP {release} ({label})"), release, root })
    }

    /// `program` of this version, to be given arguments and started.
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let Some(root) = &self.root else { return Command::new(program) };
        let mut command = Command::new("chroot");
        command.arg(root).arg(program);
        command
    }

    /// A new folder that this version's programs can see.
    pub fn scratch(&self) -> tempfile::TempDir {
        let parent = self.root.as_ref().map_or_else(std::env::temp_dir, |root| root.join("tmp"));
        tempfile::Builder::new().prefix("kvnode-test-").tempdir_in(parent).expect("a folder can be made")
    }

    /// `path` as this version's programs see it.
    pub fn inside(&self, path: &Path) -> PathBuf {
        match &self.root {
            Some(root) => Path::new("/").join(path.strip_prefix(root).expect("a path in this root")),
            None => path.to_owned(),
        }
    }

    /// The folder with the modules of `tests/elixir` and the driver, compiled by this version once for all
    /// tests; as its programs see it.
    pub fn modules(&self) -> PathBuf {
        let sources = sources();
        let mut hasher = DefaultHasher::new();
        (&self.label, &sources).hash(&mut hasher);
        let cache = match &self.root {
            Some(root) => root.join("tmp"),
            None => PathBuf::from(env!("CARGO_TARGET_TMPDIR")),
        };
        let folder = cache.join(format!("kvnode-modules-{:016x}", hasher.finish()));
        if !folder.exists() {
            let compiled = self.compile(&sources, &cache);
            // Another test may have been faster: what it made is the same.
            if std::fs::rename(&compiled, &folder).is_err() {
                assert!(folder.exists(), "the compiled modules can be kept in {}", folder.display());
                let _ = std::fs::remove_dir_all(compiled);
            }
        }
        self.inside(&folder)
    }

    fn compile(&self, sources: &[(String, String)], parent: &Path) -> PathBuf {
        let folder = tempfile::Builder::new().prefix("kvnode-compile-").tempdir_in(parent).expect("a folder");
        let mut elixirc = self.command("elixirc");
        elixirc.env("LC_ALL", "C.UTF-8").arg("-o").arg(self.inside(folder.path()));
        for (name, text) in sources {
            let path = folder.path().join(name);
            std::fs::write(&path, text).expect("a source can be copied");
            elixirc.arg(self.inside(&path));
        }
        let output = elixirc.output().expect("elixirc can be started");
        assert!(output.status.success(), "elixirc: {}", String::from_utf8_lossy(&output.stderr));
        folder.keep()
    }
}

/// Names and texts of what every node loads.
fn sources() -> Vec<(String, String)> {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests");
    let files = ["elixir/lib", "support"].map(|folder| std::fs::read_dir(tests.join(folder)));
    let files = files.into_iter().flat_map(|folder| folder.expect("the folders are there"));
    let mut paths: Vec<PathBuf> = files.map(|file| file.expect("it can be listed").path()).collect();
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "ex"));
    paths.sort();
    let read = |path: &PathBuf| {
        let name = path.file_name().expect("a file").to_string_lossy().into_owned();
        (name, std::fs::read_to_string(path).expect("a source can be read"))
    };
    paths.iter().map(read).collect()
}

fn in_path(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|folder| folder.join(program)).find(|file| file.is_file())
}
