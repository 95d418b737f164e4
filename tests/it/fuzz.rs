//! Runs the properties of the fuzz targets on their seeds and on random input.

use std::fs;
use std::path::Path;

use proptest::prelude::*;

#[expect(unreachable_pub, reason = "elsewhere it is the root of a crate")]
#[path = "../../fuzz/src/lib.rs"]
mod properties;

use properties::{TARGETS, origin, retry_after, token_answer};

#[test]
fn the_seeds_of_the_fuzz_targets_hold() {
    let seeds = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/seeds");
    for (name, target) in TARGETS {
        let mut count = 0;
        for seed in fs::read_dir(seeds.join(name)).unwrap() {
            target(&fs::read(seed.unwrap().path()).unwrap());
            count += 1;
        }
        assert!(count > 0, "{name} has no seeds");
    }
}

proptest! {
    #[test]
    fn any_bytes_hold(data in proptest::collection::vec(any::<u8>(), 0..200)) {
        for (_, target) in TARGETS {
            target(&data);
        }
    }

    #[test]
    fn nearly_right_urls_hold(
        pattern in "https?://(\\*\\.)?(officernd\\.com|127\\.0\\.0\\.1|a\\.b)(:[0-9]{1,5})?/?",
        target in "(https?|HTTPS|ftp)://([a-z@:%;\\[\\]\\\\.#?]{0,6})(officernd\\.com|OfficeRnD\\.COM|127\\.0\\.0\\.1|x\\.a\\.b)[.@:;\\\\/?#]{0,2}[0-9]{0,3}[a-z./@]{0,8}",
    ) {
        origin(format!("{pattern}\n{target}").as_bytes());
    }

    #[test]
    fn any_origin_holds(
        pattern in "\\PC*|[a-z@:/.*\\[\\]\\\\%]*",
        target in "[a-z@:/.*\\[\\]\\\\%]*",
    ) {
        origin(format!("{pattern}\nhttp://{target}").as_bytes());
        origin(format!("https://{pattern}\nhttps://{target}").as_bytes());
    }

    #[test]
    fn nearly_right_waits_hold(
        values in proptest::collection::vec("[0-9]{0,30}|[ -~]{0,40}|[A-Z][a-z]{2}, [0-9]{2} (Jan|Feb) [0-9]{4} [0-9]{2}:[0-9]{2}:[0-9]{2} GMT", 0..4)
    ) {
        retry_after(values.join("\n").as_bytes());
    }

    #[test]
    fn nearly_right_answers_hold(
        fields in proptest::collection::vec(
            ("(access_token|token_type|expires_in|scope|error)",
             "(\"[a-zA-Z0-9._~+/=\\\\n -]{0,12}\"|-?[0-9]{1,20}(\\.[0-9]{1,3})?(e[0-9]{1,3})?|null|true|\\{\\})"), 0..6)
    ) {
        let fields: Vec<_> = fields.iter().map(|(key, value)| format!("\"{key}\":{value}")).collect();
        token_answer(format!("\0\u{64}{{{}}}", fields.join(",")).as_bytes());
    }
}
