//! docs/records.md is written from the tables.

use sluice_privacy::document::documentation;

#[test]
#[expect(clippy::disallowed_methods, reason = "a test may write the document anew")]
fn the_document_is_that_of_the_tables() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/records.md");
    if std::env::var_os("SLUICE_UPDATE_DOCS").is_some() {
        std::fs::write(path, documentation()).unwrap();
    }
    let committed = std::fs::read_to_string(path).unwrap_or_default();
    let cure = "docs/records.md is out of date: SLUICE_UPDATE_DOCS=1 cargo test -p sluice-privacy";
    assert!(committed == documentation(), "{cure}");
}
