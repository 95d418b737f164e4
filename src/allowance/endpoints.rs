//! One window for each token endpoint in the process.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use super::closures::Client;
use super::{Allowance, Shared};
use crate::clock::{Clock, TokioClock};

/// At most so many endpoints have a window of their own; the rest share one.
const MAX_ENDPOINTS: usize = 1024;

static WINDOWS: Mutex<Option<HashMap<String, Arc<Shared>>>> = Mutex::new(None);

/// The allowance of this client at this token URL. All clients of the URL share
/// its window.
///
/// The window outlives its caches: a service that builds a client a request
/// must not get five more each time.
pub(crate) fn for_endpoint(token_url: &str, client_id: &str) -> Allowance {
    Allowance {
        shared: window_of(token_url),
        client: Some(Client::Named {
            endpoint: token_url.into(),
            id: client_id.into(),
        }),
    }
}

fn window_of(token_url: &str) -> Arc<Shared> {
    let mut windows = WINDOWS.lock().unwrap_or_else(PoisonError::into_inner);
    let windows = windows.get_or_insert_default();
    if windows.len() >= MAX_ENDPOINTS && !windows.contains_key(token_url) {
        let now = TokioClock.now();
        windows.retain(|_, shared| {
            Arc::strong_count(shared) > 1 || !shared.lock().window.is_idle(now)
        });
    }
    let has_room = windows.len() < MAX_ENDPOINTS || windows.contains_key(token_url);
    let key = if has_room { token_url } else { "" };
    let window = windows
        .entry(key.to_owned())
        .or_insert_with(|| Allowance::default().shared);
    Arc::clone(window)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_token_url_is_one_window() {
        let window = |url, client| for_endpoint(url, client).shared;
        let one = window("https://identity.test/one", "a");
        assert!(Arc::ptr_eq(&one, &window("https://identity.test/one", "b")));
        assert!(!Arc::ptr_eq(
            &one,
            &window("https://identity.test/two", "a")
        ));
    }
}
