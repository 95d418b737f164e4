//! The times that the window names, and the requests and places that it keeps
//! for them.

use super::*;

#[test]
fn each_request_has_an_id_of_its_own() {
    let mut scene = Scene::new(5);
    let ids: Vec<_> = (0..5).map(|id| scene.ask(caller(id)).unwrap()).collect();
    assert!(ids.windows(2).all(|pair| pair[0] != pair[1]), "{ids:?}");
}

#[test]
fn those_in_line_are_told_one_turn_after_the_other() {
    let mut scene = Scene::new(1);
    scene.spend(caller(0));
    // A turn is a window, its margin of 1 s, and most of the second that a
    // request is taken to last.
    let turns: Vec<u64> = (1..40).map(|id| scene.ask_and_go(caller(id))).collect();
    // And once more, from wherever in the line.
    let again: Vec<u64> = (1..40).map(|id| scene.ask_and_go(caller(id))).collect();
    for (turn, at) in (0..39).chain(0..39).zip(turns.into_iter().chain(again)) {
        let turns = 60 + turn * 61..=60 + turn * 62;
        assert!(turns.contains(&at), "{turn} {at}");
    }
}

#[test]
fn a_turn_is_told_for_after_the_turns_that_were_told_before() {
    let mut scene = Scene::new(1);
    let out = scene.ask(caller(1)).unwrap();
    // The request that is out may be answered now, and counts for a minute then.
    assert_eq!(scene.at(50).ask_and_go(caller(2)), 110);
    // It was not sent after all. Cache 2 comes at 110 all the same.
    scene.window.not_sent(out);
    assert_eq!(scene.ask(caller(3)), Err(110 + 62));
}

#[test]
fn failing_caches_are_told_one_turn_a_window() {
    let mut scene = Scene::new(5);
    scene.spend(failing(1));
    for id in 10..14 {
        scene.spend(caller(id));
    }
    let turns = [2, 3, 4].map(|id| scene.ask_and_go(failing(id)));
    assert_eq!(turns[0], 60);
    assert!((121..=122).contains(&turns[1]), "{turns:?}");
    assert!((182..=184).contains(&turns[2]), "{turns:?}");
}

#[test]
fn caches_that_come_late_lengthen_the_turns() {
    let mut scene = Scene::new(1);
    scene.spend(caller(1));
    assert_eq!(scene.ask_and_go(caller(2)), 60);
    scene.at(100).spend(caller(2));
    assert_eq!(scene.ask_and_go(caller(3)), 160);
    // An eighth of the 40 s that it was late.
    assert_eq!(scene.ask(caller(4)), Err(160 + 67));
}

#[test]
fn a_place_is_kept_for_ten_windows_and_no_longer() {
    for (seconds, kept) in [(599, true), (600, false)] {
        let mut scene = Scene::new(1);
        scene.spend(caller(1));
        scene.ask(caller(2)).unwrap_err();
        // It stops waiting without a promise.
        scene.window.leave(2, scene.now);
        scene.at(seconds).spend(caller(3));
        let behind = scene.ask(caller(4)).unwrap_err();
        assert_eq!(behind > seconds + 60, kept, "{seconds} {behind}");
    }
}

#[test]
fn a_place_with_a_promise_is_kept_for_ten_windows_after_that() {
    let mut scene = Scene::new(1);
    scene.spend(caller(1));
    assert_eq!(scene.ask_and_go(caller(2)), 60);
    // A look at the places while it is kept.
    scene.at(600).spend(caller(3));
    assert!(scene.ask(caller(4)).unwrap_err() > 660);
    assert_eq!(scene.ask(caller(2)), Err(660));
}

#[test]
fn a_place_of_another_clocks_day_stands_before_nobody() {
    const DAY: u64 = 24 * 60 * 60;
    let mut scene = Scene::new(1);
    scene.at(DAY).spend(caller(1));
    scene.ask_and_go(caller(2));
    scene.at(0).spend(caller(3));
    assert_eq!(scene.ask(caller(4)), Err(60));
}

#[test]
fn a_cache_that_left_the_line_stands_in_nobodys_way() {
    let mut scene = Scene::new(1);
    scene.spend(caller(1));
    scene.ask(caller(2)).unwrap_err();
    scene.window.leave(2, scene.now);
    assert!(scene.at(60).ask(caller(3)).is_ok());
}

#[test]
fn a_free_request_is_held_for_a_promise_beside_those_that_wait() {
    let mut scene = Scene::new(2);
    scene.spend(caller(1));
    scene.spend(caller(2));
    assert_eq!(scene.ask_and_go(caller(3)), 60);
    scene.ask(caller(4)).unwrap_err();
    // One of the two for the cache that waits, one for the one that comes.
    scene.at(60).ask(caller(5)).unwrap_err();
    scene.spend(caller(4));
    scene.spend(caller(3));
}

#[test]
fn a_failing_cache_has_no_second_request_while_a_healthy_one_waits_or_comes() {
    for comes in [false, true] {
        let mut scene = Scene::new(5);
        scene.ask(failing(1)).unwrap();
        for id in 10..14 {
            scene.spend(caller(id));
        }
        match comes {
            true => assert_eq!(scene.ask_and_go(caller(20)), 60),
            false => assert_eq!(scene.ask(caller(20)), Err(60)),
        }
        // Four are free, and the failing one's request is still out.
        assert!(scene.at(60).ask(failing(2)).is_err(), "{comes}");
        scene.spend(caller(20));
        assert!(scene.ask(failing(2)).is_ok(), "{comes}");
    }
}

#[test]
fn a_failing_cache_is_told_to_come_when_one_request_more_is_free() {
    let mut scene = Scene::new(2);
    scene.spend(caller(1));
    scene.at(30).spend(caller(2));
    assert_eq!(scene.ask_and_go(failing(3)), 90);
    assert!(scene.at(60).ask(failing(3)).is_err());
    assert!(scene.at(90).ask(failing(3)).is_ok());
}
