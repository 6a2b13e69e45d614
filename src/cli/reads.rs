//! `--linearizable`: how new is what a command reads.

use clap::Args;

use super::CliError;
use super::answer::{self, Form};
use crate::etf::{TermView, TermWriter};

#[derive(Args, Clone, Copy)]
pub(super) struct ReadArgs {
    /// Miss nothing that any kvnode of the store had answered before. At a store in etcd it costs a question to etcd, and a slave
    /// refuses it
    #[arg(long)]
    pub(super) linearizable: bool,
}

impl ReadArgs {
    /// Writes the option of a request where it is wanted.
    pub(super) fn write(self, w: &mut TermWriter<'_>) {
        if self.linearizable {
            w.tuple(2).atom("consistency").atom("linearizable");
        }
    }
}

/// Prints the answer to a read; `{:error, reason}` is a failure, and no answer.
pub(super) fn told(answer: TermView<'_>, form: Form) -> Result<(), CliError> {
    match refused(answer) {
        Some(refused) => Err(refused),
        None => answer::carried_out(answer, |_| None).and_then(|()| answer::show(answer, form)),
    }
}

/// The failure that an answer is which a store gives where it cannot find out what is newest.
pub(super) fn refused(answer: TermView<'_>) -> Option<CliError> {
    let reason = answer::refusal(answer)?;
    if reason.is_atom("unavailable") {
        return Some(CliError::Failed(
            "the etcd that keeps the store does not answer, and without it nobody knows what is newest; try again".into(),
        ));
    }
    let [_, primary] = reason.as_tuple::<2>().filter(|[code, _]| code.is_atom("slave_of"))?;
    let whom = if primary.is_atom("nil") { "that one".to_owned() } else { answer::text(primary) };
    Some(CliError::Failed(format!(
        "it is a slave, and its primary may have what it lacks; ask {whom}, or read without --linearizable what is there"
    )))
}
