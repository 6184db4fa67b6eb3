//! Streams: a reader that is slow, gone, or one of too many disturbs nobody.

use super::*;
use crate::control::protocol::{Events, samples::event};

/// Asks for a stream, and returns the token under which the daemon knows the connection.
fn follow(table: &mut Table, peer: &mut UnixStream) -> Token {
    let call = json!({ "method": format!("{INTERFACE}.Events"), "parameters": {}, "more": true });
    peer.write_all(format!("{call}\0").as_bytes()).unwrap();
    let incoming = table.turn();
    let [Incoming { connection, request, .. }] = &incoming[..] else { panic!("{incoming:?}") };
    assert_eq!(*request, Request::Events { services: vec![], after: None, follow: true });
    *connection
}

fn part(events: usize) -> Reply {
    Reply::Events(Events { events: vec![event(); events], lost: 0 })
}

#[test]
fn a_stream_says_that_more_will_come_and_comes() {
    let mut table = Table::new();
    let mut peer = table.sit();
    let token = follow(&mut table, &mut peer);
    assert_eq!(table.server.hungry(token), None, "nothing was said yet");
    for count in [0, 1, 2] {
        table.server.reply_more(token, &part(count), table.now);
        let heard = heard(&mut peer);
        assert_eq!(heard.len(), 1);
        assert_eq!(heard[0]["continues"], true);
        assert_eq!(heard[0]["parameters"]["events"].as_array().unwrap().len(), count);
        assert_eq!(table.server.hungry(token), Some(true));
    }
    table.now += 100 * TIME_MAX;
    table.server.expire(table.now);
    assert_eq!(table.open(), 1, "a stream with nothing to say lasts as long as its reader");
    drop(peer);
    assert_eq!(table.turn(), []);
    assert_eq!((table.server.hungry(token), table.open()), (None, 0));
}

#[test]
fn a_reader_that_takes_nothing_holds_one_part_and_is_disconnected_while_others_are_served() {
    let mut table = Table::new();
    let (mut slow, mut quick) = (table.sit(), table.sit());
    let (slow_token, quick_token) = (follow(&mut table, &mut slow), follow(&mut table, &mut quick));
    // What the daemon does: whoever is hungry gets the next part.
    let mut given = 0;
    table.server.reply_more(slow_token, &part(0), table.now);
    table.server.reply_more(quick_token, &part(0), table.now);
    for _ in 0..1000 {
        if table.server.hungry(slow_token) == Some(true) {
            table.server.reply_more(slow_token, &part(100), table.now);
            given += 1;
        }
        assert_eq!(table.server.hungry(quick_token), Some(true));
        table.server.reply_more(quick_token, &part(100), table.now);
        assert!(!heard(&mut quick).is_empty());
        assert_eq!(table.turn(), []);
    }
    assert!(given < 100, "{given} parts were given to a reader that takes nothing");
    let Phase::Streaming { output, .. } = &table.server.connections[&slow_token].phase else { panic!() };
    assert!(output.len() < 64 << 10, "{} bytes are kept for it", output.len());
    table.now = table.server.deadline().unwrap();
    table.server.expire(table.now);
    assert_eq!((table.server.hungry(slow_token), table.server.hungry(quick_token)), (None, Some(true)));
}

#[test]
fn a_slow_reader_that_goes_on_gets_everything_in_order() {
    let mut table = Table::new();
    let mut peer = table.sit();
    let token = follow(&mut table, &mut peer);
    table.server.reply_more(token, &part(0), table.now);
    let mut given = 0;
    while table.server.hungry(token) == Some(true) {
        given += 1;
        table.server.reply_more(token, &part(given), table.now);
    }
    let mut counts = Vec::new();
    let mut text = Vec::new();
    while table.server.hungry(token) == Some(false) {
        let mut chunk = [0; 1000];
        if let Ok(read) = peer.read(&mut chunk) {
            text.extend_from_slice(&chunk[..read]);
        }
        assert_eq!(table.turn(), []);
    }
    if let Err(error) = peer.read_to_end(&mut text) {
        assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
    }
    for message in text.split(|byte| *byte == 0).filter(|message| !message.is_empty()) {
        let value: Value = serde_json::from_slice(message).unwrap();
        counts.push(value["parameters"]["events"].as_array().unwrap().len());
    }
    assert_eq!(counts, (0..=given).collect::<Vec<_>>());
}

#[test]
fn readers_cannot_take_all_their_places_with_streams() {
    let mut table = Table::new();
    let mut peers: Vec<UnixStream> = (0..=READER_STREAMS_MAX).map(|_| table.sit_reader()).collect();
    for (number, peer) in peers.iter_mut().enumerate() {
        let token = follow(&mut table, peer);
        table.server.reply_more(token, &part(0), table.now);
        let heard = heard(peer);
        if number < READER_STREAMS_MAX {
            assert_eq!(heard[0]["continues"], true);
        } else {
            assert_eq!(heard[0]["error"], "io.altimatos.MotherD.Refused");
        }
    }
    let mut root = table.sit();
    let token = follow(&mut table, &mut root);
    table.server.reply_more(token, &part(0), table.now);
    assert_eq!(table.server.hungry(token), Some(true));
}

#[test]
fn what_a_reader_says_into_its_stream_is_not_heard() {
    let mut table = Table::new();
    let mut peer = table.sit();
    let token = follow(&mut table, &mut peer);
    table.server.reply_more(token, &part(1), table.now);
    // As much as its socket takes, of anything.
    while peer.write(&stop_web()).is_ok() {}
    while peer.write(b"\xff\0garbage").is_ok() {}
    assert_eq!(table.turn(), []);
    assert_eq!(table.server.hungry(token), Some(true));
    assert!(table.server.connections[&token].input.is_empty());
}
