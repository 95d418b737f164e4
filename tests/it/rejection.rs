//! A 401 rejects the token that its own request carried, and costs little.

use std::pin::pin;

use officernd_auth::provider::Cause;
use officernd_auth::testing::{ScriptedProvider, Step};
use officernd_auth::{AccessToken, ErrorKind, Phase, TokenCache};

use crate::support::{at_once, header, ms, now, poll, s, served, settle, stepped};

/// Rejects the token in use; the replacement may come at once.
async fn reject_current(cache: &TokenCache) {
    assert!(cache.reject(&cache.token().await.unwrap()));
    settle().await;
}

#[tokio::test]
async fn requests_go_on_with_the_rejected_token_until_its_replacement_lands() {
    let provider = ScriptedProvider::new();
    let (cache, clock) = stepped(&provider);
    let token = cache.token().await.unwrap();
    provider.set_latency(s(5));
    assert!(cache.reject(&token));
    for _ in 0..100 {
        assert_eq!(now(&cache).as_deref(), Some("Bearer scripted-1"));
        let result = at_once(cache.token()).expect("no caller waits");
        assert_eq!(served(&result), "Bearer scripted-1");
        settle().await;
    }
    assert_eq!(cache.status().phase, Phase::Refreshing);
    clock.advance(s(5));
    settle().await;
    assert_eq!(now(&cache).as_deref(), Some("Bearer scripted-2"));
    assert_eq!(provider.causes(), [Cause::Cold, Cause::Rejected]);
}

#[tokio::test]
async fn only_the_first_rejection_of_the_token_in_use_is_news() {
    let provider = ScriptedProvider::new();
    let (cache, _clock) = stepped(&provider);
    let strange = AccessToken::bearer("strange", s(60)).unwrap();
    assert!(!cache.reject(&strange), "the cache is cold");
    let first = cache.token().await.unwrap();
    assert!(!cache.reject(&strange), "no token of this cache");
    assert!(cache.reject(&first));
    assert!(!cache.reject(&first), "known already");
    assert!(!cache.reject(&first.clone()));
    settle().await;
    assert!(!cache.reject(&first), "replaced already");
    assert!(cache.reject(&cache.token().await.unwrap()));
}

#[tokio::test]
async fn a_401_to_another_caches_token_of_the_same_generation_rejects_nothing() {
    let provider = ScriptedProvider::new();
    let ((cache, _clock), (other, _other_clock)) = (stepped(&provider), stepped(&provider));
    let own = cache.token().await.unwrap();
    let theirs = other.token().await.unwrap();
    assert_eq!(own.generation(), theirs.generation());
    assert!(!cache.reject(&theirs));
    assert!(!cache.status().rejected);
    settle().await;
    assert_eq!(now(&cache).as_deref(), Some("Bearer scripted-1"));
    assert_eq!(provider.calls(), 2);
    assert!(other.reject(&theirs));
}

#[tokio::test]
async fn a_401_while_the_next_token_is_under_way_starts_no_other_fetch() {
    let provider = ScriptedProvider::new();
    let (cache, clock) = stepped(&provider);
    let first = cache.token().await.unwrap();
    provider.set_latency(s(2));
    clock.advance(s(3300));
    assert!(cache.try_token().is_some());
    settle().await;
    assert!(cache.reject(&first));
    settle().await;
    clock.advance(s(2));
    settle().await;
    assert_eq!(now(&cache).as_deref(), Some("Bearer scripted-2"));
    clock.advance(s(60));
    assert!(cache.try_token().is_some());
    settle().await;
    assert_eq!(provider.causes(), [Cause::Cold, Cause::Ahead]);
    assert!(!cache.status().rejected);
}

#[tokio::test]
async fn replacements_that_are_rejected_too_are_replaced_ever_later() {
    let provider = ScriptedProvider::new().life(s(24 * 3600));
    let (cache, clock) = stepped(&provider);
    reject_current(&cache).await;
    assert_eq!(provider.calls(), 2, "the first is replaced at once");
    for (more, minutes) in [1, 2, 4, 8, 10, 10, 10].into_iter().enumerate() {
        reject_current(&cache).await;
        assert_eq!(cache.status().next_attempt_in, Some(s(60 * minutes)));
        clock.advance(s(60 * minutes) - ms(1));
        assert!(cache.try_token().is_some());
        settle().await;
        assert_eq!(provider.calls(), more + 2, "{minutes} min are not over");
        clock.advance(ms(1));
        assert!(cache.try_token().is_some(), "a request brings it about");
        settle().await;
        assert_eq!(provider.calls(), more + 3, "{minutes} min are over");
    }
}

