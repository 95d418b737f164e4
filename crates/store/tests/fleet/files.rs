//! `FileStore` in a directory that others have meddled with.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use officernd_auth_store::{Claimed, FileStore, TokenStore};

use crate::pods::{claim, finish, look};
use testkit::redis::scratch;

const DIRECTORY: &str = "FLEET_TEST_DIRECTORY";

fn record(dir: &Path, name: &[u8]) -> PathBuf {
    dir.join(format!("officernd-{}.json", claim(name).key))
}

fn window(dir: &Path) -> PathBuf {
    dir.join(format!("officernd-{}.json", claim(b"").window))
}

/// Claims, saves and reads back within a time that no lock is waited for.
async fn works(store: &FileStore, name: &[u8]) {
    let claim = claim(name);
    assert_eq!(store.claim(&claim).await.unwrap(), Claimed::Granted);
    let entry = finish(&claim).entry(b"sealed".to_vec(), Duration::from_secs(60));
    assert!(store.finish(&entry).await.unwrap());
    let claimed = store.claim(&look(name)).await.unwrap();
    assert!(matches!(claimed, Claimed::Entry(entry) if entry.sealed == b"sealed"));
}

#[tokio::test]
async fn foreign_files_are_nothing() {
    let dir = scratch();
    let store = FileStore::new(&dir).unwrap();
    let sealed = "x".repeat(300_000);
    for foreign in [
        String::new(),
        "{".to_owned(),
        "[]".to_owned(),
        r#"{"entry":{"id":"?","sealed":"eA==","until":99999999999999}}"#.to_owned(),
        r#"{"lease":{"holder":"another","until":99999999999999}}"#.to_owned(),
        format!(r#"{{"entry":{{"id":"?","sealed":"{sealed}","until":99999999999999}}}}"#),
    ] {
        fs::write(record(&dir, b"x"), &foreign).unwrap();
        works(&store, b"x").await;
    }
    fs::remove_dir_all(dir).unwrap();
}

#[tokio::test]
async fn a_record_that_cannot_be_read_is_replaced() {
    let dir = scratch();
    let store = FileStore::new(&dir).unwrap();
    works(&store, b"x").await;
    // As after one run as root. Root itself reads anything: then it is garbled.
    fs::write(record(&dir, b"x"), "{").unwrap();
    fs::set_permissions(record(&dir, b"x"), fs::Permissions::from_mode(0o000)).unwrap();
    works(&store, b"x").await;
    fs::remove_dir_all(dir).unwrap();
}

/// Not a test: what another user does, as a process that a test starts.
#[tokio::test]
async fn use_directory() {
    if let Ok(dir) = std::env::var(DIRECTORY) {
        works(&FileStore::new(dir).unwrap(), b"x").await;
    }
}

#[tokio::test]
async fn a_record_of_root_is_replaced_by_the_owner_of_the_directory() {
    let (dir, user) = (scratch(), 65534);
    let record = record(&dir, b"x");
    fs::write(&record, "{}").unwrap();
    fs::set_permissions(&record, fs::Permissions::from_mode(0o600)).unwrap();
    fs::set_permissions(&dir, fs::Permissions::from_mode(0o700)).unwrap();
    if std::os::unix::fs::chown(&dir, Some(user), None).is_err() {
        println!("skipped: only root can give a directory away");
        return;
    }
    // Where that user can run it, whatever the rights of the folder of builds.
    let program = std::env::temp_dir().join(format!("fleet-tests-{}", std::process::id()));
    fs::copy(std::env::current_exe().unwrap(), &program).unwrap();
    let ran = Command::new(&program)
        .args(["--exact", "files::use_directory"])
        .env(DIRECTORY, &dir)
        .current_dir("/")
        .uid(user)
        .output();
    fs::remove_file(program).unwrap();
    let ran = ran.unwrap();
    let shown = String::from_utf8_lossy(&ran.stdout);
    assert!(
        ran.status.success() && shown.contains("1 passed"),
        "{shown}"
    );
    assert_eq!(fs::metadata(&record).unwrap().uid(), user);
    fs::remove_dir_all(dir).unwrap();
}

#[test]
fn a_directory_that_others_can_write_to_is_refused() {
    let dir = scratch();
    for (mode, sound) in [(0o700, true), (0o755, true), (0o770, false), (0o777, false)] {
        fs::set_permissions(&dir, fs::Permissions::from_mode(mode)).unwrap();
        assert_eq!(FileStore::new(&dir).is_ok(), sound, "{mode:o}");
    }
    let link = dir.join("link");
    fs::set_permissions(&dir, fs::Permissions::from_mode(0o700)).unwrap();
    std::os::unix::fs::symlink(&dir, &link).unwrap();
    assert!(FileStore::new(&link).is_err());
    let file = dir.join("file");
    fs::write(&file, "").unwrap();
    assert!(FileStore::new(&file).is_err());
    // Another user's, if this test may give one away.
    let theirs = dir.join("theirs");
    fs::create_dir(&theirs).unwrap();
    if std::os::unix::fs::chown(&theirs, Some(65534), None).is_ok() {
        assert!(FileStore::new(&theirs).is_err());
    }
    fs::remove_dir_all(dir).unwrap();
}

/// The record of a full window, whose places end `ahead` from now.
async fn full(store: &FileStore) {
    for name in [b"a", b"b", b"c", b"d", b"e"] {
        assert_eq!(store.claim(&claim(name)).await.unwrap(), Claimed::Granted);
    }
}

#[tokio::test]
async fn a_clock_that_is_set_back_empties_no_window() {
    let dir = scratch();
    let store = FileStore::new(&dir).unwrap();
    full(&store).await;
    // As after the host's clock was set back by an hour: all ends are far away.
    let path = window(&dir);
    let mut saved: serde_json::Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    for place in saved["places"].as_array_mut().unwrap() {
        place["until"] = (place["until"].as_u64().unwrap() + 3_600_000).into();
    }
    fs::write(&path, saved.to_string()).unwrap();
    let wait = store.claim(&claim(b"f")).await.unwrap();
    let longest = Duration::from_secs(75);
    assert!(
        matches!(wait, Claimed::RateLimited(wait) if wait <= longest),
        "{wait:?}"
    );
    fs::remove_dir_all(dir).unwrap();
}
