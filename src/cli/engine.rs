//! `--engine`: where a node keeps its stores, and the flags of an etcd that keeps them, or by which the primary of others is elected (`--elect`).

use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{Args, ValueEnum};

use super::{CliError, span};
use crate::program::{Consistency, ElectConfig, EtcdConfig, EtcdUser};

/// The variable with the password of `--etcd-user`: no flag has it, as others on the machine see the list of processes.
pub(super) const PASSWORD_VARIABLE: &str = "KVNODE_ETCD_PASSWORD";
/// Bytes of a file with a password, its line's end with them.
const PASSWORD_BYTES_MAX: u64 = 4096;

/// The flags that name members of an etcd. (A name that begins with a capital: each of them stays beside the other where they come from several places,
/// so that it can be said that they exclude each other.)
pub(super) const MEMBERS: &str = "Members";
/// What a member's URL begins with, for people; it is `http://`, or `https://` where the CAs are given.
const ETCD: &str = "etcd://";

/// Where stores are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum EngineName {
    Memory,
    Disk,
    Etcd,
}

impl EngineName {
    /// As it is typed.
    pub(super) const fn code(self) -> &'static str {
        match self {
            Self::Memory => "memory",
            Self::Disk => "disk",
            Self::Etcd => "etcd",
        }
    }
}

#[derive(Args, Clone, Debug)]
// Flags of one group leave no place for each other between the command line, the environment and the file.
#[group(skip)]
pub(super) struct EngineArgs {
    /// Where the stores are kept: memory, disk (in --data-dir) or etcd (in --etcd, where several kvnodes serve the same stores)
    /// [default: disk with --data-dir, else memory]
    #[arg(long, value_name = "WHERE", value_enum, hide_possible_values = true, help_heading = "Stores")]
    engine: Option<EngineName>,
    #[command(flatten)]
    etcd: EtcdArgs,
    /// The members of an etcd by which the primary of the first store is elected, where stores are in memory or on disk, as in
    /// etcd://a:2379,etcd://b:2379; repeatable. When the primary is gone the most advanced of its slaves takes its place
    #[arg(long, value_name = "URL[,URL]", value_delimiter = ',', help_heading = "etcd", group = MEMBERS)]
    elect: Vec<String>,
    /// An election takes the most advanced slave that is there, and does not wait for as many as must have reported for each confirmed
    /// write (--confirm) to be among theirs: such writes may be lost then
    #[arg(long, requires = "elect", help_heading = "etcd")]
    elect_lossy: bool,
    /// How new the answers of reads are that say nothing of it: session (what this node has, which is never older than what the
    /// caller wrote or read here before) or linearizable (what any kvnode of the store has answered; each read waits for etcd)
    /// [default: session]
    #[arg(long, value_name = "HOW", value_parser = consistency, requires = "etcd", help_heading = "etcd")]
    etcd_reads: Option<Consistency>,
    /// How long the history of etcd is kept, as in 5m: the kvnode that holds a store's names compacts what is older, for all that
    /// have this etcd. off: others compact it, as etcd itself can [default: 5m]
    #[arg(long, value_name = "TIME", value_parser = compact, requires = "etcd", help_heading = "etcd")]
    etcd_compact: Option<Compact>,
}

/// `--etcd-compact`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Compact {
    Off,
    Keep(Duration),
}

/// Shorter histories are refused: a watch that is begun anew at another member takes about as long.
const KEEP_MIN: Duration = Duration::from_secs(1);

fn compact(text: &str) -> Result<Compact, String> {
    if text == "off" {
        return Ok(Compact::Off);
    }
    match span::parse(text).map_err(|reason| format!("{reason}; or off"))? {
        keep if keep < KEEP_MIN => {
            Err("less than 1s, and watches that are cut for longer load their stores anew".to_owned())
        }
        keep => Ok(Compact::Keep(keep)),
    }
}

/// As it is typed.
pub(super) fn compact_shown(keep: Option<Duration>) -> String {
    keep.map_or_else(|| "off".to_owned(), span::shown)
}

