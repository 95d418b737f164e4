//! What ends a backoff or a fetch, for whom, and what is remembered of it.

use super::*;

/// How long until something is due in the background.
fn due_in(world: &World) -> Duration {
    world.machine.next_check_at(world.now) - world.now.monotonic
}

#[test]
fn a_refresh_that_the_window_refused_is_tried_again_when_requests_begin_to_wait() {
    let mut world = World::new();
    world.aged(s(2700));
    world.check();
    world.refuse(s(3000));
    assert_eq!(due_in(&world), s(890));
    world.pass(s(890));
    // From there a request may start it; the timer waits for its turn.
    assert_eq!(due_in(&world), s(2110));
}

#[test]
fn a_refresh_that_failed_waits_out_its_backoff_though_requests_begin_to_wait() {
    let mut world = World::new();
    world.aged(s(3580));
    world.check();
    let error = Error::new(ErrorKind::Transport, "down");
    world.complete(Err(error.with_retry_after(s(15))));
    assert_eq!(due_in(&world), s(15));
    world.pass(s(12));
    assert_eq!(due_in(&world), s(3));
}

#[test]
fn credentials_that_are_refused_without_a_request_are_no_further_failure() {
    let mut world = World::new();
    world.fetch();
    world.fail(ErrorKind::InvalidClient);
    for _ in 0..3 {
        world.pass(s(60));
        let mut caller = world.caller();
        world.acquire(&mut caller);
        let error = Error::new(ErrorKind::InvalidClient, "known").with_retry_after(s(5));
        world.complete(Err(error.not_attempted()));
        let decision = world.acquire(&mut caller);
        let failed = "failed invalid_client, retry after 5 s";
        assert_eq!(described(&decision, world.now), failed);
        assert_eq!(due_in(&world), s(5));
        assert_eq!(world.machine.fetch.failures(), 1);
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

#[test]
fn a_fetch_that_goes_on_after_a_jump_of_the_clock_may_be_overtaken_once_more() {
    let mut world = World::new();
    world.fetch();
    for _ in 0..3 {
        // The clock jumps over the end of the stage.
        world.pass(s(1000));
        assert!(world.check().is_none());
        let until = world.now.monotonic + s(10);
        assert!(world.machine.fetch.advanced(1, until));
    }
    world.pass(s(1000));
    assert!(world.check().is_none());
    // It did not go on within a second.
    world.pass(s(1));
    assert!(world.check().is_some());
}

#[test]
fn only_fetches_in_a_row_without_a_result_delay_the_next() {
    let ends: [fn(&mut World); 2] = [
        |world| world.token(s(60)),
        |world| world.fail(ErrorKind::Transport),
    ];
    for end in ends {
        let mut world = World::new();
        for lost in 1..=3 {
            world.fetch();
            assert!(world.machine.fetch.lost(lost, world.now));
        }
        assert!(world.check().is_none());
        world.fetch();
        end(&mut world);
        world.pass(s(60));
        world.fetch();
        assert!(world.machine.fetch.lost(5, world.now));
        assert!(world.check().is_some());
    }
}

#[test]
fn a_token_that_was_good_for_its_life_ends_the_row_of_rejections() {
    let mut world = World::new();
    world.aged(s(0));
    for generation in 1..=3 {
        world.machine.rejected(generation, false, world.now);
        world.pass(s(3600));
        world.check();
        world.token(s(3600));
    }
    world.pass(s(2700));
    // As a first rejection.
    let due = world.machine.rejected(4, false, world.now);
    assert_eq!(due, Some(world.now.monotonic));
}

#[test]
fn a_caller_for_as_long_as_tokens_live_gets_a_new_one() {
    let mut world = World::new();
    world.aged(s(10));
    let mut caller = world.caller();
    caller.min_life = s(3600);
    let decision = world.acquire(&mut caller);
    assert_eq!(described(&decision, world.now), "wait 1 s, start ahead");
    world.token(s(3600));
    let decision = world.acquire(&mut caller);
    assert_eq!(described(&decision, world.now), "ready 2");
}
