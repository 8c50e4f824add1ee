//! `sluice compliance report`: what this relay stores, as its running configuration and the table of classes have it.

use std::fmt::Write as _;
use std::path::Path;

use clap::{Args, Subcommand, ValueEnum};
use sluice_admin::{Method, api};
use sluice_config::{Config, LogFormat, Sink};
use sluice_privacy::Class;
use sluice_privacy::class::{Definition, Place, Purpose, Retention};
use sluice_privacy::schema::{Destination, Field, Kind};

use super::time;
use crate::ask::AskArgs;
use crate::banner;
use crate::cli::Failure;

/// `sluice compliance`.
#[derive(Subcommand, Debug)]
pub(crate) enum ComplianceCommand {
    /// What is stored where, how long, under whose key, and where it is shipped to (GDPR, Art. 30), by the
    /// configuration of the running relay.
    Report(ReportArgs),
}

/// Options of `sluice compliance report`.
#[derive(Args, Debug)]
pub(crate) struct ReportArgs {
    /// Its form.
    #[arg(long, value_enum, default_value_t = Format::Markdown)]
    format: Format,
    #[command(flatten)]
    ask: AskArgs,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
enum Format {
    Markdown,
    Json,
}

/// What the report is made of beside the configuration.
pub(crate) struct Facts<'a> {
    pub(crate) unix_seconds: u64,
    pub(crate) config: Option<&'a Path>,
    pub(crate) state_directory: Option<&'a Path>,
    /// What the start says of keys.
    pub(crate) keys: &'a [String],
    /// What it warns of.
    pub(crate) warnings: Vec<String>,
}

/// `sluice compliance ...`.
pub(crate) fn compliance(command: &ComplianceCommand) -> Result<(), Failure> {
    let ComplianceCommand::Report(args) = command;
    let report: api::Compliance = args.ask.call(Method::GET, api::COMPLIANCE)?;
    if args.ask.json || args.format == Format::Json {
        banner::say(&(serde_json::to_string_pretty(&report).map_err(|error| error.to_string())? + "\n"));
    } else {
        banner::say(&markdown(&report));
    }
    Ok(())
}

/// The report of a configuration in force.
pub(crate) fn report(config: &Config, facts: Facts<'_>) -> api::Compliance {
    let records = config.privacy.records;
    let tenant = |tenant: &sluice_config::Tenant| api::ComplianceTenant {
        tenant: tenant.name.clone(),
        ip_retention_days: tenant.privacy.ip_retention_days,
    };
    api::Compliance {
        unix_seconds: facts.unix_seconds,
        version: env!("CARGO_PKG_VERSION").to_owned(),
        config: facts.config.map(|path| path.display().to_string()),
        records,
        state_directory: facts.state_directory.map(|path| path.display().to_string()),
        keys: if records {
            facts.keys.to_vec()
        } else {
            vec!["nothing is written down, so there are no keys".to_owned()]
        },
        log: match config.log.format {
            LogFormat::Text => "lines on standard error, without any personal data",
            LogFormat::Json => "JSON lines on standard error, with pseudonyms in place of personal data",
        }
        .to_owned(),
        metrics: "figures by names of tenants, codes and kinds; no label names a person or an address".to_owned(),
        access: access(config),
        classes: Class::TABLE.iter().map(|class| of_class(class, config)).collect(),
        tenants: if records { config.tenants.iter().map(tenant).collect() } else { Vec::new() },
        kinds: if records {
            Kind::TABLE.iter().filter(|kind| is_written(kind, config)).map(of_kind).collect()
        } else {
            Vec::new()
        },
        sinks: config.spool.sinks.iter().map(of_sink).collect(),
        warnings: facts.warnings,
    }
}

fn access(config: &Config) -> String {
    let lookup = match (config.privacy.records, config.privacy.lookup) {
        (false, _) => "nothing can be looked up",
        (true, false) => "the sessions of an address cannot be looked up (privacy.lookup is false)",
        (true, true) => {
            "the sessions of an address can be looked up for as long as its key lives, each time with a \
                         reason that the audit keeps"
        }
    };
    format!("whoever may write to the control socket (its group, and root); {lookup}")
}

fn of_class(class: &Definition, config: &Config) -> api::ComplianceClass {
    let purposes = class.purposes.iter().map(|purpose| purpose_text(*purpose).to_owned());
    api::ComplianceClass {
        class: class.name.to_owned(),
        holds: class.holds.split_whitespace().collect::<Vec<_>>().join(" "),
        purposes: purposes.collect(),
        retention: retention(class, config),
        places: class.places.iter().map(|place| place_text(*place).to_owned()).collect(),
        key: key(class.class).to_owned(),
        stored: is_stored(class.class, config),
    }
}

