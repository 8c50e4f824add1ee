//! Every cap of the relay, each with its reason. No other file defines one.

use std::time::Duration;

/// Workers of one process. A worker's number travels in a byte of every reservation token.
pub const WORKERS_MAX: usize = 128;

/// Listener addresses: each is a socket per worker.
pub const LISTENERS_MAX: usize = 64;

/// Relay addresses: each has a 64 Ki-bit map of live ports.
pub const RELAY_ADDRESSES_MAX: usize = 16;

/// Tenants of one configuration: ids are 16 bits, and 200 become labels of their own.
pub const TENANTS_MAX: usize = 4096;

/// Tenants that are metric labels of their own, the rest is `other`: a scrape stays bounded.
pub const TENANT_LABELS_MAX: usize = 200;

/// Static users of one tenant: USERHASH is looked up in a table made at load.
pub const STATIC_USERS_MAX: usize = 10_000;

/// Room in front of a payload that a driver guarantees: the header of a Data indication to an
/// IPv6 peer is 20 + 24 + 4 bytes.
pub const HEADROOM_MIN: usize = 48;

/// Room behind a payload that a driver guarantees: padding of a DATA attribute (3), later an SRTP
/// authentication tag (16).
pub const TAILROOM_MIN: usize = 16;

/// Bytes of one receive slot, headroom included: an Ethernet frame's 1500 and what the ring writes in
/// front of it.
pub const SLOT_BYTES: usize = 2048;

/// Packets of one burst received as one datagram: what the kernel makes of one (UDP_MAX_SEGMENTS since Linux 6.9).
pub const BURST_SEGMENTS_MAX: usize = 128;

/// Packets of one burst sent as one: UDP_MAX_SEGMENTS before Linux 6.9.
pub const BURST_SENT_MAX: u32 = 64;

/// Times of 256 packets between two trials of UDP_GRO on one socket at most, when it never paid: a trial costs
/// two changes of its receive in a million packets then.
pub const BURST_PATIENCE_MAX: u32 = 4096;

/// Long receive slots of one worker, for sockets whose packets come in bursts: what one tick of a loaded worker
/// takes. Each is 66 KiB of address space, of which only what was once written is memory.
pub const BURST_SLOTS: u16 = 256;

/// Longest STUN message that is read: 1472 is what fits an Ethernet frame over IPv4; signalling never fragments.
pub const STUN_BYTES_MAX: usize = 1500;

/// Longest answer that the server writes: Allocate with two relayed addresses, a reservation and SHA-256
/// integrity is 188 bytes; the longest 4xx carries realm, nonce and algorithms.
pub const REPLY_BYTES_MAX: usize = 256;

/// Attributes of one message: the longest sensible request has 16, and a parser's work per byte stays bounded.
pub const ATTRIBUTES_MAX: usize = 64;

/// Unknown comprehension-required attributes named in a 420.
pub const UNKNOWN_ATTRIBUTES_MAX: usize = 8;

/// Peers of one CreatePermission: one packet has room for about 100, a browser sends one.
pub const PEERS_PER_REQUEST_MAX: usize = 16;

/// Bytes of a realm: keeps a 401 within 200 bytes (reflection is bounded by it).
pub const REALM_BYTES_MAX: usize = 60;

/// Bytes of a user name (RFC 8489, 14.3: fewer than 509; `expiry:tenant/user` needs far fewer).
pub const USERNAME_BYTES_MAX: usize = 256;

/// Bytes of an unauthenticated Binding answer: header, XOR-MAPPED-ADDRESS of IPv6, FINGERPRINT.
pub const BINDING_ANSWER_BYTES_MAX: usize = 52;

/// Unknown attributes named in a 420 to a Binding request: what fits into
/// [`BINDING_ANSWER_BYTES_MAX`] beside the error and FINGERPRINT.
pub const BINDING_UNKNOWN_MAX: usize = 6;

/// Bytes of a 401 or 438 to somebody unknown.
pub const UNAUTHENTICATED_ANSWER_BYTES_MAX: usize = 200;

/// Bits of an IPv4 source that share one allowance of unauthenticated answers: a hosting customer.
pub const SOURCE_PREFIX_V4_BITS: u32 = 24;

/// The same for IPv6: a site's usual delegation.
pub const SOURCE_PREFIX_V6_BITS: u32 = 56;

/// Allowances kept per worker for unauthenticated sources; a table of fixed size, shared on collision.
pub const SOURCE_BUCKETS: usize = 16_384;

/// Unauthenticated answers per second, worker and source prefix: an office's worth of clients; 200-byte
/// answers make 160 kbit/s of reflection at most.
pub const UNAUTHENTICATED_PER_SECOND_DEFAULT: u32 = 100;

