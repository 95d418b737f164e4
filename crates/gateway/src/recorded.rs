//! A provider in front of a provider: records each fetch for the page.

use std::sync::Arc;
use std::time::{Duration, Instant};

use officernd_auth::{AccessToken, Error, FetchContext, RateLimit, TokenProvider};

use crate::dashboard::{Dashboard, Fetched};
use crate::store::Provider;

#[derive(Clone)]
pub(crate) struct Recorded {
    provider: Provider,
    organization: String,
    dashboard: Arc<Dashboard>,
}

impl Recorded {
    pub(crate) fn new(provider: Provider, organization: &str, dashboard: Arc<Dashboard>) -> Self {
        let organization = organization.to_owned();
        Self {
            provider,
            organization,
            dashboard,
        }
    }
}

/// A fetch that is dropped before it has a result ran into its timeout.
struct Fetch<'a> {
    recorded: &'a Recorded,
    cause: &'static str,
    started: Instant,
    taken: u64,
    outcome: &'static str,
    lifetime: Option<Duration>,
}

impl Drop for Fetch<'_> {
    fn drop(&mut self) {
        let Recorded {
            provider,
            organization,
            dashboard,
        } = self.recorded;
        if self.outcome == "timeout" {
            dashboard.failed("token refresh: no answer in time");
        }
        dashboard.fetched(&Fetched {
            organization,
            cause: self.cause,
            outcome: self.outcome,
            took: self.started.elapsed(),
            lifetime: self.lifetime,
            // One fetch at a time: the count is this fetch's own.
            from_store: provider.taken() > self.taken,
        });
    }
}

impl TokenProvider for Recorded {
    async fn fetch(&self, cx: FetchContext) -> Result<AccessToken, Error> {
        let mut fetch = Fetch {
            recorded: self,
            cause: cx.cause().as_str(),
            started: Instant::now(),
            taken: self.provider.taken(),
            outcome: "timeout",
            lifetime: None,
        };
        let result = self.provider.fetch(cx).await;
        match &result {
            Ok(token) => {
                fetch.outcome = "ok";
                fetch.lifetime = Some(token.expires_in());
            }
            Err(error) => {
                fetch.outcome = error.kind().as_str();
                let of = match self.organization.as_str() {
                    "" => String::new(),
                    slug => format!(" of {slug}"),
                };
                self.dashboard
                    .failed(&format!("token refresh{of}: {error}"));
            }
        }
        result
    }

    fn rate_limit(&self) -> Option<RateLimit> {
        self.provider.rate_limit()
    }
}
