//! Every store keeps the same promises.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use officernd_auth::ErrorKind;
use officernd_auth::fleet::{FileStore, Holder, RedisStore, StoreKey, TokenStore};
use officernd_auth::testing::{Simulator, check_store};

use crate::pods::pod;
use crate::server::{Server, eventually, scratch};

/// The rights that the documentation of `RedisStore` asks for, and no more.
const RIGHTS: &str = "~officernd:* resetchannels -@all +eval +time +get +set +del +strlen +pttl \
                      +pexpire +zadd +zcard +zscore +zrange +zremrangebyscore +select +ping";

#[tokio::test]
async fn redis_keeps_the_promises() {
    let server = Server::start();
    let store = RedisStore::new(&server.url()).unwrap();
    check_store(&store).await.unwrap();
    // Everything in it ends by itself.
    for key in server.keys() {
        assert!(key.starts_with("officernd:{"), "{key}");
        let left = server.ask_text(&["PTTL", &key]);
        assert!(!left.contains('-'), "{key} {left}");
    }
}

#[tokio::test]
async fn redis_over_tls_with_user_password_and_database() {
    let user = format!("--user app on >hunter2 {RIGHTS}");
    let (server, pem) = Server::with_tls(&user.split_whitespace().collect::<Vec<_>>());
    let url = |password| format!("rediss://app:{password}@localhost:{}/3", server.port);
    let store = RedisStore::new(&url("hunter2")).unwrap();
    let (key, me) = (StoreKey::digest_of(b""), Holder::random().unwrap());
    // Not one of the system's roots.
    assert!(store.load(&key).await.is_err());
    let store = store.root_certificates(pem.clone()).unwrap();
    check_store(&store).await.unwrap();

    let wrong = RedisStore::new(&url("hunter3")).unwrap();
    let wrong = wrong.root_certificates(pem).unwrap();
    let error = wrong.release(&key, &me).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Store);
    for shown in [format!("{wrong:?}"), format!("{error:?} {error}")] {
        assert!(!shown.contains("hunter"), "{shown}");
    }
    // What is outside its prefix is outside its rights.
    let elsewhere = store.key_prefix("elsewhere:").unwrap();
    assert!(elsewhere.load(&key).await.is_err());
}

#[tokio::test]
async fn a_cluster_keeps_the_promises() {
    let server = Server::with(&["--cluster-enabled", "yes"]);
    server.ask_text(&["CLUSTER", "ADDSLOTSRANGE", "0", "16383"]);
    eventually("the cluster is up", || {
        let info = server.ask_text(&["CLUSTER", "INFO"]);
        info.contains("cluster_state:ok")
    });
    let store = RedisStore::cluster([&*server.url()]).unwrap();
    check_store(&store).await.unwrap();
}

#[tokio::test]
async fn sentinels_lead_to_the_master() {
    let master = Server::start();
    let sentinel = master.sentinel();
    let store = RedisStore::sentinel([&*sentinel.url()], "redis://mymaster/2").unwrap();
    check_store(&store).await.unwrap();

    // The way to the sentinels may be the only one over TLS.
    let (sentinel, pem) = master.sentinel_with_tls();
    let url = format!("rediss://localhost:{}", sentinel.port);
    let store = RedisStore::sentinel([&*url], "redis://mymaster").unwrap();
    let store = store.root_certificates(pem).unwrap();
    store.load(&StoreKey::digest_of(b"")).await.unwrap();
}

#[tokio::test]
async fn files_keep_the_promises() {
    let dir = scratch();
    let store = FileStore::new(&dir).unwrap();
    check_store(&store).await.unwrap();
    for entry in std::fs::read_dir(&dir).unwrap() {
        let metadata = entry.unwrap().metadata().unwrap();
        let mode = std::os::unix::fs::PermissionsExt::mode(&metadata.permissions());
        assert_eq!(mode & 0o777, 0o600);
    }
    std::fs::remove_dir_all(dir).unwrap();
}

#[test]
fn an_operation_is_no_burden_on_the_stack() {
    let store = RedisStore::new("redis://host").unwrap();
    let (key, me) = (StoreKey::digest_of(b""), Holder::random().unwrap());
    let save = store.save(&key, b"", Duration::from_secs(1), &me);
    let size = std::mem::size_of_val(&save);
    assert!(size < 4096, "{size}");
}

