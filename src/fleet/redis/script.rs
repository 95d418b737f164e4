//! The two operations in Lua: record.rs tells the same rules in Rust.

use ::redis::aio::ConnectionLike;
use ::redis::{ErrorKind, RedisResult, ServerErrorKind, ToRedisArgs, Value, cmd};

/// What both scripts begin with. `KEYS`: entry, lease, window.
///
/// A key of another type is no content of ours: it is deleted.
macro_rules! script {
    ($body:literal) => {
        concat!(
            r"
local function text(number) return string.format('%.0f', number) end
local function run(command, key, ...)
  local answer = redis.pcall(command, key, ...)
  if type(answer) == 'table' and answer.err then
    if string.find(answer.err, 'WRONGTYPE') then redis.call('DEL', key) end
    answer = redis.call(command, key, ...)
  end
  return answer
end
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
",
            $body
        )
    };
}

/// `ARGV`: holder, id of the seen entry or '', may fetch (1 or 0), lease in ms,
/// requests (-1: no limit), window in ms, largest entry.
///
/// Returns {'entry', id and sealed bytes, ms left}, {'granted'}, {'leased', ms}
/// or {'limited', ms}.
pub(super) const CLAIM: &str = script!(
    r"
local holder, lease, longest = ARGV[1], tonumber(ARGV[4]), ARGV[4] + ARGV[6]
local size = run('STRLEN', KEYS[1])
if size > 32 and size <= tonumber(ARGV[7]) + 32 then
  local left = redis.call('PTTL', KEYS[1])
  if left > 0 then
    local entry = redis.call('GET', KEYS[1])
    if string.sub(entry, 1, 32) ~= ARGV[2] then return {'entry', entry, left} end
  end
end
local other = run('GET', KEYS[2])
if other and other ~= holder then
  local left = redis.call('PTTL', KEYS[2])
  if left >= 0 and left <= lease then return {'leased', math.max(left, 1)} end
end
local requests, wait, taken = tonumber(ARGV[5]), 0, 0
if requests >= 0 then
  local late = run('ZRANGEBYSCORE', KEYS[3], '(' .. text(now + longest), '+inf')
  for _, place in ipairs(late) do redis.call('ZADD', KEYS[3], text(now + longest), place) end
  if not redis.call('ZSCORE', KEYS[3], holder) then
    taken = redis.call('ZCOUNT', KEYS[3], '(' .. text(now), '+inf')
    if taken >= requests then
      local free = redis.call('ZRANGEBYSCORE', KEYS[3], '(' .. text(now), '+inf', 'WITHSCORES',
        'LIMIT', text(taken - requests), 1)
      wait = free[2] and math.max(tonumber(free[2]) - now, 1) or longest
    end
  end
end
if wait > 0 or ARGV[3] ~= '1' then return {'limited', wait} end
-- The first write: a server without memory refuses it, and then nothing has happened.
redis.call('SET', KEYS[2], holder, 'PX', text(lease))
if requests >= 0 and taken < 1000 then
  redis.call('ZREMRANGEBYSCORE', KEYS[3], '-inf', text(now))
  redis.call('ZADD', KEYS[3], text(now + longest), holder)
  redis.call('PEXPIRE', KEYS[3], text(longest))
end
return {'granted'}
"
);

/// `ARGV`: holder, sealed entry or '', life in ms, when the place frees in ms.
pub(super) const FINISH: &str = script!(
    r"
local holder, frees = ARGV[1], tonumber(ARGV[4])
if run('ZSCORE', KEYS[3], holder) then
  if frees > 0 then
    redis.call('ZADD', KEYS[3], 'XX', text(now + frees), holder)
  else
    redis.call('ZREM', KEYS[3], holder)
  end
end
if run('GET', KEYS[2]) ~= holder then
  local entry = run('GET', KEYS[1])
  if ARGV[2] ~= '' and entry and string.sub(entry, 1, 32) == holder then return 1 end
  return 0
end
redis.call('DEL', KEYS[2])
if ARGV[2] ~= '' then
  run('STRLEN', KEYS[1])
  redis.call('SET', KEYS[1], holder .. ARGV[2], 'PX', ARGV[3])
end
return 1
"
);

/// A script, and its hash.
pub(super) struct Script {
    code: &'static str,
    hash: String,
}

impl Script {
    pub(super) fn new(code: &'static str) -> Self {
        let hash = ::redis::Script::new(code).get_hash().to_owned();
        Self { code, hash }
    }

    /// Sends the hash. Only a server that does not know the script gets its
    /// text: by `EVAL`, since `SCRIPT LOAD` goes to every node of a cluster and
    /// so fails with one of them.
    pub(super) async fn run(
        &self,
        mut connection: impl ConnectionLike + Send,
        keys: &[String; 3],
        args: impl ToRedisArgs + Copy + Send + Sync,
    ) -> RedisResult<Value> {
        let command = |name, script: &str| {
            let mut command = cmd(name);
            command.arg(script).arg(keys.len()).arg(&keys[..]).arg(args);
            command
        };
        let by_hash = command("EVALSHA", &self.hash);
        match by_hash.query_async(&mut connection).await {
            Err(error) if error.kind() == ErrorKind::Server(ServerErrorKind::NoScript) => {
                command("EVAL", self.code)
                    .query_async(&mut connection)
                    .await
            }
            answer => answer,
        }
    }
}
