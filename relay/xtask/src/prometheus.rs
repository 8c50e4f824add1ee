//! Prometheus over a live relay: the rules, the alerts and every panel of the dashboard in `docs/monitoring`.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::report::Report;
use crate::{netns, server, shell};

/// How long one call of promtool may take.
const PROMTOOL_LIMIT: Duration = Duration::from_secs(30);

/// How long Prometheus may take to start, and everything to have data after that.
const START_LIMIT: Duration = Duration::from_secs(20);
const DATA_LIMIT: Duration = Duration::from_secs(60);

/// Between two questions to Prometheus, which scrapes each second.
const LOOK: Duration = Duration::from_millis(200);

/// What stands in the scrape example, and what the test needs in its place.
const EXAMPLE_TARGET: &str = "127.0.0.1:9641";
const EXAMPLE_INTERVAL: &str = "_interval: 15s";
const TEST_INTERVAL: &str = "_interval: 1s";

/// What Grafana puts in place of the dashboard's variables: two scrapes and more, the job, every relay.
const VARIABLES: &[(&str, &str)] = &[("$__rate_interval", "5s"), ("$job", "sluice"), ("$instance", ".+")];

/// The files that Prometheus loads, and all that are handed to operators.
const RULES: &[&str] = &["recording-rules.yml", "alerts.yml"];
const SCRAPE: &str = "scrape.yml";
const TESTS: &str = "alerts.test.yml";
const DASHBOARD: &str = "dashboard.json";

/// The relay that is watched.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Watched<'a> {
    /// Its listener for clients of IPv6.
    pub(crate) listener: SocketAddr,
    /// Its listener for Prometheus.
    pub(crate) metrics: SocketAddr,
    /// A user and its password.
    pub(crate) account: (&'a str, &'a str),
}

/// Runs the tests of the group; inside of the namespace.
pub(crate) fn run(report: &Report, watched: Watched<'_>) {
    report.test("prometheus: promtool accepts rules and scrape example, and the alerts' tests pass", promtool);
    report.test("prometheus: on a live relay every rule and panel has data, and no alert goes off", || live(watched));
}

fn promtool() -> Result<(), String> {
    let run = |arguments: &[&str]| {
        let mut command = shell::limited(PROMTOOL_LIMIT, "promtool");
        command.args(arguments).current_dir(examples());
        shell::capture(&mut command)?.ok(&format!("promtool {}", arguments.join(" "))).map(drop)
    };
    run(&[&["check", "rules", "--lint=all", "--lint-fatal"], RULES].concat())?;
    run(&["check", "config", SCRAPE])?;
    run(&["test", "rules", TESTS])
}

fn live(watched: Watched<'_>) -> Result<(), String> {
    let folder = netns::folder()?.join("prometheus");
    // What a former run measured would pass for this one's.
    let _ = std::fs::remove_dir_all(&folder);
    std::fs::create_dir_all(&folder).map_err(|e| format!("{}: {e}", folder.display()))?;
    let mut traffic = traffic(&folder, watched)?;
    let mut prometheus = Prometheus::start(&folder, watched.metrics)?;
    let mut missing = panels()?;
    let end = Instant::now() + DATA_LIMIT;
    loop {
        traffic.still_runs()?;
        prometheus.process.still_runs()?;
        missing = prometheus.without_data(missing)?;
        let rules = prometheus.rules()?;
        let unfinished = prometheus.unfinished(&rules)?;
        if missing.is_empty() && unfinished.is_empty() {
            return Ok(());
        }
        if Instant::now() > end {
            let silent: Vec<String> = missing.iter().map(Expression::to_string).chain(unfinished).collect();
            return Err(format!(
                "after {} s there is no data, or an alert:\n      {}",
                DATA_LIMIT.as_secs(),
                silent.join("\n      ")
            ));
        }
        std::thread::sleep(LOOK);
    }
}

/// Both directions of media between clients of IPv6 and peers of IPv4, at addresses that stand for people.
fn traffic(folder: &Path, watched: Watched<'_>) -> Result<Process, String> {
    let mut command = Command::new(shell::target().join("release/sluice-loadgen"));
    command.args(["--server", &watched.listener.to_string()]);
    command.args(["--user", watched.account.0, "--password", watched.account.1]);
    command.args(["--clients-from", &netns::client_v6(1), "--peers-from", &netns::client_v4(51)]);
    command.args(["--direction", "both", "--rtp", "--allocations", "20", "--rate", "1000", "--seconds", "200"]);
    Process::start("the load generator", &mut command, &folder.join("traffic.log"))
}

