//! `completions` and `man`: what shells and readers need to know of the command line.

use std::{fs, io, path::PathBuf};

use clap::CommandFactory;
use clap_complete::Shell;

use super::{Cli, CliError, print};

#[derive(Debug, clap::Args)]
pub(super) struct Completions {
    shell: Shell,
}

#[derive(Debug, clap::Args)]
pub(super) struct Man {
    folder: PathBuf,
}

impl Completions {
    pub(super) fn run(&self) -> Result<(), CliError> {
        let mut text = Vec::new();
        clap_complete::generate(self.shell, &mut Cli::command(), "gjallar", &mut text);
        print(&String::from_utf8_lossy(&text))
    }
}

impl Man {
    pub(super) fn run(&self) -> Result<(), CliError> {
        fs::create_dir_all(&self.folder)?;
        let pages = clap_mangen::generate_to(Cli::command(), &self.folder);
        Ok(pages.map_err(io::Error::other)?)
    }
}