/// Unauthenticated answers in one burst per worker and source prefix: a call centre's shift that starts.
pub const UNAUTHENTICATED_BURST_DEFAULT: u32 = 1000;

/// Refusals of one source prefix that a worker tells of per second: whoever is refused without end fills no records.
pub const DENIALS_TOLD_PER_SECOND: u32 = 10;

/// Refusals that a worker tells of in one burst per source prefix: a call centre whose quota is too low.
pub const DENIALS_TOLD_BURST: u32 = 100;

/// Bans in force at a time: a look-up is one search in a table of them, and a worker's copy of none.
pub const BANS_MAX: usize = 65_536;

/// Credentials whose key a worker keeps, below 1 kB each: who comes again, or with a second device, is checked by one
/// HMAC where a time-limited name takes two and two hashes. A table of fixed size, shared on collision.
pub const KEPT_CREDENTIALS: usize = 4096;

/// How long they are kept unless they are used: a call that breaks off begins again within that.
pub const KEPT_CREDENTIALS_LIFETIME: Duration = Duration::from_secs(600);

/// Permissions of one allocation unless the configuration says otherwise: a mesh call of 100 with two
/// addresses each fits.
pub const PERMISSIONS_PER_ALLOCATION_DEFAULT: u32 = 256;

/// Channels of one allocation unless the configuration says otherwise.
pub const CHANNELS_PER_ALLOCATION_DEFAULT: u32 = 256;

/// Peers of one allocation at the very most, whatever is configured: a linear look-up stays within a
/// few cache lines' worth of hash.
pub const PEERS_PER_ALLOCATION_MAX: u32 = 4096;

/// Allocations of one user unless the configuration says otherwise: two devices, two families, a few
/// that linger after a reconnect.
pub const ALLOCATIONS_PER_USER_DEFAULT: u32 = 64;

/// Allocations in all unless the configuration says otherwise.
pub const ALLOCATIONS_DEFAULT: u32 = 10_000;

/// Open questions of one five-tuple: one per request in flight; a client that has more is not waiting for answers.
pub const QUESTIONS_PER_CLIENT_MAX: u8 = 4;

/// Open questions of one worker: bounds the memory that an unresponsive policy can hold.
pub const QUESTIONS_PER_WORKER_MAX: usize = 4096;

/// Questions of one process about what lives already that are open at once: an eighth of the queue that plugins have by
/// default, so that new requests have their turn beside a review of all that a tenant has.
pub const REVIEWS_OPEN_MAX: usize = 128;

/// Such questions that a worker puts in one tick: fences answer them at once, and 32 are a fifth of a millisecond
/// between two packets.
pub const REVIEWS_PER_TICK_MAX: usize = 32;

/// Places of its table that a worker looks at meanwhile: 20 us.
pub const REVIEW_PLACES_PER_TICK_MAX: usize = 1024;

/// How long a live flow that nobody answered about is left alone before it is asked about again; it doubles with each
/// further time: what overloads the policies is not added to.
pub const REVIEW_PAUSE: Duration = Duration::from_millis(100);

/// How long an answer about a live flow is waited for after its policies have changed: six questions. A rush of clients
/// is over by then; what still nobody says yes to is cut.
pub const REVIEW_PATIENCE: Duration = Duration::from_secs(5);

/// How long a verdict may take; below the client's first retransmission at 500 ms (RFC 8489, 6.2.1).
pub const VERDICT_DEADLINE: Duration = Duration::from_millis(400);

/// Answers remembered per worker for retransmitted requests.
pub const REMEMBERED_ANSWERS_MAX: usize = 8192;

/// How long an answer is remembered (RFC 8489, 6.3.1: 40 s).
pub const REMEMBERED_ANSWER_LIFETIME: Duration = Duration::from_secs(40);

/// Lifetime of a permission (RFC 8656, 9: fixed).
pub const PERMISSION_LIFETIME: Duration = Duration::from_secs(300);

/// Lifetime of a channel binding (RFC 8656, 12: fixed).
pub const CHANNEL_LIFETIME: Duration = Duration::from_secs(600);

/// Lifetime of an allocation unless asked or configured otherwise (RFC 8656, 7.2).
pub const ALLOCATION_LIFETIME_DEFAULT: Duration = Duration::from_secs(600);

/// Longest lifetime of an allocation (RFC 8656, 7.2 recommends an hour).
pub const ALLOCATION_LIFETIME_MAX: Duration = Duration::from_secs(3600);

/// Longest life of a nonce (RFC 8489, 9.2: short; RFC 8656, 5: an hour at least is recommended).
pub const NONCE_LIFETIME_MAX: Duration = Duration::from_secs(3600);