fn of_kind(kind: &Kind) -> api::ComplianceKind {
    let field = |field: &Field| api::ComplianceField {
        field: field.name.to_owned(),
        class: kind.class_of(field).name().to_owned(),
    };
    api::ComplianceKind {
        kind: kind.name.to_owned(),
        destination: destination(kind.destination).to_owned(),
        fields: kind.fields.iter().map(field).collect(),
    }
}

fn is_written(kind: &Kind, config: &Config) -> bool {
    let is_shipped = matches!(kind.destination, Destination::Quality | Destination::Control);
    !is_shipped || !config.spool.sinks.is_empty()
}

fn destination(destination: Destination) -> &'static str {
    match destination {
        Destination::Store => "store",
        Destination::Audit => "audit",
        Destination::Quality => "spool, quality",
        Destination::Control => "spool, control",
    }
}

fn of_sink(sink: &Sink) -> api::ComplianceSink {
    match sink {
        Sink::File { path } => api::ComplianceSink { kind: "file".to_owned(), to: path.display().to_string() },
        Sink::Http { url, .. } => api::ComplianceSink { kind: "http".to_owned(), to: url.clone() },
    }
}

/// Whether this version writes anything of a class under such a configuration.
fn is_stored(class: Class, config: &Config) -> bool {
    let days = config.tenants.iter().map(|tenant| tenant.privacy.ip_retention_days);
    match class {
        Class::Ip => config.privacy.records && days.chain([config.privacy.ip_retention_days]).any(|days| days > 0),
        Class::AccessAudit | Class::AdminAudit | Class::LegalHold => config.privacy.records,
        Class::MediaLog | Class::ControlLog => config.privacy.records && !config.spool.sinks.is_empty(),
        Class::Aggregate => true,
        _ => false,
    }
}

fn key(class: Class) -> &'static str {
    match class {
        Class::Ip => "a random key of its tenant and day, which is destroyed at the end of the retention",
        Class::AccessAudit | Class::AdminAudit => "the tenant's key in the state directory; the relay's own where none",
        Class::MediaLog | Class::ControlLog => "none; addresses in it are of class ip, and users are pseudonyms",
        Class::LegalHold => "a random key of the hold in the state directory, which is destroyed when it is lifted",
        Class::Aggregate => "none: it names nobody",
        _ => "none: nothing of it is stored",
    }
}

fn retention(class: &Definition, config: &Config) -> String {
    if class.class == Class::Ip {
        return days(u64::from(config.privacy.ip_retention_days));
    }
    if class.class == Class::AccessAudit {
        return days(u64::from(config.privacy.retention.access_audit_days));
    }
    let of = |time: std::time::Duration| days(time.as_secs() / 86_400);
    match class.retention {
        Retention::For(time) if time.as_secs() < 86_400 * 4 => format!("{} hours", time.as_secs() / 3600),
        Retention::For(time) => of(time),
        Retention::UntilShipped(time) => format!("until it is shipped, at most {}", of(time)),
        Retention::AfterTenant(time) => format!("{} after the tenant's end", of(time)),
        Retention::Indefinite => "without an end".to_owned(),
        Retention::UntilLifted => "until the hold is lifted".to_owned(),
    }
}

fn days(days: u64) -> String {
    match days {
        0 => "never written".to_owned(),
        1 => "1 day".to_owned(),
        days => format!("{days} days"),
    }
}

fn purpose_text(purpose: Purpose) -> &'static str {
    match purpose {
        Purpose::Abuse => "abuse",
        Purpose::Security => "security",
        Purpose::Quality => "quality",
        Purpose::Operation => "operation",
        Purpose::Accountability => "accountability",
        Purpose::Rights => "rights of the person",
        Purpose::Delivery => "delivery",
        Purpose::Statistics => "statistics",
        Purpose::Claims => "legal claims",
        _ => "other",
    }
}

fn place_text(place: Place) -> &'static str {
    match place {
        Place::Store => "store",
        Place::Audit => "audit",
        Place::Spool => "spool and sinks",
        Place::Log => "log, as a pseudonym",
        Place::Recording => "files of recordings",
        Place::Metrics => "metrics",
    }
}

