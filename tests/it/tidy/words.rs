//! `tests/banned-words.txt` has a pattern for each word that plain English replaced.

use std::process::Command;

const CHECKED: [&str; 12] = [
    "src",
    "examples",
    "benches",
    "tests",
    "crates",
    "docs",
    "fuzz/src",
    "README.md",
    "ARCHITECTURE.md",
    "CHANGELOG.md",
    "SECURITY.md",
    "Cargo.toml",
];

pub(crate) fn check() {
    let output = Command::new("grep")
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .args([
            "-rnIE",
            "--exclude=banned-words.txt",
            "--exclude-dir=target",
        ])
        .args(["-f", "tests/banned-words.txt"])
        .args(CHECKED)
        .output()
        .unwrap();
    // 0: found something, 1: nothing, others: failed.
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.code().is_some_and(|code| code <= 1),
        "{errors}"
    );
    let found = String::from_utf8(output.stdout).unwrap();
    let found: Vec<_> = found.lines().collect();
    assert!(found.is_empty(), "{found:#?}");
}
