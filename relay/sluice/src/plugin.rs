//! `sluice plugin`: policies, for those who write and install them.

mod check;
mod new;
mod operate;
mod orders;
mod replay;
mod site;
mod store;

use std::process::ExitCode;

use clap::Subcommand;

use crate::ask::AskArgs;
use crate::cli::ended;

/// What can be done with a plugin.
#[derive(Subcommand, Debug)]
pub(crate) enum PluginCommand {
    /// Writes a Rust project of a policy that builds, with its tests.
    New(new::NewArgs),
    /// Lists what decides for whom in the running relay.
    List(AskArgs),
    /// Copies a component with its cases to where it stays, has it checked, and names it in the configuration; later
    /// another version of it.
    Install(operate::InstallArgs),
    /// Has an installed plugin decide for a tenant.
    Enable(operate::EnableArgs),
    /// Has a plugin no longer decide for a tenant.
    Disable(operate::DisableArgs),
    /// Shows the settings of a plugin, or puts others in their place.
    Settings(operate::SettingsArgs),
    /// Puts back what was installed before, with its grants and settings of then.
    Rollback(operate::RollbackArgs),
    /// Has policies forget a person: what plugins have stored by that name is deleted, and each is asked to forget what
    /// it derived. The exit status is 0 only when every one has.
    Erase(orders::EraseArgs),
    /// Has policies asked again about all that lives; what is not allowed again ends with its next packet.
    Review(orders::ReviewArgs),
    /// Says what a component is: its hooks, what it would be told and granted, its digest.
    Check(check::CheckArgs),
    /// Runs recorded cases. The exit status is 0 only when every answer is the expected one.
    Test(check::TestArgs),
    /// Asks a component what was captured in a dry run. The exit status is 0 when every verdict is the same, 1 when one
    /// is another, 2 when something is wrong.
    Replay(replay::ReplayArgs),
}

/// Does it.
pub(crate) fn run(command: &PluginCommand) -> ExitCode {
    let done = match command {
        PluginCommand::New(args) => new::run(args),
        PluginCommand::List(ask) => check::list(ask),
        PluginCommand::Install(args) => operate::install(args),
        PluginCommand::Enable(args) => operate::enable(args),
        PluginCommand::Disable(args) => operate::disable(args),
        PluginCommand::Settings(args) => operate::settings(args),
        PluginCommand::Rollback(args) => operate::rollback(args),
        PluginCommand::Erase(args) => orders::erase(args),
        PluginCommand::Review(args) => orders::review(args),
        PluginCommand::Check(args) => check::check(args),
        PluginCommand::Test(args) => check::test(args),
        PluginCommand::Replay(args) => return replay::run(args),
    };
    ended(done)
}
