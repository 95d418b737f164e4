//! The operations of a store, over a connection to Redis.

use std::time::Duration;

use ::redis::{
    ErrorKind as Kind, FromRedisValue as _, RedisError, ServerErrorKind, ToRedisArgs, Value,
};

use super::super::store::{
    Claim, Claimed, Finish, MAX_ENTRY_SIZE, Name, StoredEntry, TokenStore, millis, whole_millis,
};
use super::script::Script;
use super::{RedisStore, Shared};
use crate::error::{Error, ErrorKind};

impl TokenStore for RedisStore {
    async fn claim(&self, claim: &Claim) -> Result<Claimed, Error> {
        let keys = self.keys(&claim.key, &claim.window);
        let args = (
            claim.holder.as_str(),
            claim.seen.as_ref().map_or("", |seen| seen.as_str()),
            claim.may_fetch,
            millis(claim.limits.lease),
            claim.limits.requests.map_or(-1, i64::from),
            millis(claim.limits.per),
            MAX_ENTRY_SIZE,
        );
        let answer = invoke(&self.shared, &self.shared.claim, &keys, args).await?;
        claimed(answer).ok_or_else(|| {
            Error::new(
                ErrorKind::Store,
                "Redis answered something else than the script",
            )
        })
    }

    async fn finish(&self, finish: &Finish) -> Result<bool, Error> {
        let keys = self.keys(&finish.key, &finish.window);
        let (sealed, life) = match &finish.entry {
            Some(entry) => (&*entry.sealed, entry.expires_in),
            None => (&[][..], Duration::ZERO),
        };
        let args = (
            finish.holder.as_str(),
            sealed,
            millis(life),
            whole_millis(finish.frees_after),
        );
        let answer = invoke(&self.shared, &self.shared.finish, &keys, args).await?;
        Ok(answer == Value::Int(1))
    }
}

async fn invoke(
    shared: &Shared,
    script: &Script,
    keys: &[String; 3],
    args: impl ToRedisArgs + Copy + Send + Sync,
) -> Result<Value, Error> {
    let run = |connection| script.run(connection, keys, args);
    let answer = shared.link.run(run).await;
    answer.map_err(|error| failed(&error))
}

/// The answer of the script; `None` for another.
fn claimed(answer: Value) -> Option<Claimed> {
    let parts = <Vec<Value>>::from_redis_value(answer).ok()?;
    let number = |at: usize| {
        let millis = parts.get(at).cloned().map(u64::from_redis_value)?.ok()?;
        Some(Duration::from_millis(millis))
    };
    Some(match parts.first()? {
        Value::BulkString(word) => match &**word {
            b"granted" => Claimed::Granted,
            b"leased" => Claimed::Leased(number(1)?),
            b"limited" => Claimed::RateLimited(number(1)?),
            b"entry" => {
                let Some(Value::BulkString(stored)) = parts.get(1) else {
                    return None;
                };
                Claimed::Entry(entry(stored, number(2)?)?)
            }
            _ => return None,
        },
        _ => return None,
    })
}

/// Of what the server wrote, only the code is passed on: the first word, such
/// as `OOM` or `WRONGPASS`.
fn failed(error: &RedisError) -> Error {
    let message = match error.kind() {
        Kind::Io if error.is_timeout() => "Redis did not answer in time".to_owned(),
        Kind::Io if error.is_connection_refusal() => "Redis refuses connections".to_owned(),
        Kind::Io => "the connection to Redis failed".to_owned(),
        Kind::AuthenticationFailed => "Redis refuses the user or password".to_owned(),
        Kind::Server(ServerErrorKind::ReadOnly) => "Redis is read-only".to_owned(),
        _ if error.code() == Some("WRONGPASS") => "Redis refuses the user or password".to_owned(),
        kind => match error.code().filter(|code| is_code(code)) {
            Some(code) => format!("Redis answered {code}"),
            None => format!("Redis cannot be used: {kind:?}"),
        },
    };
    Error::new(ErrorKind::Store, message)
}

fn is_code(code: &str) -> bool {
    code.len() <= 32 && code.bytes().all(|byte| byte.is_ascii_uppercase())
}

/// An entry as the scripts save it: the holder's name, then the sealed bytes.
fn entry(stored: &[u8], expires_in: Duration) -> Option<StoredEntry> {
    let (id, sealed) = stored.split_at_checked(32)?;
    let id = Name::parse(std::str::from_utf8(id).ok()?)?;
    (sealed.len() <= MAX_ENTRY_SIZE).then(|| StoredEntry::new(id, sealed.to_vec(), expires_in))
}
