//! `cargo xtask test`: all that has to hold, one step after the other.

use std::io::{BufRead as _, BufReader};
use std::process::{Command, Stdio};
use std::time::Instant;

use crate::report::{Report, Tally};
use crate::{adversary, clients, install, netns, plugins, shell, systemd};

/// Options of `cargo xtask test`.
#[derive(clap::Args, Debug)]
pub(crate) struct TestArgs {
    /// Only this step or group of client tests; may be given several times
    #[arg(long, value_name = "NAME", value_parser = name_of_a_step)]
    only: Vec<String>,
    /// Send the clients to coturn in place of the relay: what fails there too is a mistake of the test
    #[arg(long)]
    reference: bool,
}

/// Options of the part that runs inside of the namespace.
#[derive(clap::Args, Debug)]
pub(crate) struct InsideArgs {
    #[arg(long)]
    group: Vec<String>,
    #[arg(long)]
    reference: bool,
}

/// A step: its name, and what it does.
type Step = (&'static str, fn(&Report) -> Result<(), String>);

/// Everything but the clients, in order. What is quick to fail comes first, what others need before them.
const STEPS: &[Step] = &[
    ("install", |_| install::all()),
    ("fmt", |_| cargo("fmt --all --check")),
    // This program runs: it must not be replaced under its own feet.
    ("build", |_| cargo("build --release --locked --workspace --bins --exclude sluice-xtask")),
    ("cargo", cargo_test),
    ("clippy", |_| cargo("clippy --release --locked --workspace --all-targets -- -D warnings")),
    ("plugins", plugins::test),
    ("deny", |_| deny()),
    ("systemd", systemd::run),
    ("adversary", adversary::run),
    ("fuzz", |_| cargo("check --locked --manifest-path fuzz/Cargo.toml")),
];

/// One row of the benchmark: that it runs, and what it says. Figures of a shared machine decide nothing.
const BENCH_ROW: &[&str] = &["bench-turn", "--row", "20000:172:up", "--rounds", "3", "--others-max", "2"];

/// Those of whom something is demanded; the probe shows that the other one runs.
const BENCH_SERVERS: &[&str] = &["--server", "io_uring", "--server", "epoll", "--server", "coturn"];

/// Every name that `--only` takes.
fn all_steps() -> impl Iterator<Item = &'static str> {
    STEPS.iter().map(|step| step.0).chain(clients::GROUPS.iter().copied()).chain(["bench"])
}

fn name_of_a_step(name: &str) -> Result<String, String> {
    let names: Vec<&str> = all_steps().collect();
    if names.contains(&name) { Ok(name.to_owned()) } else { Err(format!("there are: {}", names.join(", "))) }
}

/// Runs the tests; the closing line says how many passed. `false` when one failed.
pub(crate) fn run(args: &TestArgs) -> bool {
    let start = Instant::now();
    let report = Report::default();
    let wants = |name: &str| args.only.is_empty() || args.only.iter().any(|only| only == name);
    let groups: Vec<&str> = clients::GROUPS.iter().copied().filter(|group| wants(group)).collect();
    let mut ready = true;
    for (name, step) in STEPS {
        // A single group of clients needs a current relay, and its tools.
        let asks = !groups.is_empty() || ["systemd", "adversary", "plugins"].into_iter().any(wants);
        let needed = asks && ["install", "build"].contains(name);
        if wants(name) || needed {
            println!("----  {name}");
            let passed = report.test(name, || step(&report));
            ready &= passed || !["install", "build"].contains(name);
        }
    }
    if !groups.is_empty() && ready {
        println!("----  clients: {}", groups.join(", "));
        // They have no network with which a compiler's tools could be had.
        if groups.contains(&"policies") {
            report.test("components", plugins::all);
        }
        run_clients(&report, &groups, args.reference);
    }
    if wants("bench") && ready {
        println!("----  bench");
        report.test("bench", bench_row);
    }
    let tally = report.tally();
    println!("----  after {:.0} s", start.elapsed().as_secs_f32());
    for name in &tally.failed {
        println!("FAIL  {name}");
    }
    println!("{} passed, {} failed", tally.passed, tally.failed.len());
    tally.failed.is_empty() && tally.passed > 0
}

/// The part of the clients; in their namespace.
pub(crate) fn run_inside(args: &InsideArgs) -> bool {
    let report = Report::default();
    if let Err(why) = clients::run(&report, &args.group, args.reference) {
        report.test("clients", || Err(why));
    }
    let saved = netns::folder().and_then(|folder| report.tally().save(&folder.join("tally.json")));
    saved.inspect_err(|why| println!("      {why}")).is_ok()
}

fn run_clients(report: &Report, groups: &[&str], reference: bool) {
    let inside = || -> Result<Tally, String> {
        let file = netns::folder()?.join("tally.json");
        // That of a former run must not be taken for this one's.
        let _ = std::fs::remove_file(&file);
        let mut arguments = vec!["inside".to_owned()];
        arguments.extend(groups.iter().flat_map(|group| ["--group".to_owned(), (*group).to_owned()]));
        if reference {
            arguments.push("--reference".to_owned());
        }
        netns::run_inside(&arguments)?;
        Tally::load(&file)
    };
    match inside() {
        Ok(tally) => report.add(tally),
        Err(why) => {
            report.test("clients", || Err(why));
        }
    }
}

fn cargo(words: &str) -> Result<(), String> {
    shell::show(shell::cargo().args(words.split(' ')))
}

/// Unit and integration tests, the simulator's seeds and the replay of the fuzzers' corpora among them.
fn cargo_test(report: &Report) -> Result<(), String> {
    let mut cargo = shell::cargo();
    count_tests(report, cargo.args(["test", "--release", "--locked", "--workspace", "--no-fail-fast"]))
}

/// Runs a `cargo test` and adds to the report how many tests passed and which did not.
pub(crate) fn count_tests(report: &Report, cargo: &mut Command) -> Result<(), String> {
    let mut child = cargo.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().map_err(|e| format!("cargo: {e}"))?;
    let mut counted = Tally::default();
    for line in child.stdout.take().into_iter().flat_map(|out| BufReader::new(out).lines()) {
        let line = line.map_err(|e| e.to_string())?;
        println!("{line}");
        counted.count_line(&line);
    }
    let status = child.wait().map_err(|e| e.to_string())?;
    let (passed, failed) = (counted.passed, counted.failed.len());
    report.add(counted);
    match (status.success(), passed, failed) {
        (true, 1.., 0) => Ok(()),
        _ => Err(format!("cargo test: {status}, {passed} passed, {failed} failed or ignored")),
    }
}

fn bench_row() -> Result<(), String> {
    let mut command = Command::new(shell::own_program()?);
    shell::show(command.args(BENCH_ROW).args(BENCH_SERVERS).arg("--binaries").arg(shell::target().join("release")))
}

fn deny() -> Result<(), String> {
    let mut command = Command::new(install::cargo_deny_program());
    // The advisories need a database from the network, and change while the tree does not.
    command.current_dir(shell::root()).args(["--offline", "check", "bans", "licenses", "sources"]);
    shell::show(&mut command)
}
