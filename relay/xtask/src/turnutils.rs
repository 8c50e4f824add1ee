//! coturn's own client, `turnutils_uclient`, line by line.
//!
//! It exits with 0 even when everything is lost: what it counted is read instead.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use crate::clients::{Account, Target};
use crate::netns;
use crate::report::Report;
use crate::shell::{self, Ran, TIMED_OUT};

/// How long one line may take; the longest here takes 25 s.
const LIMIT: Duration = Duration::from_secs(90);

/// How long a client with broken messages is waited for: it may never get an answer.
const DISTURBED_LIMIT: Duration = Duration::from_secs(12);

/// Clients with broken messages at the same time.
const DISTURBED_CLIENTS: u16 = 8;

/// How often as many are sent until one is served: what they break is random, also all of what matters.
const DISTURBED_ROUNDS: u16 = 4;

/// Light lines at the same time: each of them mostly waits.
const LIGHT_PARALLEL: usize = 12;

/// Heavy lines at the same time: 20 thousand packets per second each way, on two cores.
const HEAVY_PARALLEL: usize = 2;

/// The families of the listener and of the relayed address; the peer has the latter.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Way {
    V4,
    V6,
    V4ToV6,
    V6ToV4,
}

impl Way {
    const fn listener_is_v4(self) -> bool {
        matches!(self, Way::V4 | Way::V4ToV6)
    }

    const fn relay_is_v4(self) -> bool {
        matches!(self, Way::V4 | Way::V6ToV4)
    }

    const fn name(self) -> &'static str {
        match self {
            Way::V4 => "v4",
            Way::V6 => "v6",
            Way::V4ToV6 => "v4 to v6",
            Way::V6ToV4 => "v6 to v4",
        }
    }
}

/// What a line is to end with.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Expect {
    /// As much received as sent.
    NothingLost,
    /// Not let in: exit code 255.
    NotLetIn,
    /// An answer with this code, told by the client.
    Code(u16),
}

/// One call of the client.
#[derive(Clone, Debug)]
struct Line {
    options: &'static str,
    way: Way,
    account: Account,
    expect: Expect,
}

/// Lines that mostly wait, for both families.
const LIGHT: &[&str] = &[
    "",
    "-s",
    "-c",
    "-g",
    "-D",
    "-G",
    "-B",
    "-I",
    "-o https://origin.test",
    "-a 100000",
    "-Z",
    "-y",
    "-y -s",
    "-m 10 -c",
];

/// Lines with thousands of packets, for both families.
const HEAVY: &[&str] = &["-l 1200 -n 100 -z 1", "-m 100 -n 200", "-m 100 -n 200 -y", "-m 100 -n 200 -c -s"];

/// The lines of every target that may run side by side.
fn light_lines() -> Vec<Line> {
    let account = Account::Static;
    let expect = Expect::NothingLost;
    let line = |options, way| Line { options, way, account, expect };
    let mut lines: Vec<Line> =
        LIGHT.iter().flat_map(|options| [Way::V4, Way::V6].map(|way| line(options, way))).collect();
    lines.extend([Way::V4ToV6, Way::V6ToV4].map(|way| line("", way)));
    lines.extend([Way::V4ToV6, Way::V6ToV4].map(|way| line("-s", way)));
    lines.extend([Way::V4, Way::V6ToV4].map(|way| line("-X", way)));
    for way in [Way::V4, Way::V6] {
        lines.push(Line { expect: Expect::Code(400), ..line("-N", way) });
        for account in [Account::WrongPassword, Account::WrongSecret] {
            lines.push(Line { account, expect: Expect::NotLetIn, ..line("", way) });
        }
        for account in [Account::Rest, Account::RestNameless, Account::RestSecondSecret, Account::RestTenant] {
            lines.push(Line { account, ..line("", way) });
        }
    }
    lines
}

fn heavy_lines() -> Vec<Line> {
    let line =
        |options: &&'static str, way| Line { options, way, account: Account::Static, expect: Expect::NothingLost };
    HEAVY.iter().flat_map(|options| [Way::V4, Way::V6].map(|way| line(options, way))).collect()
}

