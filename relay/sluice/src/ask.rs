//! Subcommands that ask a running relay through its control socket.

use std::path::PathBuf;

use clap::Args;
use serde::Serialize;
use serde::de::DeserializeOwned;
use sluice_admin::api::{self, Allocation, Allocations, Draining, Reload, Status};
use sluice_admin::{ClientError, Method, call, call_with};

use crate::banner;
use crate::cli::Failure;
use crate::{life, reload};

/// Where the unit's relay has it.
const USUAL_SOCKET: &str = "/run/sluice/control.sock";

/// Options of every such subcommand.
#[derive(Args, Debug)]
pub(crate) struct AskArgs {
    /// The control socket; without it that of $RUNTIME_DIRECTORY, else /run/sluice/control.sock.
    #[arg(long, value_name = "PATH")]
    pub(crate) socket: Option<PathBuf>,
    /// Print JSON.
    #[arg(long)]
    pub(crate) json: bool,
}

impl AskArgs {
    pub(crate) fn socket(&self) -> PathBuf {
        self.socket.clone().or_else(life::runtime_socket).unwrap_or_else(|| PathBuf::from(USUAL_SOCKET))
    }

    /// Sends one request and waits for its answer.
    pub(crate) fn call<T: DeserializeOwned>(&self, method: Method, path: &str) -> Result<T, Failure> {
        self.asked(method, path)?.map_err(|error| error.to_string())
    }

    /// The same, for whom it matters why there is no answer.
    pub(crate) fn asked<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
    ) -> Result<Result<T, ClientError>, Failure> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(|error| format!("no runtime: {error}"))?;
        Ok(runtime.block_on(call(&self.socket(), method, path)))
    }

    /// Sends one request with a body, and waits for its answer.
    pub(crate) fn call_with<T: DeserializeOwned>(&self, path: &str, request: &impl Serialize) -> Result<T, Failure> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(|error| format!("no runtime: {error}"))?;
        runtime.block_on(call_with(&self.socket(), path, request)).map_err(|error| error.to_string())
    }

    /// Prints an answer as JSON, or in words.
    pub(crate) fn print<T: Serialize>(&self, value: &T, words: impl FnOnce(&T) -> String) -> Result<(), Failure> {
        if !self.json {
            banner::say(&words(value));
            return Ok(());
        }
        let text = serde_json::to_string_pretty(value).map_err(|error| error.to_string())?;
        banner::say(&(text + "\n"));
        Ok(())
    }
}

/// `sluice status`.
pub(crate) fn status(args: &AskArgs) -> Result<(), Failure> {
    let status: Status = args.call(Method::GET, api::STATUS)?;
    args.print(&status, status_text)
}

/// `sluice allocations`: every page, one after the other.
pub(crate) fn allocations(args: &AskArgs) -> Result<(), Failure> {
    let mut all = Allocations::default();
    let mut after = Some(0);
    while let Some(cursor) = after {
        let page: Allocations = args.call(Method::GET, &format!("{}?after={cursor}", api::ALLOCATIONS))?;
        all.allocations.extend(page.allocations);
        after = page.next;
    }
    args.print(&all, |all| allocations_text(&all.allocations))
}

/// `sluice reload`: fails unless what is in force now is the file.
pub(crate) fn reload(args: &AskArgs) -> Result<(), Failure> {
    let answer: Reload = args.call(Method::POST, api::RELOAD)?;
    if args.json || answer.outcome.is_well() {
        args.print(&answer, |answer| reload::text(answer) + "\n")?;
    }
    match answer.outcome.is_well() {
        true => Ok(()),
        false if args.json => Err(format!("{}: see above", reload::outcome(answer.outcome))),
        false => Err(reload::text(&answer)),
    }
}

/// `sluice drain`: begins it, and does not wait for its end.
pub(crate) fn drain(args: &AskArgs) -> Result<(), Failure> {
    let draining: Draining = args.call(Method::POST, api::DRAIN)?;
    args.print(&draining, |draining| draining_text(draining) + "\n")
}

