//! Which clients the token endpoint refuses (429), and until when. Pure.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// At most so many refused clients are remembered; the cache that was refused
/// backs off by itself in any case.
const MAX_CLIENTS: usize = 4096;

/// No endpoint is left alone for longer than one hour.
const MAX_CLOSED: Duration = Duration::from_secs(60 * 60);

/// Whose requests the endpoint counts together, as far as is known.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Client {
    /// This client id at this token URL.
    Named { endpoint: Arc<str>, id: Arc<str> },
    /// A custom provider says nothing of its client: each cache is its own.
    Cache(u64),
}

impl Client {
    fn endpoint(&self) -> Option<&Arc<str>> {
        match self {
            Self::Named { endpoint, .. } => Some(endpoint),
            Self::Cache(_) => None,
        }
    }
}

/// After a 429 the window is closed to the client that got it. A second client
/// of the same endpoint that gets one in that time closes it to all of them.
#[derive(Debug, Default)]
pub(super) struct Closures {
    clients: HashMap<Client, Instant>,
    /// By token URL; `None` for the providers that name none.
    endpoints: HashMap<Option<Arc<str>>, Instant>,
}

impl Closures {
    /// The endpoint refused this client and wants to be left alone until then.
    pub(super) fn close(&mut self, client: &Client, until: Instant, now: Instant) {
        self.forget(now);
        let endpoint = client.endpoint().cloned();
        let another = self
            .clients
            .keys()
            .any(|other| other != client && other.endpoint() == endpoint.as_ref());
        if another {
            extend(self.endpoints.entry(endpoint).or_insert(until), until);
        }
        if self.clients.len() < MAX_CLIENTS || self.clients.contains_key(client) {
            extend(self.clients.entry(client.clone()).or_insert(until), until);
        }
    }

    /// Until when this client sends nothing; `None` if it may now.
    pub(super) fn closed_until(&self, client: &Client, now: Instant) -> Option<Instant> {
        if self.clients.is_empty() && self.endpoints.is_empty() {
            return None;
        }
        let own = self.clients.get(client);
        let all = self.endpoints.get(&client.endpoint().cloned());
        own.max(all).copied().filter(|&until| until > now)
    }

    /// Drops what is over, and what is further off than any closure can be:
    /// that was measured by another clock.
    pub(super) fn forget(&mut self, now: Instant) {
        let live = |until: &Instant| {
            let left = until.saturating_duration_since(now);
            !left.is_zero() && left <= MAX_CLOSED
        };
        self.clients.retain(|_, until| live(until));
        self.endpoints.retain(|_, until| live(until));
    }

    pub(super) fn is_empty(&self) -> bool {
        self.clients.is_empty() && self.endpoints.is_empty()
    }
}

fn extend(closed_until: &mut Instant, until: Instant) {
    *closed_until = until.max(*closed_until);
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "any starting point will do")]
mod tests {
    use super::*;

    fn client(endpoint: &str, id: &str) -> Client {
        Client::Named {
            endpoint: endpoint.into(),
            id: id.into(),
        }
    }

    #[test]
    fn one_refused_client_closes_for_itself_and_two_for_their_endpoint() {
        let now = Instant::now();
        let at = |seconds| now + Duration::from_secs(seconds);
        let (a, b, c) = (client("e", "a"), client("e", "b"), client("e", "c"));
        let elsewhere = client("f", "a");
        let mut closures = Closures::default();
        closures.close(&a, at(600), now);
        for open in [&b, &c, &elsewhere] {
            assert_eq!(closures.closed_until(open, now), None, "{open:?}");
        }
        // The same client again says nothing about the others.
        closures.close(&a, at(700), now);
        assert_eq!(closures.closed_until(&a, now), Some(at(700)));
        assert_eq!(closures.closed_until(&c, now), None);

        closures.close(&b, at(60), at(1));
        assert_eq!(closures.closed_until(&a, at(1)), Some(at(700)));
        assert_eq!(closures.closed_until(&c, at(1)), Some(at(60)));
        assert_eq!(closures.closed_until(&elsewhere, at(1)), None);
        assert_eq!(closures.closed_until(&c, at(60)), None);
        assert_eq!(closures.closed_until(&a, at(60)), Some(at(700)));
    }

    #[test]
    fn refusals_at_different_times_do_not_add_up() {
        let now = Instant::now();
        let at = |seconds| now + Duration::from_secs(seconds);
        let mut closures = Closures::default();
        closures.close(&client("e", "a"), at(60), now);
        closures.close(&client("e", "b"), at(120), at(60));
        assert_eq!(closures.closed_until(&client("e", "c"), at(60)), None);
    }

    #[test]
    fn caches_of_unknown_clients_are_one_client_each() {
        let now = Instant::now();
        let until = now + Duration::from_secs(60);
        let mut closures = Closures::default();
        closures.close(&Client::Cache(1), until, now);
        assert_eq!(closures.closed_until(&Client::Cache(2), now), None);
        closures.close(&Client::Cache(2), until, now);
        assert_eq!(closures.closed_until(&Client::Cache(3), now), Some(until));
    }

    #[test]
    fn what_another_clock_measured_is_forgotten() {
        let now = Instant::now();
        let tomorrow = now + Duration::from_secs(24 * 60 * 60);
        let mut closures = Closures::default();
        closures.close(&Client::Cache(1), tomorrow + MAX_CLOSED, tomorrow);
        closures.forget(now);
        assert!(closures.is_empty());
    }

    #[test]
    fn a_flood_of_refused_clients_is_forgotten_and_none_of_them_outlasts_its_time() {
        let now = Instant::now();
        let until = now + Duration::from_secs(60);
        let mut closures = Closures::default();
        let named = |number: usize| (client("e", &number.to_string()), until);
        closures.clients.extend((0..MAX_CLIENTS).map(named));
        let elsewhere = client("f", "a");
        closures.close(&elsewhere, until, now);
        assert_eq!(closures.closed_until(&elsewhere, now), None);
        // Of one that is remembered, the time may still grow.
        closures.close(&client("e", "1"), until + Duration::from_secs(1), now);
        assert!(closures.closed_until(&client("e", "1"), now) > Some(until));
        closures.forget(until);
        assert!(!closures.is_empty());
        closures.forget(until + Duration::from_secs(1));
        assert!(closures.is_empty());
    }
}