/// Every line against every target.
pub(crate) fn run_all(report: &Report, targets: &[&Target]) {
    side_by_side(report, targets, &light_lines(), LIGHT_PARALLEL);
    side_by_side(report, targets, &heavy_lines(), HEAVY_PARALLEL);
    for target in targets {
        report.test(&format!("{} turnutils_uclient -R", target.name), || disturbed(target));
        report.test(&format!("{} turnutils_stunclient", target.name), || stunclient(target));
    }
}

/// Runs the lines, some of them at the same time, and on all targets before the next line.
fn side_by_side(report: &Report, targets: &[&Target], lines: &[Line], parallel: usize) {
    let on_all = |line| targets.iter().map(move |target| (*target, line));
    let calls: Vec<(&Target, &Line)> =
        lines.iter().flat_map(on_all).filter(|(target, line)| target.knows(line.account)).collect();
    let next = AtomicUsize::new(0);
    let work = || {
        loop {
            let n = next.fetch_add(1, Ordering::Relaxed);
            let Some((target, line)) = calls.get(n) else {
                break;
            };
            test(report, target, line, n);
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..parallel {
            scope.spawn(work);
        }
    });
}

/// Two short lines, enough to see that packets flow both ways and between clients.
pub(crate) fn run_short(report: &Report, target: &Target) {
    let (account, expect) = (Account::Static, Expect::NothingLost);
    for (n, line) in [
        Line { options: "-n 50", way: Way::V4, account, expect },
        Line { options: "-n 50 -y", way: Way::V6, account, expect },
    ]
    .iter()
    .enumerate()
    {
        test(report, target, line, n);
    }
}

fn test(report: &Report, target: &Target, line: &Line, n: usize) {
    let client = 1 + (n as u16) % netns::CLIENTS;
    let name = format!(
        "{} turnutils_uclient {}{}{}",
        target.name,
        line.way.name(),
        if line.options.is_empty() { "" } else { " " },
        line.options
    );
    let name = if line.account == Account::Static { name } else { format!("{name}, {}", line.account.name()) };
    report.test(&name, || {
        let mut ran = call(target, line, client, LIMIT)?;
        if has_drawn_one_number_twice(&ran) {
            ran = call(target, line, client, LIMIT)?;
        }
        judge(&ran, line.expect).map_err(|why| format!("{why}\n{}", ran.complaint("turnutils_uclient")))
    });
}

/// Each client binds two peers to channel numbers that it draws at random, and gives up when both are the same, which
/// is 400 (RFC 8656, 12.2): once in 16,383. Such a run says nothing; two in a row are no chance.
fn has_drawn_one_number_twice(ran: &Ran) -> bool {
    ran.text.contains("channel bind: error 400 (Bad Request)")
}

fn call(target: &Target, line: &Line, client: u16, limit: Duration) -> Result<Ran, String> {
    let options: Vec<&str> = line.options.split_whitespace().collect();
    let mut command = shell::limited(limit, "turnutils_uclient");
    command.args(&options).args(line.account.uclient_options());
    command.arg("-p").arg(target.port.to_string());
    let v4 = line.way.listener_is_v4();
    command.arg("-L").arg(if v4 { netns::client_v4(client) } else { netns::client_v6(client) });
    // Dual allocations ask for both families by themselves.
    if !line.way.relay_is_v4() && !options.contains(&"-Z") {
        command.arg("-x");
    }
    if !options.contains(&"-y") {
        let peer = if line.way.relay_is_v4() { netns::PEER_V4 } else { netns::PEER_V6 };
        command.arg("-e").arg(peer).arg("-r").arg(target.peer_port.to_string());
    }
    command.arg(if v4 { netns::RELAY_V4 } else { netns::RELAY_V6 });
    shell::capture(&mut command)
}

fn judge(ran: &Ran, expect: Expect) -> Result<(), String> {
    match expect {
        Expect::NothingLost if ran.code != Some(0) => Err("it did not end well".to_owned()),
        Expect::NothingLost => nothing_lost(&ran.text),
        Expect::NotLetIn if ran.code == Some(255) && ran.text.contains("Cannot complete Allocation") => Ok(()),
        Expect::NotLetIn => Err("it was not refused with exit code 255".to_owned()),
        Expect::Code(code) if ran.text.contains(&format!("error {code} ")) => Ok(()),
        Expect::Code(code) => Err(format!("it told of no error {code}")),
    }
}

