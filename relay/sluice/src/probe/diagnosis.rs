//! From what happened to what is wrong and what to do.

use std::io::ErrorKind;

use super::echo::Echo;
use super::outcome::{Failure, Step};
use super::{Peer, ProbeArgs};

/// What happened.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Trouble {
    /// The name has no address.
    Unknown,
    /// The system refused.
    Io(ErrorKind),
    /// Nothing was heard from the relay at all.
    Silent,
    /// The relay has answered before, and not this request.
    Unanswered,
    /// The relay's error.
    Code(u16),
    /// The relay's error on the second allocation.
    SecondCode(u16),
    /// The relay asks for no credentials.
    Open,
    /// The relay did as it was asked, and did not prove that it knows the password.
    Unsigned,
    /// An answer that the client cannot use.
    Nonsense,
    /// The relay does not tell a socket's address.
    NoBinding,
    /// A packet of the echo could not be handed over.
    NotSent,
    /// The system gave no randomness.
    NoRandomness,
    /// Too few echoes, by how many packets got to the peer and back.
    Lost { sent: u32, arrived: Option<u32>, returned: u32 },
}

impl Trouble {
    /// Of an echo.
    pub(super) fn lost(echo: &Echo) -> Self {
        Trouble::Lost { sent: echo.sent, arrived: echo.arrived, returned: echo.returned }
    }

    /// The same on the second allocation.
    pub(super) fn of_the_second(self) -> Self {
        if let Trouble::Code(code) = self { Trouble::SecondCode(code) } else { self }
    }

    /// In words, at the step that it happened.
    pub(super) fn at(self, step: Step, args: &ProbeArgs) -> Failure {
        let (problem, action) = self.words(step, args);
        let code = match self {
            Trouble::Code(code) | Trouble::SecondCode(code) => Some(code),
            _ => None,
        };
        Failure { step, code, problem, action }
    }

    fn words(self, step: Step, args: &ProbeArgs) -> (String, String) {
        let port = args.relay.port();
        let seconds = args.timeout.as_secs_f32();
        let (problem, action) = match self {
            Trouble::Unknown => ("the host's name has no address".to_owned(), "correct the name, or its DNS record"),
            Trouble::Io(ErrorKind::ConnectionRefused) => (
                format!("nobody listens on UDP port {port} there (connection refused)"),
                "start the relay, or correct host and port; a firewall that rejects looks the same",
            ),
            Trouble::Io(kind) => (format!("the network refuses: {kind}"), "check this machine's addresses and routes"),
            Trouble::Silent => (
                format!("no answer within {seconds} s"),
                "check that the relay runs, and that no firewall on the way drops UDP to its port and back",
            ),
            Trouble::Unanswered => (
                format!("the relay answered before, and not this request within {seconds} s"),
                "try again with a longer --timeout; if it stays so, look at the relay's load and log",
            ),
            Trouble::Code(code) => return refusal(step, code, &args.peer),
            Trouble::SecondCode(486) => (
                "the quota of this user does not allow the probe's second allocation (486)".to_owned(),
                "raise the quota, or give --peer socket or an echo service, which need one allocation only",
            ),
            Trouble::SecondCode(code) => return refusal(step, code, &args.peer),
            Trouble::Open => (
                "the relay serves whoever asks, without credentials".to_owned(),
                "turn authentication on (coturn: lt-cred-mech or use-auth-secret); without it the probe does not go on",
            ),
            Trouble::Unsigned => (
                "the relay's answer is not signed with the user's password".to_owned(),
                "other clients drop such answers: look whether somebody on the way answers in the relay's place",
            ),
            Trouble::Nonsense => (
                "the answer is none that a TURN client can use".to_owned(),
                "check that a TURN server listens there, and look at its log",
            ),
            Trouble::NoBinding => (
                "the relay does not answer a Binding request, so the address of the probe's socket is unknown"
                    .to_owned(),
                "leave out --peer, or name an echo service by it",
            ),
            Trouble::NotSent => {
                ("a packet could not be sent".to_owned(), "look whether the relay still runs, and try again")
            }
            Trouble::NoRandomness => ("the system gave no randomness".to_owned(), "look at /dev/urandom"),
            Trouble::Lost { sent, arrived, returned } => return lost(sent, arrived, returned, args),
        };
        (problem, action.to_owned())
    }
}