#[tokio::test]
async fn nothing_that_is_told_or_logged_shows_a_token_a_secret_or_a_password() {
    let logs = Logs::default();
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(tracing::level_filters::LevelFilter::TRACE)
        .with_writer({
            let logs = logs.clone();
            move || logs.clone()
        })
        .finish();
    // While tracing knows of one subscriber only, a callsite that another
    // test's thread meets first is off for good.
    let _second = tracing::Dispatch::new(tracing_subscriber::registry());
    let _guard = tracing::subscriber::set_default(subscriber);
    let server = Server::with(&["--requirepass", "hunter2"]);
    let officernd = Simulator::start().await.unwrap();
    let url = |password| format!("redis://:{password}@127.0.0.1:{}", server.port);
    let mut shown = String::new();
    let mut token = None;
    for url in [url("hunter2"), url("hunter2"), url("hunter2x")] {
        let (provider, cache) = pod(&officernd, &url);
        token = Some(cache.token().await.unwrap());
        shown += &format!("{provider:?} {cache:?} {:?} {token:?}", provider.status());
    }
    let token = token.unwrap();
    let token = token
        .header_value()
        .to_str()
        .unwrap()
        .replace("Bearer ", "");
    shown += &String::from_utf8_lossy(&logs.0.lock().unwrap());
    for told in ["took a sibling's token", "user or password"] {
        assert!(shown.contains(told), "{told}: {shown}");
    }
    for secret in ["hunter2", &*token, &*officernd.client_secret()] {
        assert!(!shown.contains(secret), "{shown}");
    }
}

/// What was logged on this thread.
#[derive(Clone, Default)]
struct Logs(Arc<Mutex<Vec<u8>>>);

impl std::io::Write for Logs {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[test]
fn urls_that_cannot_be_used_are_refused_and_not_shown() {
    for url in [
        "",
        "hunter2",
        "http://hunter2@host",
        "redis://",
        "redis://:hunter2@host/x",
        "redis://:hunter2@host:99999",
        "rediss://:hunter2@host/#insecure",
    ] {
        let error = RedisStore::new(url).unwrap_err().to_string();
        assert!(error.contains("token store has a URL"), "{error}");
        assert!(!error.contains("hunter2"), "{error}");
    }
    let plain = RedisStore::new("redis://host").unwrap();
    assert!(plain.clone().root_certificates("x").is_err());
    assert!(plain.clone().key_prefix("a b").is_err());
    assert!(plain.key_prefix("{").is_err());
    assert!(RedisStore::cluster([]).is_err());
    let secure = RedisStore::new("rediss://host").unwrap();
    assert!(secure.root_certificates("no certificate").is_err());
}

#[tokio::test]
async fn foreign_keys_are_nothing_or_an_error_but_never_in_the_way_for_ever() {
    let server = Server::start();
    let store = RedisStore::new(&server.url()).unwrap();
    let (key, me) = (StoreKey::digest_of(b"x"), Holder::random().unwrap());
    let name = |what: &str| format!("officernd:{{{key}}}:{what}");

    // For ever, or too large: not ours.
    server.ask_text(&["SET", &name("token"), "foreign"]);
    assert_eq!(store.load(&key).await.unwrap(), None);
    server.ask_text(&["SET", &name("token"), &"x".repeat(70_000), "PX", "9999"]);
    assert_eq!(store.load(&key).await.unwrap(), None);
    server.ask_text(&["SET", &name("lease"), "somebody"]);
    let limit = Duration::from_secs(1);
    assert!(store.save(&key, b"x", limit, &me).await.is_ok());
    let lease = store.acquire(&key, &me, limit).await.unwrap();
    assert_eq!(lease, officernd_auth::fleet::Lease::Held);
    server.ask_text(&["ZADD", &name("window"), "99999999999999", "a"]);
    let terms = officernd_auth::fleet::Terms::new(1, limit, limit);
    let spent = store.spend(&key, &me, terms).await.unwrap();
    assert_eq!(spent, officernd_auth::fleet::Spent::Granted);

    // Of another type.
    server.ask_text(&["DEL", &name("token")]);
    server.ask_text(&["LPUSH", &name("token"), "x"]);
    let error = store.load(&key).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Store);
}

#[tokio::test]
async fn foreign_files_are_nothing_or_an_error() {
    let dir = scratch();
    let store = FileStore::new(&dir).unwrap();
    let (key, me) = (StoreKey::digest_of(b"x"), Holder::random().unwrap());
    let record = dir.join(format!("officernd-{key}.json"));
    let sealed = "x".repeat(300_000);
    for foreign in [
        "",
        "{",
        "[]",
        r#"{"entry":{"sealed":"?","until":99999999999999}}"#,
        r#"{"lease":{"holder":"somebody","until":99999999999999}}"#,
        &format!(r#"{{"entry":{{"sealed":"{sealed}","until":99999999999999}}}}"#),
    ] {
        std::fs::write(&record, foreign).unwrap();
        assert_eq!(store.load(&key).await.unwrap(), None, "{foreign:.40}");
        let limit = Duration::from_secs(1);
        let lease = store.acquire(&key, &me, limit).await.unwrap();
        assert_eq!(lease, officernd_auth::fleet::Lease::Held, "{foreign:.40}");
    }
    std::fs::remove_file(&record).unwrap();
    std::fs::create_dir(&record).unwrap();
    let error = store.load(&key).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Store);
    std::fs::remove_dir_all(dir).unwrap();
}