/// Whether the client's closing lines say that all that was sent came back.
pub(crate) fn nothing_lost(text: &str) -> Result<(), String> {
    if !text.contains("Total lost packets 0 (0.000000%)") {
        return Err("packets were lost".to_owned());
    }
    match (total(text, "tot_send_msgs="), total(text, "tot_recv_msgs=")) {
        (Some(sent), Some(received)) if sent == received && sent > 0 => Ok(()),
        (sent, received) => Err(format!("sent and received differ, or are nothing: {sent:?} {received:?}")),
    }
}

/// One number of what the client has counted in all.
pub(crate) fn total(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().rfind(|line| line.contains("start_mclient: tot_send_msgs="));
    let after = line?.split_once(name)?.1;
    after.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
}

/// Clients that break some of their own messages are served, refused, or left without an answer; the
/// server lives on.
fn disturbed(target: &Target) -> Result<(), String> {
    let line = Line { options: "-R", way: Way::V4, account: Account::Static, expect: Expect::NothingLost };
    let mut rounds = 0;
    while disturbed_round(target, &line)? == 0 {
        rounds += 1;
        if rounds == DISTURBED_ROUNDS {
            return Err(format!("in {rounds} rounds not one of {DISTURBED_CLIENTS} clients was served"));
        }
    }
    let afterwards = call(target, &Line { options: "-c", ..line }, 1, LIMIT)?;
    nothing_lost(&afterwards.text).map_err(|why| format!("a sound client afterwards: {why}"))
}

/// So many at the same time; how many of them were served.
fn disturbed_round(target: &Target, line: &Line) -> Result<usize, String> {
    let runs: Vec<Result<Ran, String>> = std::thread::scope(|scope| {
        let start = |client| scope.spawn(move || call(target, line, client, DISTURBED_LIMIT));
        let threads: Vec<_> = (1..=DISTURBED_CLIENTS).map(start).collect();
        let join = |thread: std::thread::ScopedJoinHandle<'_, _>| {
            thread.join().unwrap_or_else(|_| Err("a client's thread ended badly".to_owned()))
        };
        threads.into_iter().map(join).collect()
    });
    let mut served = 0;
    for ran in runs {
        let ran = ran?;
        match ran.code {
            Some(0) => served += 1,
            Some(255 | TIMED_OUT) => {}
            _ => return Err(ran.complaint("turnutils_uclient -R")),
        }
    }
    Ok(served)
}

fn stunclient(target: &Target) -> Result<(), String> {
    for (client, server) in [(netns::client_v4(1), netns::RELAY_V4), (netns::client_v6(1), netns::RELAY_V6)] {
        let mut command = shell::limited(LIMIT, "turnutils_stunclient");
        command.arg("-p").arg(target.port.to_string()).args(["-L", &client, server]);
        let text = shell::capture(&mut command)?.ok("turnutils_stunclient")?;
        if !text.contains("UDP reflexive addr: ") || !text.contains(&client) {
            return Err(format!("it does not say its own address:\n{}", shell::tail(&text, 15)));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loss_is_read_from_the_text_and_not_from_the_exit_code() {
        let lost = "5: : start_mclient: tot_send_msgs=10, tot_recv_msgs=9\n5: : Total lost packets 1 (10.000000%)";
        let none = "5: : start_mclient: tot_send_msgs=10, tot_recv_msgs=10\n5: : Total lost packets 0 (0.000000%)";
        let idle = "5: : start_mclient: tot_send_msgs=0, tot_recv_msgs=0\n5: : Total lost packets 0 (0.000000%)";
        assert!(nothing_lost(none).is_ok());
        for text in [lost, idle, ""] {
            assert!(judge(&Ran { code: Some(0), text: text.to_owned() }, Expect::NothingLost).is_err(), "{text}");
        }
    }
}
