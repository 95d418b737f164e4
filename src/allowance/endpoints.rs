//! One ledger for each token endpoint in the process.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use super::{Allowance, Shared};
use crate::clock::{Clock, TokioClock};

/// As many endpoints are told apart; the rest share one ledger.
const MOST_ENDPOINTS: usize = 1024;

static LEDGERS: Mutex<Option<HashMap<String, Arc<Shared>>>> = Mutex::new(None);

/// The ledger of this token URL, shared by all who ask for it.
///
/// It outlives its caches: a service that builds a client a request must not
/// get five more each time.
pub(crate) fn for_endpoint(token_url: &str) -> Allowance {
    let mut ledgers = LEDGERS.lock().unwrap_or_else(PoisonError::into_inner);
    let ledgers = ledgers.get_or_insert_default();
    if ledgers.len() >= MOST_ENDPOINTS && !ledgers.contains_key(token_url) {
        let now = TokioClock.now();
        ledgers.retain(|_, shared| Arc::strong_count(shared) > 1 || !shared.lock().is_idle(now));
    }
    let key = if ledgers.len() < MOST_ENDPOINTS || ledgers.contains_key(token_url) {
        token_url
    } else {
        ""
    };
    if let Some(shared) = ledgers.get(key) {
        let shared = Some(Arc::clone(shared));
        return Allowance { shared };
    }
    let allowance = Allowance::officernd();
    if let Some(shared) = &allowance.shared {
        ledgers.insert(key.to_owned(), Arc::clone(shared));
    }
    allowance
}

#[cfg(test)]
mod tests {
    use super::*;

    fn same(one: &Allowance, other: &Allowance) -> bool {
        match (&one.shared, &other.shared) {
            (Some(one), Some(other)) => Arc::ptr_eq(one, other),
            _ => false,
        }
    }

    #[test]
    fn one_token_url_is_one_ledger() {
        let one = for_endpoint("https://identity.test/one");
        assert!(same(&one, &for_endpoint("https://identity.test/one")));
        assert!(!same(&one, &for_endpoint("https://identity.test/two")));
    }
}
