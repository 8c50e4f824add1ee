//! Rules that are read off the text.

use super::source::{File, Tree};

/// Crates that are pure machines.
const CORES: &[&str] = &["base", "wire", "crypto", "turn", "privacy"];

/// What no core may name.
const IMPURE: &[&str] = &[
    "Instant",
    "SystemTime",
    "UdpSocket",
    "TcpStream",
    "TcpListener",
    "std::fs",
    "std::env",
    "std::process",
    "std::thread",
    "tokio::",
    "OsRng",
    "getrandom",
];

/// Production files that may call `expose()`, by what each needs it for.
const EXPOSERS: &[(&str, &str)] = &[
    ("relay/base/src/pii.rs", "defines it"),
    ("relay/config/src/change.rs", "secrets and users of two configurations are compared"),
    ("relay/geo/src/database.rs", "addresses are looked up"),
    ("relay/net/src/", "the kernel has to be told where to send"),
    ("relay/wire/src/", "addresses are written into messages"),
    ("relay/crypto/src/", "keys are used"),
    ("relay/privacy/src/", "keys are used, and addresses and names become pseudonyms"),
    ("relay/policy/src/facts.rs", "a plugin is told an address where the operator granted it"),
    ("relay/policy/src/host.rs", "keys are made of the host's own"),
    ("relay/policy/src/pseudonym.rs", "keys are used"),
    ("relay/turn/src/auth.rs", "names and passwords are compared"),
    ("relay/turn/src/bans.rs", "clients' addresses are looked up"),
    ("relay/turn/src/guard.rs", "addresses are judged"),
    ("relay/turn/src/quota.rs", "names are told apart"),
    ("relay/turn/src/relay.rs", "a peer's address is written into a Data indication"),
    ("relay/turn/src/reply.rs", "a client's address is written into its answer"),
    ("relay/turn/src/harness/", "its model of a relay compares addresses"),
    ("relay/record/src/store/session.rs", "addresses are sealed, and compared with the one looked for"),
    ("relay/record/src/store/ban.rs", "a banned address is sealed"),
    ("relay/sluice/src/banner.rs", "a development start prints the credentials that it made"),
    ("relay/sluice/src/probe", "a client has to be told whom to ask and by which name and password"),
    (
        "relay/sluice/src/records/desk/holds.rs",
        "who asks by a hold's name and a reason is told the addresses that it keeps",
    ),
    ("relay/sluice/src/wiring.rs", "secrets go from the configuration to the machine"),
    ("relay/sim/src/", "its network has to be told where to send"),
    ("relay/xtask/src/kills/client.rs", "a client signs its requests"),
    ("benches/loadgen/src/", "its sockets have to be told where to send"),
];

/// Files outside of net that may say `unsafe`, with the reason.
const UNSAFE_FILES: &[(&str, &str)] = &[];

/// Caps of things that are no part of the product.
const OWN_CAPS: &[&str] = &["relay/xtask/", "benches/", "relay/sim/"];

/// Who may print: programs.
const PRINTERS: &[&str] = &["relay/sluice/", "relay/xtask/", "benches/", "relay/sim/src/main.rs", "relay/sim/src/bin/"];

/// Files that hold a document, whose tables cannot be wrapped.
const DOCUMENTS: &[&str] = &["relay/metrics/src/document.rs", "relay/privacy/src/document.rs"];

const WIDTH_MAX: usize = 120;
const FILE_LINES_MAX: usize = 1500;

/// A function longer than this is counted.
const LONG_FUNCTION_LINES: usize = 70;
/// No function is longer than this.
const FUNCTION_LINES_MAX: usize = 120;
/// Long functions that there are. It only ever goes down.
const LONG_FUNCTIONS: usize = 2;

/// The cores' lint configuration: there, and the same in all.
pub(crate) fn core_lints(tree: &Tree) -> Vec<String> {
    let of = |core: &str| tree.files.iter().find(|f| f.path == format!("relay/{core}/clippy.toml"));
    let first = of(CORES[0]).map(|file| file.text.as_str()).unwrap_or_default();
    let mut found = Vec::new();
    for banned in ["std::time::Instant::now", "std::time::SystemTime::now", "std::net::UdpSocket", "std::env::var"] {
        if !first.contains(&format!("\"{banned}\"")) {
            found.push(format!("relay/{}/clippy.toml does not ban {banned}", CORES[0]));
        }
    }
    let differs = CORES.iter().filter(|core| of(core).is_none_or(|file| file.text != first));
    found.extend(differs.map(|core| format!("relay/{core}/clippy.toml is missing or differs from the others")));
    found
}

