//! docs/records.md, written from the tables.

use std::fmt::Write as _;
use std::time::Duration;

use crate::class::{Definition, Place, Purpose, Retention, Who};
use crate::schema::{Destination, Kind};
use crate::{Class, pseudonym, seal};

/// The text of docs/records.md.
pub fn documentation() -> String {
    let mut text = String::from(INTRODUCTION);
    classes(&mut text);
    text += KINDS;
    for (destination, title) in Destination::ALL {
        let _ = write!(text, "\n### {title}\n");
        Kind::of(destination).for_each(|kind| kind_of(&mut text, kind));
    }
    text += FORMATS;
    derivations(&mut text);
    text + REST
}

fn classes(text: &mut String) {
    *text += "\n## Retention classes\n\n| Class | Number | Holds | Read for | Stays | Shortened by | Extended by | Where |\n";
    *text += "|---|---|---|---|---|---|---|---|\n";
    for row in Class::TABLE {
        let Definition { name, code, holds, .. } = row;
        let purposes = list(row.purposes, purpose);
        let (shorten, extend) = (list(row.shorten, who), list(row.extend, who));
        let (stays, places) = (retention(row.retention), list(row.places, place));
        let line = [name, &*code.to_string(), holds, &purposes, &stays, &shorten, &extend, &places].join(" | ");
        // Writing to a string cannot fail.
        let _ = writeln!(text, "| {line} |");
    }
    let used = |class| {
        Kind::TABLE.iter().any(|kind| kind.class == class || kind.fields.iter().any(|f| kind.class_of(f) == class))
    };
    let unused: Vec<&str> = Class::TABLE.iter().map(|row| row.class).filter(|c| !used(*c)).map(Class::name).collect();
    let _ = writeln!(text, "\nOf {} this version writes no records.", unused.join(", "));
}

fn kind_of(text: &mut String, kind: &Kind) {
    let mandatory = if kind.is_mandatory() { "; no plan drops or shortens it" } else { "" };
    let _ = writeln!(text, "\n`{}`: {}. Class {}{mandatory}.", kind.name, kind.about, kind.class.name());
    if kind.fields.is_empty() {
        return;
    }
    *text += "\n| Field | Form | Always | Plan | Class | Sensitivity | Meaning |\n|---|---|---|---|---|---|---|\n";
    for field in kind.fields {
        let yes = |it: bool| if it { "yes" } else { "no" };
        let (always, planned) = (yes(field.always), yes(field.planned));
        let (form, sensitivity) = (field.form.text(), field.form.sensitivity().text());
        let class = kind.class_of(field).name();
        let _ = writeln!(
            text,
            "| `{}` | {form} | {always} | {planned} | {class} | {sensitivity} | {} |",
            field.name, field.about
        );
    }
}

fn derivations(text: &mut String) {
    let label = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let rows = [
        ("sealing", seal::SEAL_PURPOSE, "key of the day, long-lived key, or key of a hold"),
        ("a key's id", seal::ID_PURPOSE, "key of the day, long-lived key, or key of a hold"),
        ("blind indexes", pseudonym::INDEX_PURPOSE, "key of the day"),
        ("addresses' pseudonyms", pseudonym::ADDRESS_PURPOSE, "key of the day"),
        ("users' pseudonyms in store and audit", pseudonym::Purpose::Records.label(), "long-lived key"),
        ("users' pseudonyms in the log", pseudonym::Purpose::Log.label(), "long-lived key"),
        ("users' pseudonyms in the spool", pseudonym::Purpose::Spool.label(), "long-lived key"),
    ];
    *text += "\n| Derived key | Purpose | From |\n|---|---|---|\n";
    for (name, purpose, from) in rows {
        let _ = writeln!(text, "| {name} | `{}` | {from} |", label(purpose));
    }
}

fn list<T: Copy>(items: &[T], text: impl Fn(T) -> &'static str) -> String {
    let words: Vec<&str> = items.iter().copied().map(text).collect();
    if words.is_empty() { "nobody".to_owned() } else { words.join(", ") }
}

fn retention(retention: Retention) -> String {
    match retention {
        Retention::For(time) => duration(time),
        Retention::UntilShipped(time) => format!("until every sink has it, at most {}", duration(time)),
        Retention::AfterTenant(time) => format!("{} after the tenant's end", duration(time)),
        Retention::Indefinite => "without an end".to_owned(),
        Retention::UntilLifted => "until the hold is lifted".to_owned(),
    }
}

fn duration(time: Duration) -> String {
    let hours = time.as_secs() / 3600;
    match hours {
        0..73 => format!("{hours} hours"),
        73..8760 => format!("{} days", hours / 24),
        8760 => "1 year".to_owned(),
        _ => format!("{} years", hours / 8760),
    }
}

const fn purpose(purpose: Purpose) -> &'static str {
    match purpose {
        Purpose::Abuse => "abuse",
        Purpose::Security => "security",
        Purpose::Quality => "quality",
        Purpose::Operation => "operation",
        Purpose::Accountability => "accountability",
        Purpose::Rights => "rights",
        Purpose::Delivery => "delivery",
        Purpose::Statistics => "statistics",
        Purpose::Claims => "legal claims",
    }
}

