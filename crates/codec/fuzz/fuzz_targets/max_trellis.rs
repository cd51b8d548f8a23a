#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| backslash_codec::fuzzing::max_trellis(data));
