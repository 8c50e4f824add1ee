//! The table.

use super::{Destination, Field, Form, Kind};
use crate::Class;

const fn always(name: &'static str, form: Form, about: &'static str) -> Field {
    Field { name, form, always: true, planned: false, about }
}

const fn maybe(name: &'static str, form: Form, about: &'static str) -> Field {
    Field { name, form, always: false, planned: false, about }
}

/// A field that a plan may take away.
const fn planned(field: Field) -> Field {
    Field { planned: true, ..field }
}

const fn store(name: &'static str, class: Class, about: &'static str, fields: &'static [Field]) -> Kind {
    Kind { name, destination: Destination::Store, class, about, fields }
}

const fn audit(name: &'static str, class: Class, about: &'static str, fields: &'static [Field]) -> Kind {
    Kind { name, destination: Destination::Audit, class, about, fields }
}

const fn quality(name: &'static str, about: &'static str, fields: &'static [Field]) -> Kind {
    let (destination, class) = (Destination::Quality, Class::MediaLog);
    Kind { name, destination, class, about, fields }
}

const fn control(name: &'static str, about: &'static str, fields: &'static [Field]) -> Kind {
    let (destination, class) = (Destination::Control, Class::ControlLog);
    Kind { name, destination, class, about, fields }
}

const TENANT: Field = always("tenant", Form::Word, "the tenant's name; empty for the relay itself");
const PERSON: Field = always("person", Form::Person, "the user");
const PERSON_OF_SPOOL: Field = maybe("person", Form::Person, "the user");
const ROLE: Field = always("role", Form::Word, "in which role");
const UID: Field = always("uid", Form::Number, "the system's user who has asked");
const AT: Field = always("at", Form::Time, "when");
const SESSION: Field = always("session", Form::Id, "the session; also what its addresses are sealed for");

const STORE: &[Kind] = &[
    store(
        "session",
        Class::AccessAudit,
        "a client's stay: from its admission to the end of its allocation",
        &[
            always("id", Form::Id, "names it; also what its addresses are sealed for"),
            TENANT,
            PERSON,
            always("state", Form::Number, "0: admitted, 1: begun, 2: over"),
            maybe("day", Form::Day, "the day of the key of `sealed`"),
            planned(maybe(
                "sealed",
                Form::Sealed,
                "JSON: `client`, a transport address, and `relayed`, a list of them",
            )),
            always("began", Form::Time, "its beginning"),
            maybe("ended", Form::Time, "its end"),
            maybe("reason", Form::Word, "why it ended"),
            planned(maybe("seconds", Form::Number, "how long it was")),
            planned(maybe("packets_from_client", Form::Number, "packets that were relayed from it")),
            planned(maybe("bytes_from_client", Form::Number, "bytes of these")),
            planned(maybe("packets_to_client", Form::Number, "packets that were relayed to it")),
            planned(maybe("bytes_to_client", Form::Number, "bytes of these")),
            planned(maybe("permissions", Form::Number, "permissions that were made, without their peers")),
            planned(maybe("channels", Form::Number, "channels that were bound")),
        ],
    ),
    store(
        "session_address",
        Class::Ip,
        "by what a session is found: its client and each relayed address",
        &[
            planned(always("blind", Form::Blind, "of the client's address; of a relayed one with its port")),
            always("session", Form::Id, "the session"),
        ],
    ),
    store(
        "denial",
        Class::AccessAudit,
        "a refusal of somebody who had proved who they are",
        &[
            always("id", Form::Id, "names it; also what its address is sealed for"),
            TENANT,
            PERSON,
            maybe("session", Form::Id, "the session that it was asked in or for"),
            AT,
            always("method", Form::Word, "what was asked for"),
            always("code", Form::Number, "the answer"),
            maybe("day", Form::Day, "the day of the key of `sealed`"),
            planned(maybe("sealed", Form::Sealed, "JSON: `client`, a transport address")),
            planned(maybe("blind", Form::Blind, "of the client's address")),
        ],
    ),
    store(
        "ban",
        Class::Ip,
        "a ban of a network, at most as long as its key lives",
        &[
            always("id", Form::Id, "names it; also what it is sealed for"),
            TENANT,
            always("day", Form::Day, "the day of its key"),
            always("created", Form::Time, "since when"),
            always("expires", Form::Time, "until when"),
            always("sealed", Form::Sealed, "JSON: `address`, `bits` that count, `by_pseudonym`, `reason`"),
        ],
    ),
    store(
        "hold",
        Class::AdminAudit,
        "a legal hold; the audit has those that were lifted",
        &[
            always("id", Form::Id, "names its key; also what its reason is sealed for"),
            always("name", Form::Word, "its name, in the operator's words"),
            always("created", Form::Time, "since when"),
            maybe("until", Form::Time, "when it is to be looked at again: it is lifted by hand alone"),
            always("reason", Form::SealedLong, "why"),
        ],
    ),
    store(
        "held_session",
        Class::AdminAudit,
        "a session under a hold: neither it nor its refusals nor its entries of the audit are removed",
        &[
            always("hold", Form::Id, "the hold"),
            always("session", Form::Id, "the session; also what its addresses are sealed for"),
            maybe(
                "sealed",
                Form::SealedHold,
                "its addresses, as in `session`; none where nobody could read them any more",
            ),
        ],
    ),
    store(
        "dead_key",
        Class::AccessAudit,
        "a key that is no more, so that a reader is told since when",
        &[
            TENANT,
            always("day", Form::Day, "the day of the key"),
            always("died", Form::Time, "when it was destroyed, or found to be lost"),
        ],
    ),
    store(
        "audit",
        Class::AdminAudit,
        "an entry of the audit, as below",
        &[
            always(
                "seq",
                Form::Number,
                "its number, from 1; as 16 bytes, big-endian, it is what the body is sealed for",
            ),
            AT,
            always("kind", Form::Word, "its kind"),
            TENANT,
            maybe("session", Form::Id, "the session that it is about"),
            always("body", Form::SealedLong, "JSON: the fields of its kind"),
            always("hash", Form::Proof, "SHA-256 over the hash before it, its header and its body as it is sealed"),
        ],
    ),
    store(
        "checkpoint",
        Class::AdminAudit,
        "a signature of the audit as far as it had come",
        &[
            always("seq", Form::Number, "the entry that it is at"),
            AT,
            always("hash", Form::Proof, "that of the entry"),
            always("signature", Form::Proof, "Ed25519 of this node"),
        ],
    ),
    store(
        "bound",
        Class::AdminAudit,
        "a signature of where the audit begins (`origin`) or ends (`head`)",
        &[
            always("name", Form::Word, "which end"),
            always("seq", Form::Number, "the entry that it is at"),
            AT,
            always("hash", Form::Proof, "that of the entry"),
            always("signature", Form::Proof, "Ed25519 of this node"),
        ],
    ),
    store(
        "meta",
        Class::Aggregate,
        "what the store knows of itself",
        &[always("name", Form::Word, "of the value"), always("value", Form::Text, "the value")],
    ),
];