/// Which etcd, and how it is spoken to.
#[derive(Args, Clone, Debug)]
#[group(skip)]
pub(super) struct EtcdArgs {
    /// The members of the etcd that keeps the stores, as in http://a:2379,http://b:2379; repeatable. A global name is one store
    /// for all kvnodes of one etcd and prefix
    #[arg(long, value_name = "URL[,URL]", value_delimiter = ',', help_heading = "etcd", group = MEMBERS)]
    etcd: Vec<String>,
    /// What all keys of the stores begin with in etcd [default: kvnode]
    #[arg(long, value_name = "TEXT", requires = MEMBERS, help_heading = "etcd")]
    etcd_prefix: Option<String>,
    /// The certificates of the CAs that sign those of etcd's members (PEM); https:// needs them
    #[arg(long, value_name = "FILE", requires = MEMBERS, help_heading = "etcd")]
    etcd_ca: Option<PathBuf>,
    /// The own certificate (PEM), for an etcd that asks its clients for one
    #[arg(long, value_name = "FILE", requires = "etcd_ca", help_heading = "etcd")]
    etcd_cert: Option<PathBuf>,
    /// Its private key (PEM, not encrypted) [default: in the file of --etcd-cert]
    #[arg(long, value_name = "FILE", requires = "etcd_cert", help_heading = "etcd")]
    etcd_key: Option<PathBuf>,
    /// A user of etcd's authentication. The password stands in --etcd-password-file or in KVNODE_ETCD_PASSWORD
    #[arg(long, value_name = "NAME", requires = MEMBERS, help_heading = "etcd")]
    etcd_user: Option<String>,
    /// A file whose first line is that user's password
    #[arg(long, value_name = "FILE", requires = "etcd_user", help_heading = "etcd")]
    etcd_password_file: Option<PathBuf>,
}

impl EngineArgs {
    /// Where the stores are kept. `data_dir`: there is a folder for them.
    ///
    /// # Errors
    /// The flags say two things, or too little.
    pub(super) fn engine(&self, has_folder: bool) -> Result<EngineName, CliError> {
        let default = if has_folder { EngineName::Disk } else { EngineName::Memory };
        let engine = self.engine.unwrap_or(default);
        let wrong = match engine {
            EngineName::Etcd if !self.etcd.is_given() => {
                "--engine etcd: its members are missing; give them by --etcd, as in --etcd http://127.0.0.1:2379"
            }
            EngineName::Memory | EngineName::Disk if self.etcd.is_given() => {
                "--etcd: stores are kept there with --engine etcd alone; say that too, or leave --etcd out (to have the primary of \
                 other stores elected, --elect names the members)"
            }
            EngineName::Memory if has_folder => {
                "--data-dir: stores are kept there with --engine disk, and --engine is memory; leave one of the two out"
            }
            EngineName::Disk if !has_folder => "--engine disk: the folder is missing; give it by --data-dir",
            _ => return Ok(engine),
        };
        Err(CliError::usage(wrong))
    }

    /// The etcd that is named.
    ///
    /// # Errors
    /// As of [`EtcdArgs::etcd`].
    pub(super) fn etcd(&self) -> Result<EtcdConfig, CliError> {
        let etcd = self.etcd.etcd()?;
        let compact = match self.etcd_compact {
            None => etcd.compact,
            Some(Compact::Off) => None,
            Some(Compact::Keep(keep)) => Some(keep),
        };
        Ok(EtcdConfig { compact, reads: self.etcd_reads.unwrap_or_default(), ..etcd })
    }

    /// How the primary is elected; `None`: it is not.
    ///
    /// # Errors
    /// As of [`EtcdArgs::etcd`].
    pub(super) fn elect(&self) -> Result<Option<ElectConfig>, CliError> {
        if self.elect.is_empty() {
            return Ok(None);
        }
        let scheme = if self.etcd.etcd_ca.is_some() { "https" } else { "http" };
        let member = |typed: &String| match typed.split_once("://") {
            Some(("http" | "https", _)) => Ok(typed.clone()),
            None | Some(("etcd", _)) => {
                let at = typed.strip_prefix(ETCD).unwrap_or(typed);
                Ok(format!("{scheme}://{at}"))
            }
            Some(_) => Err(CliError::usage(format!(
                "--elect {typed}: the members of an etcd are named so: --elect etcd://127.0.0.1:2379"
            ))),
        };
        let members: Vec<String> = self.elect.iter().map(member).collect::<Result<_, _>>()?;
        let etcd = self.etcd.etcd_at("--elect", &members)?;
        Ok(Some(ElectConfig { etcd, is_lossy: self.elect_lossy }))
    }
}

impl EtcdArgs {
    /// Whether members are named.
    pub(super) fn is_given(&self) -> bool {
        !self.etcd.is_empty()
    }

    /// The etcd that is named.
    ///
    /// # Errors
    /// Something is missing, or the file of the password cannot be used.
    pub(super) fn etcd(&self) -> Result<EtcdConfig, CliError> {
        self.etcd_at("--etcd", &self.etcd)
    }

