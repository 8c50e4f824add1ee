use super::*;
use Action::{Drop, Keep, Pseudonymise, Replace, TruncateAddress, TruncateTime};

const ID: [u8; 16] = [0; 16];
const DAY: u32 = DAY_SECONDS as u32;

fn lasting(durable: Action) -> Rule {
    Rule { durable, expiring: None }
}

fn passing(action: Action, after: u32) -> Rule {
    Rule { durable: Drop, expiring: Some((action, after)) }
}

/// A plan for one field of a kind.
fn one(kind: &str, field: &str, rule: Rule) -> Plan {
    plan(kind, vec![(field.to_owned(), rule)]).unwrap()
}

fn plan(kind: &str, fields: Vec<(String, Rule)>) -> Result<Plan, PlanError> {
    Plan::of(&[Proposal { kind: kind.to_owned(), fields, one_in: 1, retention: None }])
}

fn control(plan: &Plan, kind: &str, field: &str) -> String {
    format!("{:?}", plan.leaves(Destination::Control, kind, &ID).unwrap().of(field))
}

fn prefix(v4: u8, v6: u8) -> Prefix {
    Prefix { v4, v6 }
}

/// What can be done to an address; and to a time.
fn actions() -> [Vec<Action>; 2] {
    let text = || vec![Drop, Keep, Replace("-".to_owned()), Replace("x".to_owned())];
    let mut address = text();
    for p in [prefix(16, 32), prefix(24, 16)] {
        address.extend([TruncateAddress(p), Pseudonymise(Window::Week, Some(p))]);
    }
    address.extend([Window::Hour, Window::Day].map(|window| Pseudonymise(window, None)));
    [address, [text(), vec![TruncateTime(60), TruncateTime(3600)]].concat()]
}

#[test]
fn of_two_actions_the_stricter_one_holds_whoever_says_it() {
    for actions in actions() {
        for a in &actions {
            assert_eq!((a.and(a), a.and(&Keep), a.and(&Drop)), (a.clone(), a.clone(), Drop));
            for b in &actions {
                assert_eq!(a.and(b), b.and(a), "{a:?} {b:?}");
                for c in &actions {
                    assert_eq!(a.and(b).and(c), a.and(&b.and(c)), "{a:?} {b:?} {c:?}");
                }
            }
        }
    }
    let both = TruncateAddress(prefix(16, 64)).and(&Pseudonymise(Window::Day, Some(prefix(24, 48))));
    assert_eq!(both, Pseudonymise(Window::Day, Some(prefix(16, 48))));
    assert_eq!(TruncateTime(60).and(&TruncateAddress(prefix(1, 1))), Drop);
}

#[test]
fn the_leading_bits_of_an_address_stay() {
    let of = |v4, v6, ip: &str| prefix(v4, v6).of(ip.parse().unwrap()).to_string();
    assert_eq!(of(24, 48, "192.0.2.77"), "192.0.2.0");
    assert_eq!(of(24, 48, "::ffff:192.0.2.77"), "192.0.2.0");
    assert_eq!(of(24, 48, "2001:db8:1:2::7"), "2001:db8:1::");
    assert_eq!((of(0, 0, "192.0.2.77"), of(0, 0, "2001:db8::7")), ("0.0.0.0".to_owned(), "::".to_owned()));
    assert_eq!(of(32, 128, "192.0.2.77"), "192.0.2.77");
}

#[test]
fn a_plan_that_keeps_everything_for_ever_is_the_floor() {
    let fields = |kind: &Kind| kind.fields.iter().map(|f| (f.name.to_owned(), lasting(Keep))).collect();
    let all = |kind: &Kind| Proposal { kind: kind.plan_name(), fields: fields(kind), one_in: 1, retention: None };
    assert_eq!(Plan::of(&Kind::TABLE.iter().map(all).collect::<Vec<_>>()), Ok(Plan::floor()));
    assert_eq!(Plan::floor().and(&Plan::floor()), Plan::floor());
    assert_eq!(Plan::floor().address_days(), IP_RETENTION_DAYS_MAX);
}

#[test]
fn the_strictest_plan_leaves_of_each_record_what_no_plan_may_drop() {
    for kind in Kind::TABLE {
        let plan = Plan::strictest().and(&Plan::floor());
        let leaves = plan.leaves(kind.destination, kind.name, &ID).unwrap();
        for field in kind.fields {
            let written = if field.planned { Written::Nothing } else { Written::Value };
            assert_eq!(leaves.of(field.name), written, "{} {}", kind.name, field.name);
        }
    }
}

#[test]
fn an_address_is_under_the_key_of_its_day_or_not_there() {
    for (rule, written, days) in [
        (passing(Keep, 2 * DAY), "Value", 2),
        (passing(Keep, 30 * DAY), "Value", 7),
        (lasting(Keep), "Value", 7),
        (passing(Keep, DAY - 1), "Nothing", 7),
        (lasting(Drop), "Nothing", 7),
        (lasting(TruncateAddress(prefix(16, 32))), "Truncated(Prefix { v4: 16, v6: 32 })", 7),
        (passing(Pseudonymise(Window::Day, None), 5 * DAY), "Nothing", 7),
        (lasting(Replace("-".to_owned())), "Nothing", 7),
    ] {
        let plan = one("control.began", "addresses", rule.clone());
        assert_eq!((control(&plan, "began", "addresses").as_str(), plan.address_days()), (written, days), "{rule:?}");
    }
    let blind = one("store.session_address", "blind", lasting(TruncateAddress(prefix(16, 32))));
    let leaves = blind.leaves(Destination::Store, "session_address", &ID).unwrap();
    assert_eq!((leaves.of("blind"), leaves.of("session")), (Written::Nothing, Written::Value));
}

