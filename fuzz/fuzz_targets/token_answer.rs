#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| officernd_auth_fuzz::token_answer(data));