const AUDIT: &[Kind] = &[
    audit("connect", Class::AccessAudit, "a session was admitted or began", &[PERSON]),
    audit(
        "disconnect",
        Class::AccessAudit,
        "a session ended",
        &[
            maybe("person", Form::Person, "the user; absent where a former process left the session open"),
            always("reason", Form::Word, "why"),
            maybe("seconds", Form::Number, "how long it was"),
            maybe("bytes", Form::Number, "what was relayed, both ways"),
        ],
    ),
    audit(
        "denied",
        Class::AccessAudit,
        "a request was refused",
        &[PERSON, always("method", Form::Word, "what was asked for"), always("code", Form::Number, "the answer")],
    ),
    audit(
        "tagged",
        Class::AccessAudit,
        "a plugin had words for a verdict of its",
        &[
            always("plugin", Form::Word, "the operator's name for it"),
            always("hook", Form::Word, "what it was asked"),
            always("verdict", Form::Word, "what it said: `allow` or `deny`"),
            always("tags", Form::Text, "its words, which are short and no addresses"),
        ],
    ),
    audit(
        "admin",
        Class::AdminAudit,
        "an administrative change",
        &[
            always("what", Form::Word, "the command"),
            always("keys", Form::Text, "the names of what was changed, without values"),
            UID,
        ],
    ),
    audit(
        "read",
        Class::AdminAudit,
        "personal data was read",
        &[
            always("what", Form::Word, "the command"),
            always("class", Form::Word, "the class that was read"),
            ROLE,
            UID,
            maybe("reason", Form::Text, "why, in the reader's words; of a look-up always"),
            maybe("from", Form::Time, "of a look-up, the beginning of what was asked for"),
            maybe("to", Form::Time, "the end of it"),
            maybe("sessions", Form::Id, "the sessions that were shown: a list"),
            maybe("hold", Form::Word, "the legal hold whose addresses were shown"),
        ],
    ),
    audit(
        "key-destroyed",
        Class::AdminAudit,
        "a key of the day is no more",
        &[
            always("day", Form::Day, "the day of the key"),
            maybe("late_seconds", Form::Number, "how long after its end"),
            maybe("lost", Form::Word, "it was not destroyed by the relay, but not there at a start"),
        ],
    ),
    audit(
        "clock-step",
        Class::AdminAudit,
        "the wall clock was set",
        &[always("from", Form::Time, "what it was"), always("to", Form::Time, "what it is")],
    ),
    audit(
        "sweep",
        Class::AdminAudit,
        "records were removed at the end of their retention",
        &[
            always("sessions", Form::Number, "sessions"),
            always("denials", Form::Number, "refusals"),
            always("entries", Form::Number, "entries of the audit"),
        ],
    ),
    audit(
        "ban-added",
        Class::AdminAudit,
        "a network was banned",
        &[
            always("ban", Form::Id, "the ban, without its address"),
            always("expires", Form::Time, "until when"),
            ROLE,
            UID,
            always("reason", Form::Text, "why, in the words of whoever banned"),
        ],
    ),
    audit(
        "ban-removed",
        Class::AdminAudit,
        "a ban was lifted",
        &[always("ban", Form::Id, "the ban"), ROLE, UID, maybe("reason", Form::Text, "why, where somebody said so")],
    ),
    audit(
        "hold-added",
        Class::AdminAudit,
        "sessions were put under a legal hold",
        &[
            always("hold", Form::Word, "its name"),
            maybe("until", Form::Time, "when it is to be looked at again"),
            always("reason", Form::Text, "why, in the operator's words"),
            always("role", Form::Word, "in which role"),
            UID,
            always("sessions", Form::Id, "the sessions: a list"),
            always("unreadable", Form::Number, "sessions of which no address could be kept"),
        ],
    ),
    audit(
        "hold-lifted",
        Class::AdminAudit,
        "a legal hold was lifted, and its key is destroyed",
        &[
            always("hold", Form::Word, "its name"),
            always("reason", Form::Text, "why, in the operator's words"),
            always("role", Form::Word, "in which role"),
            UID,
            always("sessions", Form::Number, "sessions that it had held"),
        ],
    ),
    audit("backup", Class::AdminAudit, "a copy of the store was made, without keys", &[UID]),
    audit(
        "restore",
        Class::AdminAudit,
        "the store was replaced by a copy",
        &[always("created", Form::Time, "when the copy was made")],
    ),
    audit(
        "start",
        Class::AdminAudit,
        "the relay began to record",
        &[
            always("sessions_lost", Form::Number, "sessions that a former process had left open"),
            always("keys_lost", Form::Number, "keys that were not there any more"),
        ],
    ),
    audit("stop", Class::AdminAudit, "it ended", &[]),
];