#[test]
fn an_action_that_does_not_fit_a_field_drops_it() {
    for (field, action, written) in [
        ("person", Pseudonymise(Window::Week, None), "Token(Week)"),
        ("person", Replace("-".to_owned()), r#"Text("-")"#),
        ("person", TruncateTime(60), "Nothing"),
        ("at", TruncateTime(60), "Rounded(60)"),
        ("at", Pseudonymise(Window::Week, None), "Nothing"),
        ("lifetime_seconds", Replace("-".to_owned()), "Nothing"),
        ("session", Drop, "Value"),
    ] {
        let plan = one("control.began", field, lasting(action));
        assert_eq!(control(&plan, "began", field), written, "{field}");
    }
}

#[test]
fn what_a_plan_says_nothing_of_is_dropped_where_it_says_something_of_somebody() {
    let silent = plan("control.began", Vec::new()).unwrap();
    for (field, written) in
        [("person", "Nothing"), ("at", "Nothing"), ("addresses", "Nothing"), ("lifetime_seconds", "Value")]
    {
        assert_eq!(control(&silent, "began", field), written, "{field}");
    }
    assert_eq!(control(&silent, "ended", "person"), "Value", "of a kind that it leaves out the floor holds");
    assert_eq!(control(&silent, "ended", "address"), "Nothing", "of a field that there is not nothing is written");
    assert!(silent.leaves(Destination::Control, "begun", &ID).is_none());
}

#[test]
fn of_several_plans_the_strictest_holds_field_by_field() {
    let a = one("control.began", "addresses", passing(Keep, 5 * DAY));
    let b = one("control.began", "person", lasting(Pseudonymise(Window::Week, None)));
    let c = plan(
        "control.began",
        vec![
            ("addresses".to_owned(), passing(TruncateAddress(prefix(24, 48)), 6 * DAY)),
            ("person".to_owned(), lasting(Pseudonymise(Window::Hour, None))),
        ],
    )
    .unwrap();
    assert_eq!(control(&a.and(&b), "began", "addresses"), "Nothing", "b says nothing of it");
    let all = b.and(&c);
    assert_eq!(control(&all, "began", "person"), "Token(Hour)");
    assert_eq!(control(&a.and(&c), "began", "addresses"), "Truncated(Prefix { v4: 24, v6: 48 })");
    assert_eq!(a.and(&c).address_days(), 5);
}

#[test]
fn of_a_record_that_is_not_sampled_what_no_plan_may_drop_is_written() {
    let sampled = |one_in| {
        let fields = vec![("code".to_owned(), lasting(Keep))];
        Plan::of(&[Proposal { kind: "control.denied".to_owned(), fields, one_in, retention: None }]).unwrap()
    };
    let whole = |plan: &Plan, n: u8| plan.leaves(Destination::Control, "denied", &[n; 16]).unwrap().keeps("code");
    let drawn = (0..=255).filter(|n| whole(&sampled(5), *n)).count();
    assert!((40..60).contains(&drawn), "{drawn}");
    assert!((0..=255).all(|n| whole(&sampled(1), n) && !whole(&sampled(0), n)));
    assert_eq!(sampled(5).and(&sampled(2)), sampled(5));
    assert_eq!(sampled(5).and(&sampled(0)), sampled(0));
}

#[test]
fn what_is_to_go_before_its_class_does_is_not_written_and_an_address_goes_with_it() {
    let fields = || ["code", "addresses"].map(|name| (name.to_owned(), lasting(Keep))).to_vec();
    let stays = |retention| {
        let kind = "control.denied".to_owned();
        Plan::of(&[Proposal { kind, fields: fields(), one_in: 1, retention }]).unwrap()
    };
    let of = |plan: &Plan| (control(plan, "denied", "code"), control(plan, "denied", "addresses"), plan.address_days());
    let [value, nothing] = ["Value", "Nothing"].map(str::to_owned);
    assert_eq!(of(&stays(None)), (value.clone(), value.clone(), 7));
    assert_eq!(of(&stays(Some(8 * DAY))), (value.clone(), value.clone(), 7));
    assert_eq!(of(&stays(Some(3 * DAY))), (nothing.clone(), value, 3));
    assert_eq!(of(&stays(Some(DAY - 1))), (nothing.clone(), nothing, 7));
    assert_eq!(stays(Some(9)).and(&stays(Some(7))), stays(Some(7)).and(&stays(None)));
}

#[test]
fn what_is_no_plan_says_why() {
    let kind = |name: &str| Proposal { kind: name.to_owned(), fields: Vec::new(), one_in: 1, retention: None };
    let field = |rule| plan("control.began", vec![("at".to_owned(), rule)]).unwrap_err().to_string();
    let long = "x".repeat(LOG_PLAN_TEXT_BYTES_MAX + 1);
    for (error, word) in [
        (Plan::of(&[kind("session")]).unwrap_err().to_string(), "\"session\""),
        (Plan::of(&[kind("store.ban"), kind("store.ban")]).unwrap_err().to_string(), "twice"),
        (plan("store.ban", vec![("ip".to_owned(), lasting(Drop))]).unwrap_err().to_string(), "no field \"ip\""),
        (plan("store.ban", vec![("id".to_owned(), lasting(Drop)); 2]).unwrap_err().to_string(), "\"id\" stands"),
        (field(lasting(Replace(long.clone()))), "longer"),
        (field(lasting(Replace("a\nb".to_owned()))), "control"),
        (field(passing(Replace(long), 1)), "longer"),
        (field(lasting(TruncateTime(0))), "number"),
        (field(lasting(TruncateAddress(prefix(33, 1)))), "number"),
        (field(lasting(Pseudonymise(Window::Day, Some(prefix(1, 129))))), "number"),
    ] {
        assert!(error.contains(word), "{error}: {word}");
    }
}