/// How long a reserved port waits for its client (RFC 8656, 7.2: 30 s at least).
pub const RESERVATION_LIFETIME: Duration = Duration::from_secs(30);

/// Reservations that wait, per worker.
pub const RESERVATIONS_MAX: usize = 1024;

/// Ports tried before an allocation is refused with 508: another process may hold some of the range.
pub const PORT_ATTEMPTS_MAX: u32 = 16;

/// Relay sockets that a worker opens in one tick: at 10 to 14 us each, the packets of its calls wait a fifth of a
/// millisecond for a rush of newcomers at most, and these wait for the next tick.
pub const OPENS_PER_TICK_MAX: usize = 16;

/// Messages that wait for one worker: reservations handed over and orders.
pub const WORKER_QUEUE_MAX: usize = 1024;

/// Smallest time between two publications of a worker's counters: fresh for any scrape, far from every packet.
pub const PUBLISH_INTERVAL: Duration = Duration::from_millis(100);

/// A second factor on the grain of the worker's timers; a packet is judged by its own deadline to the nanosecond.
pub const TIMER_GRAIN: Duration = Duration::from_millis(50);

/// Packets in a row that make a stream of what looks like RTP (RFC 3550, A.1: MIN_SEQUENTIAL), and datagrams of one
/// source that make RTCP.
pub const RTP_PROBATION_PACKETS: u8 = 2;

/// Sequence numbers that may be missing at once before a stream is taken to have begun anew (RFC 3550, A.1:
/// MAX_DROPOUT).
pub const RTP_DROPOUT_MAX: u16 = 3000;

/// How far behind the newest a sequence number still is an old packet's (RFC 3550, A.1: MAX_MISORDER is 100; a
/// retransmission without a stream of its own comes a round trip later, at 1000 packets per second and more).
pub const RTP_MISORDER_MAX: u16 = 512;

/// Streams followed of one allocation, both ways and RTCP sources included: a server of conferences sends one client
/// 49 pictures, each with a stream of retransmissions, and some voices.
pub const STREAMS_PER_ALLOCATION_MAX: u16 = 128;

/// Streams followed by one worker, 128 bytes each: a voice has 50 packets per second, and with so many voices there
/// would be more packets than a core relays.
pub const STREAMS_PER_WORKER_MAX: u32 = 32_768;

/// How long a stream has to be silent before it gives its place to a new one, where places are used up.
pub const STREAM_SILENT_MIN: Duration = Duration::from_secs(1);

/// How often places that are used up are searched for a silent stream: whoever makes up sources buys a search of
/// [`STREAMS_PER_ALLOCATION_MAX`] only so often.
pub const STREAM_SEARCH_INTERVAL: Duration = Duration::from_millis(100);

/// Streams that one search looks at where a worker's places are used up.
pub const STREAM_SEARCH_MAX: u32 = 64;

/// The fewest packets of a stream that is told of at its end: a second of voice. Whoever makes up sources makes a
/// record of 50 packets at most, and says little with fewer.
pub const STREAM_TOLD_PACKETS_MIN: u64 = 50;

/// Streams that wait for being told of, where one gave its place to another amid packets: a quarter of a second's.
pub const STREAMS_UNTOLD_MAX: usize = 1024;

/// A stream without a packet for so long is over: longer than any pause of a sender that says nothing.
pub const STREAM_LIFETIME: Duration = Duration::from_secs(30);

/// How often each stream's loss and jitter are observed: a scrape every 15 s sees three of them.
pub const STREAM_OBSERVE_INTERVAL: Duration = Duration::from_secs(5);

/// Shortest stretch that a clock rate is inferred from: 1 % of it is 20 ms, the jitter of a usual way.
pub const CLOCK_STRETCH_MIN: Duration = Duration::from_secs(2);

/// Longest stretch: after it the measure begins anew.
pub const CLOCK_STRETCH_MAX: Duration = Duration::from_secs(60);

/// Length of a configuration file: a typo in a path must not read a disk.
pub const CONFIG_BYTES_MAX: u64 = 1024 * 1024;

/// Mistakes of a configuration file shown at once: two screens.
pub const CONFIG_PROBLEMS_MAX: usize = 50;

/// Length of a secret's file.
pub const SECRET_BYTES_MAX: u64 = 4096;

/// Live shared secrets of one tenant: the one in use and, during a rotation, the one before it.
pub const SECRETS_PER_TENANT_MAX: usize = 2;

/// Bytes of a tenant's name: a label of metrics and a part of a user name.
pub const TENANT_NAME_BYTES_MAX: usize = 64;

