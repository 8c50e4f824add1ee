//! The command line.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};
use sluice_config::Config;

use crate::ask::AskArgs;
use crate::{banner, plugin, policies, probe, records, wiring};

/// What goes wrong, in words for whoever started the relay.
pub(crate) type Failure = String;

/// A TURN server and SFU in one daemon. Without a configuration: a relay on loopback with generated
/// credentials.
#[derive(Parser, Debug)]
#[command(name = "sluice", version, args_conflicts_with_subcommands = true)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Option<Command>,
    #[command(flatten)]
    pub(crate) run: RunArgs,
}

#[derive(Subcommand, Debug)]
pub(crate) enum Command {
    /// Reads a configuration file and says what is wrong with it.
    CheckConfig {
        /// The file.
        file: PathBuf,
    },
    /// Says how the running relay is.
    Status(AskArgs),
    /// Lists the allocations of the running relay, without anybody's address or name.
    Allocations(AskArgs),
    /// Says whether the running relay serves: its workers advance, and its listeners answer a client.
    Healthcheck(AskArgs),
    /// Has the running relay read its configuration again: all of it comes into force, or nothing.
    Reload(AskArgs),
    /// Has the running relay let nobody new in, and end when its allocations have ended.
    Drain(AskArgs),
    /// Prints the drop-in that systemd's unit needs for a configuration on this machine.
    SystemdDropin {
        /// The configuration file.
        #[arg(long, short, value_name = "FILE")]
        config: PathBuf,
    },
    /// Finds the sessions of an address while its key lives; the audit keeps who asked and why.
    Lookup(records::commands::LookupArgs),
    /// Bans clients for at most seven days.
    #[command(subcommand)]
    Ban(records::commands::BanCommand),
    /// Keeps sessions beyond their retention, for a complaint or a court.
    #[command(subcommand)]
    Hold(records::holds::HoldCommand),
    /// Shows, checks and exports the audit.
    #[command(subcommand)]
    Audit(records::offline::AuditCommand),
    /// Says what is kept, and until when.
    #[command(subcommand)]
    Retention(records::commands::RetentionCommand),
    /// Makes a copy of the store of a running relay, without any key.
    Backup(records::commands::BackupArgs),
    /// Puts a copy of the store back, while no relay runs on the state directory.
    Restore(records::offline::RestoreArgs),
    /// Reports what is processed.
    #[command(subcommand)]
    Compliance(records::report::ComplianceCommand),
    /// Asks a relay for its service from outside, and says whether it serves. The exit status is 0 only when it does.
    Probe(probe::ProbeArgs),
    /// Policies, for those who write and install them.
    #[command(subcommand)]
    Plugin(plugin::PluginCommand),
}

#[derive(Args, Debug)]
pub(crate) struct RunArgs {
    /// The configuration file; without one the relay serves loopback, for development.
    #[arg(long, short, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// Without a configuration: where to listen instead of port 3478 of loopback.
    #[arg(long, value_name = "ADDRESS", conflicts_with = "config")]
    pub(crate) listen: Vec<SocketAddr>,
    /// Without a configuration: where metrics are served.
    #[arg(long, value_name = "ADDRESS", conflicts_with = "config")]
    pub(crate) metrics: Option<SocketAddr>,
    /// Without a configuration: print the generated password even where the output is not a terminal.
    #[arg(long, conflicts_with = "config")]
    pub(crate) print_credentials: bool,
    /// What is logged to standard error: error, warn, info, debug or trace.
    /// Without it [log] level of the configuration holds, else info.
    #[arg(long, value_name = "LEVEL")]
    pub(crate) log_level: Option<tracing::level_filters::LevelFilter>,
}

/// The names that `io.disable` may have.
pub(crate) fn io_features() -> Vec<&'static str> {
    sluice_net::FEATURES.iter().map(|(name, _)| *name).collect()
}

/// The exit status of a command; what went wrong is said.
pub(crate) fn ended(done: Result<(), Failure>) -> ExitCode {
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            banner::complain(&error);
            ExitCode::FAILURE
        }
    }
}

/// `sluice check-config FILE`.
pub(crate) fn check_config(file: &Path) -> Result<(), Failure> {
    let config = Config::load(file, &io_features()).map_err(|error| error.to_string())?;
    records::check(&config)?;
    for warning in &config.warnings {
        banner::say(&format!("warning: {warning}\n"));
    }
    // Plugins are loaded as a start would: what they say of their settings is a part of what may be wrong.
    policies::Policies::start(&config, wiring::ledger(&config))?;
    banner::say(&format!(
        "{}: valid: {} listeners, {} tenants, {} plugins\n",
        file.display(),
        config.listen.len(),
        config.tenants.len(),
        config.plugins.len()
    ));
    Ok(())
}
