//! Completions, the manual page and `--version`: made of the one definition of the command line.

use std::sync::LazyLock;

use clap::{Args, Command};
use clap_complete::Shell;

use super::{CliError, print_bytes};
use crate::distribution::DistributionFlags;

#[derive(Args)]
#[command(before_help = "EXAMPLES
  $ kvnode completions bash > ~/.local/share/bash-completion/completions/kvnode
  $ kvnode completions zsh > ~/.zfunc/_kvnode
  $ kvnode completions fish > ~/.config/fish/completions/kvnode.fish")]
pub(super) struct CompletionsArgs {
    /// The shell
    #[arg(value_name = "SHELL")]
    shell: Shell,
}

pub(super) fn completions(args: &CompletionsArgs, mut command: Command) -> Result<(), CliError> {
    let mut text = Vec::new();
    clap_complete::generate(args.shell, &mut command, "kvnode", &mut text);
    print_bytes(&text)
}

/// The page of the whole program: roff, the commands' own pages behind it.
pub(super) fn manual(mut command: Command) -> Result<(), CliError> {
    command.build();
    let mut page = Vec::new();
    let write = |command: &Command, page: &mut Vec<u8>| {
        clap_mangen::Man::new(command.clone()).render(page).map_err(CliError::cannot_run)
    };
    write(&command, &mut page)?;
    for sub in command.get_subcommands().filter(|sub| !sub.is_hide_set() && sub.get_name() != "help") {
        write(sub, &mut page)?;
    }
    print_bytes(&page)
}

/// What `--version` prints: what a peer sees of this node.
pub(super) static VERSION: LazyLock<String> = LazyLock::new(|| {
    let offered = DistributionFlags::OFFERED;
    format!(
        "{}\ndistribution protocol version 6 (OTP 23 and later)\nflags offered {:#x}: {offered}\nflags wanted of a peer \
         {:#x}: {}",
        env!("CARGO_PKG_VERSION"),
        offered.bits(),
        DistributionFlags::MANDATORY.bits(),
        DistributionFlags::MANDATORY,
    )
});