/// What lint configuration cannot see: names that are only imported.
pub(crate) fn pure_cores(tree: &Tree) -> Vec<String> {
    let files = CORES.iter().flat_map(|core| tree.files.iter().filter(move |f| is_product_of(f, core)));
    let lines = files.flat_map(|f| f.production().map(move |line| (f, line)));
    let breach = |(f, (n, line)): (&File, (usize, &str))| {
        let name = IMPURE.iter().find(|name| has_word(line, name))?;
        Some(format!("{}:{n} names {name}", f.path))
    };
    lines.filter_map(breach).collect()
}

fn is_product_of(file: &File, core: &str) -> bool {
    file.is_rust() && file.path.starts_with(&format!("relay/{core}/src/"))
}

/// `forbid` in each root of a crate, and the word nowhere else. In a plugin `deny`, for at the border of a component
/// there is what wit-bindgen writes.
pub(crate) fn no_unsafe(tree: &Tree) -> Vec<String> {
    let mut found = Vec::new();
    for package in tree.packages.iter().filter(|p| p.name != "sluice-net") {
        let roots = package.roots.iter().filter(|root| root.contains("/src/"));
        for root in roots {
            let file = tree.files.iter().find(|f| f.path == *root);
            let denies = |f: &File| root.starts_with("plugins/") && f.text.contains("#![deny(unsafe_code)]");
            if !file.is_some_and(|f| denies(f) || f.text.contains("#![forbid(unsafe_code)]")) {
                found.push(format!("{root} does not forbid unsafe code"));
            }
        }
    }
    let word = concat!("un", "safe");
    let others = tree.files.iter().filter(|f| f.is_rust() && !f.path.starts_with("relay/net/"));
    for file in others.filter(|f| UNSAFE_FILES.iter().all(|(path, _)| f.path != *path)) {
        let lines = file
            .code()
            .filter(|(_, line)| has_word(line, &format!("{word} {{")) || has_word(line, &format!("{word} impl")));
        found.extend(lines.map(|(n, _)| format!("{}:{n} is {word}", file.path)));
    }
    found
}

/// Who looks at personal data and secrets.
pub(crate) fn exposures(tree: &Tree) -> Vec<String> {
    let call = concat!(".expo", "se()");
    let unlisted =
        tree.files.iter().filter(|f| f.is_rust() && EXPOSERS.iter().all(|(path, _)| !f.path.starts_with(path)));
    let calls = unlisted.flat_map(|f| f.production().filter(|(_, line)| line.contains(call)).map(move |(n, _)| (f, n)));
    calls.map(|(f, n)| format!("{}:{n} calls {call}, and is not on the list", f.path)).collect()
}

/// Caps that stand elsewhere than in the one file for them.
pub(crate) fn caps(tree: &Tree) -> Vec<String> {
    let elsewhere = tree.rust_in("relay/").filter(|f| f.path != "relay/base/src/limits.rs");
    let product = elsewhere.filter(|f| OWN_CAPS.iter().all(|path| !f.path.starts_with(path)));
    let lines = product.flat_map(|f| f.production().map(move |line| (f, line)));
    let breach = |(f, (n, line)): (&File, (usize, &str))| {
        let name = constant(line)?;
        let is_cap = name.ends_with("_MAX") || name.contains("_MAX_");
        is_cap.then(|| format!("{}:{n} defines {name}", f.path))
    };
    lines.filter_map(breach).collect()
}

/// The name of the constant that a line defines, unless it only gives one of limits.rs another name.
fn constant(line: &str) -> Option<&str> {
    let line = line.trim_start();
    let line = ["pub(crate) ", "pub(super) ", "pub "].iter().find_map(|p| line.strip_prefix(p)).unwrap_or(line);
    let (name, value) = line.strip_prefix("const ")?.split_once(':')?;
    (!value.contains("limits::")).then_some(name)
}

