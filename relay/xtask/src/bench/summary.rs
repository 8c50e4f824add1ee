//! Medians, paired ratios with their spread, and whether they are good enough.

use std::fmt;

use serde::Serialize;

use super::contender::Kind;
use super::measure::{Sample, Series};
use super::plan::{self, Direction, Row};

impl Series {
    /// The samples of one server, by round.
    fn of(&self, kind: Kind) -> Option<Vec<Sample>> {
        let at = self.kinds.iter().position(|&other| other == kind)?;
        (!self.rounds.is_empty()).then(|| self.rounds.iter().map(|round| round[at]).collect())
    }

    /// The ratio of a figure of two servers in each round.
    fn ratio(&self, of: Kind, to: Kind, figure: impl Fn(&Sample) -> f64) -> Option<Spread> {
        let pairs = self.of(of)?.into_iter().zip(self.of(to)?);
        Spread::of(pairs.map(|(of, to)| figure(&of) / figure(&to)).collect())
    }

    fn median(&self, kind: Kind, figure: impl Fn(&Sample) -> f64) -> Option<f64> {
        Spread::of(self.of(kind)?.iter().map(figure).collect()).map(|spread| spread.median)
    }

    fn lost(&self, kind: Kind) -> Option<u64> {
        Some(self.of(kind)?.iter().map(|sample| sample.lost).sum())
    }
}

/// Median, least and most.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Spread {
    median: f64,
    least: f64,
    most: f64,
}

impl Spread {
    fn of(mut values: Vec<f64>) -> Option<Self> {
        values.sort_by(f64::total_cmp);
        let (&least, &most) = (values.first()?, values.last()?);
        let middle = values.len() / 2;
        let median =
            if values.len().is_multiple_of(2) { (values[middle - 1] + values[middle]) / 2.0 } else { values[middle] };
        Some(Self { median, least, most })
    }
}

impl fmt::Display for Spread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.2} ({:.2} to {:.2})", self.median, self.least, self.most)
    }
}

/// For programs: one object per row and server.
pub(super) fn json(all: &[Series]) -> Result<String, String> {
    #[derive(Serialize)]
    struct Line {
        server: &'static str,
        driver: &'static str,
        direction: Direction,
        size: u16,
        rate_pps: u32,
        cpu_ns_per_packet: f64,
        p50_us: f64,
        p99_us: f64,
        p99_of_parts_us: f64,
        lost: u64,
    }
    #[derive(Serialize)]
    struct Document {
        rows: Vec<Line>,
    }
    let mut rows = Vec::new();
    for series in all {
        let Row { direction, size, rate } = series.row;
        for &kind in &series.kinds {
            let figures = (
                series.median(kind, |sample| sample.cpu_ns_per_packet),
                series.median(kind, |sample| sample.p50_us),
                series.median(kind, |sample| sample.p99_us),
                series.median(kind, |sample| sample.p99_of_parts_us),
                series.lost(kind),
            );
            // A row without a quiet round has no figures.
            let (Some(cpu_ns_per_packet), Some(p50_us), Some(p99_us), Some(p99_of_parts_us), Some(lost)) = figures
            else {
                continue;
            };
            let (server, driver) = (kind.server(), kind.driver());
            rows.push(Line {
                server,
                driver,
                direction,
                size,
                rate_pps: rate,
                cpu_ns_per_packet,
                p50_us,
                p99_us,
                p99_of_parts_us,
                lost,
            });
        }
    }
    serde_json::to_string(&Document { rows }).map_err(|error| error.to_string())
}