#[tokio::test]
async fn a_token_used_for_290_s_or_until_its_refresh_without_a_401_ends_the_damping_also_if_replaced()
 {
    // The refresh of a token for 400 s is due at its half.
    for (life, used, damped) in [
        (s(3600), s(289), Some(s(60))),
        (s(3600), s(290), None),
        (s(400), s(139), Some(s(60))),
        (s(400), s(200), None),
    ] {
        for replaced in [false, true] {
            let provider = ScriptedProvider::new().life(life);
            let (cache, clock) = stepped(&provider);
            reject_current(&cache).await;
            clock.advance(used);
            if replaced {
                assert!(cache.refresh().await.is_ok());
            }
            reject_current(&cache).await;
            assert_eq!(
                cache.status().next_attempt_in,
                damped,
                "{used:?} of {life:?}"
            );
        }
    }
}

#[tokio::test]
async fn a_token_fetched_during_the_damping_is_refreshed_in_its_own_time() {
    let provider = ScriptedProvider::new();
    let (cache, clock) = stepped(&provider);
    for hold in [0, 60, 120, 240] {
        reject_current(&cache).await;
        clock.advance(s(hold));
        assert!(cache.try_token().is_some());
        settle().await;
    }
    reject_current(&cache).await;
    assert_eq!(cache.status().next_attempt_in, Some(s(480)));
    provider.push(Step::Token("short".into(), s(60)));
    assert_eq!(served(&cache.refresh().await), "Bearer short");
    let calls = provider.calls();
    clock.advance(s(30));
    assert_eq!(now(&cache).as_deref(), Some("Bearer short"));
    settle().await;
    assert_eq!(provider.calls(), calls + 1);
}

#[tokio::test]
async fn a_replacement_or_refresh_that_fails_leaves_the_old_token_in_use_and_is_tried_again_after_its_hold()
 {
    for cause in [Cause::Rejected, Cause::Ahead] {
        let provider = ScriptedProvider::new();
        let (cache, clock) = stepped(&provider);
        let first = cache.token().await.unwrap();
        provider.push(Step::Fail(ErrorKind::InvalidClient));
        match cause {
            Cause::Rejected => assert!(cache.reject(&first)),
            _ => clock.advance(s(3300)),
        }
        for _ in 0..60 {
            assert_eq!(served(&cache.token().await), "Bearer scripted-1");
            settle().await;
            assert_eq!(provider.calls(), 2);
            assert_eq!(cache.status().phase, Phase::RefreshDue);
            clock.advance(s(1));
        }
        assert!(cache.try_token().is_some());
        settle().await;
        assert_eq!(now(&cache).as_deref(), Some("Bearer scripted-3"));
        assert_eq!(provider.causes()[1..], [cause, cause]);
    }
}

#[tokio::test]
async fn the_same_token_as_a_replacement_is_damped_like_any_other() {
    let provider = ScriptedProvider::new();
    for _ in 0..100 {
        provider.push(Step::Token("same".into(), s(3600)));
    }
    let (cache, clock) = stepped(&provider);
    for _ in 0..600 {
        let token = cache.token().await.unwrap();
        assert_eq!(header(&token), "Bearer same");
        cache.reject(&token);
        settle().await;
        clock.advance(s(1));
    }
    // At 0, 0, 1, 3 and 7 minutes.
    assert_eq!(provider.calls(), 5);
}

#[tokio::test]
async fn a_rejected_token_that_dies_is_fetched_anew_whatever_the_damping() {
    let provider = ScriptedProvider::new().life(s(30));
    let (cache, clock) = stepped(&provider);
    reject_current(&cache).await;
    reject_current(&cache).await;
    assert_eq!(provider.calls(), 2, "held for 60 s");
    clock.advance(s(30));
    assert_eq!(served(&cache.token().await), "Bearer scripted-3");
}

#[tokio::test]
async fn a_rejection_does_not_make_a_dead_token_serve() {
    let provider = ScriptedProvider::new().then(Step::Token("t".into(), s(600)));
    let (cache, clock) = stepped(&provider);
    let token = cache.token().await.unwrap();
    clock.advance(s(600));
    provider.set_latency(s(1));
    cache.reject(&token);
    assert_eq!(now(&cache), None);
    let mut caller = pin!(cache.token());
    assert!(poll(caller.as_mut()).is_pending());
    settle().await;
    clock.advance(s(1));
    assert_eq!(served(&caller.await), "Bearer scripted-2");
    assert_eq!(provider.calls(), 2);
}
