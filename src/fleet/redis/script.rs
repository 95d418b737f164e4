//! The scripts: each operation is one. Sent whole each time, since a few
//! hundred bytes an hour are less than the care for a cache of scripts.

use ::redis::Cmd;

/// Nothing for what is too large to be ours, or would stay for ever.
pub(super) const LOAD: &str = r"
local size = redis.call('STRLEN', KEYS[1])
if size == 0 or size > tonumber(ARGV[1]) then return false end
local left = redis.call('PTTL', KEYS[1])
if left <= 0 then return false end
return {redis.call('GET', KEYS[1]), left}
";

pub(super) const SAVE: &str = r"
local holder = redis.call('GET', KEYS[2])
if holder and holder ~= ARGV[3] then return 0 end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return 1
";

/// A lease without an end, or with one further off than any, is not ours.
pub(super) const ACQUIRE: &str = r"
local holder = redis.call('GET', KEYS[1])
if holder and holder ~= ARGV[1] then
  local left = redis.call('PTTL', KEYS[1])
  if left >= 0 and left <= tonumber(ARGV[3]) then return math.max(left, 1) end
end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return 0
";

pub(super) const RELEASE: &str = r"
if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('DEL', KEYS[1]) end
return 0
";

/// The window is a sorted set of tickets by the time that each is free again.
pub(super) const SPEND: &str = r"
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local longest = tonumber(ARGV[3])
local text = function(number) return string.format('%.0f', number) end
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', text(now))
redis.call('ZREMRANGEBYSCORE', KEYS[1], '(' .. text(now + 2 * longest), '+inf')
if redis.call('ZSCORE', KEYS[1], ARGV[1]) then return 0 end
local most, taken = tonumber(ARGV[2]), redis.call('ZCARD', KEYS[1])
if taken < most then
  redis.call('ZADD', KEYS[1], text(now + longest), ARGV[1])
  redis.call('PEXPIRE', KEYS[1], text(2 * longest))
  return 0
end
local free = redis.call('ZRANGE', KEYS[1], taken - most, taken - most, 'WITHSCORES')
if not free[2] then return longest end
return math.max(tonumber(free[2]) - now, 1)
";

pub(super) const SETTLE: &str = r"
local time = redis.call('TIME')
local free = time[1] * 1000 + math.floor(time[2] / 1000) + ARGV[2]
return redis.call('ZADD', KEYS[1], 'XX', string.format('%.0f', free), ARGV[1])
";

/// A script with what it is about.
pub(super) struct Script<'a> {
    body: &'static str,
    keys: Vec<String>,
    args: Vec<Arg<'a>>,
}

enum Arg<'a> {
    Bytes(&'a [u8]),
    Number(u64),
}

impl<'a> Script<'a> {
    pub(super) fn new(body: &'static str) -> Self {
        Self {
            body,
            keys: Vec::new(),
            args: Vec::new(),
        }
    }

    pub(super) fn key(mut self, key: String) -> Self {
        self.keys.push(key);
        self
    }

    pub(super) fn bytes(mut self, bytes: &'a [u8]) -> Self {
        self.args.push(Arg::Bytes(bytes));
        self
    }

    pub(super) fn number(mut self, number: u64) -> Self {
        self.args.push(Arg::Number(number));
        self
    }

    pub(super) fn command(&self) -> Cmd {
        let mut command = ::redis::cmd("EVAL");
        command.arg(self.body).arg(self.keys.len()).arg(&self.keys);
        for arg in &self.args {
            match arg {
                Arg::Bytes(bytes) => command.arg(*bytes),
                Arg::Number(number) => command.arg(*number),
            };
        }
        command
    }
}