/// Lines that are too wide.
pub(crate) fn widths(tree: &Tree) -> Vec<String> {
    let files = tree.files.iter().filter(|f| !DOCUMENTS.contains(&f.path.as_str()));
    let lines = files.flat_map(|f| f.text.lines().enumerate().map(move |(n, line)| (f, n + 1, line)));
    let wide = lines.filter(|(_, _, line)| line.chars().count() > WIDTH_MAX);
    wide.map(|(f, n, line)| format!("{}:{n} is {} wide", f.path, line.chars().count())).collect()
}

/// Words that mean "later".
pub(crate) fn leftovers(tree: &Tree) -> Vec<String> {
    let words = [
        concat!("TO", "DO"),
        concat!("FIX", "ME"),
        concat!("XX", "X"),
        concat!("HA", "CK"),
        concat!("to", "do!"),
        concat!("unimple", "mented!"),
        concat!("db", "g!"),
    ];
    let lines = tree.files.iter().flat_map(|f| f.text.lines().enumerate().map(move |(n, line)| (f, n + 1, line)));
    let breach = |(f, n, line): (&File, usize, &str)| {
        let word = words.iter().find(|word| has_word(line, word))?;
        Some(format!("{}:{n} has {word}", f.path))
    };
    lines.filter_map(breach).collect()
}

/// Libraries that print.
pub(crate) fn prints(tree: &Tree) -> Vec<String> {
    let libraries = tree.rust_in("relay/").filter(|f| PRINTERS.iter().all(|path| !f.path.starts_with(path)));
    let lines = libraries.flat_map(|f| f.production().map(move |line| (f, line)));
    let printing =
        lines.filter(|(_, (_, line))| ["println!", "print!", "eprintln!", "eprint!"].iter().any(|m| has_word(line, m)));
    printing.map(|(f, (n, _))| format!("{}:{n} prints", f.path)).collect()
}

/// Tests that do not run, and tests that wait for a time and not for an event.
pub(crate) fn idle_tests(tree: &Tree) -> Vec<String> {
    let ignored = concat!("#[ign", "ore");
    let naps = [concat!("thread::sl", "eep("), concat!("time::sl", "eep(")];
    let mut found = Vec::new();
    for file in tree.files.iter().filter(|f| f.is_rust()) {
        for (n, line) in file.tests() {
            if line.trim_start().starts_with(ignored) {
                found.push(format!("{}:{n} ignores a test", file.path));
            }
            if naps.iter().any(|nap| line.contains(nap)) {
                found.push(format!("{}:{n} waits for a time: wait for the event", file.path));
            }
        }
    }
    found
}

/// Files that have grown too long.
pub(crate) fn file_lengths(tree: &Tree) -> Vec<String> {
    let lengths = tree.files.iter().map(|f| (f, f.text.lines().count()));
    let long = lengths.filter(|(_, lines)| *lines > FILE_LINES_MAX);
    long.map(|(f, lines)| format!("{} has {lines} lines", f.path)).collect()
}

/// Functions that have grown too long, and too many long ones.
pub(crate) fn function_lengths(tree: &Tree) -> Vec<String> {
    let rust = tree.files.iter().filter(|f| f.is_rust());
    let mut long: Vec<(String, usize)> = rust
        .flat_map(|f| functions(&f.text).into_iter().map(move |(n, lines)| (format!("{}:{n}", f.path), lines)))
        .filter(|(_, lines)| *lines > LONG_FUNCTION_LINES)
        .collect();
    long.sort_by_key(|(_, lines)| std::cmp::Reverse(*lines));
    let told = |(place, lines): &(String, usize)| format!("{place} has {lines} lines");
    if long.len() > LONG_FUNCTIONS {
        let what = format!("{} functions have more than {LONG_FUNCTION_LINES} lines, not {LONG_FUNCTIONS}", long.len());
        return std::iter::once(what).chain(long.iter().map(told)).collect();
    }
    if long.len() < LONG_FUNCTIONS {
        return vec![format!("only {} functions are long now: lower LONG_FUNCTIONS to that", long.len())];
    }
    long.iter().filter(|(_, lines)| *lines > FUNCTION_LINES_MAX).map(told).collect()
}

