//! When a backoff ends, and for whom.

use super::*;

impl World {
    /// How long until something is due in the background.
    fn due_in(&self) -> Duration {
        self.machine.next_check_at(self.now) - self.now.monotonic
    }
}

#[test]
fn a_refresh_that_the_window_refused_is_tried_again_when_requests_begin_to_wait() {
    let mut world = World::new();
    world.aged(s(2700));
    world.check();
    world.refuse(s(3000));
    assert_eq!(world.due_in(), s(890));
    world.pass(s(890));
    // From there a request may start it; the timer waits for its turn.
    assert_eq!(world.due_in(), s(2110));
}

#[test]
fn a_refresh_that_failed_waits_out_its_backoff_though_requests_begin_to_wait() {
    let mut world = World::new();
    world.aged(s(3580));
    world.check();
    let error = Error::new(ErrorKind::Transport, "down");
    world.complete(Err(error.with_retry_after(s(15))));
    assert_eq!(world.due_in(), s(15));
    world.pass(s(12));
    assert_eq!(world.due_in(), s(3));
}

#[test]
fn other_credentials_end_no_backoff_but_that_of_refused_ones() {
    for (kind, ends) in [
        (ErrorKind::InvalidClient, true),
        (ErrorKind::Denied, false),
        (ErrorKind::RateLimited, false),
    ] {
        let mut world = World::new();
        world.fetch();
        world.fail(kind);
        world.machine.fetch.credentials_changed(world.now);
        assert_eq!(world.check().is_some(), ends, "{kind:?}");
    }
}

#[test]
fn a_failure_is_the_answer_to_those_who_waited_for_its_fetch_and_to_no_others() {
    let mut world = World::new();
    let mut early = world.caller();
    world.acquire(&mut early);
    // The runtime of the first fetch is gone.
    world.pass(s(1));
    world.check();
    world.pass(s(1));
    let mut late = world.caller();
    let decision = world.acquire(&mut late);
    assert_eq!(described(&decision, world.now), "wait 1 s, start cold");
    world.fail(ErrorKind::Denied);
    // Both ask when the backoff is over.
    world.pass(s(60));
    early.deadline += s(90);
    let decision = world.acquire(&mut late);
    assert_eq!(
        described(&decision, world.now),
        "failed denied, retry after 0 s"
    );
    let decision = world.acquire(&mut early);
    assert_eq!(described(&decision, world.now), "wait 1 s, start cold");
}
