//! Commands `gjallar completions` and `gjallar man`: write completions and man pages, generated from the arguments.

use std::{fs, io, path::PathBuf};

use clap::CommandFactory;
use clap_complete::Shell;

use super::{Cli, CliError, print};

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  gjallar completions bash > ~/.local/share/bash-completion/completions/gjallar")]
pub(super) struct CompletionsArgs {
    /// Shell of the completions
    shell: Shell,
}

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  gjallar man /usr/local/share/man/man1")]
pub(super) struct ManArgs {
    /// Folder of the man pages, which is created if it is missing
    folder: PathBuf,
}

impl CompletionsArgs {
    pub(super) fn run(&self) -> Result<(), CliError> {
        let mut text = Vec::new();
        clap_complete::generate(self.shell, &mut Cli::command(), "gjallar", &mut text);
        print(&String::from_utf8_lossy(&text))
    }
}

impl ManArgs {
    pub(super) fn run(&self) -> Result<(), CliError> {
        fs::create_dir_all(&self.folder)?;
        let pages = clap_mangen::generate_to(Cli::command(), &self.folder);
        Ok(pages.map_err(io::Error::other)?)
    }
}
