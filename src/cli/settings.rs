//! What a node is started with, from three places: flags win over the environment, and that over a file.
//!
//! The definition of the flags is the only list of names there is: `--net-ticktime` is `KVNODE_NET_TICKTIME` in the
//! environment and `net-ticktime` in the file. What the weaker places say is put in front of what was typed, as if it had
//! been typed, unless a stronger place says something about the same: the same flag, one of the same group, or one that it
//! cannot be used with.

mod file;

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::fmt;
use std::path::{Path, PathBuf};

use clap::error::ErrorKind;
use clap::parser::ValueSource;
use clap::{Arg, ArgAction, ArgMatches, Command};

use super::CliError;
use super::engine::PASSWORD_VARIABLE;

/// Before the name of each variable of the environment.
const PREFIX: &str = "KVNODE_";
/// The flag that names the file.
const FILE_FLAG: &str = "config";
/// From this similarity (Jaro and Winkler) on, one name is taken for another that was mistyped.
const NEAR: f64 = 0.8;

/// Where a setting comes from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) enum Origin {
    /// From no place: the flag has its default.
    #[default]
    Default,
    /// It was typed.
    Flag(String),
    /// The variable of the environment.
    Environment(String),
    /// The configuration file.
    File(PathBuf),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::Flag(name) => write!(f, "--{name}"),
            Self::Environment(variable) => f.write_str(variable),
            Self::File(path) => write!(f, "{}", path.display()),
        }
    }
}

/// Where each setting comes from, by the name of its flag.
#[derive(Clone, Debug, Default)]
pub(super) struct Origins {
    origins: BTreeMap<String, Origin>,
    /// Variables that look like a mistyped one, with what was meant.
    suspicious: Vec<(String, String)>,
}

impl Origins {
    /// Where the setting of this flag comes from.
    pub(super) fn of(&self, flag: &str) -> Origin {
        self.origins.get(flag).cloned().unwrap_or_default()
    }

    /// Says, once there is a log, what looks wrong.
    pub(super) fn warn(&self) {
        for (variable, meant) in &self.suspicious {
            tracing::warn!(
                "the environment has {variable}, which means nothing to kvnode; {meant} was meant?"
            );
        }
    }

    /// An error that names a flag which nobody typed says where that comes from.
    pub(super) fn explain(&self, error: CliError) -> CliError {
        let CliError::Usage(text) = &error else { return error };
        let flag = text.strip_prefix("--").and_then(|rest| rest.split([' ', ':']).next());
        match flag.map(|flag| self.of(flag)) {
            Some(origin @ (Origin::Environment(_) | Origin::File(_))) => {
                CliError::Usage(format!("{origin}: {text}"))
            }
            _ => error,
        }
    }
}

/// What one place says about one flag.
struct Said {
    flag: String,
    /// As they would be typed: `None` for a switch. Empty: the switch is off.
    values: Vec<Option<String>>,
    origin: Origin,
}

/// Reads the environment and the file, and gives the whole as if it had been typed: `words` with more of them from
/// position `at` on.
///
/// `command`, built, is the one whose flags count, and `typed` what its part of `words` means, so far as it means anything.
///
/// # Errors
/// The file cannot be read, or one of the places says what means nothing.
pub(super) fn complete(
    command: &Command,
    typed: &ArgMatches,
    mut words: Vec<OsString>,
    at: usize,
    environment: impl Iterator<Item = (OsString, OsString)>,
) -> Result<(Vec<OsString>, Origins), CliError> {
    let flags: Vec<&Arg> = flags(command).collect();
    let mut origins = Origins::default();
    let environment: BTreeMap<String, OsString> = environment
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value)))
        .filter(|(name, value)| name.starts_with(PREFIX) && !value.is_empty())
        .collect();
    let from_environment = read_environment(&flags, &environment, &mut origins)?;
    let mut taken: BTreeSet<&str> = BTreeSet::new();
    for flag in flags.iter().copied() {
        if typed.value_source(flag.get_id().as_str()) == Some(ValueSource::CommandLine) {
            taken.insert(long(flag));
            origins.origins.insert(long(flag).to_owned(), Origin::Flag(long(flag).to_owned()));
        }
    }
    let path = typed.get_one::<PathBuf>(FILE_FLAG).cloned().or_else(|| {
        let said = from_environment.iter().find(|said| said.flag == FILE_FLAG)?;
        said.values.first().cloned().flatten().map(PathBuf::from)
    });
    let from_file = match path {
        Some(path) => file::read(&path, &flags)?,
        None => Vec::new(),
    };
    let mut added: Vec<OsString> = Vec::new();
    for place in [from_environment, from_file] {
        let before = taken.clone();
        let mut from_here = Vec::new();
        let mut here: Vec<&Arg> = Vec::new();
        for said in place {
            let Some(flag) = flags.iter().find(|flag| long(flag) == said.flag) else { continue };
            if before.iter().any(|other| rivals(command, &flags, flag, other)) {
                continue;
            }
            if !said.values.is_empty() {
                if let Some(other) = here.iter().find(|other| excludes(command, flag, other)) {
                    return Err(both(&said.origin, long(other), long(flag)));
                }
                here.push(flag);
            }
            taken.insert(long(flag));
            for value in &said.values {
                let word = match value {
                    Some(value) => format!("--{}={value}", said.flag),
                    None => format!("--{}", said.flag),
                };
                check(&flags, &word, &said)?;
                from_here.push(word.into());
            }
            origins.origins.insert(said.flag, said.origin);
        }
        from_here.append(&mut added);
        added = from_here;
    }
    let at = at.min(words.len());
    words.splice(at..at, added);
    Ok((words, origins))
}

