//! What JavaScript orders, and what it is told.

use crate::lab::gateway_pair;
use crate::user::{End, Told, UserOrder};
use crate::world::{Side, World, noise, tcp};
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr};
use thicket_core::Closed;
use thicket_core::wire::protocol;

#[test]
fn a_stream_tells_as_much_as_was_asked_for_and_its_end() {
    let world = World::new((Side::Own, Side::Own), &[80]);
    let viewer = world.viewer();
    let stream = world.dial(80);
    let mut device = world.device(80);
    assert_eq!(viewer.next(), Told::Connected(stream));
    device.write_all(b"hello").unwrap();
    device.shutdown(Shutdown::Write).unwrap();
    viewer.user(UserOrder::Read { stream, bytes: 3 });
    assert_eq!(viewer.next(), Told::Data(stream, b"hel".to_vec()));
    viewer.user(UserOrder::Read { stream, bytes: 100 });
    assert_eq!(viewer.next(), Told::Data(stream, b"lo".to_vec()));
    assert_eq!(viewer.next(), Told::Finished(stream));
    // More than any buffer here: the word comes when the host has the last of it.
    let sent = noise(5, 16 << 20);
    let bytes = sent.clone();
    viewer.user(UserOrder::Write { stream, bytes });
    viewer.user(UserOrder::Finish { stream });
    let mut came = Vec::new();
    device.read_to_end(&mut came).unwrap();
    assert!(came == sent);
    assert_eq!(viewer.next(), Told::Written(stream));
    assert_eq!(viewer.next(), Told::Closed(stream, End::Of(Closed::Done)));
}

#[test]
fn a_service_of_the_program_itself_gets_its_callers_as_streams() {
    let world = World::offering(vec![tcp(80, SocketAddr::from(([0, 0, 0, 0], 0)))]);
    let (viewer, gateway) = (world.viewer(), world.gateway());
    let stream = world.dial(80);
    let Told::Incoming {
        stream: theirs,
        peer,
        account,
        ..
    } = gateway.next()
    else {
        panic!("nobody called")
    };
    assert_eq!(
        (theirs % 2, peer.ip(), account),
        (0, gateway_pair().1, u32::from(protocol::TCP))
    );
    assert_eq!(viewer.next(), Told::Connected(stream));
    let bytes = b"hello".to_vec();
    viewer.user(UserOrder::Write { stream, bytes });
    gateway.user(UserOrder::Read {
        stream: theirs,
        bytes: 100,
    });
    assert_eq!(gateway.next(), Told::Data(theirs, b"hello".to_vec()));
    assert_eq!(viewer.next(), Told::Written(stream));
    gateway.user(UserOrder::Abort { stream: theirs });
    assert_eq!(viewer.next(), Told::Closed(stream, End::Of(Closed::Reset)));
}

#[test]
fn a_stream_that_was_given_away_can_still_be_ended() {
    let world = World::new((Side::Own, Side::Own), &[80]);
    let (stream, mut program) = world.spliced(80, &[]);
    let mut device = world.device(80);
    world.viewer().user(UserOrder::Abort { stream });
    for socket in [&mut program, &mut device] {
        assert_eq!(
            socket.read(&mut [0; 1]).unwrap_err().kind(),
            std::io::ErrorKind::ConnectionReset
        );
    }
}
