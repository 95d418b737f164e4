//! What holds after any events.

use proptest::prelude::*;

use super::*;

#[derive(Debug, Clone)]
enum Event {
    Ask {
        cache: u64,
        background: bool,
        failing: bool,
        stays: bool,
    },
    Answered(usize),
    NotSent(usize),
    Refused {
        client: u64,
        seconds: u64,
    },
    Gone(u64),
    Wait(u64),
}

fn event() -> impl Strategy<Value = Event> {
    let ask = (0..12u64, any::<bool>(), any::<bool>(), any::<bool>());
    prop_oneof![
        8 => ask.prop_map(|(cache, background, failing, stays)| Event::Ask {
            cache, background, failing, stays,
        }),
        3 => (0..8usize).prop_map(Event::Answered),
        1 => (0..8usize).prop_map(Event::NotSent),
        1 => (0..4u64, 1..120u64).prop_map(|(client, seconds)| Event::Refused { client, seconds }),
        1 => (0..12u64).prop_map(Event::Gone),
        4 => (0..40u64).prop_map(Event::Wait),
    ]
}

proptest! {
    #[test]
    fn no_events_send_too_much_or_answer_without_time(
        requests in 1..5u32,
        events in prop::collection::vec(event(), 0..120),
    ) {
        let mut scene = Scene::new(requests);
        let mut out: Vec<(u64, bool)> = Vec::new();
        // When each request stops counting.
        let mut counts: Vec<(Instant, bool)> = Vec::new();
        let mut closed: [Option<Instant>; 4] = [None; 4];
        for event in events {
            let now = scene.now;
            counts.retain(|(until, _)| *until > now);
            match event {
                Event::Wait(seconds) => scene.now += Duration::from_secs(seconds),
                Event::Ask { cache: id, background, failing, stays } => {
                    let mut cache = if background { scene.refresh(id, id * 10) } else { caller(id) };
                    cache.client = id % 4;
                    cache.standing.failing = failing;
                    let before = out.len() + counts.len();
                    match scene.ask(cache) {
                        Ok(request) => {
                            prop_assert!(before < usize::try_from(requests).unwrap());
                            prop_assert!(closed[usize::try_from(id % 4).unwrap()].is_none_or(|until| until <= now));
                            if failing && requests > 1 {
                                prop_assert!(before + 1 < usize::try_from(requests).unwrap());
                            }
                            out.push((request, failing));
                        }
                        Err(_) if stays => {}
                        Err(at) => {
                            let promise = scene.start + Duration::from_secs(at);
                            scene.window.refuse(id, promise.max(now), now);
                        }
                    }
                }
                Event::Answered(at) if !out.is_empty() => {
                    let (request, failing) = out.remove(at % out.len());
                    scene.window.answered(request, now);
                    counts.push((now + MINUTE, failing));
                }
                Event::NotSent(at) if !out.is_empty() => {
                    let (request, _) = out.remove(at % out.len());
                    scene.window.not_sent(request);
                }
                Event::Refused { client: id, seconds } => {
                    let until = now + Duration::from_secs(seconds);
                    scene.window.close(&client(id), until, now);
                    let closed = &mut closed[usize::try_from(id).unwrap()];
                    *closed = (*closed).max(Some(until));
                }
                Event::Gone(id) => scene.window.dequeue(id),
                Event::Answered(_) | Event::NotSent(_) => {}
            }
        }
        // In the end everybody is served, one after the other.
        for (request, _) in out {
            scene.window.answered(request, scene.now);
        }
        for id in 0..12 {
            scene.window.dequeue(id);
        }
        scene.now += Duration::from_secs(60 * 60);
        let mut late = caller(99);
        late.client = 99;
        prop_assert!(scene.ask(late).is_ok());
    }
}
