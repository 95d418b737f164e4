//! The status of a cache, to look at and to follow.

use officernd_auth::testing::{ScriptedProvider, Step};
use officernd_auth::{ErrorKind, Phase};

use crate::support::{ms, poll, s, settle, stepped};

#[tokio::test]
async fn the_status_follows_a_life() {
    let provider = ScriptedProvider::new();
    let (cache, clock) = stepped(&provider);
    let phase = || cache.status().phase;
    assert_eq!(phase(), Phase::Cold);
    assert!(!cache.status().has_token());
    cache.token().await.unwrap();
    assert_eq!(phase(), Phase::Fresh);
    assert!(cache.status().has_token());
    clock.advance(s(3300));
    assert_eq!(phase(), Phase::RefreshDue);
    provider.set_latency(s(1));
    provider.push(Step::Fail(ErrorKind::InvalidClient));
    assert!(cache.try_token().is_some());
    assert_eq!(phase(), Phase::Refreshing);
    settle().await;
    clock.advance(s(1));
    settle().await;
    let status = cache.status();
    assert_eq!(status.phase, Phase::RefreshDue);
    assert_eq!(status.last_error, Some(ErrorKind::InvalidClient));
    assert_eq!(status.consecutive_failures, 1);
    assert_eq!(status.next_attempt_in, Some(s(60)));
    assert_eq!(status.token_requests, 2);
    clock.advance(s(299));
    assert_eq!(phase(), Phase::Failing);
    assert!(!cache.status().has_token());
    provider.set_latency(s(0));
    cache.token().await.unwrap();
    let status = cache.status();
    assert_eq!(status.phase, Phase::Fresh);
    assert_eq!(status.generation, 2);
    assert_eq!(status.last_error, None);
    assert_eq!(status.consecutive_failures, 0);
    assert_eq!(status.next_attempt_in, None);
    clock.advance(s(3600));
    assert_eq!(phase(), Phase::Expired);
    assert_eq!(cache.status().expires_in, Some(s(0)));
}

#[tokio::test]
async fn the_status_as_json_has_seconds_and_names() {
    let provider = ScriptedProvider::new();
    let (cache, clock) = stepped(&provider);
    let json = || serde_json::to_value(cache.status()).unwrap();
    let cold = serde_json::json!({
        "phase": "cold", "generation": 0, "expires_in": null, "scope": null,
        "rejected": false, "last_error": null, "consecutive_failures": 0,
        "next_attempt_in": null, "token_requests": 0,
    });
    assert_eq!(json(), cold);
    cache.token().await.unwrap();
    clock.advance(ms(3_300_500));
    provider.push(Step::Fail(ErrorKind::InvalidClient));
    assert!(cache.try_token().is_some());
    settle().await;
    let failed = serde_json::json!({
        "phase": "refresh_due", "generation": 1, "expires_in": 299.5, "scope": null,
        "rejected": false, "last_error": "invalid_client", "consecutive_failures": 1,
        "next_attempt_in": 60.0, "token_requests": 2,
    });
    assert_eq!(json(), failed);
}

#[tokio::test]
async fn a_subscriber_sees_each_event() {
    let provider = ScriptedProvider::new().latency(s(1));
    let (cache, clock) = stepped(&provider);
    let mut status = cache.subscribe();
    assert_eq!(status.borrow_and_update().phase, Phase::Cold);
    let mut caller = Box::pin(cache.token());
    assert!(poll(caller.as_mut()).is_pending());
    assert!(status.has_changed().unwrap(), "a fetch began");
    status.mark_unchanged();
    settle().await;
    assert!(!status.has_changed().unwrap());
    clock.advance(s(1));
    let token = caller.await.unwrap();
    assert_eq!(status.borrow_and_update().phase, Phase::Fresh);
    cache.reject(&token);
    assert!(status.borrow_and_update().rejected);
    settle().await;
    clock.advance(s(1));
    settle().await;
    let replaced = status.borrow_and_update().clone();
    assert_eq!((replaced.generation, replaced.rejected), (2, false));
    drop(cache);
    settle().await;
    assert!(
        status.changed().await.is_err(),
        "closed with the last handle"
    );
}
