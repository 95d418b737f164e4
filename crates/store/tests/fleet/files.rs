//! `FileStore` with damaged files, unsafe directories, and a clock that is set back.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use officernd_auth_store::{Claimed, FileStore, TokenStore};

use crate::pods::{claim, finish, look};
use testkit::redis::scratch;

fn record(dir: &Path, name: &[u8]) -> PathBuf {
    dir.join(format!("officernd-{}.json", claim(name).key))
}

fn window(dir: &Path) -> PathBuf {
    dir.join(format!("officernd-{}.json", claim(b"").window))
}

/// Claims, saves and reads back.
async fn works(store: &FileStore, name: &[u8]) {
    let claim = claim(name);
    assert_eq!(store.claim(&claim).await.unwrap(), Claimed::Granted);
    let entry = finish(&claim).entry(b"sealed".to_vec(), Duration::from_secs(60));
    assert!(store.finish(&entry).await.unwrap());
    let claimed = store.claim(&look(name)).await.unwrap();
    assert!(matches!(claimed, Claimed::Entry(entry) if entry.sealed == b"sealed"));
}

#[tokio::test]
async fn damaged_and_unreadable_files_are_replaced() {
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
    // A file that a run as root left behind. Root itself can read it: then it is damaged.
    fs::write(record(&dir, b"x"), "{").unwrap();
    fs::set_permissions(record(&dir, b"x"), fs::Permissions::from_mode(0o000)).unwrap();
    works(&store, b"x").await;
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
    // Another user's directory, if this test runs as root.
    let theirs = dir.join("theirs");
    fs::create_dir(&theirs).unwrap();
    if std::os::unix::fs::chown(&theirs, Some(65534), None).is_ok() {
        assert!(FileStore::new(&theirs).is_err());
    }
    fs::remove_dir_all(dir).unwrap();
}

/// Fills the window.
async fn full(store: &FileStore) {
    for name in [b"a", b"b", b"c", b"d", b"e"] {
        assert_eq!(store.claim(&claim(name)).await.unwrap(), Claimed::Granted);
    }
}

#[tokio::test]
async fn a_clock_that_is_set_back_does_not_empty_the_window() {
    let dir = scratch();
    let store = FileStore::new(&dir).unwrap();
    full(&store).await;
    // After the host's clock is set back by an hour, all slots end an hour later.
    let path = window(&dir);
    let mut saved: serde_json::Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    for slot in saved["slots"].as_array_mut().unwrap() {
        slot["until"] = (slot["until"].as_u64().unwrap() + 3_600_000).into();
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
