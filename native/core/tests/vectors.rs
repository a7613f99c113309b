//! Wycheproof's ChaCha20-Poly1305 vectors (test/vectors/wycheproof), through every implementation that is compiled in.

#![allow(clippy::unwrap_used, clippy::panic)]

use serde::Deserialize;
use thicket_core::aead::{Aead, Portable};

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct File {
    number_of_tests: usize,
    test_groups: Vec<Group>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Group {
    iv_size: usize,
    tests: Vec<Case>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Case {
    tc_id: usize,
    key: String,
    iv: String,
    aad: String,
    msg: String,
    ct: String,
    tag: String,
    result: String,
}

fn hex(text: &str) -> Vec<u8> {
    (0..text.len())
        .step_by(2)
        .map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap())
        .collect()
}

fn run<A: Aead>() {
    let path = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../../test/vectors/wycheproof/chacha20_poly1305_test.json"
    );
    let file: File = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    let mut seen = 0;
    for group in &file.test_groups {
        for case in &group.tests {
            seen += 1;
            let (key, iv, aad) = (hex(&case.key), hex(&case.iv), hex(&case.aad));
            let Ok(nonce) = iv.try_into() else {
                // Nonces of other lengths: the type refuses them.
                assert!(group.iv_size != 96 && case.result == "invalid", "{}", case.tc_id);
                continue;
            };
            let key = A::key(&key.try_into().unwrap());
            let (message, sealed) = (hex(&case.msg), [hex(&case.ct), hex(&case.tag)].concat());
            let mut data = sealed.clone();
            let opened = A::open_with(&key, &nonce, &aad, &mut data);
            assert_eq!(opened, case.result == "valid", "{}", case.tc_id);
            if opened {
                assert_eq!(data[..message.len()], message[..], "{}", case.tc_id);
                let mut data = message.clone();
                let tag = A::seal_with(&key, &nonce, &aad, &mut data);
                assert_eq!([&data[..], &tag[..]].concat(), sealed, "{}", case.tc_id);
            }
        }
    }
    assert_eq!(seen, file.number_of_tests);
}

#[test]
fn the_portable_aead_agrees_with_wycheproof() {
    run::<Portable>();
}

#[cfg(feature = "ring")]
#[test]
fn ring_agrees_with_wycheproof() {
    run::<thicket_core::aead::Ring>();
}

#[cfg(feature = "simd")]
#[test]
fn our_own_lanes_agree_with_wycheproof() {
    run::<thicket_core::aead::Simd>();
}