    fn etcd_at(&self, flag: &str, members: &[String]) -> Result<EtcdConfig, CliError> {
        let no_ca = members.iter().find(|url| url.starts_with("https://") && self.etcd_ca.is_none());
        if let Some(url) = no_ca {
            return Err(CliError::usage(format!(
                "{flag} {url}: the certificates of the CAs that sign its members' are missing; give them by --etcd-ca"
            )));
        }
        #[cfg(feature = "etcd")]
        for member in members {
            crate::etcd::check_endpoint(member)
                .map_err(|error| CliError::usage(format!("{flag}: {error}")))?;
        }
        if self.etcd_prefix.as_deref() == Some("") {
            return Err(CliError::usage("--etcd-prefix: it is empty; leave it out for kvnode"));
        }
        let user = match &self.etcd_user {
            Some(name) => Some(EtcdUser { name: name.clone(), password: self.password(name)? }),
            None => None,
        };
        Ok(EtcdConfig {
            prefix: self.etcd_prefix.clone().unwrap_or_else(|| EtcdConfig::PREFIX.to_owned()),
            ca: self.etcd_ca.clone(),
            cert: self.etcd_cert.clone(),
            key: self.etcd_key.clone(),
            user,
            ..EtcdConfig::new(members.iter().cloned())
        })
    }

    fn password(&self, user: &str) -> Result<String, CliError> {
        if let Some(path) = &self.etcd_password_file {
            return read_password(path).map_err(|reason| {
                CliError::usage(format!("--etcd-password-file {}: {reason}", path.display()))
            });
        }
        match std::env::var(PASSWORD_VARIABLE) {
            Ok(password) if !password.is_empty() => Ok(password),
            _ => Err(CliError::usage(format!(
                "--etcd-user {user}: the password is missing; write it into a file for --etcd-password-file, or set \
                 {PASSWORD_VARIABLE}"
            ))),
        }
    }
}

fn consistency(text: &str) -> Result<Consistency, String> {
    Consistency::of_code(text)
        .ok_or_else(|| format!("one of {}", Consistency::ALL.map(Consistency::code).join(", ")))
}

/// The first line of a file. No reason shows any of it.
fn read_password(path: &Path) -> Result<String, String> {
    let mut text = Vec::new();
    let file = std::fs::File::open(path).map_err(|error| error.to_string())?;
    file.take(PASSWORD_BYTES_MAX + 1).read_to_end(&mut text).map_err(|error| error.to_string())?;
    let line = text.split(|byte| *byte == b'\n').next().unwrap_or_default();
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    if text.len() as u64 > PASSWORD_BYTES_MAX {
        return Err(format!("it has more than {PASSWORD_BYTES_MAX} bytes; a password is its first line"));
    }
    match str::from_utf8(line) {
        Ok("") => Err("its first line is empty, which is no password".to_owned()),
        Ok(password) => Ok(password.to_owned()),
        Err(_) => Err("its first line is not UTF-8".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_history_is_kept_for_a_time_or_off() {
        assert_eq!(compact("off"), Ok(Compact::Off));
        assert_eq!(compact("5m"), Ok(Compact::Keep(Duration::from_secs(300))));
        for wrong in ["", "5", "never", "999ms", "0s"] {
            assert!(compact(wrong).is_err(), "{wrong}");
        }
        for text in ["off", "1s", "90s", "5m", "36h", "1500ms"] {
            let keep = match compact(text) {
                Ok(Compact::Keep(keep)) => Some(keep),
                Ok(Compact::Off) => None,
                Err(error) => panic!("{text}: {error}"),
            };
            assert_eq!(compact_shown(keep), text);
        }
    }

    #[test]
    fn a_password_is_the_first_line_of_its_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("password");
        let read = |text: &[u8]| {
            std::fs::write(&path, text).unwrap();
            read_password(&path)
        };
        for text in ["secret", "secret\n", "secret\r\nmore", "secret\nmore\n"] {
            assert_eq!(read(text.as_bytes()).as_deref(), Ok("secret"), "{text:?}");
        }
        assert_eq!(read(" ä b \n".as_bytes()).as_deref(), Ok(" ä b "));
        for text in [&b""[..], b"\nsecret", b"\xff", &[b'a'; 5000]] {
            let error = read(text).unwrap_err();
            assert!(!error.contains("secret") && !error.contains("aaa"), "{error}");
        }
        assert!(read_password(&dir.path().join("none")).is_err());
    }
}
