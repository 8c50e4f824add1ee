//! `sluice plugin`: policies, for those who write and install them.

mod check;
mod new;

use clap::Subcommand;

use crate::ask::AskArgs;
use crate::cli::Failure;

/// What can be done with a plugin.
#[derive(Subcommand, Debug)]
pub(crate) enum PluginCommand {
    /// Writes a Rust project of a policy that builds, with its tests.
    New(new::NewArgs),
    /// Lists what decides for whom in the running relay.
    List(AskArgs),
    /// Says what a component is: its hooks, what it would be told and granted, its digest.
    Check(check::CheckArgs),
    /// Runs recorded cases. The exit status is 0 only when every answer is the expected one.
    Test(check::TestArgs),
}

/// Does it.
pub(crate) fn run(command: &PluginCommand) -> Result<(), Failure> {
    match command {
        PluginCommand::New(args) => new::run(args),
        PluginCommand::List(ask) => check::list(ask),
        PluginCommand::Check(args) => check::check(args),
        PluginCommand::Test(args) => check::test(args),
    }
}
