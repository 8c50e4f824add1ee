//! What whoever keeps records is told: of each stay its beginning and its end, of refusals, of media streams.

use sluice_base::event::{Began, Denied, EndReason, Ended, RelayEvent, StreamEnded};
use sluice_base::limits::{DENIALS_TOLD_BURST, DENIALS_TOLD_PER_SECOND, STREAM_TOLD_PACKETS_MIN};
use sluice_base::message::{Envelope, Order, Traffic};
use sluice_base::policy::{Denial, Grant, Hook, Verdict};
use sluice_base::stats::media::MediaKind;
use sluice_base::stats::{Code, Leg, Method as MethodLabel, Single};
use sluice_base::{Pii, TenantId};
use sluice_turn::ServerOptions;
use sluice_turn::harness::model::{Client, Relay, START_UNIX_SECONDS, ip_address, options};
use sluice_wire::stun::Method;

use crate::{CLIENT, CLIENT_2, at, millis, peer, seconds};

const YES: Verdict =
    Verdict::Allow(Grant { valid_for: None, lifetime_max: None, bits_per_second: None, permissions_max: None });

/// A function that gathers the events of one kind.
macro_rules! gather {
    ($name:ident, $kind:ident) => {
        fn $name(relay: &Relay) -> Vec<&$kind> {
            let told = relay.events.iter().filter_map(|event| match event {
                RelayEvent::$kind(told) => Some(told),
                _ => None,
            });
            told.collect()
        }
    };
}

gather!(began, Began);
gather!(ended, Ended);
gather!(denied, Denied);
gather!(streams, StreamEnded);

/// RTP of a source with a clock of 48 kHz and a packet each 20 ms.
fn voice(ssrc: u32, sequence: u16) -> Vec<u8> {
    let mut bytes = vec![7; 172];
    (bytes[0], bytes[1]) = (0x80, 96);
    bytes[2..4].copy_from_slice(&sequence.to_be_bytes());
    bytes[4..8].copy_from_slice(&(u32::from(sequence) * 960).to_be_bytes());
    bytes[8..12].copy_from_slice(&ssrc.to_be_bytes());
    bytes
}

#[test]
fn a_stay_has_one_name_from_the_question_to_its_end() {
    let mut relay = Relay::new();
    let mut client = Client::new(CLIENT);
    let [v4, v6] = client.allocated_both(&mut relay);
    client.refresh(&mut relay, 900);
    client.permit(&mut relay, &[peer()]);
    client.bind(&mut relay, 0x4000, peer());
    relay.pass(seconds(7));
    client.refresh(&mut relay, 0);
    let session = relay.questions[0].session;
    assert!(relay.questions.iter().all(|question| question.session == session));
    let (user, client) = (Pii::new(b"alice"[..].into()), Pii::new(client.address));
    let began = Began {
        session,
        tenant: TenantId(0),
        user: user.clone(),
        client,
        relayed: [Some(Pii::new(v4)), Some(Pii::new(v6))],
        unix_seconds: START_UNIX_SECONDS,
        lifetime: seconds(600),
    };
    let ended = Ended {
        session,
        tenant: TenantId(0),
        user,
        client,
        unix_seconds: START_UNIX_SECONDS + 7,
        age: seconds(7),
        reason: EndReason::Client,
        traffic: Traffic::default(),
        permissions: 1,
        channels: 1,
    };
    assert_eq!(relay.events, [RelayEvent::Began(began), RelayEvent::Ended(ended)]);
    Client::new(CLIENT).allocated(&mut relay);
    assert_ne!(relay.questions.last().unwrap().session, session, "the next stay has another name");
}

#[test]
fn an_external_address_is_told_as_it_was_announced() {
    let mut options = options();
    let mut relays = options.relays.to_vec();
    relays[0].external = Some(ip_address("203.0.113.200"));
    options.relays = relays.into();
    let mut relay = Relay::with(options);
    let relayed = Client::new(CLIENT).allocated(&mut relay);
    assert_eq!(began(&relay)[0].relayed, [Some(Pii::new(relayed)), None]);
}

