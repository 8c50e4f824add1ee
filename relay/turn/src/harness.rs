//! What must hold for any sequence of packets, times, verdicts and opened sockets.

pub mod model;