/// A running Prometheus.
#[derive(Debug)]
struct Prometheus {
    process: Process,
    web: SocketAddr,
}

/// What it says about a rule.
#[derive(Debug)]
struct Rule {
    name: String,
    query: String,
    is_alert: bool,
    /// `ok`, `err`, or `unknown` before the first evaluation.
    health: String,
    /// An alert's: `inactive`, `pending`, `firing`.
    state: String,
    error: String,
}

impl Prometheus {
    /// Starts it with the example's configuration and waits until it is ready.
    fn start(folder: &Path, metrics: SocketAddr) -> Result<Self, String> {
        for file in RULES {
            std::fs::copy(examples().join(file), folder.join(file)).map_err(|e| format!("{file}: {e}"))?;
        }
        let config = folder.join(SCRAPE);
        std::fs::write(&config, configuration(&read(SCRAPE)?, metrics)?).map_err(|e| e.to_string())?;
        let web = SocketAddr::new(metrics.ip(), free_tcp_port(metrics)?);
        let mut command = Command::new("prometheus");
        command.arg(format!("--config.file={}", config.display()));
        command.arg(format!("--storage.tsdb.path={}", folder.join("data").display()));
        command.arg(format!("--web.listen-address={web}")).arg("--log.level=warn");
        let mut process = Process::start("prometheus", &mut command, &folder.join("prometheus.log"))?;
        let end = Instant::now() + START_LIMIT;
        while server::http_get(web, "/-/ready").is_err() {
            process.still_runs()?;
            if Instant::now() > end {
                return Err(process.complaint(&format!("is not ready after {} s", START_LIMIT.as_secs())));
            }
            std::thread::sleep(LOOK);
        }
        Ok(Prometheus { process, web })
    }

    /// Those of the expressions that have no number yet.
    fn without_data(&self, expressions: Vec<Expression>) -> Result<Vec<Expression>, String> {
        let mut missing = Vec::new();
        for expression in expressions {
            if !self.has_data(&expression.query).map_err(|why| format!("{expression}: {why}"))? {
                missing.push(expression);
            }
        }
        Ok(missing)
    }

    /// Rules that were not evaluated yet, recording rules without data, by their text or what they recorded, and alerts
    /// over a relay that is well.
    fn unfinished(&self, rules: &[Rule]) -> Result<Vec<String>, String> {
        let mut unfinished = Vec::new();
        for rule in rules {
            if rule.health == "err" {
                return Err(format!("rule {}: {}", rule.name, rule.error));
            }
            if rule.is_alert && rule.state != "inactive" {
                unfinished.push(format!("the alert {} is {}", rule.name, rule.state));
            }
            let has_data = rule.is_alert || (self.has_data(&rule.query)? && self.has_data(&rule.name)?);
            if rule.health != "ok" || !has_data {
                unfinished.push(format!("rule {}: {}", rule.name, rule.query));
            }
        }
        Ok(unfinished)
    }

    fn rules(&self) -> Result<Vec<Rule>, String> {
        let answer = self.ask("/api/v1/rules")?;
        let groups = answer["data"]["groups"].as_array().cloned().unwrap_or_default();
        let text = |rule: &Value, key: &str| rule[key].as_str().unwrap_or_default().to_owned();
        let of = |rule: &Value| Rule {
            name: text(rule, "name"),
            query: text(rule, "query"),
            is_alert: rule["type"] == "alerting",
            health: text(rule, "health"),
            state: text(rule, "state"),
            error: text(rule, "lastError"),
        };
        let rules: Vec<Rule> =
            groups.iter().flat_map(|g| g["rules"].as_array().into_iter().flatten()).map(of).collect();
        if rules.is_empty() { Err("it has loaded no rules".to_owned()) } else { Ok(rules) }
    }

    /// Whether a query has at least one value that is a number.
    fn has_data(&self, query: &str) -> Result<bool, String> {
        let answer = self.ask(&format!("/api/v1/query?query={}", percent_encoded(query)))?;
        let samples = answer["data"]["result"].as_array().ok_or("no result")?;
        let value = |sample: &Value| sample["value"][1].as_str().and_then(|text| text.parse::<f64>().ok());
        Ok(samples.iter().filter_map(value).any(|number| !number.is_nan()))
    }