/// Bytes of the SOFTWARE attribute: keeps a 401 within 200 bytes beside realm and nonce.
pub const SOFTWARE_BYTES_MAX: usize = 32;

/// Ranges and classes of peers in one list: each packet's look-up after a cache miss walks them.
pub const PEER_RANGES_MAX: usize = 256;

/// Allocations that can be configured: the kernel's limit on a ring's table of files (1 << 20).
pub const ALLOCATIONS_MAX: u32 = 1 << 20;

/// Highest rate that can be configured, bits or packets per second: a terabit is beyond any machine,
/// and leaves room in 128 bits for a product with nanoseconds.
pub const RATE_MAX: u64 = 1_000_000_000_000;

/// Bytes of a socket buffer that can be configured: the kernel doubles the value in an i32.
pub const SOCKET_BUFFER_BYTES_MAX: u32 = (1 << 30) - 1;

/// Microseconds that a worker may be told to wait for more to do: above a hundredth of a second people hear it.
pub const WAIT_BUDGET_US_MAX: u32 = 10_000;

/// Slots of one worker that can be configured: a provided-buffer ring has at most 32768 entries.
pub const SLOTS_MAX: u32 = 32_768;

/// The fewest slots of one worker that can be configured: fewer do not fill one tick.
pub const SLOTS_MIN: u32 = 16;

/// HTTP connections of the metrics listener.
pub const ADMIN_CONNECTIONS_MAX: usize = 64;

/// Bytes of one HTTP request's line and headers: a scraper sends a few hundred.
pub const ADMIN_REQUEST_BYTES_MAX: usize = 16 * 1024;

/// How long an HTTP client may take for the headers of its next request: a connection that says nothing goes.
pub const ADMIN_HEADER_TIMEOUT: Duration = Duration::from_secs(10);

/// How long an HTTP connection may live: a client that reads its answer slowly or never holds no place for good.
pub const ADMIN_CONNECTION_LIFETIME: Duration = Duration::from_secs(60);

/// How long answers under way may take at the end of a connection or of the process.
pub const ADMIN_STOP_TIMEOUT: Duration = Duration::from_secs(2);

/// How long a worker may publish nothing and still count as well: 50 publications.
pub const WORKER_STALL_MAX: Duration = Duration::from_secs(5);

/// Bytes of the control socket's path: a socket address of the kernel holds 108 with the end, and the socket is
/// made under a name that is 4 longer.
pub const CONTROL_SOCKET_BYTES_MAX: usize = 103;

/// Commands of the control socket that wait for the control plane: each is an administrator's.
pub const CONTROL_COMMANDS_MAX: usize = 16;

/// How long a command of the control socket may take to be answered: beyond it the operator is told that it hangs.
pub const CONTROL_ANSWER_TIMEOUT: Duration = Duration::from_secs(5);

/// How long a worker may take to confirm a reload before the operator is told that it has not: less than the answer.
pub const RELOAD_CONFIRM_TIMEOUT: Duration = Duration::from_secs(3);

/// How long a reload may take to be answered: plugins are compiled and tried meanwhile, one with an interpreter in it
/// for many seconds on a busy machine. Less than what systemd gives a reload.
pub const RELOAD_ANSWER_TIMEOUT: Duration = Duration::from_secs(80);

/// How long the client of the control socket waits: the answer's time, and that of a busy machine.
pub const CONTROL_CLIENT_TIMEOUT: Duration = Duration::from_secs(10);

/// Bytes of one answer of the control socket: a page of allocations takes a tenth.
pub const CONTROL_ANSWER_BYTES_MAX: usize = 1024 * 1024;

/// Allocations of one answer of the control socket: 100 kB of JSON.
pub const LISTED_ALLOCATIONS_MAX: usize = 256;

/// Places of its table that a worker looks at for one page of a list: 20 us between two packets.
pub const LISTED_PLACES_MAX: usize = 1024;

/// Packets of one probe: the moment of each is kept until its echo is back.
pub const PROBE_PACKETS_MAX: u32 = 100_000;

/// The fewest bytes of a packet of a probe: its mark and its number.
pub const PROBE_BYTES_MIN: u16 = 16;

/// Bytes of a packet of a probe: what fits an Ethernet frame through a Send indication over IPv6 (1500 - 48 - 48).
pub const PROBE_BYTES_MAX: u16 = 1404;

/// Longest that a probe waits between two packets, or for an answer: whoever looks on would think that it hangs.
pub const PROBE_WAIT_MAX: Duration = Duration::from_secs(60);

/// How long a drain lasts unless the configuration says otherwise: most calls end, and whoever waits for a restart does
/// not take it for hung.
pub const DRAIN_DEADLINE_DEFAULT: Duration = Duration::from_secs(300);

