//! Network namespaces, and programs in them.

use crate::sys::{Tun, TunOffload};
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::net::IpAddr;
use std::os::fd::AsRawFd;
use std::process::{Child, Command as Program, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

/// A network namespace with one node's TUN in it; gone when dropped.
pub struct Space {
    name: String,
    device: String,
}

impl Space {
    pub fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let (process, number) = (std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let name = format!("thicket-worker-{process}-{number}");
        run(&format!("ip netns add {name}"));
        let device = format!("tw{process}-{number}");
        let space = Self { name, device };
        space.run("sysctl -qw net.ipv6.conf.all.disable_ipv6=1");
        space
    }

    /// The device stays the descriptor's, wherever it is moved to.
    pub fn tun(&self, own: IpAddr, peer: IpAddr, queues: usize) -> Vec<Tun> {
        let Self { name, device } = self;
        let tun = Tun::open_queues(device, TunOffload::Auto, queues).unwrap();
        run(&format!("ip link set {device} netns {name}"));
        self.run("ip link set lo up");
        self.run(&format!("ip addr add {own}/32 dev {device}"));
        self.run(&format!("ip link set {device} up"));
        self.run(&format!("ip route add {peer}/32 dev {device}"));
        tun
    }

    /// What is opened in here stays here.
    pub fn enter<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        let space = File::open(format!("/run/netns/{}", self.name)).unwrap();
        let there = || {
            // SAFETY: setns takes no pointers; only this thread moves, and it ends.
            assert_eq!(unsafe { libc::setns(space.as_raw_fd(), libc::CLONE_NEWNET) }, 0);
            work()
        };
        std::thread::scope(|scope| scope.spawn(there).join().unwrap())
    }

    pub fn run(&self, line: &str) -> String {
        run(&format!("ip netns exec {} {line}", self.name))
    }

    /// What it said, errors too, however it ended.
    pub fn try_run(&self, line: &str) -> String {
        let mut words = line.split(' ');
        let mut program = Program::new("ip");
        let out = program
            .args(["netns", "exec", &self.name])
            .args(words.by_ref())
            .output()
            .unwrap();
        String::from_utf8_lossy(&[out.stdout, out.stderr].concat()).into_owned()
    }

    pub fn spawn(&self, line: &str) -> Running {
        Running::start(&format!("ip netns exec {} {line}", self.name))
    }

    /// What the node wrote to its TUN so far.
    pub fn written(&self) -> u64 {
        let file = format!("/sys/class/net/{}/statistics/rx_bytes", self.device);
        self.run(&format!("cat {file}")).trim().parse().unwrap()
    }

    /// Waits until it has written so much.
    pub fn wait(&self, bytes: u64) {
        let began = Instant::now();
        while self.written() < bytes {
            assert!(began.elapsed() < Duration::from_secs(60), "the transfer stands still");
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Space {
    fn drop(&mut self) {
        let _ = Program::new("ip").args(["netns", "del", &self.name]).status();
    }
}

/// A program, ended when dropped.
pub struct Running(Child);

impl Running {
    pub fn start(line: &str) -> Self {
        let mut words = line.split(' ');
        let mut program = Program::new(words.next().unwrap());
        let program = program.args(words).stdin(Stdio::null()).stdout(Stdio::piped());
        Self(program.spawn().unwrap())
    }

    pub fn wait_for(&mut self, text: &str) {
        let lines = BufReader::new(self.0.stdout.as_mut().unwrap()).lines();
        assert!(
            lines.map_while(Result::ok).any(|line| line.contains(text)),
            "never said: {text}"
        );
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Runs a program here, and says what it said.
pub fn run(line: &str) -> String {
    let mut words = line.split(' ');
    let out = Program::new(words.next().unwrap()).args(words).output().unwrap();
    assert!(out.status.success(), "{line}: {}", String::from_utf8_lossy(&out.stderr));
    String::from_utf8(out.stdout).unwrap()
}