    fn ask(&self, path: &str) -> Result<Value, String> {
        let text = server::http_get(self.web, path)?;
        let answer: Value = serde_json::from_str(&text).map_err(|e| format!("GET {path}: {e}: {text}"))?;
        if answer["status"] == "success" { Ok(answer) } else { Err(format!("GET {path}: {text}")) }
    }
}

/// A query of a panel.
#[derive(Debug)]
struct Expression {
    panel: String,
    query: String,
}

impl std::fmt::Display for Expression {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "panel '{}': {}", self.panel, self.query)
    }
}

/// Every query of the dashboard, with its variables filled in.
fn panels() -> Result<Vec<Expression>, String> {
    let dashboard: Value = serde_json::from_str(&read(DASHBOARD)?).map_err(|e| format!("{DASHBOARD}: {e}"))?;
    let mut expressions = Vec::new();
    for panel in dashboard["panels"].as_array().into_iter().flatten() {
        let title = panel["title"].as_str().unwrap_or_default();
        let before = expressions.len();
        for target in panel["targets"].as_array().into_iter().flatten() {
            let query = target["expr"].as_str().ok_or_else(|| format!("{DASHBOARD}: panel '{title}' has no expr"))?;
            let query = VARIABLES.iter().fold(query.to_owned(), |query, (name, value)| query.replace(name, value));
            if query.contains("$_") || query.contains("${") {
                return Err(format!(
                    "{DASHBOARD}: panel '{title}' uses a variable that the test does not know: {query}"
                ));
            }
            expressions.push(Expression { panel: title.to_owned(), query });
        }
        if expressions.len() == before {
            return Err(format!("{DASHBOARD}: panel '{title}' shows nothing"));
        }
    }
    if expressions.is_empty() { Err(format!("{DASHBOARD} has no panels")) } else { Ok(expressions) }
}

/// The example, scraping the relay of the test each second.
fn configuration(example: &str, metrics: SocketAddr) -> Result<String, String> {
    for expected in [EXAMPLE_TARGET, EXAMPLE_INTERVAL] {
        if !example.contains(expected) {
            return Err(format!("{SCRAPE} does not have `{expected}`, which the test replaces"));
        }
    }
    Ok(example.replace(EXAMPLE_TARGET, &metrics.to_string()).replace(EXAMPLE_INTERVAL, TEST_INTERVAL))
}

/// A program that runs beside the test, and ends with it.
#[derive(Debug)]
struct Process {
    name: &'static str,
    child: Child,
    log: PathBuf,
}

impl Process {
    fn start(name: &'static str, command: &mut Command, log: &Path) -> Result<Self, String> {
        let file = std::fs::File::create(log).map_err(|e| format!("{}: {e}", log.display()))?;
        let errors = file.try_clone().map_err(|e| e.to_string())?;
        let child = command.stdin(Stdio::null()).stdout(file).stderr(errors).spawn();
        Ok(Process { name, child: child.map_err(|e| format!("{name}: {e}"))?, log: log.to_owned() })
    }

    fn still_runs(&mut self) -> Result<(), String> {
        match self.child.try_wait().map_err(|e| e.to_string())? {
            None => Ok(()),
            Some(status) => Err(self.complaint(&format!("ended with {status}"))),
        }
    }