/// For people: a table that Markdown reads too.
pub(super) fn table(all: &[Series]) -> String {
    let mut lines = vec![
        [
            "row",
            "coturn us",
            "io_uring us",
            "epoll us",
            "webrtc-rs us",
            "io_uring / coturn",
            "epoll / coturn",
            "io_uring / epoll",
            "io_uring / webrtc-rs",
            "p50 us",
            "p99 us",
            "p99 of parts us",
            "lost",
            "rounds",
        ]
        .map(str::to_owned)
        .to_vec(),
    ];
    lines.extend(all.iter().map(cells));
    let beside = all.iter().flat_map(beside_io_uring);
    let widths: Vec<usize> = (0..lines[0].len())
        .map(|column| lines.iter().map(|line| line[column].chars().count()).max().unwrap_or(0))
        .collect();
    let mut text: Vec<String> = lines.iter().map(|line| padded(line, &widths)).collect();
    text.insert(1, format!("|{}|", widths.iter().map(|width| "-".repeat(width + 2)).collect::<Vec<_>>().join("|")));
    text.push(String::new());
    text.push(
        "Server CPU per delivered packet (per allocation in the last row), medians; ratios within a round: median \
         (least to most). p50, p99 and lost: coturn, io_uring, epoll, webrtc-rs. p99 of parts: the median of the 99th \
         percentiles of each tenth of a second, which a pause of the machine does not move. Rounds: counted, dropped \
         because of others. Flat out: as many packets as the server takes with 512 on their way, by fours of a flow. \
         burst: by eights."
            .to_owned(),
    );
    text.extend(beside);
    text.join("\n")
}

/// What records and plugins cost, and what a second server of the same kind seems to cost.
fn beside_io_uring(series: &Series) -> Vec<String> {
    let line = |kind: Kind| {
        let cpu = series.ratio(kind, Kind::IoUring, |s| s.cpu_ns_per_packet)?;
        let p99 = series.ratio(kind, Kind::IoUring, |s| s.p99_us)?;
        let parts = series.ratio(kind, Kind::IoUring, |s| s.p99_of_parts_us)?;
        let lost = series.lost(kind)?;
        Some(format!(
            "{}: {} / io_uring: CPU {cpu}, p99 {p99}, p99 of parts {parts}; {lost} lost",
            series.row,
            kind.name()
        ))
    };
    [Kind::Recording, Kind::Policies, Kind::Again].into_iter().filter_map(line).collect()
}

fn cells(series: &Series) -> Vec<String> {
    const ORDER: [Kind; 4] = [Kind::Coturn, Kind::IoUring, Kind::Epoll, Kind::WebrtcRs];
    let or_dash = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
    let cpu = |kind| or_dash(series.median(kind, |s| s.cpu_ns_per_packet).map(|ns| format!("{:.2}", ns / 1000.0)));
    let ratio = |of, to| or_dash(series.ratio(of, to, |s| s.cpu_ns_per_packet).map(|spread| spread.to_string()));
    let each = |text: &dyn Fn(Kind) -> Option<String>| ORDER.map(|kind| or_dash(text(kind))).join(" / ");
    vec![
        series.row.to_string(),
        cpu(Kind::Coturn),
        cpu(Kind::IoUring),
        cpu(Kind::Epoll),
        cpu(Kind::WebrtcRs),
        ratio(Kind::IoUring, Kind::Coturn),
        ratio(Kind::Epoll, Kind::Coturn),
        ratio(Kind::IoUring, Kind::Epoll),
        ratio(Kind::IoUring, Kind::WebrtcRs),
        each(&|kind| series.median(kind, |s| s.p50_us).map(|us| format!("{us:.0}"))),
        each(&|kind| series.median(kind, |s| s.p99_us).map(|us| format!("{us:.0}"))),
        each(&|kind| series.median(kind, |s| s.p99_of_parts_us).map(|us| format!("{us:.0}"))),
        each(&|kind| series.lost(kind).map(|lost| lost.to_string())),
        format!("{}, {}", series.rounds.len(), series.dropped),
    ]
}

fn padded(cells: &[String], widths: &[usize]) -> String {
    let cells = cells.iter().zip(widths).map(|(cell, width)| format!(" {cell:<width$} "));
    format!("|{}|", cells.collect::<Vec<_>>().join("|"))
}

/// A figure that is demanded.
#[derive(Debug)]
pub(super) struct Demand {
    what: String,
    found: f64,
    at_most: f64,
}

impl Demand {
    /// Whether the figure is good enough.
    pub(super) fn is_met(&self) -> bool {
        self.found <= self.at_most
    }
}

impl fmt::Display for Demand {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let verdict = if self.is_met() { "ok    " } else { "MISSED" };
        write!(f, "{verdict} {}: {:.2}, at most {:.2}", self.what, self.found, self.at_most)
    }
}

