//! Waits that end early, and caches that go away.

use super::*;
use crate::clock::TokioClock;

const MINUTE: Duration = Duration::from_secs(60);
const NO_TIME: Duration = Duration::ZERO;

/// A permit for this cache within so much time.
async fn acquire(applicant: &Applicant, patience: Duration) -> Result<Permit, Error> {
    let clock: Arc<dyn Clock> = Arc::new(TokioClock);
    let (_urgency, urgency) = watch::channel(Urgency::Waiting);
    let deadline = clock.now() + patience;
    let standing = Standing::default();
    applicant.acquire(standing, urgency, deadline, &clock).await
}

/// One request a minute, of which one is out, and two more caches.
async fn one_a_minute() -> (Permit, [Applicant; 2]) {
    let allowance = Allowance::new(1, MINUTE);
    let permit = acquire(&allowance.applicant(), NO_TIME).await.unwrap();
    (permit, [allowance.applicant(), allowance.applicant()])
}

#[tokio::test(start_paused = true)]
async fn a_request_that_was_not_sent_goes_to_the_cache_that_waits_at_once() {
    let (permit, [waits, _]) = one_a_minute().await;
    let start = TokioClock.now();
    let (granted, ()) = tokio::join!(acquire(&waits, 3 * MINUTE), async { drop(permit) });
    drop(granted.unwrap());
    assert_eq!(TokioClock.now() - start, NO_TIME);
}

#[tokio::test(start_paused = true)]
async fn a_quick_answer_lets_the_cache_that_waits_go_earlier() {
    let (permit, [waits, _]) = one_a_minute().await;
    let start = TokioClock.now();
    let answered = async { drop(permit.sent()) };
    let (granted, ()) = tokio::join!(acquire(&waits, 3 * MINUTE), answered);
    drop(granted.unwrap());
    // Not a second later, which is what a request is taken to last.
    assert!(TokioClock.now() - start < MINUTE + MINUTE / 120);
}

#[tokio::test(start_paused = true)]
async fn a_cache_that_is_gone_leaves_its_place_to_the_next() {
    let (permit, [gone, next]) = one_a_minute().await;
    drop(permit.sent());
    for applicant in [gone, next] {
        let error = acquire(&applicant, NO_TIME).await.unwrap_err();
        assert_eq!(error.retry_after(), Some(MINUTE));
    }
}

#[tokio::test(start_paused = true)]
async fn a_wait_that_is_given_up_stands_in_nobodys_way() {
    let (permit, [leaves, next]) = one_a_minute().await;
    drop(permit.sent());
    let waits = acquire(&leaves, 3 * MINUTE);
    tokio::time::timeout(MINUTE / 2, waits).await.unwrap_err();
    assert!(leaves.allowance.shared.lock().waiting.is_empty());
    tokio::time::sleep(MINUTE / 2).await;
    drop(acquire(&next, NO_TIME).await.unwrap());
}