const fn who(who: Who) -> &'static str {
    match who {
        Who::Operator => "operator",
        Who::Tenant => "tenant",
    }
}

const fn place(place: Place) -> &'static str {
    match place {
        Place::Store => "store",
        Place::Audit => "audit",
        Place::Spool => "spool and its sinks",
        Place::Log => "log (as pseudonyms)",
        Place::Recording => "recordings",
        Place::Metrics => "metrics",
    }
}

const INTRODUCTION: &str = "# Records

What the relay writes down when `[privacy] records` is on, for how long it stays, and under which key. Without it nothing
of this is written.

An address is written as ciphertext under the key of its tenant and day, or as an index under it, and in no other form.
The key is random, lies in locked memory and in a directory that is in memory too, and is destroyed when its days are
over: from then on nobody can read the address, whatever copies of the records there are. Everything else that names
somebody is a pseudonym, or sealed under the tenant's long-lived key. A tenant's plan (below) may leave less of each.

Every number below is big-endian. `HMAC(key, text)` is HMAC-SHA256 (RFC 2104). A program that knows this file and has a
key reads everything that was sealed under it; `tests/privacy/adversary.py` is one.

This file is written from the tables in `relay/privacy/src/class.rs` and `relay/privacy/src/schema/table.rs`, and a test
compares them (`SLUICE_UPDATE_DOCS=1 cargo test -p sluice-privacy` writes it anew).
";

const KINDS: &str = "
A read for a purpose that a class does not name is refused. The key of a day D (from 00:00 to 24:00 UTC) dies when the
wall clock reads D + retention, or when the machine has run (asleep or awake) for as long as was left to that when the
key was made, whichever comes first. A tenant's `ip_retention_days` may say less than 7; with 0 no address is written.

## Kinds of records

Forms: an *id* is 16 random bytes, in hexadecimal digits where the record is JSON; a *time* is seconds since the Unix
epoch; a *day* is counted from 1 January 1970, and written as a date in the audit; a *pseudonym* is described below; what
is *sealed* and a *blind index* are bytes in the database and Base64 in JSON. A field that is not always there is NULL in
the database and left out in JSON.
";

const FORMATS: &str = r#"
Each line of the spool begins with `segment` and `line`, two numbers that together are given out once, `kind` and `event`:
`{"segment":3,"line":17,"kind":"control","event":"began",...}`. Lines are in files `NUMBER-BEGAN.jsonl` in `spool` in the
state directory, and are shipped as they are. A file that every sink has is overwritten with zeros and removed.

## Plans

A plugin with the hook `log-plan` (`plugins/log-minimisation` is one) says for a tenant what is written of the fields that have
a *yes* under Plan, before anything is written. It names a kind by its destination: `store.session`, `audit.connect`,
`quality.stream`, `control.began`. Of the relay's own rule (above) and every plan the stricter holds, field by field; so a plan takes away and
never adds. By the other fields a record is found, kept and removed, or accountability needs them: they are always written. While a plan
cannot be had (the plugin traps, is late, or answers nonsense), they alone are; the log and `sluice_policy_failures_total` say so.

| A plan says | What is written |
|---|---|
| `keep` | the value; an address sealed under the key of its day, which is destroyed after the plan's days where they are fewer, and not written at all where they are less than one |
| `drop` | nothing: NULL in the database, left out in JSON. Without `session_address.blind` there is no row; without the sealed addresses no index of them |
| `truncate-address` | of what is sealed the leading bits of each address, with port 0; of a blind index nothing |
| `truncate-time` | a time, rounded down |
| `pseudonymise` | of a line's `person` another pseudonym: `user-` and the first 10 bytes of `HMAC(key, pseudonym)` in hexadecimal digits, under a random key of tenant and window (hour, day, week) that is in locked memory alone and dies with the window, or with the process |
| `replace` | of a word or a person this text |
| anything else, or what does not fit the field | nothing |
| a sample | of every n-th record, by the first 4 bytes of its id, all that the plan leaves; of the others what no plan may drop |
| a retention shorter than that of the class | of addresses a key that dies then; of other fields nothing, for nothing that was written is rewritten |

Of a field for which a plan has no rule nothing is written unless its sensitivity is *none*; of a kind that it leaves out, what the relay's own
rule leaves. What is *expiring* beside a durable form is for addresses: of other fields the durable form alone is written. A plan holds for what happens from then on. An
entry of the audit has no field that a plan may change.

## What is sealed

| Offset | Bytes | Meaning |
|---|---|---|
| 0 | 4 | `SLSR` |
| 4 | 1 | version: 1 |
| 5 | 1 | algorithm: 1, AES-256-GCM-SIV (RFC 8452) |
| 6 | 1 | the number of the class |
| 7 | 1 | n, the bytes of the tenant's name |
| 8 | 4 | the day of the key; 0 under a long-lived key or that of a hold |
| 12 | 8 | the id of the key |
| 20 | 12 | the nonce |
| 32 | n | the tenant's name |
| 32 + n | | ciphertext, the last 16 bytes of it the tag |

