//! `sluice plugin erase` and `sluice plugin review`: asked over the control socket.

use std::fmt::Write as _;
use std::fs::File;
use std::io::Read;
use std::path::PathBuf;

use clap::Args;
use sluice_admin::api;
use sluice_base::limits::USERNAME_BYTES_MAX;

use crate::ask::AskArgs;
use crate::cli::Failure;

/// `sluice plugin erase`.
#[derive(Args, Debug)]
pub(crate) struct EraseArgs {
    /// Whose user that is.
    #[arg(long)]
    tenant: String,
    /// A file with the user's name, in one line; without it the name is read from standard input, where no list of
    /// processes shows it.
    #[arg(long, value_name = "FILE")]
    user_file: Option<PathBuf>,
    #[command(flatten)]
    ask: AskArgs,
}

/// `sluice plugin review`.
#[derive(Args, Debug)]
pub(crate) struct ReviewArgs {
    /// The policies of this tenant; without it those of all.
    #[arg(long)]
    tenant: Option<String>,
    #[command(flatten)]
    ask: AskArgs,
}

/// Has policies forget a person: fails unless every plugin has.
pub(super) fn erase(args: &EraseArgs) -> Result<(), Failure> {
    let request = api::EraseRequest { tenant: args.tenant.clone(), user: user(args)? };
    let erasure: api::Erasure = args.ask.call_with(api::ERASE, &request)?;
    args.ask.print(&erasure, |erasure| erasure_text(&args.tenant, erasure))?;
    let failed = erasure.plugins.iter().filter(|erased| erased.failure.is_some());
    let failed: Vec<_> = failed.map(|erased| erased.plugin.as_str()).collect();
    match failed.is_empty() {
        true => Ok(()),
        false => Err(format!(
            "the person is not forgotten by {}: run this again until it ends well; what names the person in its \
             store is gone already",
            failed.join(", ")
        )),
    }
}

/// Has policies asked again.
pub(super) fn review(args: &ReviewArgs) -> Result<(), Failure> {
    let review: api::Review = args.ask.call_with(api::REVIEW, &api::ReviewRequest { tenant: args.tenant.clone() })?;
    args.ask.print(&review, |review| match review.tenants.is_empty() {
        true => "no plugin decides there: nobody is asked\n".to_owned(),
        false => format!("asked again about all that lives: the policies of {}\n", review.tenants.join(", ")),
    })
}

/// The name, without the end of its line.
fn user(args: &EraseArgs) -> Result<String, Failure> {
    match &args.user_file {
        Some(file) => {
            let opened = File::open(file).map_err(|error| format!("{}: {error}", file.display()))?;
            one_line(opened).map_err(|error| format!("{}: {error}", file.display()))
        }
        None => one_line(std::io::stdin()).map_err(|error| format!("standard input: {error}")),
    }
}

fn one_line(source: impl Read) -> Result<String, String> {
    let mut text = String::new();
    // One line end, and one byte by which it is seen to be too long.
    source.take(USERNAME_BYTES_MAX as u64 + 3).read_to_string(&mut text).map_err(|error| error.to_string())?;
    let name = text.strip_suffix('\n').map_or(&*text, |line| line.strip_suffix('\r').unwrap_or(line));
    match name.is_empty() || name.len() > USERNAME_BYTES_MAX || name.contains('\n') {
        true => Err(format!("one user's name has to stand there, of 1 to {USERNAME_BYTES_MAX} bytes in one line")),
        false => Ok(name.to_owned()),
    }
}

fn erasure_text(tenant: &str, erasure: &api::Erasure) -> String {
    if erasure.plugins.is_empty() {
        return format!("no plugin decides for {tenant}, and none has stored anything about that person\n");
    }
    let mut text = String::new();
    for api::Erased { plugin, entries, left, deleted, kept, failure } in &erasure.plugins {
        let said = match (deleted, failure) {
            (_, Some(failure)) => format!("and it failed when it was asked to forget the rest ({failure})"),
            (Some(deleted), None) => format!("and it says that it deleted {deleted} of what it derived"),
            (None, None) if *left > 0 => format!(
                "and it has no hook to be asked what else is about the person: {left} that name nobody stay until they \
                 end, 30 days at most"
            ),
            (None, None) => "and nothing else of its store is left".to_owned(),
        };
        let _ = writeln!(text, "{plugin}: {entries} deleted of what it stored about the person, {said}");
        for line in kept {
            let _ = writeln!(text, "  it keeps: {line}");
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_one_line() {
        for (text, name) in [("alice", "alice"), ("alice\n", "alice"), ("alice\r\n", "alice"), (" a b \n", " a b ")] {
            assert_eq!(one_line(text.as_bytes()), Ok(name.to_owned()));
        }
        let long = "a".repeat(USERNAME_BYTES_MAX + 1);
        for wrong in ["", "\n", "alice\nbob\n", &long, &format!("{long}{long}")] {
            assert!(one_line(wrong.as_bytes()).is_err_and(|error| !error.contains("alice")), "{wrong:?}");
        }
        assert!(one_line(&b"\xff"[..]).is_err());
    }
}