    fn complaint(&self, what: &str) -> String {
        let said = std::fs::read_to_string(&self.log).unwrap_or_default();
        format!("{} {what}; it said:\n{}", self.name, shell::tail(&said, 15))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // One that has ended already is as good.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn examples() -> PathBuf {
    shell::root().join("docs/monitoring")
}

fn read(file: &str) -> Result<String, String> {
    std::fs::read_to_string(examples().join(file)).map_err(|e| format!("{file}: {e}"))
}

/// In a namespace of our own nobody takes it meanwhile.
fn free_tcp_port(beside: SocketAddr) -> Result<u16, String> {
    let listener = std::net::TcpListener::bind((beside.ip(), 0)).map_err(|e| e.to_string())?;
    listener.local_addr().map(|address| address.port()).map_err(|e| e.to_string())
}

/// As a query of a URI (RFC 3986, 2.1).
fn percent_encoded(text: &str) -> String {
    let mut encoded = String::new();
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            // Writing to a string cannot fail.
            let _ = write!(encoded, "%{byte:02X}");
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    /// Names of metrics in a text: of families, and of what rules record.
    fn names(text: &str) -> BTreeSet<String> {
        let words = text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_' || c == ':'));
        let is_name = |word: &&str| word.starts_with("sluice_") || word.contains(":sluice_");
        words.filter(is_name).map(str::to_owned).collect()
    }

    /// The families of the table in docs/metrics.md, with what a histogram's samples are called.
    fn families() -> BTreeSet<String> {
        let text = std::fs::read_to_string(shell::root().join("docs/metrics.md")).unwrap();
        let mut found = BTreeSet::new();
        for line in text.lines() {
            let Some((name, rest)) = line.strip_prefix("| `").and_then(|line| line.split_once("` | ")) else {
                continue;
            };
            if rest.starts_with("histogram") {
                found.extend(["_bucket", "_sum", "_count"].map(|suffix| format!("{name}{suffix}")));
            } else if ["counter", "gauge"].iter().any(|kind| rest.starts_with(kind)) {
                found.insert(name.to_owned());
            }
        }
        found
    }

    fn recorded() -> BTreeSet<String> {
        let text = read("recording-rules.yml").unwrap();
        text.lines().filter_map(|line| line.trim().strip_prefix("- record: ")).map(str::to_owned).collect()
    }

    #[test]
    fn every_metric_that_is_named_exists() {
        let known: BTreeSet<String> = families().union(&recorded()).cloned().collect();
        for file in ["recording-rules.yml", "alerts.yml", "alerts.test.yml", "dashboard.json"] {
            let named = names(&read(file).unwrap());
            assert!(!named.is_empty(), "{file}");
            let unknown: Vec<_> = named.difference(&known).collect();
            assert!(
                unknown.is_empty(),
                "{file} names {unknown:?}, which docs/metrics.md and recording-rules.yml do not"
            );
        }
    }

    #[test]
    fn every_alert_has_a_chapter_and_tests_both_ways() {
        let (alerts, readme, tests) =
            (read("alerts.yml").unwrap(), read("README.md").unwrap(), read("alerts.test.yml").unwrap());
        let found: Vec<&str> = alerts.lines().filter_map(|line| line.trim().strip_prefix("- alert: ")).collect();
        assert_eq!(found.len(), 5);
        for alert in found {
            let anchor = format!("runbook: docs/monitoring/README.md#{}", alert.to_lowercase());
            assert!(alerts.contains(&anchor), "{alert} has no {anchor}");
            assert!(readme.lines().any(|line| line.trim_start_matches('#').trim() == alert), "README.md: {alert}");
            let cases: Vec<&str> = tests.split("- alertname: ").filter(|case| case.starts_with(alert)).collect();
            assert!(cases.iter().any(|case| case.contains("exp_alerts: []")), "{alert} is never silent");
            assert!(cases.iter().any(|case| case.contains("- exp_labels: {severity")), "{alert} never fires");
        }
    }

    #[test]
    fn every_panel_has_its_place_and_the_chosen_datasource() {
        let dashboard: Value = serde_json::from_str(&read(DASHBOARD).unwrap()).unwrap();
        let mut cells = BTreeSet::new();
        let mut ids = BTreeSet::new();
        for panel in dashboard["panels"].as_array().unwrap() {
            assert!(ids.insert(panel["id"].as_u64().unwrap()), "{panel}");
            let edge = |key: &str| panel["gridPos"][key].as_u64().unwrap();
            assert!(edge("x") + edge("w") <= 24, "{panel}");
            for x in edge("x")..edge("x") + edge("w") {
                for y in edge("y")..edge("y") + edge("h") {
                    assert!(cells.insert((x, y)), "{} lies over another panel", panel["title"]);
                }
            }
            for target in panel["targets"].as_array().unwrap().iter().chain([panel]) {
                assert_eq!(target["datasource"]["uid"], "${datasource}");
            }
        }
    }

    #[test]
    fn the_example_is_only_changed_where_it_is_known() {
        let metrics = "127.0.0.1:5".parse().unwrap();
        let text = configuration(&read(SCRAPE).unwrap(), metrics).unwrap();
        assert!(text.contains("targets: [\"127.0.0.1:5\"]") && text.contains("scrape_interval: 1s"), "{text}");
        assert!(configuration("scrape_configs: []", metrics).is_err());
    }

    #[test]
    fn a_query_survives_its_way() {
        assert_eq!(percent_encoded("a{b=\"c\"} > 1"), "a%7Bb%3D%22c%22%7D%20%3E%201");
    }
}
