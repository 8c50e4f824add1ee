//! The walls between the crates.

use super::source::{Package, Tree};

/// What each package may import of ours. A package that is not here is a breach: give it a row.
const EDGES: &[(&str, &[&str])] = &[
    ("sluice-base", &[]),
    ("sluice-wire", &["sluice-base"]),
    ("sluice-crypto", &["sluice-base"]),
    ("sluice-metrics", &["sluice-base"]),
    ("sluice-turn", &["sluice-base", "sluice-wire", "sluice-crypto"]),
    ("sluice-config", &["sluice-base"]),
    ("sluice-net", &["sluice-base"]),
    ("sluice-privacy", &["sluice-base", "sluice-crypto"]),
    ("sluice-record", &["sluice-base", "sluice-privacy", "sluice-crypto"]),
    ("sluice-geo", &["sluice-base"]),
    ("sluice-policy", &["sluice-base", "sluice-crypto", "sluice-geo", "sluice-privacy"]),
    ("sluice-worker", &["sluice-base", "sluice-wire", "sluice-metrics", "sluice-turn"]),
    ("sluice-admin", &["sluice-base", "sluice-config", "sluice-crypto", "sluice-metrics", "sluice-privacy"]),
    (
        "sluice",
        &[
            "sluice-base",
            "sluice-wire",
            "sluice-crypto",
            "sluice-metrics",
            "sluice-geo",
            "sluice-policy",
            "sluice-turn",
            "sluice-config",
            "sluice-net",
            "sluice-worker",
            "sluice-admin",
            "sluice-privacy",
            "sluice-record",
        ],
    ),
    (
        "sluice-sim",
        &[
            "sluice-base",
            "sluice-wire",
            "sluice-crypto",
            "sluice-metrics",
            "sluice-turn",
            "sluice-config",
            "sluice-worker",
            "sluice-admin",
            "sluice-privacy",
            "sluice-record",
        ],
    ),
    ("sluice-xtask", &["sluice-base", "sluice-wire", "sluice-crypto", "sluice-geo"]),
    ("sluice-loadgen", &["sluice-base", "sluice-wire", "sluice-crypto"]),
    ("sluice-bench-cores", &["sluice-base", "sluice-wire", "sluice-crypto", "sluice-turn"]),
    // A server of others, to be measured beside ours.
    ("sluice-bench-webrtc-rs", &[]),
    // Of workspaces of their own: guests of the relay, and the fuzzers' targets.
    ("sluice-plugin-sdk", &[]),
    ("template", &["sluice-plugin-sdk"]),
    ("geofence", &["sluice-plugin-sdk"]),
    ("log-minimisation", &["sluice-plugin-sdk"]),
    ("recording-consent", &["sluice-plugin-sdk"]),
    ("hostile-any", &["sluice-plugin-sdk"]),
    ("hostile-logs", &["sluice-plugin-sdk"]),
    ("hostile-describe", &[]),
    ("hostile-start-up", &[]),
    ("hostile-ungranted", &["sluice-plugin-sdk"]),
    ("sluice-fuzz", &["sluice-base", "sluice-wire", "sluice-turn", "sluice-config"]),
];

/// What tests alone may import beyond the table, each with its reason.
const FOR_TESTS: &[(&str, &str, &str)] = &[
    ("sluice-worker", "sluice-crypto", "its clients sign their requests"),
    ("sluice-worker", "sluice-net", "its scenarios run over a kernel driver too"),
    ("sluice-record", "sluice-net", "its keys lie in the kernel's locked memory too"),
];

/// Packages that become components.
const PLUGINS: &[&str] = &[
    "sluice-plugin-sdk",
    "template",
    "geofence",
    "log-minimisation",
    "recording-consent",
    "hostile-any",
    "hostile-logs",
    "hostile-describe",
    "hostile-start-up",
    "hostile-ungranted",
];

