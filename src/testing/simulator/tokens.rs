use std::collections::HashMap;
use std::time::Duration;

use tokio::time::Instant;

/// Live tokens that are kept; beyond it, the one next to expire goes.
const MAX_TOKENS: usize = 10_000;

/// The tokens that were handed out and are neither revoked nor long expired.
#[derive(Default)]
pub(super) struct Tokens {
    live: HashMap<String, Grant>,
    pub(super) issued: u64,
    serial: u32,
}

#[derive(Clone)]
struct Grant {
    client_id: String,
    scopes: Vec<String>,
    since: Instant,
    life: Duration,
}

impl Grant {
    fn remaining(&self, now: Instant) -> Duration {
        self.life.saturating_sub(now.duration_since(self.since))
    }
}

impl Tokens {
    /// A new token.
    pub(super) fn issue(
        &mut self,
        client_id: String,
        scopes: Vec<String>,
        now: Instant,
        life: Duration,
    ) -> String {
        self.live.retain(|_, grant| !grant.remaining(now).is_zero());
        if self.live.len() >= MAX_TOKENS {
            let next = self
                .live
                .iter()
                .min_by_key(|(_, grant)| grant.remaining(now));
            if let Some(token) = next.map(|(token, _)| token.clone()) {
                self.live.remove(&token);
            }
        }
        // Random, so that no other simulator knows it; numbered, so that it is new.
        let token = format!("{:032x}{:08x}", fastrand::u128(..), self.serial);
        self.serial = self.serial.wrapping_add(1);
        self.issued += 1;
        let since = now;
        self.live.insert(
            token.clone(),
            Grant {
                client_id,
                scopes,
                since,
                life,
            },
        );
        token
    }

    /// The longest-lived token of this app with exactly these scopes, handed out once more.
    pub(super) fn reissue(
        &mut self,
        client_id: &str,
        scopes: &[String],
        now: Instant,
    ) -> Option<(String, Duration)> {
        let same = self
            .live
            .iter()
            .filter(|(_, grant)| grant.client_id == client_id && grant.scopes == scopes);
        let (token, remaining) = same
            .map(|(token, grant)| (token, grant.remaining(now)))
            .filter(|(_, remaining)| !remaining.is_zero())
            .max_by_key(|(_, remaining)| *remaining)?;
        self.issued += 1;
        Some((token.clone(), remaining))
    }

    /// The scopes of a live token.
    pub(super) fn scopes(&self, token: &str, now: Instant) -> Option<&[String]> {
        let grant = self.live.get(token)?;
        (!grant.remaining(now).is_zero()).then_some(grant.scopes.as_slice())
    }

    pub(super) fn revoke(&mut self, token: &str) {
        self.live.remove(token);
    }

    pub(super) fn revoke_app(&mut self, client_id: &str) {
        self.live.retain(|_, grant| grant.client_id != client_id);
    }

    pub(super) fn revoke_all(&mut self) {
        self.live.clear();
    }
}