#[test]
fn an_end_tells_what_was_relayed_and_all_that_was_ever_made() {
    let mut relay = Relay::new();
    let mut client = Client::new(CLIENT);
    let relayed = client.allocated(&mut relay);
    for port in 1..=3 {
        client.permit(&mut relay, &[at(&format!("198.51.100.{port}:6000"))]);
    }
    for _ in 0..2 {
        client.bind(&mut relay, 0x4000, peer());
        client.bind(&mut relay, 0x4001, at("198.51.100.9:6001"));
    }
    client.say_on(&mut relay, 0x4000, b"four");
    client.say(&mut relay, peer(), b"seven!!");
    relay.from_peer(peer(), relayed, b"nine_byte");
    client.refresh(&mut relay, 1000);
    relay.pass(seconds(900));
    client.refresh(&mut relay, 0);
    let [end] = ended(&relay)[..] else { panic!("one end") };
    let traffic = Traffic { packets_from_client: 2, bytes_from_client: 11, packets_to_client: 1, bytes_to_client: 9 };
    assert_eq!((end.traffic, end.permissions, end.channels), (traffic, 4, 2));
}

#[test]
fn each_end_has_its_reason() {
    let limited = |grant: Grant| {
        let mut relay = Relay::new();
        let mut first = true;
        relay.decide = Box::new(move |_| std::mem::take(&mut first).then_some(Verdict::Allow(grant)));
        relay
    };
    let all = |relay: &Relay| ended(relay).iter().map(|end| end.reason).collect::<Vec<_>>();
    let mut relay = Relay::new();
    Client::new(CLIENT).allocated(&mut relay);
    relay.pass(seconds(601));
    assert_eq!(all(&relay), [EndReason::Expired]);
    let id = |relay: &Relay| relay.server.allocations().next().unwrap();
    Client::new(CLIENT).allocated(&mut relay);
    let order = Envelope::Order(Order::End(id(&relay)));
    relay.message(order);
    Client::new(CLIENT).allocated(&mut relay);
    Client::new(CLIENT_2).allocated(&mut relay);
    relay.message(Envelope::Order(Order::Stop));
    let stopped = EndReason::Stopped;
    assert_eq!(all(&relay), [EndReason::Expired, EndReason::Order, stopped, stopped]);
    let mut relay = limited(Grant { valid_for: Some(seconds(60)), ..Grant::default() });
    Client::new(CLIENT).allocated(&mut relay);
    relay.pass(seconds(61));
    assert_eq!(all(&relay), [EndReason::Policy]);
    let mut relay = limited(Grant { lifetime_max: Some(seconds(60)), ..Grant::default() });
    Client::new(CLIENT).allocated(&mut relay);
    relay.pass(seconds(61));
    assert_eq!(all(&relay), [EndReason::Expired]);
}

#[test]
fn an_end_that_a_packet_finds_before_the_timer_is_told_once() {
    let mut relay = Relay::new();
    let mut client = Client::new(CLIENT);
    client.allocated(&mut relay);
    relay.pass_without_timers(seconds(601));
    client.say(&mut relay, peer(), b"x");
    relay.pass(seconds(1));
    assert_eq!(ended(&relay).len(), 1);
    assert_eq!(ended(&relay)[0].age, seconds(601));
}

#[test]
fn a_stay_that_a_policy_refuses_is_told_under_its_name() {
    for (denial, code) in [
        (Denial::Forbidden, Code::Forbidden),
        (Denial::Quota, Code::QuotaReached),
        (Denial::TryLater, Code::InsufficientCapacity),
    ] {
        let mut relay = Relay::new();
        relay.decide = Box::new(move |_| Some(Verdict::Deny(denial)));
        let mut client = Client::new(CLIENT);
        let answer = client.allocate(&mut relay, |_| {});
        assert_eq!(answer.code(), code.number());
        let expected = Denied {
            session: Some(relay.questions[0].session),
            tenant: TenantId(0),
            user: Pii::new(b"alice"[..].into()),
            client: Pii::new(client.address),
            unix_seconds: START_UNIX_SECONDS,
            method: MethodLabel::Allocate,
            code,
        };
        assert_eq!(relay.events, [RelayEvent::Denied(expected)]);
    }
}

