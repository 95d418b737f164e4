//! What must hold of anything that a shared store returns: the fuzz targets and `crates/store/tests/fleet/fuzz.rs` call these
//! functions.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use officernd_auth::testing::ScriptedProvider;
use officernd_auth::{Error, ErrorKind, TokenCache};
use officernd_auth_store::SharedTokenProvider;
use officernd_auth_store::testing::MemoryStore;
use officernd_auth_store::{
    Claim, Claimed, Finish, Limits, MAX_ENTRY_SIZE, Name, RedisStore, StoredEntry, TokenStore,
};
use redis::aio::ConnectionLike;
use redis::{Cmd, Pipeline, RedisFuture, RedisResult, Value};

/// The name of a fuzz target, and its function.
pub type Target = (&'static str, fn(&[u8]));

/// The targets of this file.
pub const TARGETS: [Target; 2] = [("redis_reply", redis_reply), ("sealed_entry", sealed_entry)];

fn run<T>(future: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build();
    match runtime {
        Ok(runtime) => runtime.block_on(future),
        Err(error) => panic!("no runtime: {error}"),
    }
}

/// A connection that answers everything with these bytes.
#[derive(Clone)]
struct Reply(Arc<[u8]>);

impl Reply {
    fn value(&self) -> RedisResult<Value> {
        redis::parse_redis_value(&self.0)
    }
}

impl ConnectionLike for Reply {
    fn req_packed_command<'a>(&'a mut self, _: &'a Cmd) -> RedisFuture<'a, Value> {
        Box::pin(std::future::ready(self.value()))
    }

    fn req_packed_commands<'a>(
        &'a mut self,
        _: &'a Pipeline,
        _: usize,
        count: usize,
    ) -> RedisFuture<'a, Vec<Value>> {
        Box::pin(std::future::ready(self.value().map(|it| vec![it; count])))
    }

    fn get_db(&self) -> i64 {
        0
    }
}

/// A reply of Redis, as it comes over the network: it is an answer, or an error that quotes nothing of it.
pub fn redis_reply(data: &[u8]) {
    let store = RedisStore::over(Reply(data.into()));
    let (key, minute) = (Name::digest_of(b"key"), Duration::from_secs(60));
    let limits = Limits::new(minute, Some(5), minute);
    let claim = Claim::new(key.clone(), key.clone(), key.clone(), limits);
    let finish = Finish::new(key.clone(), key.clone(), key, minute);
    let answers = [
        run(store.claim(&claim)).map(|claimed| {
            if let Claimed::Entry(entry) = claimed {
                assert!(entry.sealed.len() <= MAX_ENTRY_SIZE);
                assert_eq!(Name::parse(entry.id.as_str()), Some(entry.id));
            }
        }),
        run(store.finish(&finish)).map(|_| ()),
    ];
    for error in answers.into_iter().filter_map(Result::err) {
        assert_eq!(error.kind(), ErrorKind::Store);
        let shown = format!("{error} {error:?}");
        let text = String::from_utf8_lossy(data);
        // Its code, such as WRONGPASS, may be shown.
        let mut words = text.split(|c: char| !c.is_ascii_graphic());
        let quoted = words.find(|word| {
            let is_code = word
                .trim_start_matches('-')
                .bytes()
                .all(|c| c.is_ascii_uppercase());
            word.len() > 16 && !is_code && shown.contains(word)
        });
        assert_eq!(quoted, None, "{shown}");
    }
}

/// A store whose entries something else writes to.
struct Meddled {
    model: MemoryStore,
    meddle: Arc<Mutex<Option<Vec<u8>>>>,
}

impl TokenStore for Meddled {
    async fn claim(&self, claim: &Claim) -> Result<Claimed, Error> {
        let claimed = self.model.claim(claim).await?;
        let meddle = self.meddle.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(match (claimed, &*meddle) {
            (Claimed::Entry(entry), Some(data)) => {
                let sealed = meddled(&entry.sealed, data);
                Claimed::Entry(StoredEntry::new(entry.id, sealed, entry.expires_in))
            }
            (claimed, _) => claimed,
        })
    }

    async fn finish(&self, finish: &Finish) -> Result<bool, Error> {
        self.model.finish(finish).await
    }
}

/// The first byte picks what is done to the entry, the others where and with what.
fn meddled(sealed: &[u8], data: &[u8]) -> Vec<u8> {
    let Some((what, data)) = data.split_first() else {
        return Vec::new();
    };
    let mut entry = sealed.to_vec();
    match what % 4 {
        0 => data.to_vec(),
        1 => {
            entry.extend(data);
            entry
        }
        2 => {
            let at: usize = data.iter().map(|byte| usize::from(*byte)).sum();
            entry.truncate(at % sealed.len());
            entry
        }
        _ => {
            // The version byte and the nonce come first.
            for (byte, change) in entry.iter_mut().zip(data) {
                *byte ^= change;
            }
            entry
        }
    }
}

/// Anything done to a sealed entry: it is used only as it was saved, and costs a token request otherwise.
pub fn sealed_entry(data: &[u8]) {
    let (endpoint, model) = (ScriptedProvider::new(), MemoryStore::new());
    let meddle = Arc::new(Mutex::new(None));
    let pod = || {
        let (model, meddle) = (model.clone(), Arc::clone(&meddle));
        TokenCache::new(SharedTokenProvider::new(
            endpoint.clone(),
            Meddled { model, meddle },
        ))
    };
    run(async {
        let first = pod().token().await;
        assert!(first.is_ok(), "{first:?}");
        *meddle.lock().unwrap_or_else(PoisonError::into_inner) = Some(data.to_vec());
        let second = pod().token().await;
        assert!(second.is_ok(), "{second:?}");
    });
    let untouched = model.entries().iter().all(|it| meddled(it, data) == *it);
    assert_eq!(endpoint.calls(), if untouched { 1 } else { 2 });
}