/// The flags that set something: all but `--help` and its like.
fn flags(command: &Command) -> impl Iterator<Item = &Arg> {
    command.get_arguments().filter(|arg| {
        let sets = matches!(arg.get_action(), ArgAction::Set | ArgAction::Append | ArgAction::SetTrue);
        sets && arg.get_long().is_some()
    })
}

/// The name of a flag, which those here have.
fn long(flag: &Arg) -> &str {
    flag.get_long().unwrap_or_default()
}

/// Whether what is said about one flag leaves no place for another: they are the same, of one group, or exclude each
/// other.
fn rivals(command: &Command, flags: &[&Arg], flag: &Arg, other: &str) -> bool {
    if long(flag) == other {
        return true;
    }
    let Some(other) = flags.iter().find(|flag| long(flag) == other) else { return false };
    // Flags that are defined in one struct are a group to clap too, named as that: it says nothing about what they mean.
    let mut said =
        command.get_groups().filter(|group| !group.get_id().as_str().starts_with(char::is_uppercase));
    let together = said.any(|group| {
        let has = |flag: &Arg| group.get_args().any(|id| id == flag.get_id());
        has(flag) && has(other)
    });
    together || excludes(command, flag, other)
}

/// Whether two flags cannot be used together.
fn excludes(command: &Command, one: &Arg, two: &Arg) -> bool {
    let says = |one: &Arg, two: &Arg| {
        command.get_arg_conflicts_with(one).iter().any(|conflict| conflict.get_id() == two.get_id())
    };
    says(one, two) || says(two, one)
}

/// One place says two things that exclude each other: clap would tell of flags that nobody typed.
fn both(origin: &Origin, one: &str, two: &str) -> CliError {
    let (place, one, two) = match origin {
        Origin::Environment(_) => ("the environment".to_owned(), variable(one), variable(two)),
        origin => (origin.to_string(), one.to_owned(), two.to_owned()),
    };
    CliError::usage(format!("{place}: {one} and {two} cannot be used together; leave one of them out"))
}

/// The variable for a flag.
fn variable(flag: &str) -> String {
    format!("{PREFIX}{}", flag.replace('-', "_").to_ascii_uppercase())
}

fn read_environment(
    flags: &[&Arg],
    environment: &BTreeMap<String, OsString>,
    origins: &mut Origins,
) -> Result<Vec<Said>, CliError> {
    let mut said = Vec::new();
    let known: Vec<String> = flags.iter().map(|flag| variable(long(flag))).collect();
    let is_known = |name: &&String| known.contains(name) || *name == PASSWORD_VARIABLE;
    for name in environment.keys().filter(|name| !is_known(name)) {
        // Without what they all begin with, which would make any two of them alike.
        let plain = |name: &str| name.trim_start_matches(PREFIX).to_owned();
        let known: Vec<String> = known.iter().map(|known| plain(known)).collect();
        if let Some(meant) = nearest(&plain(name), known.iter().map(String::as_str)) {
            origins.suspicious.push((name.clone(), format!("{PREFIX}{meant}")));
        }
    }
    for (flag, name) in flags.iter().zip(known) {
        let Some(value) = environment.get(&name) else { continue };
        let wrong = |reason: &str| CliError::usage(format!("{name}: {reason}"));
        let value = value.to_str().ok_or_else(|| wrong("not UTF-8"))?;
        let values = match flag.get_action() {
            ArgAction::SetTrue => match value.to_ascii_lowercase().as_str() {
                "1" | "true" | "yes" | "on" => vec![None],
                "0" | "false" | "no" | "off" => Vec::new(),
                _ => return Err(wrong("write true or false")),
            },
            ArgAction::Append => value.split_whitespace().map(|value| Some(value.to_owned())).collect(),
            _ => vec![Some(value.to_owned())],
        };
        said.push(Said { flag: long(flag).to_owned(), values, origin: Origin::Environment(name) });
    }
    Ok(said)
}

