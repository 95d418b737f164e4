//! One window for each token endpoint in the process.

use std::collections::HashMap;
use std::sync::{Arc, LazyLock, Mutex, PoisonError};
use std::time::Instant;

use super::closures::Client;
use super::{Allowance, Shared};
use crate::clock::{Clock, TokioClock};

/// At most so many endpoints have a window of their own; the rest share one.
const MAX_ENDPOINTS: usize = 1024;

static WINDOWS: LazyLock<Mutex<Windows>> = LazyLock::new(Mutex::default);

/// The windows by token URL; that of the empty URL is for the rest.
#[derive(Default)]
struct Windows(HashMap<String, Arc<Shared>>);

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
    windows.window_of(token_url, MAX_ENDPOINTS, TokioClock.now())
}

impl Windows {
    fn window_of(&mut self, token_url: &str, max: usize, now: Instant) -> Arc<Shared> {
        if let Some(window) = self.0.get(token_url) {
            return Arc::clone(window);
        }
        if self.0.len() >= max {
            self.0.retain(|_, shared| {
                Arc::strong_count(shared) > 1 || !shared.lock().window.is_idle(now)
            });
        }
        let key = if self.0.len() < max { token_url } else { "" };
        let window = self.0.entry(key.to_owned());
        Arc::clone(window.or_insert_with(|| Allowance::default().shared))
    }
}

#[cfg(test)]
mod tests {
    use super::super::window::{Decision, Wish};
    use super::super::{OFFICERND, Standing, Urgency};
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

    /// The endpoints "one" and "two", with room for no more. What remains of
    /// "two" when the last cache is gone is in `trace`.
    fn two_of_two(trace: impl FnOnce(&Shared, Instant)) -> (Windows, Arc<Shared>, Instant) {
        let now = TokioClock.now();
        let mut windows = Windows::default();
        let one = windows.window_of("one", 2, now);
        trace(&windows.window_of("two", 2, now), now);
        (windows, one, now)
    }

    #[test]
    fn an_endpoint_without_caches_or_requests_makes_room_and_no_other_does() {
        let (mut windows, one, now) = two_of_two(|_, _| {});
        let three = windows.window_of("three", 2, now);
        assert!(Arc::ptr_eq(&one, &windows.window_of("one", 2, now)));
        assert!(Arc::ptr_eq(&three, &windows.window_of("three", 2, now)));
        // From here all endpoints share a window.
        let two = windows.window_of("two", 2, now);
        assert!(!Arc::ptr_eq(&two, &one) && !Arc::ptr_eq(&two, &three));
        assert!(Arc::ptr_eq(&two, &windows.window_of("four", 2, now)));
    }

    #[test]
    fn an_endpoint_that_still_counts_requests_keeps_its_window() {
        let spent = |shared: &Shared, now| {
            let wish = Wish {
                applicant: 1,
                client: &Client::Cache(1),
                standing: Standing::default(),
                urgency: Urgency::Waiting,
            };
            let window = &mut shared.lock().window;
            let Decision::Granted(id) = window.try_acquire(&wish, now) else {
                panic!("no room");
            };
            window.answered(id, now);
        };
        let closed = |shared: &Shared, now| {
            let until = now + OFFICERND.1;
            shared.lock().window.close(&Client::Cache(1), until, now);
        };
        for (mut windows, _one, now) in [two_of_two(spent), two_of_two(closed)] {
            let two = Arc::downgrade(&windows.window_of("two", 2, now));
            drop(windows.window_of("three", 2, now));
            assert!(two.strong_count() > 0);
            // A window later there is nothing to remember.
            let later = now + OFFICERND.1;
            let three = windows.window_of("three", 2, later);
            assert!(Arc::ptr_eq(&three, &windows.window_of("three", 2, later)));
            assert_eq!(two.strong_count(), 0);
        }
    }
}
