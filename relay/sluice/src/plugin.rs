//! `sluice plugin`: policies, for those who write and install them.

mod new;

use clap::Subcommand;

use crate::cli::Failure;

/// What can be done with a plugin.
#[derive(Subcommand, Debug)]
pub(crate) enum PluginCommand {
    /// Writes a Rust project of a policy that builds, with its tests.
    New(new::NewArgs),
}

/// Does it.
pub(crate) fn run(command: &PluginCommand) -> Result<(), Failure> {
    match command {
        PluginCommand::New(args) => new::run(args),
    }
}