/// The known name that a person who wrote this name may have meant.
fn nearest<'a>(name: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let scored = known.map(|known| (strsim::jaro_winkler(name, known), known));
    let best = scored.max_by(|(one, _), (two, _)| one.total_cmp(two));
    best.filter(|(score, _)| *score >= NEAR).map(|(_, known)| known)
}

/// Checks that a value fits its flag, and names the flag when it does not: an error of the whole line would not tell.
fn check(flags: &[&Arg], word: &str, said: &Said) -> Result<(), CliError> {
    let alone = Command::new("kvnode").no_binary_name(true).args(flags.iter().map(|flag| (*flag).clone()));
    match alone.try_get_matches_from([word]) {
        Err(error) if matches!(error.kind(), ErrorKind::InvalidValue | ErrorKind::ValueValidation) => {
            let text = error.to_string();
            let reason = text.strip_prefix("error: ").unwrap_or(&text).trim();
            let reason = reason.split("\n\nFor more").next().unwrap_or(reason);
            Err(CliError::usage(format!("{}: {reason}", said.origin)))
        }
        _ => Ok(()),
    }
}

/// The settings in force, as a file that says the same, with where each comes from. Never the cookie.
///
/// `implied` has, in TOML, what holds where nobody has set a flag, so far as the flag's definition does not say it.
pub(super) fn shown(
    command: &Command,
    matches: &ArgMatches,
    origins: &Origins,
    cookie: &str,
    implied: &[(&str, String)],
) -> String {
    let mut text = String::from(
        "# What `kvnode` starts with here, as a file for --config, and where each setting comes from. Flags win over\n\
         # KVNODE_… of the environment, and that over the file. What stands behind a # holds because nothing else is set.\n",
    );
    // By headings, in the order of the first flag of each.
    let mut sections: Vec<(&str, String)> = Vec::new();
    for flag in flags(command).filter(|flag| long(flag) != FILE_FLAG && !flag.is_hide_set()) {
        let name = long(flag);
        let implied = implied.iter().find(|(flag, _)| *flag == name);
        let line = match (in_toml(flag, matches), implied) {
            _ if name == "cookie" => format!("# cookie: from {cookie}\n"),
            (Some(value), _) => format!("{:<44} # {}\n", format!("{name} = {value}"), origins.of(name)),
            (None, Some((_, value))) => format!("{:<44} # default\n", format!("# {name} = {value}")),
            (None, None) => format!("{:<44} # default\n", format!("# {name} = (not set)")),
        };
        let heading = flag.get_help_heading().unwrap_or("Options");
        match sections.iter_mut().find(|(known, _)| *known == heading) {
            Some((_, lines)) => lines.push_str(&line),
            None => sections.push((heading, line)),
        }
    }
    for (heading, lines) in sections {
        text.push_str(&format!("\n# {heading}\n{lines}"));
    }
    text
}

/// The value of a flag as the file has it.
fn in_toml(flag: &Arg, matches: &ArgMatches) -> Option<String> {
    let id = flag.get_id().as_str();
    if matches!(flag.get_action(), ArgAction::SetTrue) {
        return Some(matches.get_flag(id).to_string());
    }
    let raw = matches.get_raw(id)?;
    let values: Vec<String> = raw.map(|value| file::value(&value.to_string_lossy())).collect();
    Some(match flag.get_action() {
        ArgAction::Append => format!("[{}]", values.join(", ")),
        _ => values.join(""),
    })
}

/// A text as the file has it.
pub(super) fn text_in_toml(text: &str) -> String {
    file::value(text)
}

/// Whether a path is one that others than its owner can read or write.
fn is_shared(path: &Path) -> std::io::Result<bool> {
    use std::os::unix::fs::PermissionsExt;
    Ok(std::fs::metadata(path)?.permissions().mode() & 0o077 != 0)
}