/// Line and length of each function: from its `fn` to the closing brace at the same depth, which is where
/// rustfmt puts it.
fn functions(text: &str) -> Vec<(usize, usize)> {
    let lines: Vec<&str> = text.lines().collect();
    let mut found = Vec::new();
    for (start, line) in lines.iter().enumerate() {
        let depth = line.len() - line.trim_start().len();
        if !is_function(line.trim_start()) || line.trim_end().ends_with(&[';', '}'][..]) {
            continue;
        }
        let closing = format!("{}}}", &line[..depth]);
        let end = lines[start..].iter().position(|l| *l == closing);
        let declared = format!("{})", &line[..depth]);
        let declaration = lines[start..].iter().position(|l| l.ends_with(';') && l.starts_with(&declared));
        if let Some(end) = end.filter(|end| declaration.is_none_or(|d| d > *end)) {
            found.push((start + 1, end + 1));
        }
    }
    found
}

fn is_function(line: &str) -> bool {
    let words = line.split_whitespace();
    let mut rest = words.skip_while(|word| {
        matches!(*word, "pub" | "const" | "async" | "extern" | "\"C\"")
            || word.starts_with("pub(")
            || *word == concat!("un", "safe")
    });
    rest.next() == Some("fn")
}

/// Whether a text has a word, and not only as a part of another.
fn has_word(text: &str, word: &str) -> bool {
    let is_part = |c: char| c.is_alphanumeric() || c == '_';
    text.match_indices(word).any(|(at, _)| {
        let before = text[..at].chars().next_back().is_some_and(is_part);
        let after = text[at + word.len()..].chars().next().is_some_and(is_part) && word.ends_with(is_part);
        !before && !after
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree(path: &str, text: &str) -> Tree {
        Tree { packages: vec![], files: vec![File { path: path.to_owned(), text: text.to_owned() }] }
    }

    #[test]
    fn a_core_that_looks_at_a_clock_is_found_and_a_comment_is_not() {
        assert_eq!(pure_cores(&tree("relay/turn/src/a.rs", "let t = std::time::Instant::now();\n")).len(), 1);
        assert!(pure_cores(&tree("relay/turn/src/a.rs", "// Instant is not for us\n")).is_empty());
        assert!(pure_cores(&tree("relay/net/src/a.rs", "use std::time::Instant;\n")).is_empty());
    }

    #[test]
    fn a_caller_is_on_the_list_or_found() {
        let text = concat!("fn f(a: Pii<u8>) { a.expo", "se(); }\n");
        assert_eq!(exposures(&tree("relay/worker/src/lib.rs", text)).len(), 1);
        assert!(exposures(&tree("relay/turn/src/guard.rs", text)).is_empty());
        assert!(exposures(&tree("relay/turn/tests/guard.rs", text)).is_empty());
    }

    #[test]
    fn a_cap_elsewhere_is_found() {
        assert_eq!(caps(&tree("relay/turn/src/a.rs", "const PEERS_MAX: usize = 4;\n")).len(), 1);
        assert!(caps(&tree("relay/turn/src/a.rs", "const PEERS: usize = limits::PEERS_MAX;\n")).is_empty());
        assert!(caps(&tree("relay/base/src/limits.rs", "pub const PEERS_MAX: usize = 4;\n")).is_empty());
    }

    #[test]
    fn leftovers_prints_and_naps_are_found() {
        assert_eq!(leftovers(&tree("relay/a.rs", concat!("// TO", "DO: later\n"))).len(), 1);
        assert_eq!(prints(&tree("relay/turn/src/a.rs", "println!();\n")).len(), 1);
        assert_eq!(idle_tests(&tree("relay/turn/tests/a.rs", concat!("std::thread::sl", "eep(x);\n"))).len(), 1);
        assert_eq!(idle_tests(&tree("relay/turn/tests/a.rs", concat!("#[ign", "ore]\n"))).len(), 1);
        assert_eq!(widths(&tree("relay/a.rs", &"x".repeat(121))).len(), 1);
        assert_eq!(file_lengths(&tree("relay/a.rs", &"\n".repeat(1501))).len(), 1);
    }

    #[test]
    fn functions_are_measured() {
        let text = "fn a() {
    x
}

impl T {
    pub(crate) const fn b(
        x: u8,
    ) -> u8 {
        x
    }
}
trait U {
    fn c(
        &self,
    ) -> u8;
    fn d() {}
}
";
        assert_eq!(functions(text), [(1, 3), (6, 5)]);
    }
}
