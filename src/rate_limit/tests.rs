//! The rules of the window and the queue.
#![expect(clippy::disallowed_methods, reason = "any starting point will do")]

use proptest::prelude::*;

use super::*;
use crate::clock::TokioClock;

const MINUTE: Duration = Duration::from_secs(60);
const TIMEOUT: Duration = Duration::from_secs(10);
const PATIENCE: Duration = Duration::from_secs(30);

/// A window on a clock that is set by hand.
struct Scene {
    state: State,
    start: Instant,
    now: Instant,
}

impl Scene {
    fn new(requests: u32) -> Self {
        let start = Instant::now();
        Self {
            state: State {
                limit: Some((requests, MINUTE)),
                ..State::default()
            },
            start,
            now: start,
        }
    }

    fn at(&mut self, seconds: u64) -> &mut Self {
        self.now = self.start + Duration::from_secs(seconds);
        self
    }

    /// Takes a permit, or returns the second of its turn.
    fn ask(&mut self, number: u64, class: Class) -> Result<(), u64> {
        let deadline = self.now + PATIENCE;
        match self.state.turn(number, class, deadline, TIMEOUT, self.now) {
            None => {
                self.state.take(number, true, TIMEOUT, self.now);
                Ok(())
            }
            Some(at) => {
                assert!(at >= self.now + SOON);
                Err((at - self.start).as_secs_f64().round() as u64)
            }
        }
    }

    /// Sends a request that is answered at once.
    fn spend(&mut self, number: u64, class: Class) {
        self.ask(number, class).unwrap();
        self.state.end(number, true, self.now);
    }

    /// Returns the fetches of the queue that get a permit.
    fn granted(&mut self, queue: &[(u64, Class)]) -> Vec<u64> {
        let mut granted = Vec::new();
        for &(number, class) in queue {
            granted.extend(self.ask(number, class).map(|()| number));
        }
        granted
    }
}

#[test]
fn five_requests_per_window_then_the_next_free_permit() {
    let mut scene = Scene::new(5);
    for second in 1..=5 {
        scene.at(second).spend(second, Class::Waiting);
    }
    // Turns are a window apart for each round of five.
    for (number, turn) in [(6, 61), (7, 62), (8, 63), (9, 64), (10, 65), (11, 121)] {
        assert_eq!(scene.at(6).ask(number, Class::Waiting), Err(turn));
    }
    // All waiting fetches are past their deadlines, so they have left the queue.
    assert_eq!(scene.at(61).ask(12, Class::Waiting), Ok(()));
    assert_eq!(scene.ask(13, Class::Waiting), Err(62));
}

#[test]
fn classes_are_granted_in_order_and_fetches_of_a_class_by_arrival() {
    let mut scene = Scene::new(1);
    scene.ask(1, Class::Waiting).unwrap();
    let mut queue = vec![
        (2, Class::Failing),
        (3, Class::Rejected),
        (4, Class::Background),
        (5, Class::Background),
        (6, Class::Waiting),
    ];
    assert_eq!(scene.granted(&queue), [0u64; 0]);
    // A request begins to wait for the second refresh, which is older than the waiting fetch.
    queue[3].1 = Class::Waiting;
    assert_eq!(scene.granted(&queue), [0u64; 0]);
    let mut out = 1;
    for next in [5, 6, 4, 3, 2] {
        scene.state.end(out, false, scene.now);
        assert_eq!(scene.granted(&queue), [next]);
        queue.retain(|(number, _)| *number != next);
        out = next;
    }
}

#[test]
fn failing_caches_leave_two_permits_free_and_use_an_idle_window() {
    for (requests, allowed) in [(1, 1), (2, 1), (3, 1), (5, 3)] {
        let mut scene = Scene::new(requests);
        for number in 0..allowed {
            scene.spend(number, Class::Failing);
        }
        assert_eq!(scene.at(1).ask(10, Class::Failing), Err(60), "{requests}");
        // The other classes get the rest.
        for number in allowed..u64::from(requests) {
            scene.spend(20 + number, Class::Rejected);
        }
    }
}

