//! Connections between programs and devices: what holds with a kernel at both ends holds with our own at either.

use crate::sys;
use crate::user::{End, Told};
use crate::world::{BUDGET, MIXES, Side, World, noise, tcp, until};
use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Shutdown, SocketAddr, TcpStream};
use thicket_core::Closed;

/// Where nothing listens.
const NOBODY: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 1);

/// Says all of it, and hears what comes back to the end.
fn say_and_hear(mut program: TcpStream, said: Vec<u8>) -> Vec<u8> {
    let mut writer = program.try_clone().unwrap();
    let writing = std::thread::spawn(move || {
        writer.write_all(&said).unwrap();
        writer.shutdown(Shutdown::Write).unwrap();
    });
    let mut came = Vec::new();
    program.read_to_end(&mut came).unwrap();
    writing.join().unwrap();
    came
}

/// How a stream of JavaScript's ended, whatever was told before.
fn end_of(world: &World, stream: u32) -> End {
    loop {
        if let Told::Closed(ended, end) = world.viewer().next()
            && ended == stream
        {
            return end;
        }
    }
}

fn echo(mut device: TcpStream) {
    let mut buffer = vec![0; 64 << 10];
    loop {
        let len = device.read(&mut buffer).unwrap();
        if len == 0 {
            return;
        }
        device.write_all(&buffer[..len]).unwrap();
    }
}

#[test]
fn what_a_program_says_comes_back_whole() {
    for sides in MIXES {
        let world = World::new(sides, &[80]);
        let sent = noise(1, 8 << 20);
        let program = world.program(80);
        std::thread::scope(|scope| {
            scope.spawn(|| echo(world.device(80)));
            let came = say_and_hear(program, sent.clone());
            assert!(
                came == sent,
                "{sides:?}: {} of {} bytes, or others",
                came.len(),
                sent.len()
            );
        });
        until("nothing is left", || {
            world.stats().iter().all(|s| (s.buffered, s.streams) == (0, 0))
        });
    }
}

#[test]
fn what_was_read_of_a_program_before_comes_first() {
    let world = World::new((Side::Own, Side::Own), &[80]);
    let sent = noise(2, 100_000);
    let (stream, program) = world.spliced(80, &sent[..70_000]);
    std::thread::scope(|scope| {
        scope.spawn(|| echo(world.device(80)));
        assert!(say_and_hear(program, sent[70_000..].to_vec()) == sent);
    });
    assert_eq!(end_of(&world, stream), End::Of(Closed::Done));
}

#[test]
fn many_workers_carry_one_connection_as_one_does() {
    let world = World::with((Side::Own, Side::Own), &[80], BUDGET, 2);
    let sent = noise(11, 8 << 20);
    let program = world.program(80);
    std::thread::scope(|scope| {
        scope.spawn(|| echo(world.device(80)));
        assert!(say_and_hear(program, sent.clone()) == sent);
    });
}

#[test]
fn either_side_may_finish_first_and_still_be_told_things() {
    for sides in MIXES {
        let world = World::new(sides, &[80]);
        let mut program = world.program(80);
        let mut device = world.device(80);
        program.write_all(b"question").unwrap();
        program.shutdown(Shutdown::Write).unwrap();
        let mut text = String::new();
        device.read_to_string(&mut text).unwrap();
        assert_eq!(text, "question");
        device.write_all(b"answer").unwrap();
        drop(device);
        text.clear();
        program.read_to_string(&mut text).unwrap();
        assert_eq!(text, "answer");
        // The other way round.
        let mut program = world.program(80);
        let mut device = world.device(80);
        device.write_all(b"greeting").unwrap();
        device.shutdown(Shutdown::Write).unwrap();
        text.clear();
        program.read_to_string(&mut text).unwrap();
        assert_eq!(text, "greeting");
        program.write_all(b"farewell").unwrap();
        drop(program);
        text.clear();
        device.read_to_string(&mut text).unwrap();
        assert_eq!(text, "farewell");
    }
}

#[test]
fn a_reset_passes_through_whoever_it_comes_from_and_whatever_was_finished() {
    for sides in MIXES {
        let world = World::new(sides, &[80]);
        for finished in [false, true] {
            let (mut program, device) = meet(&world);
            if finished {
                device.shutdown(Shutdown::Write).unwrap();
                assert_eq!(program.read(&mut [0; 10]).unwrap(), 0);
            }
            sys::device::reset(device);
            until("the program hears of it", || program.write(b"more").is_err());
            let (program, mut device) = meet(&world);
            if finished {
                program.shutdown(Shutdown::Write).unwrap();
                assert_eq!(device.read(&mut [0; 10]).unwrap(), 0);
            }
            sys::device::reset(program);
            until("the device hears of it", || device.write(b"more").is_err());
        }
        let (mut program, device) = meet(&world);
        sys::device::reset(device);
        assert_eq!(
            program.read(&mut [0; 10]).unwrap_err().kind(),
            ErrorKind::ConnectionReset,
            "{sides:?}"
        );
    }
}

/// Both ends of a connection over which something has passed.
fn meet(world: &World) -> (TcpStream, TcpStream) {
    let mut program = world.program(80);
    let mut device = world.device(80);
    program.write_all(b"hello").unwrap();
    device.read_exact(&mut [0; 5]).unwrap();
    (program, device)
}

#[test]
fn a_caller_hears_what_the_device_would_say() {
    // No TCP goes to a group.
    let unreachable = SocketAddr::from(([224, 0, 0, 1], 80));
    let world = World::offering(vec![tcp(80, NOBODY), tcp(81, unreachable)]);
    for (port, reason) in [(80, Closed::Refused), (81, Closed::Unreachable), (82, Closed::Refused)] {
        let stream = world.dial(port);
        assert_eq!(end_of(&world, stream), End::Of(reason), "port {port}");
        let (stream, mut program) = world.spliced(port, b"hello");
        let error = program.read(&mut [0; 10]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ConnectionReset, "port {port}");
        assert_eq!(end_of(&world, stream), End::Of(reason), "port {port}");
    }
}

#[test]
fn a_kernels_program_is_refused_by_a_gateway_without_one() {
    let world = World::called_by_a_kernel(vec![tcp(80, NOBODY)]);
    let said = world.try_run(&format!("curl -sS -m 20 http://{}:80/", world.far()));
    // Not after a while: at once.
    assert!(said.contains("Failed to connect"), "{said}");
}

#[test]
fn a_silent_device_leaves_the_caller_waiting_as_it_would_itself() {
    let (listener, at) = crate::world::listen();
    // SAFETY: listen takes no pointers.
    unsafe { libc::listen(std::os::fd::AsRawFd::as_raw_fd(&listener), 0) };
    // Its queue is full: more SYNs go unanswered.
    let filling: Vec<_> = (0..2).map(|_| sys::device::connect(at).unwrap()).collect();
    until("one waits", || filling[0].peer_addr().is_ok());
    let world = World::offering(vec![tcp(80, at)]);
    let stream = world.dial(80);
    until("the gateway calls", || {
        world.gateway().stats().1.is_some_and(|s| s.streams == 1)
    });
    assert!(world.viewer().told.lock().unwrap().try_recv().is_err());
    // The device comes back. The other one waits, too.
    let _others = [crate::world::accept(&listener), crate::world::accept(&listener)];
    assert_eq!(world.viewer().next(), Told::Connected(stream));
}