fn markdown(report: &api::Compliance) -> String {
    let mut text = format!("# Records of processing: sluice {}\n\n", report.version);
    let mut line = |name: &str, value: &str| {
        // Writing to a string cannot fail.
        let _ = writeln!(text, "- {name}: {value}");
    };
    line("made", &format!("{} UTC", time::shown(report.unix_seconds)));
    line("configuration", report.config.as_deref().unwrap_or("none: for development"));
    line("records", if report.records { "sessions are written down" } else { "nothing is written down" });
    line("state directory", report.state_directory.as_deref().unwrap_or("none"));
    report.keys.iter().for_each(|key| line("keys of addresses", key));
    line("log", &report.log);
    line("metrics", &report.metrics);
    line("who may read", &report.access);
    report.warnings.iter().for_each(|warning| line("warning", warning));
    text += "\n## What is stored\n\n| Class | Holds | May be read for | Stays | Where | Key | Stored here |\n";
    text += "|---|---|---|---|---|---|---|\n";
    for class in &report.classes {
        let api::ComplianceClass { class: name, holds, purposes, retention, places, key, stored } = class;
        let (purposes, places) = (purposes.join(", "), places.join(", "));
        let stored = if *stored { "yes" } else { "no" };
        let _ = writeln!(text, "| `{name}` | {holds} | {purposes} | {retention} | {places} | {key} | {stored} |");
    }
    if !report.kinds.is_empty() {
        text +=
            "\n## Records\n\n| Record | Where | Fields, with their class where it is another one |\n|---|---|---|\n";
        for kind in &report.kinds {
            let field = |field: &api::ComplianceField| match field.class.as_str() {
                "ip" => format!("{} (`ip`)", field.field),
                _ => field.field.clone(),
            };
            let fields: Vec<String> = kind.fields.iter().map(field).collect();
            let _ = writeln!(text, "| `{}` | {} | {} |", kind.kind, kind.destination, fields.join(", "));
        }
    }
    if !report.tenants.is_empty() {
        text += "\n## Tenants\n\n| Tenant | An address can be read for |\n|---|---|\n";
        for tenant in &report.tenants {
            let _ = writeln!(text, "| {} | {} |", tenant.tenant, days(u64::from(tenant.ip_retention_days)));
        }
    }
    text += "\n## Where it is shipped to\n\n";
    if report.sinks.is_empty() {
        text += "Nowhere.\n";
    }
    for sink in &report.sinks {
        let _ = writeln!(text, "- {}: {}", sink.kind, sink.to);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(config: &Config) -> api::Compliance {
        let facts = Facts {
            unix_seconds: 1_795_867_200,
            config: None,
            state_directory: Some(Path::new("/var/lib/sluice")),
            keys: &["keys: in /run/sluice/keys".to_owned()],
            warnings: vec!["this machine has swap".to_owned()],
        };
        report(config, facts)
    }

    fn class<'r>(report: &'r api::Compliance, name: &str) -> &'r api::ComplianceClass {
        report.classes.iter().find(|class| class.class == name).unwrap()
    }

    #[test]
    fn it_says_what_is_stored_and_how_long() {
        let mut config = Config::default();
        assert!(of(&config).classes.iter().all(|class| !class.stored || class.class == "aggregate"));
        config.privacy.records = true;
        config.privacy.ip_retention_days = 3;
        let report = of(&config);
        assert_eq!(report.classes.len(), Class::TABLE.len());
        assert_eq!((class(&report, "ip").retention.as_str(), class(&report, "ip").stored), ("3 days", true));
        assert!(class(&report, "access-audit").stored && !class(&report, "consent").stored);
        let text = markdown(&report);
        for part in
            ["2026-11-28 12:00:00 UTC", "/run/sluice/keys", "this machine has swap", "| `ip` | addresses of", "3 days"]
        {
            assert!(text.contains(part), "{part} is not in:\n{text}");
        }
        assert!(report.kinds.iter().any(|kind| kind.kind == "session" && kind.fields.iter().any(|f| f.class == "ip")));
        assert!(report.kinds.iter().all(|kind| !kind.destination.starts_with("spool")) && text.contains("Nowhere."));
        config.spool.sinks = vec![Sink::File { path: "/var/log/records.jsonl".into() }];
        let report = of(&config);
        assert!(
            class(&report, "media-log").stored && report.kinds.iter().any(|kind| kind.destination == "spool, control")
        );
        assert!(markdown(&report).contains("- file: /var/log/records.jsonl"));
        config.privacy.ip_retention_days = 0;
        assert_eq!(class(&of(&config), "ip").retention, "never written");
        assert!(!class(&of(&config), "ip").stored);
    }
}