#[test]
fn a_limit_of_zero_grants_nothing() {
    let mut scene = Scene::new(0);
    for class in [Class::Waiting, Class::Failing] {
        assert_eq!(scene.ask(1, class), Err(60));
    }
}

#[test]
fn a_429_closes_the_window_for_one_window_at_most() {
    let seconds = |seconds| Some(Duration::from_secs(seconds));
    for (retry_after, closed) in [(None, 60), (seconds(600), 60), (seconds(7), 7)] {
        for limit in [Some((5, MINUTE)), None] {
            let mut scene = Scene::new(5);
            scene.state.limit = limit;
            scene.state.refused(retry_after, scene.now);
            // A shorter `Retry-After` does not open it earlier.
            scene.state.refused(seconds(1), scene.now);
            assert_eq!(scene.at(closed - 1).ask(1, Class::Waiting), Err(closed));
            assert_eq!(scene.at(closed).ask(1, Class::Waiting), Ok(()));
        }
    }
}

#[test]
fn while_a_permit_is_only_reserved_the_turn_of_others_is_soon() {
    let mut scene = Scene::new(2);
    scene.spend(1, Class::Waiting);
    let (now, state) = (scene.now, &mut scene.state);
    let mut turn = |number| state.turn(number, Class::Waiting, now + PATIENCE, TIMEOUT, now);
    assert_eq!(turn(2), None);
    assert_eq!(turn(3), Some(now + SOON));
    scene.state.take(2, true, TIMEOUT, now);
    assert_eq!(scene.at(1).ask(3, Class::Waiting), Err(60));
}

#[test]
fn permits_of_a_parked_runtime_are_forgotten() {
    let mut scene = Scene::new(1);
    scene.ask(1, Class::Waiting).unwrap();
    scene.at(39).ask(2, Class::Waiting).unwrap_err();
    // The permits expire after the fetch timeout of 10 s and one window.
    assert_eq!(scene.at(69).ask(3, Class::Waiting), Err(189));
    // The second one's deadline was at 69 s.
    assert_eq!(scene.at(70).ask(3, Class::Waiting), Ok(()));
    // The late response to the first request no longer counts.
    scene.state.end(1, true, scene.now);
    scene.state.end(3, false, scene.now);
    assert_eq!(scene.ask(4, Class::Waiting), Ok(()));
}

proptest! {
    #[test]
    fn no_server_counts_more_than_five_requests_in_any_minute(
        events in prop::collection::vec((0..10u8, 0..12u64, 0..4u8, 0..20_000u64), 0..300),
    ) {
        let mut scene = Scene::new(5);
        // Permits with their numbers and times, and when the server sees each request.
        let (mut out, mut seen): (Vec<(u64, Instant)>, Vec<Instant>) = (Vec::new(), Vec::new());
        for (event, number, class, millis) in events {
            let class = [Class::Waiting, Class::Background, Class::Rejected, Class::Failing]
                [usize::from(class)];
            let at = usize::try_from(number).unwrap();
            match event {
                0..5 if out.iter().all(|(other, _)| *other != number) => {
                    out.extend(scene.ask(number, class).map(|()| (number, scene.now)));
                }
                5 | 6 if at < out.len() => {
                    let (number, granted) = out.remove(at);
                    let part = f64::from(u32::try_from(millis).unwrap()) / 20_000.0;
                    seen.push(granted + (scene.now - granted).mul_f64(part));
                    scene.state.end(number, true, scene.now);
                }
                7 if at < out.len() => scene.state.end(out.remove(at).0, false, scene.now),
                8 => drop(scene.state.queue.remove(&number)),
                _ => {
                    let until = scene.now + Duration::from_millis(millis);
                    // No request outlives its fetch timeout.
                    while out.first().is_some_and(|(_, granted)| *granted + TIMEOUT <= until) {
                        let (number, granted) = out.remove(0);
                        scene.now = granted + TIMEOUT;
                        seen.push(scene.now);
                        scene.state.end(number, true, scene.now);
                    }
                    scene.now = until;
                }
            }
        }
        seen.sort_unstable();
        for six in seen.windows(6) {
            prop_assert!(six[5] - six[0] >= MINUTE, "{six:?}");
        }
        // When all requests have ended, a permit is available again.
        scene.now += 2 * MINUTE;
        for number in 100..105 {
            prop_assert_eq!(scene.ask(number, Class::Waiting), Ok(()));
        }
    }
}