/// Longest drain that can be configured: the longest call that anybody plans for.
pub const DRAIN_DEADLINE_MAX: Duration = Duration::from_secs(24 * 3600);

/// Bytes of a database of places, which is kept in memory: the largest that is sold is a third of it.
pub const GEO_DATABASE_BYTES_MAX: u64 = 1 << 30;

/// Bytes of a plugin's component: one in Python, which brings its interpreter along, has 18 MB.
pub const PLUGIN_BYTES_MAX: usize = 64 << 20;

/// Keys that may sign plugins: of authors whose plugins are installed.
pub const PLUGIN_KEYS_MAX: usize = 64;

/// Bytes of compiled plugins that are kept for the next start: of [`PLUGINS_MAX`] small ones, or a few interpreters.
pub const PLUGIN_CACHE_BYTES_MAX: u64 = 512 << 20;

/// Plugins of one configuration.
pub const PLUGINS_MAX: usize = 64;

/// Plugins bound to one tenant: each is asked one after the other within one deadline.
pub const PLUGINS_PER_TENANT_MAX: usize = 8;

/// Bytes of one instance's memories together, unless configured otherwise: an interpreter of JavaScript needs some
/// MiB, one of Python 20.
pub const PLUGIN_MEMORY_BYTES_DEFAULT: usize = 32 << 20;

/// What may be configured of them at the most; what all threads' instances can hold is a multiple of it.
pub const PLUGIN_MEMORY_BYTES_MAX: usize = 256 << 20;

/// Bytes of stack of a plugin's code: recursion ends in a trap long before that of its thread.
pub const PLUGIN_STACK_BYTES_MAX: usize = 512 << 10;

/// Elements of one table: what the largest interpreter has as functions.
pub const PLUGIN_TABLE_ELEMENTS_MAX: usize = 20_000;

/// Core instances, memories and tables of one component: a component of several modules (Python's) has dozens.
pub const PLUGIN_PARTS_MAX: u32 = 64;

/// Bytes that one call may hand to the host, answers and log lines together: strings of a list may all be the same
/// bytes of a plugin's memory, and are copies here.
pub const PLUGIN_ANSWER_BYTES_MAX: usize = 1 << 20;

/// Bytes of a plugin's settings as JSON.
pub const PLUGIN_SETTINGS_BYTES_MAX: usize = 64 << 10;

/// Problems of settings that are shown: a screen.
pub const PLUGIN_PROBLEMS_MAX: usize = 20;

/// Counters of one plugin: families of metrics.
pub const PLUGIN_COUNTERS_MAX: usize = 16;

/// Labels of one plugin's counter, the tenant's aside.
pub const PLUGIN_LABELS_MAX: usize = 4;

/// Sets of label values of one plugin's counter and tenant; the others count as "other".
pub const PLUGIN_SERIES_MAX: usize = 64;

/// Series of one plugin, of all its counters and tenants: a scrape stays of a size. What would be one more is counted
/// as a mistake.
pub const PLUGIN_SERIES_ALL_MAX: usize = 4096;

/// Bytes of a word that a plugin chooses (a label's value, a counter's or its own name).
pub const PLUGIN_WORD_BYTES_MAX: usize = 64;

/// Words for the audit of one answer of a plugin: each is kept for years.
pub const PLUGIN_TAGS_MAX: usize = 16;

/// Bytes of one of a plugin's log lines.
pub const PLUGIN_LINE_BYTES_MAX: usize = 512;

/// Log lines per second of one plugin, and about its denials for one tenant, and as many at once: a flood leaves the
/// log readable.
pub const PLUGIN_LINES_PER_SECOND: u32 = 10;

/// Calls of the host by one call of a plugin: a look-up for each of many people is honest, and a flood of lines and
/// counts ends before it costs others their time.
pub const PLUGIN_HOST_CALLS_MAX: u32 = 10_000;

/// Lines about denials that wait to be written, of all plugins and tenants: what is beyond is counted.
pub const PLUGIN_LINES_WAITING_MAX: usize = 1024;

/// Pseudonyms per second of one plugin and tenant: to try all of IPv4 takes a year and more.
pub const PLUGIN_PSEUDONYMS_PER_SECOND: u32 = 100;

/// Questions that wait for a plugin unless configured otherwise: beyond these the answer would be late anyway.
pub const POLICY_QUEUE_DEFAULT: usize = 1024;

/// Of the queue one tenant may fill one part of as many as there are tenants with plugins, but of no more than these:
/// one that is flooded leaves places to others, and one of a hundred may still have a burst.
pub const POLICY_QUEUE_PARTS: usize = 4;