/// All that is demanded of the rows that were measured.
pub(super) fn demands(all: &[Series]) -> Vec<Demand> {
    let mut demands = Vec::new();
    for series in all {
        let row = series.row;
        let mut demand = |what: &str, found: Option<f64>, at_most: Option<f64>| {
            if let (Some(found), Some(at_most)) = (found, at_most) {
                demands.push(Demand { what: format!("{row}, {what}"), found, at_most });
            }
        };
        let median = |of, to, figure: fn(&Sample) -> f64| series.ratio(of, to, figure).map(|spread| spread.median);
        let to_coturn = |figure| median(Kind::IoUring, Kind::Coturn, figure);
        demand("CPU to coturn's", to_coturn(|s| s.cpu_ns_per_packet), plan::of_coturn_at_most(row));
        demand("p99 to coturn's", to_coturn(|s| s.p99_us), plan::p99_of_coturn_at_most(row));
        demand("p99 of parts to coturn's", to_coturn(|s| s.p99_of_parts_us), plan::p99_of_coturn_at_most(row));
        let to_epoll = median(Kind::IoUring, Kind::Epoll, |s| s.cpu_ns_per_packet);
        demand("CPU to epoll's", to_epoll, plan::of_epoll_at_most(row));
        let as_float = |lost: u64| lost as f64;
        let at_most = series.lost(Kind::Coturn).filter(|_| plan::of_coturn_at_most(row).is_some());
        demand("packets lost", series.lost(Kind::IoUring).map(as_float), at_most.map(as_float));
    }
    demands
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_median_of_an_even_number_lies_between_the_middle_two() {
        let spread = Spread::of(vec![4.0, 1.0, 3.0, 2.0]).unwrap();
        assert_eq!(spread, Spread { median: 2.5, least: 1.0, most: 4.0 });
        assert_eq!(Spread::of(vec![7.0]).unwrap().median, 7.0);
        assert_eq!(Spread::of(Vec::new()), None);
    }

    /// Its p99 of the whole round is a pause of the machine, as everybody's.
    fn sample(cpu: f64, p99_of_parts: f64) -> Sample {
        let text = format!(
            "{{\"cpu_ns_per_packet\":{cpu},\"p50_us\":1,\"p99_us\":4000,\"p99_of_parts_us\":{p99_of_parts},\
              \"lost\":0,\"per_second\":1,\"server_cores\":0.1,\"others_cores\":0,\"own_drops\":0,\"misrouted\":0}}"
        );
        serde_json::from_str(&text).unwrap()
    }

    fn series(rounds: Vec<Vec<Sample>>) -> Series {
        let kinds = vec![Kind::IoUring, Kind::Epoll, Kind::Coturn];
        Series { row: "20000:172:up".parse().unwrap(), kinds, rounds, dropped: 1 }
    }

    #[test]
    fn ratios_are_taken_within_a_round() {
        let round = |scale: f64| vec![sample(8.0 * scale, 50.0), sample(9.0 * scale, 50.0), sample(10.0 * scale, 60.0)];
        let series = series(vec![round(1.0), round(3.0), round(2.0)]);
        let ratio = series.ratio(Kind::IoUring, Kind::Coturn, |s| s.cpu_ns_per_packet).unwrap();
        assert_eq!(ratio.to_string(), "0.80 (0.80 to 0.80)");
        assert!(demands(&[series]).iter().all(Demand::is_met));
    }

    #[test]
    fn a_figure_above_its_limit_is_missed() {
        let series = series(vec![vec![sample(9.0, 90.0), sample(7.0, 50.0), sample(10.0, 60.0)]]);
        let missed: Vec<bool> = demands(&[series]).iter().map(|demand| !demand.is_met()).collect();
        assert_eq!(missed, [true, false, true, true, false]);
    }

    #[test]
    fn json_has_a_row_per_server() {
        let series = series(vec![vec![sample(8.0, 50.0), sample(9.0, 50.0), sample(10.0, 60.0)]]);
        let text = json(&[series]).unwrap();
        let value: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(value["rows"].as_array().unwrap().len(), 3);
        assert_eq!(value["rows"][2]["server"], "coturn");
        assert_eq!(value["rows"][0]["driver"], "io_uring");
        assert_eq!(value["rows"][0]["rate_pps"], 20_000);
    }
}
