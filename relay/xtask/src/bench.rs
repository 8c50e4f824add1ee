//! `cargo xtask bench-turn`: sluice on io_uring, sluice on epoll, coturn and the turn crate's server over the same
//! work, in alternation.
//!
//! Each server has one core, the load generator another. Absolute times drift with the machine, so every round runs
//! all servers one after the other and the ratios are taken within a round.

mod awake;
mod contender;
mod measure;
mod plan;
mod summary;

use std::io::Write as _;
use std::path::PathBuf;
use std::time::Duration;

use crate::{plugins, shell};
use awake::Awake;
use contender::{Contender, Kind};
use measure::Series;
use plan::Row;

/// Options of `bench-turn`.
#[derive(clap::Args, Clone, Debug)]
pub(crate) struct BenchArgs {
    /// A selection of rows, sluice on io_uring and coturn alone unless others are named: a minute.
    #[arg(long)]
    quick: bool,
    /// Only this row, as RATE:SIZE:DIRECTION (20000:172:up; rate 0 is flat out; directions: up, down, c2c, burst,
    /// allocate). May be repeated.
    #[arg(long, value_name = "ROW", conflicts_with = "quick")]
    row: Vec<Row>,
    /// Only this server. May be repeated.
    #[arg(long, value_enum, value_name = "SERVER")]
    server: Vec<Kind>,
    /// Rounds that must count.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=1000))]
    rounds: u32,
    /// Measured seconds of each server in each round, four times as many at 5,000 packets per second [default: 2, with
    /// --quick 0.6].
    #[arg(long)]
    seconds: Option<f64>,
    /// Let payloads look like a video stream's: what sluice sees of media is paid for then.
    #[arg(long)]
    rtp: bool,
    /// Print {"rows":[...]} instead of the table.
    #[arg(long)]
    json: bool,
    /// Hold the figures against what is demanded of them, and fail where they miss it.
    #[arg(long)]
    check: bool,
    /// Keep the cores from sleeping, so that what is measured is not how soon a host gives it back. Needs root.
    #[arg(long)]
    awake: bool,
    /// The servers' core.
    #[arg(long, default_value_t = 0)]
    server_cpu: usize,
    /// The load generator's core.
    #[arg(long, default_value_t = 1)]
    load_cpu: usize,
    /// Cores that other processes may take before a round is dropped. More is no measurement, but a way to look for
    /// mistakes on a busy machine.
    #[arg(long, value_name = "CORES", default_value_t = measure::OTHERS_CORES_MAX)]
    others_max: f64,
    /// A folder with `sluice`, `sluice-loadgen` and `sluice-bench-webrtc-rs`, instead of building them.
    #[arg(long, value_name = "FOLDER")]
    binaries: Option<PathBuf>,
    /// A folder with the `sluice` that `again` is to be: another build, beside this one in the same rounds.
    #[arg(long, value_name = "FOLDER")]
    again: Option<PathBuf>,
}

/// Runs the benchmark and prints its result.
///
/// # Errors
/// coturn is missing, a server or the load generator fails, the machine is too busy to measure, or, with `--check`,
/// a figure misses what is demanded of it.
pub(crate) fn run(args: &BenchArgs) -> Result<(), String> {
    if args.server_cpu == args.load_cpu {
        return Err("--server-cpu and --load-cpu: the server and its load need a core each".to_owned());
    }
    let kinds = match (&args.server[..], args.quick) {
        ([], true) => vec![Kind::IoUring, Kind::Coturn],
        ([], false) => Kind::DEFAULT.to_vec(),
        (named, _) => named.to_vec(),
    };
    if args.again.is_some() && !kinds.contains(&Kind::Again) {
        return Err("--again: it takes part only where it is named: add --server again".to_owned());
    }
    if let Some(folder) = args.again.as_ref().filter(|folder| !folder.join("sluice").is_file()) {
        return Err(format!("--again {}: there is no program named sluice in it", folder.display()));
    }
    let folder = binaries(args, &kinds)?;
    if kinds.contains(&Kind::Policies) {
        plugins::all()?;
    }
    let rows = match (&args.row[..], args.quick) {
        ([], true) => plan::quick(),
        ([], false) => plan::matrix(),
        (rows, _) => rows.to_vec(),
    };
    let settings = measure::Settings {
        loadgen: folder.join("sluice-loadgen"),
        load_cpu: args.load_cpu,
        rounds: args.rounds,
        others_max: args.others_max,
        rtp: args.rtp,
        // coturn closes what has ended 0.85 s later.
        settle: Duration::from_secs(if args.quick { 1 } else { 2 }),
        seconds: args.seconds.unwrap_or(if args.quick { 0.6 } else { 2.0 }),
    };
    let _awake = args.awake.then(Awake::keep).transpose()?;
    let of = |kind| args.again.as_deref().filter(|_| kind == Kind::Again).unwrap_or(&folder);
    let mut servers: Vec<Contender> =
        kinds.iter().map(|&kind| Contender::start(kind, of(kind), args.server_cpu)).collect::<Result<_, _>>()?;
    let mut all = Vec::new();
    for (number, &row) in rows.iter().enumerate() {
        progress(&format!("row {} of {}: {row}", number + 1, rows.len()));
        all.push(measure::row(&settings, row, &servers)?);
    }
    servers.drain(..).try_for_each(Contender::stop)?;
    publish(args, &all)
}

fn publish(args: &BenchArgs, all: &[Series]) -> Result<(), String> {
    let text = if args.json { summary::json(all)? } else { summary::table(all) };
    print(&text)?;
    let demands = if args.check { summary::demands(all) } else { Vec::new() };
    for demand in &demands {
        progress(&demand.to_string());
    }
    let unmeasured = all.iter().filter(|series| series.rounds.is_empty()).count();
    let missed = demands.iter().filter(|demand| !demand.is_met()).count();
    match (unmeasured, missed) {
        (0, 0) => Ok(()),
        (0, missed) => Err(format!("{missed} of {} figures miss what is demanded", demands.len())),
        (rows, _) => Err(format!("{rows} rows have no figures: other processes were busy in every round")),
    }
}

/// The folder of the programs under test, freshly built unless one is given.
fn binaries(args: &BenchArgs, kinds: &[Kind]) -> Result<PathBuf, String> {
    if let Some(folder) = &args.binaries {
        return Ok(folder.clone());
    }
    let mut build = shell::cargo();
    build.args(["build", "--release", "-p", "sluice-loadgen"]);
    if kinds.iter().any(|kind| kind.server() == "sluice") {
        build.args(["-p", "sluice"]);
    }
    if kinds.contains(&Kind::WebrtcRs) {
        build.args(["-p", "sluice-bench-webrtc-rs"]);
    }
    shell::show(&mut build)?;
    Ok(shell::target().join("release"))
}

/// One line for whoever waits.
fn progress(line: &str) {
    // Nobody waits where standard error is closed.
    let _ = writeln!(std::io::stderr(), "{line}");
}

fn print(text: &str) -> Result<(), String> {
    writeln!(std::io::stdout(), "{text}").map_err(|error| format!("standard output: {error}"))
}
