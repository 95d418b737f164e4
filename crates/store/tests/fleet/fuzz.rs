//! The properties of the store's fuzz targets, with their seeds and with random input.

use std::fs;
use std::path::Path;

use proptest::prelude::*;

#[expect(unreachable_pub, reason = "the fuzz targets include this module too")]
#[path = "../../../../fuzz/src/store.rs"]
mod properties;

use properties::{TARGETS, redis_reply, sealed_entry};

#[test]
fn the_seeds_of_the_stores_fuzz_targets_hold() {
    let seeds = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/seeds");
    for (name, target) in TARGETS {
        let mut count = 0;
        for seed in fs::read_dir(seeds.join(name)).unwrap() {
            target(&fs::read(seed.unwrap().path()).unwrap());
            count += 1;
        }
        assert!(count > 0, "{name} has no seeds");
    }
}

/// Generates replies of each kind, nested up to three levels.
fn reply() -> impl Strategy<Value = String> {
    let line = prop_oneof![
        "[-+:,#(_][a-zA-Z0-9 .-]{0,40}",
        Just("$-1".to_owned()),
        Just("*-1".to_owned()),
    ];
    let text = prop_oneof![
        "(granted|leased|limited|entry)",
        "[0-9a-f]{32}[a-z]{0,9}",
        "\\PC{0,40}"
    ];
    let bulk = (text, "[$=!]").prop_map(|(text, kind)| format!("{kind}{}\r\n{text}", text.len()));
    let leaf = prop_oneof![line, bulk].prop_map(|leaf| leaf + "\r\n");
    leaf.prop_recursive(3, 16, 4, |inner| {
        let list = proptest::collection::vec(inner, 0..4);
        (list, "[*~>]")
            .prop_map(|(list, kind)| format!("{kind}{}\r\n{}", list.len(), list.concat()))
    })
}

proptest! {
    #[test]
    fn any_bytes_hold(data in proptest::collection::vec(any::<u8>(), 0..200)) {
        redis_reply(&data);
        sealed_entry(&data);
    }

    #[test]
    fn nearly_right_replies_hold(reply in reply()) {
        redis_reply(reply.as_bytes());
    }

    #[test]
    fn nearly_right_answers_hold(
        word in "(granted|leased|limited|entry)",
        stored in "[0-9a-f]{30,34}[a-z]{0,9}",
        number in any::<i64>(),
        count in 1_usize..=3,
    ) {
        let parts = [
            format!("${}\r\n{word}\r\n", word.len()),
            format!(":{number}\r\n"),
            format!("${}\r\n{stored}\r\n", stored.len()),
        ];
        let parts = &parts[..count];
        redis_reply(format!("*{}\r\n{}", parts.len(), parts.concat()).as_bytes());
    }
}
