//! The two operations in Lua. record.rs has the same rules in Rust, and tests/fleet/differential.rs compares
//! the two.

use std::sync::LazyLock;

use ::redis::{ErrorKind, RedisResult, ServerErrorKind, ToRedisArgs, Value, cmd};

use super::link::Connection;

/// Makes a script from the common part and `$body`. `KEYS`: entry, lease, window.
macro_rules! script {
    ($body:literal) => {
        LazyLock::new(|| {
            Script::new(concat!(
                r"
local call, entry, lease, window = redis.call, KEYS[1], KEYS[2], KEYS[3]
local function text(number) return string.format('%.0f', number) end
local function after(time) return '(' .. text(time) end
local function keep(key, life)
  if call('PTTL', key) < life then call('PEXPIRE', key, text(life)) end
end
local time = call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
",
                $body
            ))
        })
    };
}

/// `ARGV`: holder, id of the seen entry or '', may fetch (1 or 0), lease in ms, requests (-1 for no limit),
/// window in ms, maximum size of an entry.
///
/// Returns {'entry', ms left, id and sealed bytes}, {'granted', 0, ''}, {'leased', ms, ''} or {'limited', ms, ''}.
pub(super) static CLAIM: LazyLock<Script> = script!(
    r"
local holder, seen, may_fetch, requests = ARGV[1], ARGV[2], ARGV[3], tonumber(ARGV[5])
local lasts, longest, largest = tonumber(ARGV[4]), ARGV[4] + ARGV[6], ARGV[7] + 32
local saved = call('GET', entry)
if saved and #saved > 32 and #saved <= largest then
  local id, left = string.sub(saved, 1, 32), call('PTTL', entry)
  if left > 0 and id ~= seen and not string.find(id, '[^0-9a-f]') then
    return {'entry', left, saved}
  end
end
local other = call('GET', lease)
if other and other ~= holder then
  local left = call('PTTL', lease)
  -- A lease with more time left than any lease lasts is not from a holder.
  if left > 0 and left <= lasts then return {'leased', left, ''} end
end
local wait, taken = 0, 0
if requests >= 0 then
  -- Slots end later if the clock was set back, or if another program wrote them.
  local late = call('ZRANGEBYSCORE', window, after(now + longest), '+inf')
  for _, slot in ipairs(late) do call('ZADD', window, text(now + longest), slot) end
  local mine = tonumber(call('ZSCORE', window, holder) or 0)
  if mine <= now then
    taken = call('ZCOUNT', window, after(now), '+inf')
    if taken >= requests then
      local free = call('ZRANGEBYSCORE', window, after(now), '+inf', 'WITHSCORES',
        'LIMIT', text(taken - requests), 1)
      wait = free[2] and math.max(tonumber(free[2]) - now, 1) or longest
    end
  end
end
if wait > 0 or may_fetch ~= '1' then return {'limited', wait, ''} end
-- The first write: if the server is out of memory, it fails here, and nothing has changed.
call('SET', lease, holder, 'PX', text(lasts))
if requests >= 0 and taken < 1000 then
  call('ZREMRANGEBYSCORE', window, '-inf', text(now))
  call('ZADD', window, text(now + longest), holder)
  keep(window, longest)
end
return {'granted', 0, ''}
"
);

/// `ARGV`: holder, sealed entry or '', lifetime in ms, ms until the slot is free.
///
/// Returns 1 if the holder had the lease or has saved this entry before, else 0.
pub(super) static FINISH: LazyLock<Script> = script!(
    r"
local holder, sealed, frees = ARGV[1], ARGV[2], tonumber(ARGV[4])
-- A slot that has ended is not extended: another holder may have it.
if tonumber(call('ZSCORE', window, holder) or 0) > now then
  if frees > 0 then
    call('ZADD', window, text(now + frees), holder)
    keep(window, frees)
  else
    call('ZREM', window, holder)
  end
end
if call('GET', lease) ~= holder then
  local saved = call('GET', entry)
  local again = sealed ~= '' and saved and string.sub(saved, 1, 32) == holder
  return again and 1 or 0
end
call('DEL', lease)
if sealed ~= '' then call('SET', entry, holder .. sealed, 'PX', ARGV[3]) end
return 1
"
);

/// A script and its hash.
pub(super) struct Script {
    code: &'static str,
    hash: String,
}

impl Script {
    fn new(code: &'static str) -> Self {
        let hash = ::redis::Script::new(code).get_hash().to_owned();
        Self { code, hash }
    }

    /// Sends the hash, and the code if the server does not have the script. Uses `EVAL`, because redis-rs sends
    /// `SCRIPT LOAD` to every node of a cluster, which fails if one of them does.
    pub(super) async fn run(
        &self,
        send: &Connection,
        keys: &[String; 3],
        args: impl ToRedisArgs + Copy + Send + Sync,
    ) -> RedisResult<Value> {
        let command = |name, script: &str| {
            let mut command = cmd(name);
            command.arg(script).arg(keys.len()).arg(&keys[..]).arg(args);
            command
        };
        let by_hash = command("EVALSHA", &self.hash);
        match send(by_hash).await {
            Err(error) if error.kind() == ErrorKind::Server(ServerErrorKind::NoScript) => {
                send(command("EVAL", self.code)).await
            }
            answer => answer,
        }
    }
}