The key is the one derived for sealing. The associated data are the first 32 + n bytes followed by the 16 bytes of the
record's id: of a session's addresses the session, of a refusal's and a ban's its own id, of an entry of the audit its
number in 16 bytes. The id stands in the same row or line, as a field of form id, or as `seq`.

## Key files

`KEYS/DATE.TENANT.key` is the key of a day, as `2026-11-28.clinic.key`; the relay itself is a tenant without a name
(`2026-11-28..key`). In `secrets` in the state directory, `TENANT.tenant.key` is a tenant's long-lived key, and
`signing.key` the 32 secret bytes of the Ed25519 key (RFC 8032) by which this node signs its audit. In `holds` in the state
directory, `ID.key` is the key of the legal hold of that id (`ID.pending` while it is being made or lifted); it has the
form of a long-lived key, with the id in hexadecimal digits for the tenant's name.

| Offset | Bytes | Meaning |
|---|---|---|
| 0 | 8 | `SLUICEK1` |
| 8 | 4 | the day, counted from 1 January 1970; 0 for a long-lived key |
| 12 | 8 | its end by the wall clock, seconds since the Unix epoch; 0 for a long-lived key |
| 20 | 8 | its end by the machine's clock (CLOCK_BOOTTIME), nanoseconds |
| 28 | 16 | the start of the machine that this is of (boot_id); zeros where it is not known |
| 44 | 32 | the key |
| 76 | 8 | the first 8 bytes of SHA-256 over the first 76 and the tenant's name |

A file that is not so, zeros above all, is no key, and is destroyed. Destruction overwrites the file with zeros, waits for
the file system, and removes it.

A start with `privacy.records = false` destroys every key of a day that lies in `privacy.keys_directory` or in
`$RUNTIME_DIRECTORY/keys`, due or not, and overwrites the spool: no address of a former run can be read any more but by
the key of a legal hold, which stays until the hold is lifted. The other classes stay in the state directory as they
are, their long-lived keys beside them, and nothing sweeps them while records are off.

## Keys that are derived

`HMAC(key, purpose)`, whole, is the key for one purpose. A key's id is the first 8 bytes of it.
"#;

const REST: &str = "
## Pseudonyms and indexes

- The *blind index* of an address: the first 16 bytes of `HMAC(derived key, address)`, the address in its 4 or 16 bytes. A
  v4-mapped IPv6 address is taken for the IPv4 address. Of a relayed address with its port: the first 16 bytes of
  SHA-256 over `sluice relayed 1`, the index of the address, and the port in 2 bytes.
- The pseudonym of an address: `ip-` and the first 8 bytes of `HMAC(derived key, address)` in hexadecimal digits.
- The pseudonym of a user: `user-` and the first 10 bytes of `HMAC(derived key, month and name)` in hexadecimal digits; the
  month as `2026-11`, right before the name, which is without expiry and tenant. So each purpose has another one, and each
  month: nobody joins them without the tenant's key.

## The audit

The hash of an entry is SHA-256 over the hash before it (32 zeros before the first), the header, and `body` as it is
sealed. The header: `sluice audit 1`, `seq` and `at` in 8 bytes each, the length of `kind` in 8 bytes and `kind`, the
same of `tenant`, the same of `session` (all ones for its length where there is none), and the length of `body` in 8 bytes.
What is signed of a checkpoint or bound: `sluice audit 1 `, its name (`checkpoint`, `head`, `origin`), `seq` and `at` in 8
bytes each, and the hash. So the chain holds when a key is destroyed, for it is over ciphertext.

## Legal holds

A hold has a name, a reason, a date and a random key of its own, which is no key of a day and is derived from none. The
addresses of the sessions that it names are opened while the keys of their days live, or by another hold's, and sealed anew
under the key of the hold, for the same record id, with the number of class `legal-hold`. Of a session whose addresses nobody
can read any more, or whose tenant keeps none, the rest of the record is held. While a session is held, neither it nor its refusals nor the entries of the
audit from its beginning on are removed. Two holds of one session are two: each has the addresses under its own key.

No copy of the store has a hold's key, and what was shipped cannot be held: it becomes unreadable with its day. A hold
is lifted by hand alone, also after its date. Then its key is overwritten with zeros and removed, and so are the addresses
that it had sealed; what is overdue by then is removed at once. The key lies on the disk of the state directory: a file
system or a device that keeps what is overwritten (copy-on-write, snapshots, flash) may keep it, so `holds` belongs on one
that does not, and into no backup.

## The clock

`clock` in the state directory: `latest`, the latest that the wall clock was; `confirmed`, the time that was counted while
the relay ran or that an operator has confirmed; `newest-key`, the date of the newest key. Keys of a former start of the
machine are judged by the later of the wall clock and `latest`. Classes other than ip are removed by the wall clock, but
no further than 24 hours beyond `confirmed`.
";
