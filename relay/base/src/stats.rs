//! Counters of a worker as plain u64s. The table of families in `metrics` names, types and labels
//! them; a worker publishes them, a scrape sums them.

/// Declares an enum of label values: its variants in order, their text, and how many there are.
macro_rules! labels {
    ($(#[$doc:meta])* $name:ident { $($(#[$vdoc:meta])* $variant:ident = $text:literal,)* }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
        #[repr(u8)]
        pub enum $name { $($(#[$vdoc])* $variant,)* }

        impl $name {
            /// Every value, in the order of its counters.
            pub const ALL: &'static [$name] = &[$($name::$variant,)*];
            /// How many there are.
            pub const COUNT: usize = Self::ALL.len();

            /// The value of the label.
            pub const fn text(self) -> &'static str {
                match self { $($name::$variant => $text,)* }
            }
        }
    };
}

pub mod media;

labels! {
    /// Why a packet went no further. Every drop is counted under exactly one.
    DropReason {
        /// Neither STUN nor ChannelData by its first bits (RFC 8656, 3).
        NotTurn = "not_turn",
        /// Malformed STUN: truncated, misaligned, wrong length, a broken attribute.
        BadStun = "bad_stun",
        /// FINGERPRINT does not match (RFC 8489, 14.7).
        BadFingerprint = "bad_fingerprint",
        /// A STUN class or method that a server does not serve and need not answer.
        UnexpectedStun = "unexpected_stun",
        /// ChannelData shorter than its length says.
        BadChannelData = "bad_channel_data",
        /// No allocation for this five-tuple (RFC 8656, 5).
        NoAllocation = "no_allocation",
        /// ChannelData for a channel that is not bound (RFC 8656, 12.6).
        UnboundChannel = "unbound_channel",
        /// A Send indication or a peer's packet without a permission (RFC 8656, 9).
        NoPermission = "no_permission",
        /// A Send indication that lacks or breaks an attribute (RFC 8656, 11.2).
        BadIndication = "bad_indication",
        /// A request of a client or user that is banned.
        Banned = "banned",
        /// The guard forbids this peer.
        PeerForbidden = "peer_forbidden",
        /// The peer's family has no relayed address in this allocation.
        PeerFamily = "peer_family",
        /// The rate of the allocation, user, tenant or relay is used up.
        RateLimited = "rate_limited",
        /// An unauthenticated source asked too often.
        SourceLimited = "source_limited",
        /// The question of this request is still open: a retransmission.
        QuestionOpen = "question_open",
        /// Too many questions are open for this client or worker.
        QuestionsFull = "questions_full",
        /// Allocation or grant has run out, or an order ended it.
        Expired = "expired",
        /// The socket has gone meanwhile.
        SocketClosed = "socket_closed",
        /// No slot in which to write an answer.
        NoSlot = "no_slot",
        /// The packet does not fit once it is wrapped.
        TooLong = "too_long",
    }
}

labels! {
    /// Which side of the relay.
    Leg {
        /// Between the client and the relay.
        Client = "client",
        /// Between the relay and the peer.
        Peer = "peer",
    }
}

labels! {
    /// Which way, seen from the relay.
    Direction {
        /// Received.
        Receive = "receive",
        /// Sent.
        Transmit = "transmit",
    }
}

labels! {
    /// A STUN method that is answered (RFC 8656, 17; RFC 8489, 18.2).
    Method {
        /// Binding.
        Binding = "binding",
        /// Allocate.
        Allocate = "allocate",
        /// Refresh.
        Refresh = "refresh",
        /// CreatePermission.
        CreatePermission = "create_permission",
        /// ChannelBind.
        ChannelBind = "channel_bind",
        /// Any other.
        Other = "other",
    }
}

labels! {
    /// How a request was answered: success, or the error's code.
    Code {
        /// Success.
        Ok = "200",
        /// Try Alternate.
        TryAlternate = "300",
        /// Bad Request.
        BadRequest = "400",
        /// Unauthenticated.
        Unauthenticated = "401",
        /// Forbidden.
        Forbidden = "403",
        /// Unknown Attribute.
        UnknownAttribute = "420",
        /// Allocation Mismatch.
        AllocationMismatch = "437",
        /// Stale Nonce.
        StaleNonce = "438",
        /// Address Family not Supported.
        AddressFamily = "440",
        /// Wrong Credentials.
        WrongCredentials = "441",
        /// Unsupported Transport Protocol.
        UnsupportedTransport = "442",
        /// Peer Address Family Mismatch.
        PeerAddressFamily = "443",
        /// Allocation Quota Reached.
        QuotaReached = "486",
        /// Insufficient Capacity.
        InsufficientCapacity = "508",
    }
}

impl Code {
    /// The number of RFC 8489, 14.8 and RFC 8656, 19.
    pub const fn number(self) -> u16 {
        match self {
            Code::Ok => 200,
            Code::TryAlternate => 300,
            Code::BadRequest => 400,
            Code::Unauthenticated => 401,
            Code::Forbidden => 403,
            Code::UnknownAttribute => 420,
            Code::AllocationMismatch => 437,
            Code::StaleNonce => 438,
            Code::AddressFamily => 440,
            Code::WrongCredentials => 441,
            Code::UnsupportedTransport => 442,
            Code::PeerAddressFamily => 443,
            Code::QuotaReached => 486,
            Code::InsufficientCapacity => 508,
        }
    }
}

labels! {
    /// A single counter or gauge of the TURN machine.
    Single {
        /// Gauge: allocations alive.
        Allocations = "allocations",
        /// Gauge: permissions alive or not yet swept.
        Permissions = "permissions",
        /// Gauge: channels alive or not yet swept.
        Channels = "channels",
        /// Gauge: questions open.
        QuestionsOpen = "questions_open",
        /// Allocations made.
        AllocationsCreated = "allocations_created",
        /// Allocations that ran out or were ended by an order, a policy or a ban.
        AllocationsExpired = "allocations_expired",
        /// Allocations ended by their client.
        AllocationsEnded = "allocations_ended",
        /// Questions put.
        QuestionsAsked = "questions_asked",
        /// Questions without a verdict in time.
        QuestionsTimedOut = "questions_timed_out",
        /// Packets between two allocations of the same worker.
        HairpinPackets = "hairpin_packets",
        /// Events of refusals and of media streams that were not told: there were too many.
        EventsUntold = "events_untold",
        /// Ticks of the loop.
        Ticks = "ticks",
    }
}

/// Where a counter stands in [`Counters`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Counter(usize);

const DROPS: usize = 0;
const PACKETS: usize = DROPS + DropReason::COUNT;
const BYTES: usize = PACKETS + Leg::COUNT * Direction::COUNT;
const REQUESTS: usize = BYTES + Leg::COUNT * Direction::COUNT;
const SINGLES: usize = REQUESTS + Method::COUNT * Code::COUNT;
const COUNTERS: usize = SINGLES + Single::COUNT;

impl Counter {
    /// How many there are.
    pub const COUNT: usize = COUNTERS;

    /// Packets dropped for a reason.
    pub const fn drop(reason: DropReason) -> Self {
        Counter(DROPS + reason as usize)
    }

    /// Relayed packets on one leg in one direction.
    pub const fn packets(leg: Leg, direction: Direction) -> Self {
        Counter(PACKETS + leg as usize * Direction::COUNT + direction as usize)
    }

    /// Relayed payload bytes on one leg in one direction.
    pub const fn bytes(leg: Leg, direction: Direction) -> Self {
        Counter(BYTES + leg as usize * Direction::COUNT + direction as usize)
    }

    /// Requests answered, by method and code.
    pub const fn request(method: Method, code: Code) -> Self {
        Counter(REQUESTS + method as usize * Code::COUNT + code as usize)
    }

    /// One of the single ones.
    pub const fn single(single: Single) -> Self {
        Counter(SINGLES + single as usize)
    }

    /// Its place.
    pub const fn index(self) -> usize {
        self.0
    }
}

/// The counters of one worker.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Counters([u64; COUNTERS]);

impl Default for Counters {
    fn default() -> Self {
        Counters([0; COUNTERS])
    }
}

impl Counters {
    /// Adds `n`.
    #[inline]
    pub const fn add(&mut self, counter: Counter, n: u64) {
        self.0[counter.0] += n;
    }

    /// Sets a gauge.
    #[inline]
    pub const fn set(&mut self, counter: Counter, value: u64) {
        self.0[counter.0] = value;
    }

    /// Its value.
    pub const fn value(&self, counter: Counter) -> u64 {
        self.0[counter.0]
    }

    /// All values, by [`Counter::index`].
    pub const fn values(&self) -> &[u64; COUNTERS] {
        &self.0
    }

    /// Counts a drop.
    #[inline]
    pub const fn drop(&mut self, reason: DropReason) {
        self.add(Counter::drop(reason), 1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_counter_has_a_place_of_its_own() {
        let mut places = vec![];
        places.extend(DropReason::ALL.iter().map(|r| Counter::drop(*r)));
        for leg in Leg::ALL {
            for direction in Direction::ALL {
                places.push(Counter::packets(*leg, *direction));
                places.push(Counter::bytes(*leg, *direction));
            }
        }
        for method in Method::ALL {
            places.extend(Code::ALL.iter().map(|c| Counter::request(*method, *c)));
        }
        places.extend(Single::ALL.iter().map(|s| Counter::single(*s)));
        let mut seen: Vec<_> = places.iter().map(|c| c.index()).collect();
        seen.sort_unstable();
        assert_eq!(seen, (0..Counter::COUNT).collect::<Vec<_>>());
    }

    #[test]
    fn codes_are_their_labels() {
        for code in Code::ALL {
            assert_eq!(code.text(), code.number().to_string());
        }
    }
}
