//! The configuration file: TOML, a key for each flag.

use std::path::Path;

use clap::{Arg, ArgAction};
use toml::{Table, Value};

use super::{FILE_FLAG, Origin, Said, is_shared, long, nearest};
use crate::cli::CliError;

/// What a file says.
///
/// # Errors
/// It cannot be read, is no TOML, or has something in it that is no setting. No message shows a value of the cookie.
pub(super) fn read(path: &Path, flags: &[&Arg]) -> Result<Vec<Said>, CliError> {
    let name = path.display();
    let text = std::fs::read_to_string(path)
        .map_err(|reason| CliError::cannot_run(format!("--config {name}: cannot be read: {reason}")))?;
    let table: Table = text.parse().map_err(|error: toml::de::Error| {
        // Its own form shows the line, which may be the one with the cookie.
        let (line, column) = place(&text, error.span().map_or(0, |span| span.start));
        CliError::usage(format!("{name}: line {line}, column {column}: {}", error.message()))
    })?;
    let mut said = Vec::new();
    for (key, value) in &table {
        let flag = flags.iter().find(|flag| long(flag) == key && key != FILE_FLAG);
        let Some(flag) = flag else { return Err(unknown(&name.to_string(), key, flags)) };
        if key == "cookie" && is_shared(path).unwrap_or(true) {
            return Err(CliError::usage(format!(
                "{name}: it holds the cookie, and others than its owner can read it: chmod 600 it, or take the cookie file"
            )));
        }
        let values =
            values(flag, value).map_err(|reason| CliError::usage(format!("{name}: {key}: {reason}")))?;
        said.push(Said { flag: key.clone(), values, origin: Origin::File(path.to_owned()) });
    }
    Ok(said)
}

/// Line and column, from 1, of a position in a text.
fn place(text: &str, position: usize) -> (usize, usize) {
    let before = text.get(..position).unwrap_or(text);
    let line = before.rsplit('\n').next().unwrap_or_default();
    (before.matches('\n').count() + 1, line.chars().count() + 1)
}

fn unknown(name: &str, key: &str, flags: &[&Arg]) -> CliError {
    let known = flags.iter().map(|flag| long(flag)).filter(|known| *known != FILE_FLAG);
    // As it is written in Rust and in the environment.
    let written = key.replace('_', "-").to_ascii_lowercase();
    let hint = match nearest(&written, known) {
        Some(meant) => format!("; {meant} was meant?"),
        None => "; the keys are the names of the flags, which `kvnode --help` lists".to_owned(),
    };
    CliError::usage(format!("{name}: {key:?} is no setting{hint}"))
}

/// The values as they would be typed.
fn values(flag: &Arg, value: &Value) -> Result<Vec<Option<String>>, &'static str> {
    match (flag.get_action(), value) {
        (ArgAction::SetTrue, Value::Boolean(true)) => Ok(vec![None]),
        (ArgAction::SetTrue, Value::Boolean(false)) => Ok(Vec::new()),
        (ArgAction::SetTrue, _) => Err("write true or false"),
        (ArgAction::Append, Value::Array(values)) => {
            values.iter().map(|value| one(value).map(Some)).collect()
        }
        (_, Value::Array(_)) => Err("takes one value, and not a list"),
        (_, value) => Ok(vec![Some(one(value)?)]),
    }
}

fn one(value: &Value) -> Result<String, &'static str> {
    match value {
        Value::String(text) => Ok(text.clone()),
        Value::Integer(number) => Ok(number.to_string()),
        _ => Err("write a text in quotes, or a number"),
    }
}

/// A typed value as this file has it.
pub(super) fn value(typed: &str) -> String {
    match typed.parse::<i64>() {
        Ok(number) if number.to_string() == typed => typed.to_owned(),
        _ => Value::String(typed.to_owned()).to_string(),
    }
}
