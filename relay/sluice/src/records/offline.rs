//! `sluice audit` and `sluice restore`: read from a state directory, beside a running relay or without one.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use serde::Serialize;
use sluice_base::limits::{AUDIT_TAIL_DEFAULT, AUDIT_TAIL_MAX};
use sluice_record::{audit, backup};

use super::commands;
use crate::ask::AskArgs;
use crate::banner;
use crate::cli::Failure;

/// Where the unit's relay has it.
const USUAL_STATE: &str = "/var/lib/sluice";

/// `sluice audit`.
#[derive(Subcommand, Debug)]
pub(crate) enum AuditCommand {
    /// Reads the whole audit, and says whether it is as it was written; names the first entry that is not.
    Verify {
        #[command(flatten)]
        state: StateArgs,
        /// The public key of the relay's signatures, as `audit.pub` of the state directory had it when it was copied
        /// elsewhere. Without it that file is believed.
        #[arg(long, value_name = "FILE")]
        key: Option<PathBuf>,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Writes the whole audit as JSON lines.
    Export {
        #[command(flatten)]
        state: StateArgs,
        /// The file to write, which must not be there yet; without it standard output.
        #[arg(long, value_name = "FILE")]
        to: Option<PathBuf>,
    },
    /// Shows the last entries, over the control socket of the running relay.
    Tail {
        /// How many.
        #[arg(short = 'n', long, default_value_t = AUDIT_TAIL_DEFAULT, value_parser = tail_count)]
        last: usize,
        #[command(flatten)]
        ask: AskArgs,
    },
}

/// Which state directory.
#[derive(Args, Debug)]
pub(crate) struct StateArgs {
    /// The state directory, or a copy of one; without it $STATE_DIRECTORY, else /var/lib/sluice.
    #[arg(long, value_name = "DIRECTORY")]
    state: Option<PathBuf>,
}

/// Options of `sluice restore`.
#[derive(Args, Debug)]
pub(crate) struct RestoreArgs {
    /// The copy.
    #[arg(long, value_name = "DIRECTORY")]
    from: PathBuf,
    #[command(flatten)]
    state: StateArgs,
}

/// A chain that is whole, or the first entry that is not as it was written.
#[derive(Serialize)]
struct Verdict {
    whole: bool,
    entries: Option<u64>,
    first: Option<u64>,
    last: Option<u64>,
    checkpoints: Option<u64>,
    broken_at: Option<u64>,
    why: Option<String>,
}

impl StateArgs {
    pub(crate) fn directory(&self) -> PathBuf {
        let made = || super::Directories::of_environment().state;
        self.state.clone().or_else(made).unwrap_or_else(|| PathBuf::from(USUAL_STATE))
    }
}

/// `sluice audit ...`.
pub(crate) fn audit(command: &AuditCommand) -> Result<(), Failure> {
    match command {
        AuditCommand::Verify { state, key, json } => verify(&state.directory(), key.as_deref(), *json),
        AuditCommand::Export { state, to } => export(&state.directory(), to.as_deref()),
        AuditCommand::Tail { last, ask } => commands::audit_tail(*last, ask),
    }
}

/// `sluice restore`.
pub(crate) fn restore(args: &RestoreArgs) -> Result<(), Failure> {
    let state = args.state.directory();
    let manifest = backup::restore(&args.from, &state).map_err(|error| error.to_string())?;
    let made = super::time::shown(manifest.created);
    banner::say(&format!("{}: as it was at {made} UTC; its files are {}\n", state.display(), whose(&state)));
    Ok(())
}

/// Whose the files in a directory are, for whoever restores as another user than the relay's.
fn whose(directory: &Path) -> String {
    let owner = std::fs::metadata(directory).map(|metadata| metadata.uid());
    owner.map_or("somebody's".to_owned(), |uid| format!("user {uid}'s: the relay has to be run as that user"))
}

fn verify(directory: &Path, key: Option<&Path>, json: bool) -> Result<(), Failure> {
    let from = key.map_or(directory.to_owned(), |file| file.to_owned());
    let key = match key {
        Some(file) => audit::key_in(file),
        None => audit::published_key(directory),
    };
    let key = key.map_err(|error| {
        format!("the key of the audit's signatures cannot be read from {}: {error}", from.display())
    })?;
    let verified = audit::verify(directory, &key).map_err(|error| error.to_string())?;
    let verdict = match &verified {
        Ok(whole) => Verdict {
            whole: true,
            entries: Some(whole.entries),
            first: Some(whole.first),
            last: Some(whole.last),
            checkpoints: Some(whole.checkpoints),
            broken_at: None,
            why: None,
        },
        Err(broken) => Verdict {
            whole: false,
            entries: None,
            first: None,
            last: None,
            checkpoints: None,
            broken_at: Some(broken.seq),
            why: Some(broken.what.to_owned()),
        },
    };
    if json {
        banner::say(&(serde_json::to_string_pretty(&verdict).map_err(|error| error.to_string())? + "\n"));
    }
    match verified {
        Ok(whole) if !json => {
            banner::say(&format!(
                "the audit is whole: {} entries, {} to {}, {} checkpoints\n",
                whole.entries, whole.first, whole.last, whole.checkpoints
            ));
            Ok(())
        }
        Ok(_) => Ok(()),
        Err(broken) => Err(broken.to_string()),
    }
}

fn export(directory: &Path, to: Option<&Path>) -> Result<(), Failure> {
    let told = |error: audit::ExportError| error.to_string();
    let Some(path) = to else {
        audit::export(directory, None, &mut std::io::stdout().lock()).map_err(told)?;
        return Ok(());
    };
    let refused = |error: std::io::Error| format!("{}: {error}", path.display());
    let mut file = BufWriter::new(File::create_new(path).map_err(refused)?);
    let lines = audit::export(directory, None, &mut file).map_err(told)?;
    file.flush().and_then(|()| file.get_ref().sync_all()).map_err(refused)?;
    banner::say(&format!("{}: {lines} entries\n", path.display()));
    Ok(())
}

fn tail_count(text: &str) -> Result<usize, String> {
    let count = text.parse().ok().filter(|count| (1..=AUDIT_TAIL_MAX).contains(count));
    count.ok_or_else(|| format!("a number from 1 to {AUDIT_TAIL_MAX}"))
}