const QUALITY: &[Kind] = &[
    quality(
        "relayed",
        "a session ended: what it relayed",
        &[
            planned(AT),
            TENANT,
            SESSION,
            planned(always("packets_from_client", Form::Number, "packets that were relayed from the client")),
            planned(always("bytes_from_client", Form::Number, "bytes of these")),
            planned(always("packets_to_client", Form::Number, "packets that were relayed to it")),
            planned(always("bytes_to_client", Form::Number, "bytes of these")),
        ],
    ),
    quality(
        "stream",
        "a media stream (RTP) was over",
        &[
            planned(AT),
            TENANT,
            SESSION,
            planned(always("leg", Form::Word, "the side that it came from")),
            planned(always("media", Form::Word, "what it seems to have carried")),
            planned(always("milliseconds", Form::Number, "from its first packet to its last")),
            planned(always("packets_expected", Form::Number, "packets that its sequence numbers promised")),
            planned(always("packets_lost", Form::Number, "of those, packets that did not come in time")),
            planned(always("packets_received", Form::Number, "of those, packets that did")),
            planned(always("bytes", Form::Number, "bytes of all of its packets")),
            planned(maybe(
                "jitter_microseconds",
                Form::Number,
                "interarrival jitter at its end, where its clock was known",
            )),
        ],
    ),
];

const CONTROL: &[Kind] = &[
    control(
        "began",
        "an allocation began",
        &[
            planned(AT),
            TENANT,
            SESSION,
            planned(PERSON_OF_SPOOL),
            planned(always("lifetime_seconds", Form::Number, "how long it lives unless it is refreshed")),
            planned(maybe("addresses", Form::Sealed, "JSON: `client` and `relayed`, as in the store")),
        ],
    ),
    control(
        "ended",
        "an allocation ended",
        &[
            planned(AT),
            TENANT,
            SESSION,
            planned(PERSON_OF_SPOOL),
            planned(always("reason", Form::Word, "why")),
            planned(always("seconds", Form::Number, "how long it lived")),
            planned(always("permissions", Form::Number, "permissions that were made, without their peers")),
            planned(always("channels", Form::Number, "channels that were bound")),
        ],
    ),
    control(
        "denied",
        "a request was refused",
        &[
            planned(AT),
            TENANT,
            maybe("session", Form::Id, "the session that it was asked in or for"),
            planned(PERSON_OF_SPOOL),
            always("id", Form::Id, "names the refusal; also what its address is sealed for"),
            planned(always("method", Form::Word, "what was asked for")),
            planned(always("code", Form::Number, "the answer")),
            planned(maybe("addresses", Form::Sealed, "JSON: `client`")),
        ],
    ),
];

pub(super) const KINDS: &[Kind] = &{
    let empty = Kind { fields: &[], ..STORE[0] };
    let mut all = [empty; STORE.len() + AUDIT.len() + QUALITY.len() + CONTROL.len()];
    let parts = [STORE, AUDIT, QUALITY, CONTROL];
    let (mut part, mut at) = (0, 0);
    while part < parts.len() {
        let mut row = 0;
        while row < parts[part].len() {
            all[at] = parts[part][row];
            at += 1;
            row += 1;
        }
        part += 1;
    }
    all
};
