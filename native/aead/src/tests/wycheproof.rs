//! Wycheproof's vectors, each in every lane, among packets of the same length under other nonces.

use super::{Random, lanes, run};
use crate::Key;
use crate::group::Direction;
use serde_json::Value;

fn hex(value: &Value) -> Vec<u8> {
    let text = value.as_str().unwrap();
    (0..text.len())
        .step_by(2)
        .map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap())
        .collect()
}

#[test]
fn every_lane_agrees_with_wycheproof() {
    let path = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../../test/vectors/wycheproof/chacha20_poly1305_test.json"
    );
    let file: Value = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    let mut random = Random(5);
    let mut seen = 0;
    for group in file["testGroups"].as_array().unwrap() {
        for case in group["tests"].as_array().unwrap() {
            let id = &case["tcId"];
            let [key, iv, aad, message, cipher, tag] =
                ["key", "iv", "aad", "msg", "ct", "tag"].map(|name| hex(&case[name]));
            // Nonces of other lengths: the type refuses them.
            let Ok(nonce) = <[u8; 12]>::try_from(iv) else { continue };
            let valid = case["result"] == "valid";
            let key = Key::new(&key.try_into().unwrap());
            let len = message.len();
            seen += 1;
            for kernel in lanes() {
                let width = kernel.width();
                for lane in 0..width {
                    let mut nonces: Vec<[u8; 12]> = (0..width).map(|_| random.bytes()).collect();
                    nonces[lane] = nonce;
                    let starts: Vec<_> = (0..width).map(|n| n * len).collect();
                    let mut buffer = vec![0; width * len];
                    random.fill(&mut buffer);
                    let place = lane * len..(lane + 1) * len;
                    buffer[place.clone()].copy_from_slice(&cipher);
                    let tags = run(kernel, &key, &aad, &mut buffer, &starts, len, &nonces, Direction::Open);
                    assert_eq!(tags[lane][..] == tag, valid, "{kernel}, lane {lane}, {id}");
                    if valid {
                        assert!(buffer[place.clone()] == message, "{kernel}, lane {lane}, {id}");
                        let tags = run(kernel, &key, &aad, &mut buffer, &starts, len, &nonces, Direction::Seal);
                        assert_eq!(tags[lane][..], tag, "{kernel}, lane {lane}, {id}");
                        assert!(buffer[place] == cipher, "{kernel}, lane {lane}, {id}");
                    }
                }
            }
        }
    }
    assert!(seen > 250, "only {seen} vectors");
}
