//! Datagrams and echoes.

use crate::lab::{self, service, viewer_pair};
use crate::sys;
use crate::user::{Told, UserOrder};
use crate::world::{Side, World, noise, tcp, until};
use std::collections::HashMap;
use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use thicket_core::wire::protocol;

fn udp() -> UdpSocket {
    let device = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    device.set_read_timeout(Some(lab::PATIENCE)).unwrap();
    device
}

fn send(world: &World, port: u32, peer: SocketAddr, bytes: &[u8]) {
    world.viewer().user(UserOrder::DatagramsSend {
        port,
        peer,
        bytes: bytes.to_vec(),
        taken: None,
    });
}

#[test]
fn datagrams_reach_their_device_and_come_back_to_whom_they_are_for() {
    let device = udp();
    let world = World::offering(vec![service(protocol::UDP, 53, device.local_addr().unwrap())]);
    let (own, far) = viewer_pair();
    let peer = SocketAddr::new(far, 53);
    for port in [1, 3] {
        world.viewer().user(UserOrder::DatagramsOpen { port, own });
        send(&world, port, peer, &vec![port as u8; 1_000 * port as usize]);
    }
    let mut callers = HashMap::new();
    let mut buffer = vec![0; 65_536];
    for _ in 0..2 {
        let (len, from) = device.recv_from(&mut buffer).unwrap();
        assert!(buffer[..len].iter().all(|&b| len == 1_000 * usize::from(b)));
        callers.insert(buffer[0], from);
    }
    for (&number, &from) in &callers {
        let bytes = vec![number + 100; 20];
        device.send_to(&bytes, from).unwrap();
        let port = u32::from(number);
        assert_eq!(world.viewer().next(), Told::Datagram { port, peer, bytes });
    }
    assert_eq!(world.gateway().stats().1.unwrap().datagrams, 2);
    // One that goes in parts, and an empty one.
    let bytes = noise(9, 4_000);
    send(&world, 1, peer, &bytes);
    let (len, from) = device.recv_from(&mut buffer).unwrap();
    assert!(buffer[..len] == bytes && from == callers[&1]);
    send(&world, 1, peer, &[]);
    assert_eq!(device.recv_from(&mut buffer).unwrap(), (0, callers[&1]));
    // What comes from elsewhere isn't the device's word.
    udp().send_to(b"I am it", callers[&1]).unwrap();
    device.send_to(b"it is me", callers[&1]).unwrap();
    let bytes = b"it is me".to_vec();
    assert_eq!(world.viewer().next(), Told::Datagram { port: 1, peer, bytes });
}

#[test]
fn what_policy_no_longer_allows_is_cut() {
    let (listener, at) = crate::world::listen();
    let device = udp();
    let services = vec![tcp(80, at), service(protocol::UDP, 53, device.local_addr().unwrap())];
    let world = World::offering(services.clone());
    let (_, mut program) = world.spliced(80, &[]);
    let mut connected = crate::world::accept(&listener);
    program.write_all(b"hello").unwrap();
    connected.read_exact(&mut [0; 5]).unwrap();
    let (own, far) = viewer_pair();
    world.viewer().user(UserOrder::DatagramsOpen { port: 1, own });
    send(&world, 1, SocketAddr::new(far, 53), b"hello");
    device.recv(&mut [0; 10]).unwrap();
    world.gateway().command(lab::policy(vec![services[1]]));
    assert_eq!(
        connected.read(&mut [0; 10]).unwrap_err().kind(),
        ErrorKind::ConnectionReset
    );
    assert_eq!(world.gateway().stats().1.unwrap().datagrams, 1);
    world.gateway().command(lab::policy(Vec::new()));
    until("the flow ends", || world.gateway().stats().1.unwrap().datagrams == 0);
}

#[test]
fn real_programs_of_a_kernels_use_a_gateway_without_one() {
    const PORT: u16 = 5_201;
    let at = SocketAddr::from((Ipv4Addr::LOCALHOST, PORT));
    let services = [protocol::TCP, protocol::UDP].map(|protocol| service(protocol, PORT, at));
    let world = World::called_by_a_kernel(services.to_vec());
    let far = world.far();
    for load in ["", "-R", "-u -b 100M -l 1200", "-u -b 100M -l 1200 -R"] {
        let mut server = lab::space::Running::start(&format!("iperf3 -s -1 -B 127.0.0.1 --forceflush -p {PORT}"));
        server.wait_for("Server listening");
        let said = world.run(format!("iperf3 -c {far} -p {PORT} -n 8M {load}").trim_end());
        assert!(said.contains("iperf Done"), "{load}: {said}");
    }
    // Where this process may ask devices for echoes.
    let answers = sys::device::echoes(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))).is_ok();
    let said = world.try_run(&format!("ping -c 3 -i 0.2 -W 2 {far}"));
    assert!(
        said.contains(if answers { " 3 received" } else { " 0 received" }),
        "{said}"
    );
}