/// How long a question's policies may take together, waiting included, unless configured otherwise: what is left of
/// [`VERDICT_DEADLINE`] is for the way there and back.
pub const POLICY_DEADLINE_DEFAULT: Duration = Duration::from_millis(300);

/// What may be configured of it at the most.
pub const POLICY_DEADLINE_MAX: Duration = Duration::from_millis(350);

/// Threads that ask plugins: each question is some ten microseconds of work.
pub const POLICY_THREADS_MAX: usize = 4;

/// How long a plugin that missed its deadline is not asked for that tenant: it would take every thread, one question
/// after the other.
pub const PLUGIN_REST: Duration = Duration::from_secs(1);

/// How soon a plan is asked for again that could not be had; it doubles with each failure.
pub const PLAN_RETRY_MIN: Duration = Duration::from_secs(1);

/// Longest that such a plan is not asked for: how long the return of a plugin may go unseen.
pub const PLAN_RETRY_MAX: Duration = Duration::from_secs(60);

/// How long plans are asked for again at a time: those of other tenants wait no longer to be seen as run out.
pub const PLANS_RENEWAL_MAX: Duration = Duration::from_secs(2);

/// Places in one list of a fence, and fences of one plan.
pub const FENCE_PLACES_MAX: usize = 512;

/// Bytes of a text that a plan of records writes in place of a value: a word.
pub const LOG_PLAN_TEXT_BYTES_MAX: usize = 64;

/// Entries of one plugin's store for one tenant.
pub const KV_ENTRIES_MAX: usize = 10_000;

/// Bytes of a key in it.
pub const KV_KEY_BYTES_MAX: usize = 256;

/// Bytes of a value.
pub const KV_VALUE_BYTES_MAX: usize = 16 << 10;

/// Bytes of all its keys and values together.
pub const KV_BYTES_MAX: usize = 4 << 20;

/// People that one entry may be about.
pub const KV_SUBJECTS_MAX: usize = 16;

/// Longest life of an entry: nothing in a store lasts for ever.
pub const KV_LIFETIME_MAX: Duration = Duration::from_secs(30 * 24 * 3600);

/// Things that a plugin says it keeps of a person who is to be forgotten: the person is told each.
pub const ERASURE_KEPT_MAX: usize = 20;

/// Recorded cases that are run when a plugin is loaded.
pub const PLUGIN_CASES_MAX: usize = 1000;

/// Bytes of one of them.
pub const PLUGIN_CASE_BYTES_MAX: u64 = 256 << 10;

/// Questions of one capture: as many as there may be cases, so that a capture can be read as cases too.
pub const CAPTURE_QUESTIONS_MAX: usize = PLUGIN_CASES_MAX;

/// Bytes of one capture, its first line included: each of its questions may have a few dozen peers.
pub const CAPTURE_BYTES_MAX: u64 = 8 << 20;

/// Questions that wait to be written into captures: a disk that hangs costs memory of this many, and no verdict.
pub const CAPTURE_WAITING_MAX: usize = 64;

/// Longest life of a capture: pseudonyms of addresses are not kept longer than addresses.
pub const CAPTURE_LIFE_MAX: Duration = Duration::from_secs(IP_RETENTION_DAYS_MAX as u64 * 24 * 3600);

/// Former components of one plugin that a rollback can put back: more are history.
pub const PLUGIN_HISTORY_MAX: usize = 8;

/// Messages that wait for a service manager: it takes them at once, and one that does not is not waited for.
pub const NOTIFICATIONS_MAX: usize = 64;

/// How long a worker may take to stop before the process ends without it: thousands of sockets are closed in that.
pub const WORKER_STOP_TIMEOUT: Duration = Duration::from_secs(5);

/// Days for which an address may be kept at the very most: what is promised to those whose it is.
pub const IP_RETENTION_DAYS_MAX: u8 = 7;

/// Keys of the day at once: eight for each tenant, for the day is not over when the first of seven dies.
pub const DAY_KEYS_MAX: usize = TENANTS_MAX * 8;

/// Destroyed keys that wait to be told of: those of one day and every tenant.
pub const DESTROYED_KEYS_MAX: usize = TENANTS_MAX;

/// How soon the destruction of a key is tried again that a file system refused.
pub const KEY_DESTRUCTION_RETRY: Duration = Duration::from_secs(1);

/// Lines that wait for the spool: a second of 4000 sessions' ends, 2 MB of the usual ones.
pub const SPOOL_QUEUE_MAX: usize = 4096;

/// Bytes of one line of the spool: a record takes a few hundred, and a log event that is longer says nothing more.
pub const SPOOL_LINE_BYTES_MAX: usize = 16 * 1024;

