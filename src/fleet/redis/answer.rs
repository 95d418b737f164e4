//! What an answer of Redis means.

use std::time::Duration;

use ::redis::{ErrorKind as Kind, FromRedisValue as _, RedisError, ServerErrorKind, Value};

use super::super::claim::Claimed;
use super::bell;
use crate::error::{Error, ErrorKind};

/// The answer of the script; `None` for another.
pub(super) fn claimed(answer: Value) -> Option<Claimed> {
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
                Claimed::Entry(bell::entry(stored, number(2)?)?)
            }
            _ => return None,
        },
        _ => return None,
    })
}

/// Of what the server wrote, only the code is passed on: the first word, such
/// as `OOM` or `WRONGPASS`.
pub(super) fn failed(error: &RedisError) -> Error {
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
