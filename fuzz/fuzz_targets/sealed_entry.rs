#![no_main]

#[allow(dead_code, reason = "the other target is another program")]
#[path = "../src/store.rs"]
mod store;

libfuzzer_sys::fuzz_target!(|data: &[u8]| store::sealed_entry(data));