/// Bytes of one segment of the spool unless the options say otherwise: what is overwritten and removed at once.
pub const SPOOL_SEGMENT_BYTES_DEFAULT: u64 = 512 * 1024;

/// The fewest bytes of one segment: several lines of any length fit.
pub const SPOOL_SEGMENT_BYTES_MIN: u64 = 64 * 1024;

/// The most bytes of one segment: it is overwritten in one go.
pub const SPOOL_SEGMENT_BYTES_MAX: u64 = 64 * 1024 * 1024;

/// Segments of the spool unless the options say otherwise: a quarter of a gigabyte for sinks that are down, and a
/// week of hours beside it (see [`SPOOL_SEGMENT_AGE`]).
pub const SPOOL_SEGMENTS_DEFAULT: usize = 512;

/// The fewest segments: one that is written while another one is shipped.
pub const SPOOL_SEGMENTS_MIN: usize = 2;

/// The most segments: a start looks at each.
pub const SPOOL_SEGMENTS_MAX: usize = 16_384;

/// Highest number of a segment that a start believes: the highest that readers of JSON hold exactly, and far from where
/// the next one would be none. A spool begins at the seconds since 1970 and uses up less than one number a second.
pub const SPOOL_NUMBER_MAX: u64 = 1 << 53;

/// How long lines are added to one segment: what is overwritten for its age is at most so much younger than that age.
pub const SPOOL_SEGMENT_AGE: Duration = Duration::from_secs(3600);

/// Longest stay of a line in the spool, shipped or not: class `ip` is kept no longer.
pub const SPOOL_KEEP_MAX: Duration = Duration::from_secs(7 * 24 * 3600);

/// Bytes of one batch for a sink: receivers take requests of a megabyte.
pub const SPOOL_BATCH_BYTES_MAX: usize = 256 * 1024;

/// Sinks of one spool: each has a task, and reads all of it.
pub const SPOOL_SINKS_MAX: usize = 8;

/// Smallest time between two writes of the spool: lines that come together are written together.
pub const SPOOL_GATHER: Duration = Duration::from_millis(50);

/// Smallest time between two batches of one sink that are not full, between two times that the spool is synced and its
/// progress kept: what is sent twice after a crash.
pub const SPOOL_SHIP_INTERVAL: Duration = Duration::from_secs(1);

/// How long a sink is left alone after its first failure; it doubles with each further one.
pub const SPOOL_RETRY_MIN: Duration = Duration::from_secs(1);

/// Longest that a failing sink is left alone: how long its return may go unseen.
pub const SPOOL_RETRY_MAX: Duration = Duration::from_secs(300);

/// How long a receiver may take to answer one batch.
pub const SPOOL_HTTP_TIMEOUT: Duration = Duration::from_secs(10);

/// How long the spool may take to stop: a disk that hangs does not hold the process.
pub const SPOOL_STOP_TIMEOUT: Duration = Duration::from_secs(5);

/// Bytes of the file with the sinks' progress: eight of them take two kilobytes.
pub const SPOOL_PROGRESS_BYTES_MAX: u64 = 64 * 1024;

/// Bytes of one buffer that the ring of the spool knows: what two seconds of a busy spool take is one write.
pub const SPOOL_BUFFER_BYTES: usize = 64 * 1024;

/// Buffers that the ring of the spool knows: one for the segments, one for each of a few file sinks; whoever gets
/// none writes without.
pub const SPOOL_BUFFERS: usize = 4;

/// Records that wait for the store: two seconds of a rush of 4000 allocations per second. Admissions beyond it are
/// refused, other records lost and counted.
pub const STORE_QUEUE_MAX: usize = 8192;

/// Requests to the store that wait: each is an administrator's.
pub const STORE_REQUESTS_MAX: usize = 16;

/// Records of one commit: beyond it the first of them would wait for the last.
pub const STORE_GROUP_MAX: usize = 1024;

/// How long a record that nobody waits for may wait for others to be committed with: ten commits a second on an idle
/// relay's disk at most, and what a crash loses of the ends of sessions.
pub const STORE_LINGER: Duration = Duration::from_millis(100);

/// Records that are kept in memory while the disk takes none, to be written when it does; beyond it they are lost and
/// counted.
pub const STORE_BACKLOG_MAX: usize = 8192;

/// With so many of them no more words of plugins are taken: the room that is left is for sessions and refusals.
pub const STORE_BACKLOG_TAGS_MAX: usize = STORE_BACKLOG_MAX / 4;

/// How soon a disk that takes nothing is tried again for what is kept in memory.
pub const STORE_RETRY: Duration = Duration::from_secs(1);

/// How often the store looks for what is due: destroyed keys, sweeps, the journal.
pub const STORE_CHORES_INTERVAL: Duration = Duration::from_secs(1);

