//! The rules of the window, and what holds after any events.
#![expect(clippy::disallowed_methods, reason = "any starting point will do")]

mod estimates;
mod properties;

use super::super::line::MAX_PLACES;
use super::*;

const MINUTE: Duration = Duration::from_secs(60);

/// A window and its caches on a clock that is set by hand.
struct Scene {
    window: Window,
    start: Instant,
    now: Instant,
}

#[derive(Clone, Copy)]
struct Cache {
    id: u64,
    client: u64,
    standing: Standing,
    urgency: Urgency,
}

const fn caller(id: u64) -> Cache {
    Cache {
        id,
        client: id,
        standing: Standing {
            failing: false,
            expires_at: None,
        },
        urgency: Urgency::Waiting,
    }
}

fn failing(id: u64) -> Cache {
    let mut cache = caller(id);
    cache.standing.failing = true;
    cache
}

impl Scene {
    fn new(requests: u32) -> Self {
        let start = Instant::now();
        Self {
            window: Window::new(Some((requests, MINUTE))),
            start,
            now: start,
        }
    }

    fn at(&mut self, seconds: u64) -> &mut Self {
        self.now = self.start + Duration::from_secs(seconds);
        self
    }

    fn refresh(&self, id: u64, expires_in: u64) -> Cache {
        let mut cache = caller(id);
        cache.urgency = Urgency::Background;
        cache.standing.expires_at = Some(self.start + Duration::from_secs(expires_in));
        cache
    }

    /// The request's id, or after how many seconds from the start to retry.
    fn ask(&mut self, cache: Cache) -> Result<u64, u64> {
        let client = client(cache.client);
        let wish = Wish {
            applicant: cache.id,
            client: &client,
            standing: cache.standing,
            urgency: cache.urgency,
        };
        match self.window.try_acquire(&wish, self.now) {
            Decision::Granted(id) => Ok(id),
            Decision::RetryAt(at) => {
                assert!(at > self.now, "an answer that costs no time");
                Err((at - self.start).as_secs_f64().round() as u64)
            }
        }
    }

    /// Asks, and goes away with the promise that it got.
    fn ask_and_go(&mut self, cache: Cache) -> u64 {
        let at = self.ask(cache).unwrap_err();
        let promise = self.start + Duration::from_secs(at);
        self.window.refuse(cache.id, promise, self.now);
        at
    }

    /// Sends a request that is answered at once.
    fn spend(&mut self, cache: Cache) {
        let id = self.ask(cache).unwrap();
        self.window.answered(id, self.now);
    }

    fn close(&mut self, cache: Cache, until: u64) {
        let until = self.start + Duration::from_secs(until);
        self.window.close(&client(cache.client), until, self.now);
    }
}

fn client(id: u64) -> Client {
    Client::Named {
        endpoint: "e".into(),
        id: id.to_string().into(),
    }
}

#[test]
fn five_a_window_and_then_the_first_that_is_free() {
    let mut scene = Scene::new(5);
    for second in 0..5 {
        scene.at(second).spend(caller(second));
    }
    assert_eq!(scene.at(5).ask(caller(9)), Err(60));
    assert!(scene.at(60).ask(caller(9)).is_ok());
    assert_eq!(scene.at(60).ask(caller(10)), Err(61));
}

#[test]
fn callers_go_first_then_the_earliest_expiry_and_failing_caches_last() {
    let mut scene = Scene::new(2);
    scene.spend(caller(1));
    let kept = scene.ask(caller(2)).unwrap();
    let (early, late) = (scene.refresh(3, 100), scene.refresh(4, 200));
    // In the order of their coming, which is the wrong one.
    for cache in [failing(5), late, early, caller(6), caller(7)] {
        assert!(scene.ask(cache).is_err());
    }
    scene.window.not_sent(kept);
    scene.at(60);
    // Two are free: for the two callers.
    for cache in [failing(5), late, early] {
        assert!(scene.ask(cache).is_err());
    }
    scene.spend(caller(7));
    assert!(scene.ask(early).is_err());
    scene.spend(caller(6));
    scene.at(120);
    assert!(scene.ask(failing(5)).is_err());
    scene.spend(early);
    scene.spend(late);
    // The last one stays free.
    assert!(scene.at(180).ask(failing(5)).is_ok());
    assert!(scene.ask(failing(8)).is_err());
    assert!(scene.ask(caller(9)).is_ok());
}

#[test]
fn a_promoted_refresh_passes_the_other_refreshes() {
    let mut scene = Scene::new(1);
    let out = scene.ask(caller(1)).unwrap();
    let (first, mut second) = (scene.refresh(2, 100), scene.refresh(3, 200));
    assert!(scene.ask(first).is_err() && scene.ask(second).is_err());
    second.urgency = Urgency::Waiting;
    assert!(scene.ask(second).is_err());
    scene.window.not_sent(out);
    assert!(scene.ask(first).is_err());
    assert!(scene.ask(second).is_ok());
}