async fn acquire(limit: &RateLimit, patience: Duration) -> Result<Permit, Error> {
    let clock: Arc<dyn Clock> = Arc::new(TokioClock);
    let (_urgency, urgency) = watch::channel(Urgency::Waiting);
    let deadline = clock.now() + patience;
    limit
        .acquire(None, urgency, deadline, TIMEOUT, &clock)
        .await
}

#[tokio::test(start_paused = true)]
async fn an_unsent_permit_goes_to_the_next_fetch_at_once_and_is_not_counted() {
    let (limit, start) = (RateLimit::new(1, MINUTE), TokioClock.now());
    let first = acquire(&limit, Duration::ZERO).await.unwrap();
    let first = first.sent(|sent| assert!(!sent));
    let (second, ()) = tokio::join!(acquire(&limit, 2 * MINUTE), async { first.unsent() });
    assert_eq!(TokioClock.now() - start, Duration::ZERO);
    drop(second.unwrap().sent(|sent| assert!(sent)));
    let error = acquire(&limit, PATIENCE).await.unwrap_err();
    assert_eq!(error.retry_after(), Some(MINUTE));
    // A turn at the deadline is in time.
    drop(acquire(&limit, MINUTE).await.unwrap());
}

#[tokio::test(start_paused = true)]
async fn a_canceled_wait_leaves_its_turn_to_the_next_fetch() {
    let (limit, start) = (RateLimit::new(1, MINUTE), TokioClock.now());
    let first = acquire(&limit, Duration::ZERO).await.unwrap();
    drop(first.sent(drop));
    let leaves = tokio::time::timeout(PATIENCE, acquire(&limit, 2 * MINUTE));
    let (left, next) = tokio::join!(leaves, acquire(&limit, 2 * MINUTE));
    left.unwrap_err();
    drop(next.unwrap());
    assert_eq!(TokioClock.now() - start, MINUTE);
    assert!(limit.lock().queue.is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_429_fails_a_waiting_fetch_at_once_if_its_turn_comes_too_late() {
    let (limit, start) = (RateLimit::new(1, MINUTE), TokioClock.now());
    let first = acquire(&limit, Duration::ZERO).await.unwrap();
    drop(first.sent(drop));
    let (waits, ()) = tokio::join!(acquire(&limit, MINUTE + TIMEOUT), async {
        tokio::time::sleep(PATIENCE).await;
        limit.refused(None, &TokioClock);
    });
    assert_eq!(waits.unwrap_err().retry_after(), Some(MINUTE));
    assert_eq!(TokioClock.now() - start, PATIENCE);
}

#[tokio::test(start_paused = true)]
async fn an_expired_rejected_token_is_replaced_before_an_earlier_refresh() {
    let limit = RateLimit::new(1, MINUTE);
    let clock: Arc<dyn Clock> = Arc::new(TokioClock);
    let first = acquire(&limit, Duration::ZERO).await.unwrap();
    let (rejected, urgency) = watch::channel(Urgency::Background);
    let deadline = clock.now() + PATIENCE;
    let ends_at = clock.now() + TIMEOUT;
    let class = Some((Class::Rejected, ends_at));
    let replaced = limit.acquire(class, urgency, deadline, TIMEOUT, &clock);
    let (_background, urgency) = watch::channel(Urgency::Background);
    let refreshed = limit.acquire(None, urgency, deadline, TIMEOUT, &clock);
    let order = Mutex::new(Vec::new());
    let served = |name, permit: Result<Permit, Error>| {
        order.lock().unwrap().push(name);
        drop(permit.unwrap());
    };
    tokio::join!(
        async { served("refreshed", refreshed.await) },
        async { served("replaced", replaced.await) },
        async {
            tokio::time::sleep(TIMEOUT).await;
            // Requests begin to wait.
            rejected.send_replace(Urgency::Waiting);
            tokio::time::sleep(SOON).await;
            drop(first);
        }
    );
    assert_eq!(*order.lock().unwrap(), ["replaced", "refreshed"]);
}
