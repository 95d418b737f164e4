//! The operations of a store, over a connection to Redis.

use std::sync::atomic::Ordering;
use std::time::Duration;

use ::redis::{Script, Value};

use super::super::claim::{Claim, Claimed, Finish, StoredEntry};
use super::super::store::{MAX_ENTRY_SIZE, TokenStore, millis, poll_interval};
use super::script::{self, Invocation};
use super::subscription::hear;
use super::{RedisStore, Shared, answer, eviction};
use crate::clock::{Clock as _, TokioClock, later};
use crate::error::{Error, ErrorKind};

impl TokenStore for RedisStore {
    async fn claim(&self, claim: &Claim) -> Result<Claimed, Error> {
        let keys = self.keys(&claim.key, &claim.window);
        let invocation = Invocation::new(script::CLAIM, &keys)
            .text(claim.holder.as_str())
            .text(claim.seen.as_ref().map_or("", |seen| seen.as_str()))
            .number(u64::from(claim.may_fetch))
            .number(millis(claim.limits.lease));
        let invocation = match claim.limits.requests {
            Some(requests) => invocation.number(u64::from(requests)),
            None => invocation.no_limit(),
        };
        let invocation = invocation
            .number(millis(claim.limits.per))
            .number(u64::try_from(MAX_ENTRY_SIZE).unwrap_or(u64::MAX));
        let answer = invoke(&self.shared, &self.shared.claim, &invocation).await?;
        answer::claimed(answer).ok_or_else(|| {
            Error::new(
                ErrorKind::Store,
                "Redis answered something else than the script",
            )
        })
    }

    async fn finish(&self, finish: &Finish) -> Result<bool, Error> {
        let keys = self.keys(&finish.key, &finish.window);
        let channel = self.channel(&finish.key, &finish.window);
        let (sealed, life) = match &finish.entry {
            Some(entry) => (&*entry.sealed, entry.expires_in),
            None => (&[][..], Duration::ZERO),
        };
        let frees_after = u64::try_from(finish.frees_after.as_millis()).unwrap_or(u64::MAX);
        let invocation = Invocation::new(script::FINISH, &keys)
            .text(finish.holder.as_str())
            .bytes(sealed)
            .number(millis(life))
            .number(frees_after)
            .text(&channel)
            .text(self.shared.publish);
        let answer = invoke(&self.shared, &self.shared.finish, &invocation).await?;
        if !self.shared.policy_checked.swap(true, Ordering::Relaxed) {
            eviction::check(&self.shared);
        }
        Ok(answer == Value::Int(1))
    }

    async fn changed(&self, claim: &Claim, round: u32) -> Option<StoredEntry> {
        if let Some(heard) = hear(&self.shared.link, self.channel(&claim.key, &claim.window)).await
        {
            return heard;
        }
        let until = later(TokioClock.now(), poll_interval(round));
        TokioClock.sleep_until(until).await;
        None
    }

    async fn connect(&self) -> Result<(), Error> {
        let connected = self.shared.link.connect().await;
        connected.map_err(|error| answer::failed(&error))
    }
}

async fn invoke(
    shared: &Shared,
    script: &Script,
    invocation: &Invocation<'_>,
) -> Result<Value, Error> {
    let run = |connection| invocation.run(connection, script);
    let answer = shared.link.run(run).await;
    answer.map_err(|error| answer::failed(&error))
}
