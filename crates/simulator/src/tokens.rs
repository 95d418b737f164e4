use std::collections::HashMap;
use std::time::Duration;

use tokio::time::Instant;

/// The issued tokens that have neither expired nor been revoked.
#[derive(Default)]
pub(crate) struct Tokens {
    live: HashMap<String, Grant>,
    pub(crate) issued: u64,
}

struct Grant {
    client_id: String,
    scopes: Vec<String>,
    since: Instant,
    life: Duration,
}

impl Grant {
    fn is_live(&self, now: Instant) -> bool {
        now.duration_since(self.since) < self.life
    }
}

impl Tokens {
    /// Issues a new token.
    pub(crate) fn issue(
        &mut self,
        client_id: String,
        scopes: Vec<String>,
        now: Instant,
        life: Duration,
    ) -> String {
        self.live.retain(|_, grant| grant.is_live(now));
        // Random, so that no other simulator accepts it.
        let token = format!("{:032x}{:08x}", fastrand::u128(..), fastrand::u32(..));
        self.issued += 1;
        let grant = Grant {
            client_id,
            scopes,
            since: now,
            life,
        };
        self.live.insert(token.clone(), grant);
        token
    }

    /// Returns the scopes of a live token.
    pub(crate) fn scopes(&self, token: &str, now: Instant) -> Option<&[String]> {
        let grant = self.live.get(token)?;
        grant.is_live(now).then_some(grant.scopes.as_slice())
    }

    pub(crate) fn revoke_app(&mut self, client_id: &str) {
        self.live.retain(|_, grant| grant.client_id != client_id);
    }

    pub(crate) fn revoke_all(&mut self) {
        self.live.clear();
    }
}
