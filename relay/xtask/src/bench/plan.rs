//! What is measured, and what is demanded of it.

use std::fmt;
use std::str::FromStr;

use serde::Serialize;

/// Which way the packets of a row go.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Direction {
    /// Client to peer.
    Up,
    /// Peer to client.
    Down,
    /// Client to client through two allocations of the server.
    C2c,
    /// Client to peer, eight packets of a flow at once, handed to the kernel as one.
    Burst,
    /// No packets: authenticate, allocate, delete.
    Allocate,
}

impl Direction {
    const ALL: [(&'static str, Self); 5] = [
        ("up", Self::Up),
        ("down", Self::Down),
        ("c2c", Self::C2c),
        ("burst", Self::Burst),
        ("allocate", Self::Allocate),
    ];

    fn name(self) -> &'static str {
        Self::ALL.iter().find(|(_, direction)| *direction == self).map_or("", |(name, _)| name)
    }
}

/// One row of the benchmark.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Row {
    /// Which way.
    pub(super) direction: Direction,
    /// Payload bytes; 0 for allocations.
    pub(super) size: u16,
    /// Packets per second of 100 allocations together; 0 is flat out.
    pub(super) rate: u32,
}

impl FromStr for Row {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("'{text}' is no row: write RATE:SIZE:DIRECTION, such as 20000:172:up, or allocate");
        if text == "allocate" {
            return Ok(ALLOCATE);
        }
        let mut parts = text.split(':');
        let (Some(rate), Some(size), Some(direction), None) = (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(wrong());
        };
        let direction = Direction::ALL.iter().find(|(name, _)| *name == direction).ok_or_else(wrong)?.1;
        if direction == Direction::Allocate {
            return Ok(ALLOCATE);
        }
        let row = Row { direction, size: size.parse().map_err(|_| wrong())?, rate: rate.parse().map_err(|_| wrong())? };
        if (16..=1400).contains(&row.size) { Ok(row) } else { Err(format!("'{text}': sizes are 16 to 1400 bytes")) }
    }
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = self.direction.name();
        match (self.direction, self.rate) {
            (Direction::Allocate, _) => f.write_str(name),
            (_, 0) => write!(f, "{name}, {} B, flat out", self.size),
            (_, rate) => write!(f, "{name}, {} B, {} k pps", self.size, f64::from(rate) / 1000.0),
        }
    }
}

const ALLOCATE: Row = Row { direction: Direction::Allocate, size: 0, rate: 0 };
const BURST: Row = Row { direction: Direction::Burst, size: 1200, rate: 40_000 };

/// Everything.
pub(super) fn matrix() -> Vec<Row> {
    let mut rows = Vec::new();
    for direction in [Direction::Up, Direction::Down, Direction::C2c] {
        for size in [172, 1200] {
            rows.extend([5_000, 20_000, 50_000, 0].map(|rate| Row { direction, size, rate }));
        }
    }
    rows.extend([BURST, ALLOCATE]);
    rows
}

/// What a minute allows.
pub(super) fn quick() -> Vec<Row> {
    let packets = |direction, rate| Row { direction, size: 172, rate };
    vec![packets(Direction::Up, 20_000), packets(Direction::Up, 0), ALLOCATE]
}

/// So many times as long as a row at 20,000 packets per second takes one that has fewer: its percentiles are those of
/// as many packets.
pub(super) fn longer(row: Row) -> f64 {
    match row.rate {
        0 => 1.0,
        rate => (20_000.0 / f64::from(rate)).clamp(1.0, 4.0),
    }
}

/// Most CPU time that sluice on io_uring may take, as a share of coturn's in the same round.
pub(super) fn of_coturn_at_most(row: Row) -> Option<f64> {
    match (row.direction, row.rate) {
        (Direction::Up | Direction::Down, 5_000) => Some(0.85),
        (Direction::Up | Direction::Down, 20_000) => Some(0.82),
        (Direction::Up | Direction::Down, 50_000) => Some(0.85),
        (Direction::Up | Direction::Down, 0) => Some(0.78),
        (Direction::C2c, 20_000 | 50_000) => Some(0.60),
        (Direction::C2c, 0) => Some(0.38),
        (Direction::Burst, 40_000) => Some(0.65),
        (Direction::Allocate, _) => Some(0.40),
        _ => None,
    }
}

/// The same as a share of sluice's on epoll. At 5,000 packets per second it is reported only: each packet is a wake
/// of its own there, which a ring does not make cheaper.
pub(super) fn of_epoll_at_most(row: Row) -> Option<f64> {
    (single(row) && row.rate != 5_000).then_some(1.05)
}

/// Highest p99 of sluice on io_uring, as a share of coturn's.
pub(super) fn p99_of_coturn_at_most(row: Row) -> Option<f64> {
    of_coturn_at_most(row).filter(|_| single(row)).map(|_| 1.1)
}

/// Packets one by one, or as a flat-out row hands them over.
fn single(row: Row) -> bool {
    matches!(row.direction, Direction::Up | Direction::Down | Direction::C2c)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slow_row_takes_longer() {
        let factor = |row: &str| longer(row.parse().unwrap());
        let factors = [factor("5000:172:up"), factor("10:172:up"), factor("50000:172:up"), factor("0:172:up")];
        assert_eq!(factors, [4.0, 4.0, 1.0, 1.0]);
    }

    #[test]
    fn rows_are_read_as_they_are_named() {
        let row: Row = "20000:172:c2c".parse().unwrap();
        assert_eq!(row, Row { direction: Direction::C2c, size: 172, rate: 20_000 });
        assert_eq!(row.to_string(), "c2c, 172 B, 20 k pps");
        assert_eq!("allocate".parse(), Ok(ALLOCATE));
        assert_eq!("0:0:allocate".parse(), Ok(ALLOCATE));
        for wrong in ["", "20000:172", "x:172:up", "20000:172:sideways", "20000:15:up", "1:172:up:2"] {
            assert!(wrong.parse::<Row>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn bursts_and_allocations_are_held_against_coturn() {
        assert_eq!("40000:1200:burst".parse(), Ok(BURST));
        assert_eq!((of_coturn_at_most(BURST), of_coturn_at_most(ALLOCATE)), (Some(0.65), Some(0.40)));
        assert_eq!((p99_of_coturn_at_most(BURST), of_epoll_at_most(BURST)), (None, None));
    }

    #[test]
    fn the_matrix_has_every_rate_size_and_direction_once() {
        let rows = matrix();
        assert_eq!(rows.len(), 26);
        assert!(rows.iter().enumerate().all(|(at, row)| !rows[..at].contains(row)));
        assert!(quick().iter().all(|row| rows.contains(row)));
    }
}
