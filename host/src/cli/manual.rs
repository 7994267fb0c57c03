//! What shells and `man` know of the commands. All of it is made of their definitions, so that it can't say anything else.

use std::io;
use std::path::Path;

use clap::{Command, CommandFactory};
use clap_complete::Shell;
use clap_mangen::Man;

use super::fail::{Exit, Fail};
use super::{Arguments, print};

const NAME: &str = "tidewaiter";

/// Prints a script that has a shell complete commands and options.
pub(super) fn completions(shell: Shell) -> Result<(), Fail> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Arguments::command(), NAME, &mut script);
    print::write(&String::from_utf8_lossy(&script))
}

/// Writes a page for each command into a folder.
pub(super) fn pages(folder: &Path) -> Result<(), Fail> {
    let mut program = Arguments::command().disable_help_subcommand(true);
    program.build();
    let written = std::fs::create_dir_all(folder).and_then(|()| pages_of(&program, folder));
    written.map_err(|error| Fail::new(Exit::Host, format!("{}: {error}", folder.display())))
}

fn pages_of(command: &Command, folder: &Path) -> io::Result<()> {
    command.get_subcommands().filter(|one| !one.is_hide_set()).try_for_each(|one| pages_of(one, folder))?;
    let source = format!("{NAME} {}", env!("CARGO_PKG_VERSION"));
    Man::new(command.clone()).source(source).manual("Tidewaiter").generate_to(folder).map(drop)
}