#[test]
fn a_stay_that_was_asked_about_begins_or_is_refused_whatever_happens() {
    // No verdict, no socket, and the end of the relay with a question and with a socket under way.
    let mut relay = Relay::new();
    relay.decide = Box::new(|_| None);
    Client::new(CLIENT).challenge(&mut relay);
    for (i, stops) in [(1, false), (2, true)] {
        let mut client = Client::new(&format!("203.0.113.7:{i}"));
        client.challenge(&mut relay);
        let request = client.signed(Method::ALLOCATE, sluice_turn::harness::model::udp);
        assert!(client.send(&mut relay, &request).is_empty());
        let sent = if stops { relay.message(Envelope::Order(Order::Stop)) } else { relay.pass(seconds(1)) };
        assert_eq!(client.only_answer(&relay, sent).code(), 508);
    }
    let mut relay_2 = Relay::new();
    relay_2.opener = Box::new(|_| Err(sluice_base::io::OpenError::NoSockets));
    assert_eq!(Client::new(CLIENT).allocate(&mut relay_2, |_| {}).code(), 508);
    relay_2.opener = Box::new(|_| Ok(()));
    relay_2.slow_to_open = true;
    let mut client = Client::new(CLIENT);
    client.challenge(&mut relay_2);
    let request = client.signed(Method::ALLOCATE, sluice_turn::harness::model::udp);
    assert!(client.send(&mut relay_2, &request).is_empty());
    let sent = relay_2.message(Envelope::Order(Order::Stop));
    assert_eq!(client.only_answer(&relay_2, sent).code(), 508);
    assert!(relay_2.open_pending().is_empty());
    assert_eq!(relay_2.relay_sockets(), 0);
    for relay in [relay, relay_2] {
        let asked: Vec<_> = relay.questions.iter().map(|question| Some(question.session)).collect();
        let told: Vec<_> = denied(&relay).iter().map(|denied| denied.session).collect();
        assert_eq!((asked.len(), told.len(), relay.events.len()), (2, 2, 2));
        assert_eq!(asked, told);
    }
}

#[test]
fn a_refusal_within_a_stay_names_it_and_slips_of_the_protocol_are_not_told() {
    let mut relay = Relay::new();
    let mut client = Client::new(CLIENT);
    client.allocated(&mut relay);
    assert_eq!(client.permit(&mut relay, &[at("127.0.0.1:1")]).code(), 403);
    let [one] = denied(&relay)[..] else { panic!("one refusal") };
    assert_eq!((one.method, one.code), (MethodLabel::CreatePermission, Code::Forbidden));
    assert_eq!(one.session, Some(relay.questions[0].session));
    assert_eq!(client.allocate(&mut relay, |_| {}).code(), 437);
    assert_eq!(client.bind(&mut relay, 0x3fff, peer()).code(), 400);
    assert_eq!(Client::new(CLIENT_2).refresh(&mut relay, 600).code(), 437);
    assert_eq!(denied(&relay).len(), 1);
}

#[test]
fn a_refusal_that_is_asked_for_again_is_told_once() {
    let mut relay = Relay::new();
    let mut client = Client::new(CLIENT);
    client.allocated(&mut relay);
    let request = client.signed(Method::CREATE_PERMISSION, |builder| {
        builder.xor_address(sluice_wire::stun::attribute::XOR_PEER_ADDRESS, at("127.0.0.1:1"));
    });
    for _ in 0..3 {
        assert_eq!(client.answer_to(&mut relay, &request).code(), 403);
    }
    assert_eq!(denied(&relay).len(), 1);
}

#[test]
fn a_source_has_so_many_refusals_told_and_the_rest_counted() {
    let mut relay = Relay::new();
    let mut client = Client::new(CLIENT);
    client.allocated(&mut relay);
    let mut refused = |relay: &mut Relay, n| (0..n).for_each(|_| drop(client.permit(relay, &[at("127.0.0.1:1")])));
    refused(&mut relay, DENIALS_TOLD_BURST + 7);
    assert_eq!(denied(&relay).len(), DENIALS_TOLD_BURST as usize);
    assert_eq!(relay.single(Single::EventsUntold), 7);
    relay.pass(seconds(1));
    refused(&mut relay, DENIALS_TOLD_PER_SECOND + 1);
    assert_eq!(denied(&relay).len(), (DENIALS_TOLD_BURST + DENIALS_TOLD_PER_SECOND) as usize);
    // Somebody else's are told still.
    let mut other = Client::new("198.18.0.1:1");
    other.allocated(&mut relay);
    other.permit(&mut relay, &[at("127.0.0.1:1")]);
    assert_eq!(denied(&relay).last().unwrap().client, Pii::new(other.address));
}