#[test]
fn a_cache_that_was_sent_away_keeps_its_place() {
    let mut scene = Scene::new(1);
    scene.spend(caller(1));
    assert_eq!(scene.at(10).ask_and_go(caller(2)), 60);
    // The promise is kept for a little while, and the place much longer.
    assert_eq!(scene.at(61).ask_and_go(caller(3)), 61 + 62);
    assert_eq!(scene.at(62).ask(caller(2)).map(|_| ()), Ok(()));
}

#[test]
fn a_free_request_goes_to_a_new_cache_if_no_promise_is_broken() {
    let mut scene = Scene::new(2);
    scene.spend(caller(1));
    scene.at(30).spend(caller(2));
    assert_eq!(scene.at(31).ask_and_go(caller(3)), 60);
    assert_eq!(scene.at(31).ask_and_go(caller(4)), 90);
    // Cache 3 is late. Its request is held for five seconds.
    assert!(scene.at(64).ask(caller(5)).is_err());
    scene.window.dequeue(5);
    // Then a new cache may have it: the promise at 90 is not touched.
    assert!(scene.at(66).ask(caller(6)).is_ok());
    // And cache 3 is first when it comes.
    assert!(scene.at(91).ask(caller(3)).is_ok());
}

#[test]
fn failing_caches_have_one_request_while_others_wait_and_leave_one_free() {
    let mut scene = Scene::new(5);
    // Alone: all but one.
    for id in 0..4 {
        scene.spend(failing(id));
    }
    assert!(scene.ask(failing(4)).is_err());
    for id in 10..11 {
        scene.spend(caller(id));
    }
    // While healthy ones wait, a failing one may have a request, and no second.
    assert_eq!(scene.at(1).ask_and_go(caller(11)), 60);
    assert!(scene.at(59).ask(caller(12)).is_err());
    assert!(scene.at(60).ask(failing(4)).is_ok());
    assert!(scene.ask(failing(5)).is_err());
    scene.spend(caller(11));
    scene.spend(caller(12));
    // Two are free, and no other cache waits.
    assert!(scene.ask(failing(5)).is_ok());
    assert!(scene.ask(failing(6)).is_err());
}

#[test]
fn a_single_request_a_window_is_enough_for_a_failing_cache() {
    let mut scene = Scene::new(1);
    scene.spend(failing(1));
    assert_eq!(scene.at(1).ask(failing(1)), Err(60));
    assert!(scene.at(60).ask(failing(1)).is_ok());
}

#[test]
fn an_allowance_of_zero_grants_nothing_and_says_when_to_ask_again() {
    assert_eq!(Scene::new(0).ask(caller(1)), Err(62));
}

#[test]
fn a_closed_window_is_closed_to_its_client_only() {
    let mut scene = Scene::new(5);
    let (refused, other) = (caller(1), caller(2));
    let mut sibling = caller(3);
    sibling.client = refused.client;
    scene.spend(refused);
    scene.close(refused, 600);
    assert_eq!(scene.ask(refused), Err(600));
    assert_eq!(scene.ask(sibling), Err(600));
    // They wait before it, and do not stand in its way.
    scene.spend(other);
    scene.close(other, 300);
    assert_eq!(scene.ask(caller(4)), Err(300));
    assert!(scene.at(300).ask(caller(4)).is_ok());
    assert_eq!(scene.ask(sibling), Err(600));
}

#[test]
fn another_clocks_day_leaves_nothing_behind() {
    const DAY: u64 = 24 * 60 * 60;
    let mut scene = Scene::new(2);
    scene.at(DAY).spend(caller(1));
    scene.spend(caller(2));
    scene.close(caller(1), DAY + 600);
    scene.close(caller(2), DAY + 600);
    scene.ask_and_go(caller(3));
    scene.at(0).spend(caller(4));
    scene.spend(caller(1));
    assert_eq!(scene.ask(caller(5)), Err(60));
}

#[test]
fn a_full_line_refuses_without_a_place_and_says_when_it_ends() {
    let mut scene = Scene::new(5);
    for id in 0..5 {
        scene.spend(caller(id));
    }
    let places = u64::try_from(MAX_PLACES).unwrap();
    for id in 10..10 + places {
        scene.ask_and_go(caller(id));
    }
    let rounds = places / 5;
    let end = scene.ask(caller(1)).unwrap_err();
    assert!((60 + rounds * 61..60 + rounds * 62).contains(&end), "{end}");
    // It has no place; one that leaves makes room.
    scene.window.dequeue(10);
    assert!(scene.ask(caller(2)).is_err());
    assert_eq!(scene.window.next_in_line().collect::<Vec<_>>(), [2]);
}
