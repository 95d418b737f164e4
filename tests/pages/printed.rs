//! The pages print the programs that run, word for word: a block below `<!-- program: FILE -->` is that file.
//! `UPDATE_PAGES=1` writes the blocks anew.

use std::fs;
use std::path::{Path, PathBuf};

const PAGES: [&str; 2] = ["README.md", "docs/cookbook.md"];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn program(file: &str) -> PathBuf {
    root().join("tests/pages/programs").join(file)
}

/// The page as it has to be, and the files of its programs.
fn rendered(page: &str) -> (String, Vec<String>) {
    const MARK: &str = "<!-- program: ";
    let mut files = Vec::new();
    let mut sections = page.split(MARK);
    let mut rendered = sections.next().unwrap_or_default().to_owned();
    for section in sections {
        let (file, rest) = section.split_once(" -->\n").unwrap();
        let (opening, rest) = rest.split_once('\n').unwrap();
        assert!(opening.starts_with("```rust"), "{file}: {opening}");
        let (_, rest) = rest.split_once("```\n").unwrap();
        let text = fs::read_to_string(program(file)).unwrap();
        rendered.push_str(&format!("{MARK}{file} -->\n{opening}\n{text}```\n{rest}"));
        files.push(file.to_owned());
    }
    (rendered, files)
}

#[test]
fn the_pages_print_the_programs_that_run() {
    let mut printed = Vec::new();
    for name in PAGES {
        let path = root().join(name);
        let page = fs::read_to_string(&path).unwrap();
        let (rendered, files) = rendered(&page);
        assert!(!files.is_empty(), "{name} has no program");
        if std::env::var_os("UPDATE_PAGES").is_some() {
            fs::write(&path, &rendered).unwrap();
        } else {
            assert!(
                page == rendered,
                "{name} is out of date: UPDATE_PAGES=1 writes it anew"
            );
        }
        printed.extend(files);
    }
    let main = include_str!("main.rs");
    for entry in fs::read_dir(program("")).unwrap() {
        let file = entry.unwrap().file_name().into_string().unwrap();
        assert!(printed.contains(&file), "no page prints {file}");
        assert!(
            main.contains(&format!("{file}\"")),
            "tests/pages/main.rs does not run {file}"
        );
    }
}

#[test]
fn no_program_is_printed_that_does_not_run() {
    for name in PAGES {
        let page = fs::read_to_string(root().join(name)).unwrap();
        let programs = page.matches("#[tokio::").count();
        assert_eq!(programs, page.matches("<!-- program: ").count(), "{name}");
    }
}