#[test]
fn a_stream_is_told_of_at_its_end_before_the_end_of_its_stay() {
    let mut relay = Relay::new();
    let mut client = Client::new(CLIENT);
    let relayed = client.allocated(&mut relay);
    client.bind(&mut relay, 0x4000, peer());
    for sequence in 0..500 {
        relay.pass(millis(20));
        if sequence % 10 != 5 {
            client.say_on(&mut relay, 0x4000, &voice(1, sequence));
        }
        if u64::from(sequence) + 1 < STREAM_TOLD_PACKETS_MIN {
            relay.from_peer(peer(), relayed, &voice(2, sequence));
        }
    }
    client.refresh(&mut relay, 0);
    let session = relay.questions[0].session;
    let [stream] = streams(&relay)[..] else { panic!("one stream of more than a second") };
    let expected = StreamEnded {
        session,
        tenant: TenantId(0),
        leg: Leg::Client,
        kind: MediaKind::Audio,
        unix_seconds: START_UNIX_SECONDS + 10,
        duration: millis(499 * 20),
        packets_expected: 500,
        packets_lost: 50,
        packets_received: 450,
        bytes: 450 * 172,
        jitter: stream.jitter,
    };
    assert_eq!(*stream, expected);
    assert!(stream.jitter.is_some_and(|jitter| jitter < millis(1)), "{:?}", stream.jitter);
    assert!(matches!(relay.events[..], [RelayEvent::Began(_), RelayEvent::StreamEnded(_), RelayEvent::Ended(_)]));
}

#[test]
fn a_stream_that_falls_silent_and_one_whose_channel_ends_are_told_of_amid_the_stay() {
    let mut relay = Relay::new();
    let mut client = Client::new(CLIENT);
    client.allocated(&mut relay);
    client.bind(&mut relay, 0x4000, peer());
    client.refresh(&mut relay, 3600);
    let say = |relay: &mut Relay, ssrc| (0..60).for_each(|n| drop(client.say_on(relay, 0x4000, &voice(ssrc, n))));
    say(&mut relay, 1);
    relay.pass(seconds(40));
    assert_eq!(streams(&relay).len(), 1);
    relay.pass(seconds(250));
    say(&mut relay, 2);
    relay.pass(seconds(20));
    assert_eq!(streams(&relay).len(), 1, "the permission has run out, and the channel has not");
    relay.pass(seconds(300));
    assert_eq!(streams(&relay).len(), 2);
    assert_eq!(streams(&relay)[1].packets_received, 60);
    assert!(ended(&relay).is_empty());
}

#[test]
fn without_events_nothing_is_told() {
    let mut relay = Relay::with(ServerOptions { events: false, ..options() });
    let mut client = Client::new(CLIENT);
    client.allocated(&mut relay);
    client.bind(&mut relay, 0x4000, peer());
    (0..100).for_each(|n| drop(client.say_on(&mut relay, 0x4000, &voice(1, n))));
    client.permit(&mut relay, &[at("127.0.0.1:1")]);
    client.refresh(&mut relay, 0);
    relay.decide = Box::new(|_| Some(Verdict::Deny(Denial::Forbidden)));
    client.allocate(&mut relay, |_| {});
    assert_eq!(relay.events, []);
    assert_eq!(relay.single(Single::EventsUntold), 0);
}

#[test]
fn a_question_waits_as_long_as_the_options_say() {
    let mut relay = Relay::with(ServerOptions { verdict_deadline: millis(50), ..options() });
    relay.decide = Box::new(|question| (question.hook != Hook::Refresh).then_some(YES));
    let mut client = Client::new(CLIENT);
    client.allocated(&mut relay);
    let request = client.signed(Method::REFRESH, |_| {});
    assert!(client.send(&mut relay, &request).is_empty());
    assert!(relay.pass(millis(49)).is_empty());
    let sent = relay.pass(millis(51));
    assert_eq!(client.only_answer(&relay, sent).code(), 508);
}

#[test]
fn what_a_changed_policy_ends_is_told() {
    let mut relay = Relay::new();
    let mut client = Client::new(CLIENT);
    client.allocated(&mut relay);
    client.permit(&mut relay, &[peer()]);
    relay.decide =
        Box::new(|question| Some(if question.peers.is_empty() { YES } else { Verdict::Deny(Denial::Forbidden) }));
    assert!(relay.review(TenantId(0)));
    let cut = denied(&relay)[0];
    assert_eq!((cut.session, cut.code), (Some(relay.questions[0].session), Code::Forbidden));
    assert_eq!(cut.method, MethodLabel::CreatePermission);
    relay.decide = Box::new(|_| Some(Verdict::Deny(Denial::Forbidden)));
    assert!(relay.review(TenantId(0)));
    assert_eq!(denied(&relay).len(), 1, "there was no permission any more");
    assert_eq!(ended(&relay)[0].reason, EndReason::Policy);
}