/// The codes of RFC 8656, 19, and RFC 8489, 14.8.
fn refusal(step: Step, code: u16, peer: &Peer) -> (String, String) {
    let (problem, action) = match (code, step) {
        (300, _) => ("it sends clients to another relay", "probe that one; this one is draining or full"),
        (400, _) => ("it finds the request malformed", "look at its log: every client sends such requests"),
        (401, _) => (
            "the name or the password is wrong",
            "check both; of a time-limited name also its expiry and the clocks of both machines",
        ),
        (403, Step::Permit | Step::Bind) => match peer {
            Peer::Allocation => (
                "it forbids its own relayed addresses as peers",
                "calls between two of its clients would fail; allow them (coturn on loopback: allow-loopback-peers), \
                 or name an echo service by --peer",
            ),
            Peer::Socket => (
                "it forbids this machine as a peer",
                "a relay does not send to addresses of its own machine, nor to private ones: leave out --peer, or \
                 allow this address (allow_peers of [guard]; coturn: allowed-peer-ip, allow-loopback-peers)",
            ),
            Peer::At(_) => (
                "it forbids this peer",
                "name another, or allow it (allow_peers of [guard]; coturn: allowed-peer-ip, allow-loopback-peers)",
            ),
        },
        (403, _) => ("it forbids this user to allocate", "look at its policy and log"),
        (437, _) => ("it has an allocation of this socket already", "try again"),
        (438, _) => ("it changed its nonce meanwhile", "try again; if it stays so, its nonces live too short"),
        (440, _) => ("it has no IPv4 address to relay from", "give it one: this client asks for no other"),
        (441, _) => ("it takes the credentials for another user's", "look at its log"),
        (442, _) => ("it does not relay UDP", "configure it to do so"),
        (443, _) => ("the peer's address is not of the family of the relayed one, IPv4", "name an IPv4 peer"),
        (486, _) => (
            "the quota of this user is used up",
            "wait until allocations end, or raise it (allocations_per_user of [limits]; coturn: user-quota and \
             total-quota)",
        ),
        (500, _) => ("it has an internal error", "look at its log, and try again"),
        (508, Step::Allocate) => (
            "it has no capacity, or is draining",
            "look at its free relay ports, open files and limit of allocations, and whether somebody stops it",
        ),
        (508, _) => ("it has no room for another permission or channel", "look at its limits"),
        (0, _) => ("it refuses without a code", "check that a TURN server listens there"),
        _ => ("it refuses", "look the code up in its documentation, and look at its log"),
    };
    let number = if code == 0 { String::new() } else { format!(" ({code})") };
    (problem.to_owned() + &number, action.to_owned())
}

fn lost(sent: u32, arrived: Option<u32>, returned: u32, args: &ProbeArgs) -> (String, String) {
    let problem = match arrived {
        Some(arrived) => {
            format!("of {sent} packets {arrived} got through the relay to the peer, and {returned} came back")
        }
        None => format!("of {sent} packets {returned} came back"),
    };
    let action = match (returned, args.peer) {
        (0, Peer::Allocation) => {
            "the relay's relayed addresses cannot reach each other: check its external address, and that a firewall \
             lets it send UDP to its own relay ports"
        }
        (0, Peer::Socket) => {
            "check that firewalls let UDP pass between the relay's relay ports and this machine, and that no address \
             translation is between them; or leave out --peer"
        }
        (0, Peer::At(_)) => {
            "check that the peer sends packets back (turnutils_peer does), and that firewalls let UDP pass between it \
             and the relay's relay ports"
        }
        _ => {
            "look at the load of the relay and of the way to it (`drops` of its metrics, `ss -uam`), or allow more \
              by --loss-max"
        }
    };
    (problem, action.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_has_its_code_and_what_to_do() {
        for code in [300, 400, 401, 403, 437, 438, 440, 441, 442, 443, 486, 500, 508, 499] {
            for step in [Step::Allocate, Step::Permit, Step::Bind] {
                let (problem, action) = refusal(step, code, &Peer::Allocation);
                assert!(problem.ends_with(&format!(" ({code})")) && !action.is_empty(), "{problem}");
            }
        }
    }

    #[test]
    fn the_second_allocation_has_a_word_of_its_own() {
        assert_eq!(Trouble::Code(486).of_the_second(), Trouble::SecondCode(486));
        assert_eq!(Trouble::Silent.of_the_second(), Trouble::Silent);
    }
}
