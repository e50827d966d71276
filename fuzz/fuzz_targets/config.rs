//! Configuration, from any text: it is refused with a place or compiled, and never panics.
//!
//! What was decoded compiles to the same snapshot twice, for all Gateways and for each alone, and
//! its members can be told.
#![no_main]

use config::{Objects, compile, members, reachable, yaml};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let Ok(text) = std::str::from_utf8(bytes) else {
        return;
    };
    let decoded = yaml::decode("fuzz.yaml", text);
    for error in decoded.errors.iter().chain(&decoded.warnings) {
        // YAML knows other line ends than LF; an error may be on the line after the last.
        let ends = text.matches(['\n', '\r', '\u{85}', '\u{2028}', '\u{2029}']).count();
        assert!((1..=ends as u32 + 2).contains(&error.line), "{error}");
        assert!(error.column > 0 && !error.message.is_empty(), "{error}");
    }
    let objects: Objects = decoded.objects.into_iter().collect();
    let compiled = compile(&objects);
    assert_eq!(compiled.snapshot.hash, compile(&objects).snapshot.hash);
    let _ = compiled.statuses.problems().len();
    for pool in compiled.snapshot.pools.keys() {
        let _ = members(&objects, pool);
    }
    for gateway in objects.gateways.keys() {
        let _ = compile(&reachable(&objects, gateway));
    }
});
