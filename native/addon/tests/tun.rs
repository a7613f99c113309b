//! The TUN against the kernel. Needs root.

#![allow(clippy::unwrap_used, dead_code, unused_imports)]

#[path = "../src/sys/mod.rs"]
mod sys;

use std::process::Command;
use sys::{Tun, TunOffload};

fn run(line: &str) -> String {
    let mut words = line.split(' ');
    let out = Command::new(words.next().unwrap()).args(words).output().unwrap();
    assert!(out.status.success(), "{line}: {}", String::from_utf8_lossy(&out.stderr));
    String::from_utf8(out.stdout).unwrap()
}

#[test]
fn a_device_that_outlived_its_offloads_gives_plain_packets() {
    let device = format!("tt{}", std::process::id());
    let fixture = concat!(env!("CARGO_MANIFEST_DIR"), "/../../test/fixtures/bounds.py");
    let tso = || run(&format!("python3 {fixture} tso {device}"));
    run(&format!("ip tuntap add dev {device} mode tun"));
    let all = Tun::open(&device, TunOffload::Auto).map(|tun| (tun.features().tso, tso()));
    let plain = Tun::open(&device, TunOffload::Off).map(|_tun| tso());
    run(&format!("ip tuntap del dev {device} mode tun"));
    assert_eq!(all.unwrap(), (true, "1\n".to_owned()));
    assert_eq!(plain.unwrap(), "0\n");
}