fn draining_text(draining: &Draining) -> String {
    let s = if draining.allocations == 1 { "" } else { "s" };
    format!(
        "draining: nobody new is let in; {} allocation{s} may go on for {}",
        draining.allocations,
        time(draining.deadline_in_seconds)
    )
}

fn status_text(status: &Status) -> String {
    let mut text = format!("sluice {}, process {}", status.version, status.pid);
    text += &format!(", up {}\n\n", time(status.uptime_seconds));
    let mut line = |name: &str, value: &str| text += &format!("  {name:<13} {value}\n");
    line("configuration", status.config.as_deref().unwrap_or("none: for development"));
    line("driver", &status.driver);
    let cores: Vec<_> = status.workers.iter().map(|w| format!("{} on core {}", w.worker, w.core)).collect();
    line("workers", &cores.join(", "));
    for listener in &status.listeners {
        line("listener", &format!("{} (realm {})", listener.address, listener.realm));
    }
    line("metrics", &status.metrics.map_or("not served".to_owned(), |address| format!("http://{address}/metrics")));
    line("allocations", &format!("{} of {}", status.allocations, status.allocations_limit));
    if let Some(last) = &status.last_reload {
        let ago = (status.started_unix_seconds + status.uptime_seconds).saturating_sub(last.unix_seconds);
        line("last reload", &format!("{} ago: {}", time(ago), reload::outcome(last.outcome)));
    }
    if let Some(draining) = &status.draining {
        line("state", &draining_text(draining));
    }
    for fault in &status.faults {
        line("fault", fault);
    }
    text
}

fn allocations_text(all: &[Allocation]) -> String {
    let head = [
        "ALLOCATION",
        "USER",
        "CLIENT",
        "TENANT",
        "FAMILIES",
        "AGE",
        "ENDS IN",
        "PERMS",
        "CHANS",
        "PKTS IN",
        "BYTES IN",
        "PKTS OUT",
        "BYTES OUT",
    ];
    let row = |a: &Allocation| {
        [
            a.allocation.clone(),
            a.user.clone(),
            a.client.clone(),
            a.tenant.clone(),
            a.families.join("+"),
            time(a.age_seconds),
            time(a.expires_in_seconds),
            a.permissions.to_string(),
            a.channels.to_string(),
            a.packets_from_client.to_string(),
            a.bytes_from_client.to_string(),
            a.packets_to_client.to_string(),
            a.bytes_to_client.to_string(),
        ]
    };
    let rows: Vec<_> = std::iter::once(head.map(str::to_owned)).chain(all.iter().map(row)).collect();
    table(&rows)
}

/// Columns as wide as their widest cell.
pub(crate) fn table<const N: usize>(rows: &[[String; N]]) -> String {
    let width = |column: usize| rows.iter().map(|row| row[column].len()).max().unwrap_or(0);
    let widths: [usize; N] = std::array::from_fn(width);
    let mut text = String::new();
    for row in rows {
        let cells: Vec<_> = row.iter().zip(widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
        text += cells.join("  ").trim_end();
        text.push('\n');
    }
    text
}

/// A stretch of time in its two largest units.
pub(crate) fn time(seconds: u64) -> String {
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86_400);
    match () {
        () if days > 0 => format!("{days}d{}h", hours % 24),
        () if hours > 0 => format!("{hours}h{}m", minutes % 60),
        () if minutes > 0 => format!("{minutes}m{}s", seconds % 60),
        () => format!("{seconds}s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_is_as_wide_as_its_cells() {
        let rows = [["A", "LONG"], ["wide", "b"]].map(|row| row.map(str::to_owned));
        assert_eq!(table(&rows), "A     LONG\nwide  b\n");
    }

    #[test]
    fn times_have_two_units() {
        let told = [59, 61, 3_660, 90_000].map(time);
        assert_eq!(told, ["59s", "1m1s", "1h1m", "1d1h"]);
    }
}