/// Outside things, and the only packages that may name them. Tools for development may name what they like.
const OWNERS: &[(&str, &[&str])] = &[
    ("aws-lc-rs", &["sluice-crypto"]),
    ("axum", &["sluice-admin"]),
    ("base64", &["sluice-crypto"]),
    ("hmac", &["sluice-crypto"]),
    ("io-uring", &["sluice-net"]),
    ("libc", &["sluice-net"]),
    ("maxminddb", &["sluice-geo"]),
    ("md-5", &["sluice-crypto"]),
    ("prometheus", &["sluice-metrics"]),
    ("rusqlite", &["sluice-record"]),
    ("sd-notify", &["sluice"]),
    ("seccompiler", &["sluice-net", "sluice-xtask"]),
    ("sha1", &["sluice-crypto"]),
    ("sha2", &["sluice-crypto"]),
    ("socket2", &["sluice-net", "sluice-loadgen", "sluice-bench-webrtc-rs"]),
    ("stun", &["sluice"]),
    ("subtle", &["sluice-crypto"]),
    ("toml", &["sluice-config"]),
    ("toml_edit", &["sluice-config"]),
    ("tokio", &["sluice-admin", "sluice-record", "sluice", "sluice-bench-webrtc-rs"]),
    ("tokio-uring", &["sluice-record"]),
    ("tracing-subscriber", &["sluice"]),
    ("turn", &["sluice", "sluice-bench-webrtc-rs"]),
    ("wasmtime", &["sluice-policy"]),
    ("webrtc-util", &["sluice", "sluice-bench-webrtc-rs"]),
    ("wit-bindgen", PLUGINS),
    ("zeroize", &["sluice-crypto"]),
];

/// An edge that the table does not have.
pub(crate) fn between_crates(tree: &Tree) -> Vec<String> {
    tree.packages.iter().flat_map(breaches).collect()
}

fn breaches(package: &Package) -> Vec<String> {
    let Some((_, allowed)) = EDGES.iter().find(|(name, _)| *name == package.name) else {
        return vec![format!("{} has no row in the table of edges", package.name)];
    };
    let ours = package.dependencies.iter().filter(|(name, _)| EDGES.iter().any(|(known, _)| known == name));
    let foreign = ours.filter(|(name, kind)| {
        let for_tests = FOR_TESTS.iter().any(|(from, to, _)| *from == package.name && to == name);
        let is_allowed = allowed.contains(&name.as_str()) || (kind == "dev" && for_tests);
        !is_allowed
    });
    foreign.map(|(name, kind)| format!("{} may not import {name} ({kind})", package.name)).collect()
}

/// An outside thing that a package names without owning it.
pub(crate) fn to_the_outside(tree: &Tree) -> Vec<String> {
    let mut found = Vec::new();
    for package in &tree.packages {
        for (name, kind) in &package.dependencies {
            let owners = OWNERS.iter().find(|(thing, _)| thing == name).map(|(_, owners)| owners);
            if kind != "dev" && owners.is_some_and(|owners| !owners.contains(&package.name.as_str())) {
                found.push(format!("{} names {name}, which is for {owners:?} alone", package.name));
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree(name: &str, dependencies: &[(&str, &str)]) -> Tree {
        let dependencies = dependencies.iter().map(|(n, k)| ((*n).to_owned(), (*k).to_owned())).collect();
        let package = Package { name: name.to_owned(), dependencies, roots: vec![] };
        Tree { packages: vec![package], files: vec![] }
    }

    #[test]
    fn an_edge_upwards_is_a_breach_also_in_tests() {
        for kind in ["normal", "dev", "build"] {
            assert_eq!(between_crates(&tree("sluice-turn", &[("sluice-worker", kind)])).len(), 1, "{kind}");
        }
        assert!(between_crates(&tree("sluice-turn", &[("sluice-wire", "normal"), ("proptest", "dev")])).is_empty());
        assert_eq!(between_crates(&tree("sluice-new", &[])).len(), 1);
    }

    #[test]
    fn an_exception_for_tests_is_none_for_the_product() {
        assert!(between_crates(&tree("sluice-worker", &[("sluice-crypto", "dev")])).is_empty());
        assert_eq!(between_crates(&tree("sluice-worker", &[("sluice-crypto", "normal")])).len(), 1);
    }

    #[test]
    fn an_outside_thing_has_an_owner() {
        assert_eq!(to_the_outside(&tree("sluice-turn", &[("libc", "normal")])).len(), 1);
        assert!(to_the_outside(&tree("sluice-net", &[("libc", "normal")])).is_empty());
    }
}