/// How often what has reached the end of its retention is removed: each hour of lateness is one in three years.
pub const STORE_SWEEP_INTERVAL: Duration = Duration::from_secs(3600);

/// Rows that a sweep, or the end of a key, removes in one transaction: 2 to 3 ms of the thread that admissions wait
/// for, which are served between two of these; ten times as long, on a slow disk, is still less than they may wait.
pub const STORE_SWEEP_ROWS_MAX: usize = 512;

/// How long an admission may wait for its record unless the configuration says otherwise: a disk that syncs more slowly
/// holds up calls, and the client's first retransmission comes after 500 ms.
pub const ADMISSION_WAIT_DEFAULT: Duration = Duration::from_millis(50);

/// Bytes of a store that is read whole at the start, to find damage: half a second of reading.
pub const STORE_CHECKED_BYTES_MAX: i64 = 256 * 1024 * 1024;

/// Bytes that the store's journal keeps on the disk between two checkpoints.
pub const STORE_JOURNAL_BYTES_MAX: u64 = 4 * 1024 * 1024;

/// How long the store may take to stop: a disk that hangs does not hold the process.
pub const STORE_STOP_TIMEOUT: Duration = Duration::from_secs(5);

/// Entries of the audit between two checkpoints that stay: what is pruned ends at one.
pub const AUDIT_CHECKPOINT_ENTRIES: u64 = 1024;

/// Longest such wait that can be configured, for a disk that spins: below [`VERDICT_DEADLINE`], which ends it.
pub const ADMISSION_WAIT_MAX: Duration = Duration::from_millis(350);

/// Bytes of one request's body at the control socket: an address, a time and a sentence.
pub const CONTROL_REQUEST_BYTES_MAX: usize = 16 * 1024;

/// How long an answer may take that the store has to be asked for: a copy of it is made in that, and less than the life
/// of a connection ([`ADMIN_CONNECTION_LIFETIME`]).
pub const CONTROL_RECORDS_TIMEOUT: Duration = Duration::from_secs(50);

/// Entries of the audit shown unless more are asked for: a screen.
pub const AUDIT_TAIL_DEFAULT: usize = 20;

/// Entries of the audit shown at once.
pub const AUDIT_TAIL_MAX: usize = 1000;

/// Refusals written down per tenant and minute: whoever makes up requests fills no disk with them. 60 kB per minute.
pub const DENIALS_PER_MINUTE_MAX: u32 = 120;

/// Answers of plugins whose words are written down per tenant and minute, and kept for years: as many as refusals. With
/// as many and as long words as there may be, 180 kB per minute; with one short word each, 40 kB.
pub const TAGS_PER_MINUTE_MAX: u32 = 120;

/// Sessions of one answer to a look-up.
pub const LOOKUP_SESSIONS_MAX: usize = 1000;

/// Bytes of the reason of a look-up or a ban, and of a role's name: a sentence.
pub const REASON_BYTES_MAX: usize = 500;

/// Longest ban of an address: it is class `ip`. Longer ones are configuration.
pub const BAN_LIFETIME_MAX: Duration = Duration::from_secs(7 * 24 * 3600);

/// Bans that are kept over a restart: what an operator can still look through.
pub const BANS_KEPT_MAX: usize = 4096;

/// Legal holds at a time: what an operator still knows by name, each with a key in locked memory.
pub const HOLDS_MAX: usize = 64;

/// Sessions of one hold: one request to the control socket names each of them, and so does the audit's entry.
pub const HOLD_SESSIONS_MAX: usize = 256;

/// Bytes of a hold's name, which is that of a case.
pub const HOLD_NAME_BYTES_MAX: usize = 64;

/// By how much the wall clock has to go another way than time to count as set: daylight and leap seconds do not move
/// it, and a clock that is slewed goes half a second an hour astray.
pub const CLOCK_STEP_MIN: Duration = Duration::from_secs(10);

/// The fewest bits of a banned network: what is larger is nobody's, and a slip of the pen.
pub const BAN_BITS_MIN: u8 = 8;

/// Bytes of the manifest of a copy of the store: it takes half a kilobyte.
pub const MANIFEST_BYTES_MAX: u64 = 16 * 1024;

/// Days that the audit of accesses lives unless the configuration says otherwise: three years.
pub const ACCESS_AUDIT_DAYS_DEFAULT: u32 = 3 * 365;

/// Most days of it that can be configured: longer than any limitation that it is kept for.
pub const ACCESS_AUDIT_DAYS_MAX: u32 = 30 * 365;

/// Bytes of the name that a relay has in what it ships: each line of the spool carries it.
pub const NODE_NAME_BYTES_MAX: usize = 64;
