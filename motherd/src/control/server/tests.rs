//! The server against peers that behave and peers that do not, over socketpairs: no daemon, no epoll, no clock.

use std::{
    io::{Read, Write},
    net::Shutdown,
};

use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::control::protocol::{Acted, How, INTERFACE, State};

mod streams;

/// Neither root nor whoever runs the tests.
const READER: u32 = 4_000_000_000;

const START: Duration = Duration::from_secs(1000);

/// A server, and the ends of its peers.
struct Table {
    server: Server,
    now: Duration,
}

impl Table {
    fn new() -> Self {
        // A listener that nobody connects to; unnamed, so autobound (unix(7)).
        let (unused, _) = UnixStream::pair().unwrap();
        Self { server: Server::new(unused.into()).unwrap(), now: START }
    }

    /// A peer of the uid of this process, who owns the server.
    fn sit(&mut self) -> UnixStream {
        let (ours, theirs) = UnixStream::pair().unwrap();
        ours.set_nonblocking(true).unwrap();
        self.server.admit(ours, self.now);
        theirs.set_nonblocking(true).unwrap();
        theirs
    }

    /// A peer who may only read.
    fn sit_reader(&mut self) -> UnixStream {
        let (ours, theirs) = UnixStream::pair().unwrap();
        ours.set_nonblocking(true).unwrap();
        theirs.set_nonblocking(true).unwrap();
        self.server.seat(ours, Peer { pid: 77, uid: READER, gid: READER }, self.now);
        theirs
    }

    /// What epoll would do: calls `ready` for all that is, until nothing is.
    fn turn(&mut self) -> Vec<Incoming> {
        let mut incoming = Vec::new();
        loop {
            let ready: Vec<Token> = self.server.watches().filter(is_ready).map(|watch| watch.token).collect();
            for token in &ready {
                incoming.extend(self.server.ready(*token, self.now));
            }
            if ready.is_empty() {
                return incoming;
            }
        }
    }

    fn open(&self) -> usize {
        self.server.connections.len()
    }
}

fn is_ready(watch: &Watch<'_>) -> bool {
    let mut events = PollFlags::empty();
    events.set(PollFlags::POLLIN, watch.read);
    events.set(PollFlags::POLLOUT, watch.write);
    let mut fds = [PollFd::new(watch.fd, events)];
    watch.token != Token::LISTENER && poll(&mut fds, PollTimeout::ZERO).unwrap() == 1
}

fn message(method: &str, parameters: &Value) -> Vec<u8> {
    let mut text = json!({ "method": method, "parameters": parameters }).to_string().into_bytes();
    text.push(0);
    text
}

fn list() -> Vec<u8> {
    message(&format!("{INTERFACE}.List"), &json!({}))
}

fn stop_web() -> Vec<u8> {
    message(&format!("{INTERFACE}.Stop"), &json!({ "services": ["web"] }))
}

/// Everything that is there to be read, as messages.
fn heard(peer: &mut UnixStream) -> Vec<Value> {
    let mut text = Vec::new();
    if let Err(error) = peer.read_to_end(&mut text) {
        assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
    }
    text.split(|byte| *byte == 0)
        .filter(|text| !text.is_empty())
        .map(|text| serde_json::from_slice(text).unwrap())
        .collect()
}

/// Soon, for a connection is closed apart (`Given`).
fn hung_up(peer: &mut UnixStream) -> bool {
    poll(&mut [PollFd::new(peer.as_fd(), PollFlags::empty())], PollTimeout::from(60_000_u16)).unwrap();
    matches!(peer.read(&mut [0; 1]), Ok(0))
        || peer.read(&mut [0; 1]).is_err_and(|e| e.raw_os_error() == Some(104))
}

/// Sends one text; what the peer hears, or that it is hung up on.
fn check(sent: &[u8], expected: Result<Value, ()>) {
    let mut table = Table::new();
    let mut peer = table.sit();
    peer.write_all(sent).unwrap();
    assert_eq!(table.turn(), []);
    match expected {
        Ok(expected) => {
            let heard = heard(&mut peer);
            assert_eq!(heard, [expected]);
            assert_eq!(table.open(), 1);
        }
        Err(()) => {
            assert!(hung_up(&mut peer), "{}", String::from_utf8_lossy(sent));
            assert_eq!(table.open(), 0);
        }
    }
}

fn invalid(parameter: &str) -> Result<Value, ()> {
    Ok(json!({ "error": "org.varlink.service.InvalidParameter", "parameters": { "parameter": parameter } }))
}

#[test]
fn a_request_reaches_the_daemon_with_its_peer_and_the_reply_comes_back() {
    let mut table = Table::new();
    let mut peer = table.sit();
    peer.write_all(&stop_web()).unwrap();
    let incoming = table.turn();
    let [Incoming { connection, peer: who, request }] = &incoming[..] else { panic!("{incoming:?}") };
    assert_eq!(*request, Request::Stop { services: vec!["web".into()], force: false });
    assert_eq!((who.pid, who.uid), (std::process::id(), geteuid().as_raw()));

    let acted = Acted { service: "web".into(), state: State::Stopped, changed: true, main_pid: None };
    table.server.reply(*connection, &Reply::Acted(vec![acted]), table.now);
    let expected = json!({ "parameters": { "version": 1, "services": [
        { "service": "web", "state": "stopped", "changed": true }
    ]}});
    assert_eq!(heard(&mut peer), [expected]);
}

#[test]
fn introspection_is_answered_without_the_daemon() {
    let mut table = Table::new();
    let mut peer = table.sit_reader();
    peer.write_all(&message("org.varlink.service.GetInfo", &json!({}))).unwrap();
    let ask = json!({ "interface": INTERFACE });
    peer.write_all(&message("org.varlink.service.GetInterfaceDescription", &ask)).unwrap();
    assert_eq!(table.turn(), []);
    let heard = heard(&mut peer);
    let interfaces = json!(["org.varlink.service", INTERFACE]);
    assert_eq!(heard[0]["parameters"]["interfaces"], interfaces);
    assert!(heard[1]["parameters"]["description"].as_str().unwrap().contains("method PowerOff("));
}

#[test]
fn an_unknown_interface_method_or_parameter_is_told_by_name() {
    check(
        &message("com.example.Other.List", &json!({})),
        Ok(json!({ "error": "org.varlink.service.InterfaceNotFound",
            "parameters": { "interface": "com.example.Other" } })),
    );
    let method = format!("{INTERFACE}.Explode");
    check(
        &message(&method, &json!({})),
        Ok(json!({ "error": "org.varlink.service.MethodNotFound", "parameters": { "method": method } })),
    );
    let start = format!("{INTERFACE}.Start");
    check(
        &message(&start, &json!({ "service": "web" })),
        invalid("unknown field `service`, expected `services`"),
    );
    check(&message(&start, &json!({})), invalid("missing field `services`"));
    check(&message(&start, &json!({ "services": [] })), invalid("services: at least one is needed"));
    check(
        &message(&format!("{INTERFACE}.Kill"), &json!({ "services": ["web"], "signal": 65 })),
        invalid("signal: 65 is not between 1 and 64"),
    );
}

#[test]
fn what_is_no_varlink_message_ends_the_connection() {
    check(b"\0", Err(()));
    check(b"GET / HTTP/1.1\r\n\r\n\0", Err(()));
    check(b"\xff\xfe\x80\0", Err(()));
    check(b"[]\0", Err(()));
    check(b"{\"method\": 7}\0", Err(()));
    check(b"{\"method\": \"a.b\", \"parameters\": []}\0", Err(()));
    check(b"{\"method\": \"a.b\", \"surprise\": 1}\0", Err(()));
    // Deeper than any parser's stack.
    let deep = format!("{{\"method\":\"a.b\",\"parameters\":{{\"x\":{}", "[".repeat(4000));
    check(&[deep.as_bytes(), b"\0"].concat(), Err(()));
}

#[test]
fn a_message_may_arrive_byte_by_byte_and_is_not_judged_before_its_end() {
    let mut table = Table::new();
    let mut peer = table.sit();
    let text = list();
    for byte in &text[..text.len() - 1] {
        peer.write_all(&[*byte]).unwrap();
        assert_eq!(table.turn(), []);
    }
    peer.write_all(&[0]).unwrap();
    assert_eq!(table.turn().len(), 1);
}

/// How many bytes without an end the server takes before it hangs up.
fn taken(table: &mut Table, mut peer: UnixStream) -> usize {
    let chunk = [b' '; 8 << 10];
    let mut taken = 0;
    loop {
        assert!(taken <= 4 * MESSAGE_MAX_BYTES, "it takes any length");
        match peer.write(&chunk) {
            Ok(written) => taken += written,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => {
                assert_eq!(error.kind(), io::ErrorKind::BrokenPipe);
                return taken;
            }
        }
        assert_eq!(table.turn(), []);
        if table.open() == 0 {
            return taken;
        }
    }
}

#[test]
fn a_message_that_is_too_long_ends_the_connection_sooner_for_a_reader() {
    let mut table = Table::new();
    let slack = 2 * READ_BYTES;
    let peer = table.sit();
    assert!((MESSAGE_MAX_BYTES..=MESSAGE_MAX_BYTES + slack).contains(&taken(&mut table, peer)));
    let peer = table.sit_reader();
    assert!((READER_MESSAGE_MAX_BYTES..=READER_MESSAGE_MAX_BYTES + slack).contains(&taken(&mut table, peer)));
    assert_eq!(table.open(), 0);
}

#[test]
fn a_reader_may_list_and_may_not_stop() {
    let mut table = Table::new();
    let mut peer = table.sit_reader();
    peer.write_all(&stop_web()).unwrap();
    assert_eq!(table.turn(), []);
    let expected = json!({ "error": "io.altimatos.MotherD.PermissionDenied",
        "parameters": { "method": "Stop", "uid": READER } });
    assert_eq!(heard(&mut peer), [expected]);
    peer.write_all(&list()).unwrap();
    assert_eq!(table.turn().len(), 1, "the refusal did not cost it the connection");
}

#[test]
fn a_second_request_waits_for_the_reply_to_the_first() {
    let mut table = Table::new();
    let mut peer = table.sit();
    peer.write_all(&[list(), stop_web()].concat()).unwrap();
    let first = table.turn();
    assert_eq!(first.len(), 1);
    assert_eq!(table.turn(), [], "one is outstanding");
    table.server.reply(first[0].connection, &Reply::List(vec![]), table.now);
    let second = table.turn();
    assert_eq!(second[0].request.method(), "Stop");
}

#[test]
fn a_peer_that_goes_before_its_reply_is_let_go_and_the_late_reply_is_harmless() {
    let mut table = Table::new();
    let mut peer = table.sit();
    peer.write_all(&list()).unwrap();
    let incoming = table.turn();
    drop(peer);
    assert_eq!(table.turn(), []);
    assert_eq!(table.open(), 0);
    table.server.reply(incoming[0].connection, &Reply::List(vec![]), table.now);
}

#[test]
fn a_peer_that_shut_its_sending_side_still_gets_its_reply() {
    let mut table = Table::new();
    let mut peer = table.sit();
    peer.write_all(&list()).unwrap();
    peer.shutdown(Shutdown::Write).unwrap();
    let incoming = table.turn();
    assert_eq!(table.turn(), []);
    table.server.reply(incoming[0].connection, &Reply::List(vec![]), table.now);
    assert_eq!(heard(&mut peer).len(), 1);
    assert_eq!(table.turn(), []);
    assert_eq!(table.open(), 0, "then it is at its end");
}

/// More than a socket's buffer holds.
fn long_reply() -> Reply {
    Reply::Error(RequestError::Refused { why: "x".repeat(2 << 20) })
}

#[test]
fn a_slow_reader_gets_the_whole_of_a_long_reply() {
    let mut table = Table::new();
    let mut peer = table.sit();
    peer.write_all(&list()).unwrap();
    let incoming = table.turn();
    table.server.reply(incoming[0].connection, &long_reply(), table.now);
    let mut text = Vec::new();
    let mut chunk = vec![0; 64 << 10];
    while text.last() != Some(&0) {
        match peer.read(&mut chunk) {
            Ok(read) => text.extend_from_slice(&chunk[..read]),
            Err(error) => assert_eq!(error.kind(), io::ErrorKind::WouldBlock),
        }
        assert_eq!(table.turn(), []);
    }
    text.pop();
    assert_eq!(serde_json::from_slice::<Value>(&text).unwrap(), long_reply().encode());
}

#[test]
fn a_reply_in_parts_arrives_whole_and_a_request_after_it_is_heard() {
    let mut table = Table::new();
    let mut peer = table.sit();
    peer.write_all(&[list(), list()].concat()).unwrap();
    let first = table.turn().remove(0).connection;
    let text = long_reply().to_text();
    let parts: Vec<&[u8]> = text.chunks(100_000).collect();
    let (last, before) = parts.split_last().unwrap();
    before.iter().for_each(|part| table.server.reply_part(first, part, false, table.now));
    table.server.reply_part(first, last, true, table.now);
    let (mut found, mut next) = (Vec::new(), Vec::new());
    let mut chunk = vec![0; 64 << 10];
    while next.is_empty() {
        match peer.read(&mut chunk) {
            Ok(read) => found.extend_from_slice(&chunk[..read]),
            Err(error) => assert_eq!(error.kind(), io::ErrorKind::WouldBlock),
        }
        next = table.turn();
    }
    while let Ok(read) = peer.read(&mut chunk) {
        found.extend_from_slice(&chunk[..read]);
    }
    assert_eq!(found.pop(), Some(0));
    assert_eq!(found, text);
    table.server.reply(next[0].connection, &Reply::List(vec![]), table.now);
    assert_eq!(heard(&mut peer).len(), 1);
}

#[test]
fn a_peer_that_goes_between_two_parts_of_a_reply_is_let_go() {
    let mut table = Table::new();
    let mut peer = table.sit();
    peer.write_all(&list()).unwrap();
    let connection = table.turn()[0].connection;
    table.server.reply_part(connection, b"{", false, table.now);
    drop(peer);
    table.server.reply_part(connection, b"}", false, table.now);
    assert_eq!(table.open(), 0);
    table.server.reply_part(connection, b"", true, table.now);
    assert_eq!(table.turn(), []);
}

#[test]
fn a_peer_that_goes_within_a_reply_is_let_go() {
    let mut table = Table::new();
    let mut peer = table.sit();
    peer.write_all(&list()).unwrap();
    let incoming = table.turn();
    table.server.reply(incoming[0].connection, &long_reply(), table.now);
    assert_eq!(peer.read(&mut [0; 100]).unwrap(), 100);
    drop(peer);
    assert_eq!(table.turn(), []);
    assert_eq!(table.open(), 0);
}

#[test]
fn a_peer_that_trickles_is_let_go_when_its_time_is_over() {
    let mut table = Table::new();
    let mut peer = table.sit();
    assert_eq!(table.server.deadline(), Some(START + TIME_MAX));
    for byte in &list()[..20] {
        peer.write_all(&[*byte]).unwrap();
        table.now += Duration::from_secs(2);
        assert_eq!(table.turn(), []);
        table.server.expire(table.now);
    }
    assert_eq!(table.open(), 1);
    table.now = START + TIME_MAX;
    table.server.expire(table.now);
    assert_eq!(table.open(), 0);
    assert_eq!(table.server.deadline(), None);
}

#[test]
fn a_peer_that_does_not_take_its_reply_is_let_go_and_one_that_waits_for_it_is_not() {
    let mut table = Table::new();
    let mut peer = table.sit();
    peer.write_all(&list()).unwrap();
    let incoming = table.turn();
    assert_eq!(table.server.deadline(), None);
    table.now += 10 * TIME_MAX;
    table.server.expire(table.now);
    assert_eq!(table.open(), 1, "the time the daemon takes is not the peer's");

    table.server.reply(incoming[0].connection, &long_reply(), table.now);
    table.now += TIME_MAX;
    table.server.expire(table.now);
    assert_eq!(table.open(), 0);
}

#[test]
fn one_way_requests_get_no_reply_not_even_a_refusal() {
    let mut table = Table::new();
    let mut peer = table.sit_reader();
    for method in ["List", "Stop", "Nothing"] {
        let text = json!({ "method": format!("{INTERFACE}.{method}"), "oneway": true }).to_string();
        peer.write_all(&[text.as_bytes(), b"\0"].concat()).unwrap();
        for incoming in table.turn() {
            table.server.reply(incoming.connection, &Reply::List(vec![]), table.now);
        }
    }
    assert_eq!(heard(&mut peer), Vec::<Value>::new());
    assert_eq!(table.open(), 1);
}

#[test]
fn readers_fill_their_half_and_root_still_finds_a_place() {
    let mut table = Table::new();
    let refused = |mut peer: UnixStream| {
        assert_eq!(heard(&mut peer)[0]["error"], "io.altimatos.MotherD.Refused");
        assert!(hung_up(&mut peer));
    };
    let mut readers: Vec<_> = (0..READERS_MAX).map(|_| table.sit_reader()).collect();
    refused(table.sit_reader());
    let owners: Vec<_> = (READERS_MAX..CONNECTIONS_MAX).map(|_| table.sit()).collect();
    refused(table.sit());
    assert_eq!(table.open(), CONNECTIONS_MAX);

    readers.pop();
    assert_eq!(table.turn(), []);
    let newcomer = table.sit_reader();
    assert_eq!(table.open(), CONNECTIONS_MAX, "a place that was left is free");
    drop((readers, owners, newcomer));
}

#[test]
fn a_token_that_is_gone_or_never_was_is_ignored() {
    let mut table = Table::new();
    drop(table.sit());
    assert_eq!(table.turn(), []);
    for number in [1, 7, u64::MAX] {
        assert_eq!(table.server.ready(Token::from_u64(number), START), []);
        table.server.reply(Token::from_u64(number), &Reply::Ending, START);
    }
}

#[test]
fn connections_come_in_over_a_real_listener() {
    let folder = std::env::temp_dir().join(format!("motherd-server-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let path = folder.join("motherd.sock");
    let mut server = Server::new(crate::control::address::listen(&path, 0o600, None).unwrap()).unwrap();
    let asker = std::thread::spawn(move || {
        let mut client = crate::control::client::Client::connect(&path).unwrap();
        let off = Request::End { how: How::Poweroff, status: 0, force: false };
        (client.call(&Request::List).unwrap(), client.call(&off).unwrap_err().exit_status())
    });
    let mut answered = 0;
    while answered < 2 {
        let watched: Vec<(Token, bool)> = {
            let watches: Vec<Watch<'_>> = server.watches().collect();
            let mut fds: Vec<PollFd<'_>> = watches
                .iter()
                .map(|w| {
                    let mut events = PollFlags::empty();
                    events.set(PollFlags::POLLIN, w.read);
                    events.set(PollFlags::POLLOUT, w.write);
                    PollFd::new(w.fd, events)
                })
                .collect();
            poll(&mut fds, PollTimeout::from(10_000_u16)).unwrap();
            watches.iter().zip(&fds).map(|(w, fd)| (w.token, fd.any().unwrap())).collect()
        };
        assert!(watched.iter().any(|(_, ready)| *ready), "nothing in ten seconds");
        for (token, _) in watched.into_iter().filter(|(_, ready)| *ready) {
            for incoming in server.ready(token, START) {
                let reply = if incoming.request == Request::List {
                    Reply::List(vec![])
                } else {
                    Reply::Error(RequestError::NoSuchService { service: "x".into(), near: None })
                };
                server.reply(incoming.connection, &reply, START);
                answered += 1;
            }
        }
    }
    assert_eq!(asker.join().unwrap(), (Reply::List(vec![]), 4));
    std::fs::remove_dir_all(folder).unwrap();
}

/// Things that peers send, whole and in pieces.
fn scrap() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        Just(list()),
        Just(stop_web()),
        Just(b"{\"method\":\"org.varlink.service.GetInfo\"}\0".to_vec()),
        Just(vec![0]),
        prop::collection::vec(any::<u8>(), 0..40),
        (0..stop_web().len()).prop_map(|at| stop_web()[..at].to_vec()),
    ]
}

proptest! {
    /// Whatever peers send in whatever order, answered or not: each is heard at most once at a time, nothing is held
    /// beyond the limit, and one who behaves is served.
    #[test]
    fn no_peer_disturbs_another(
        acts in prop::collection::vec((0..4_usize, scrap(), any::<bool>()), 1..60),
    ) {
        let mut table = Table::new();
        let mut peers: Vec<UnixStream> = (0..2).map(|_| table.sit()).collect();
        peers.extend((0..2).map(|_| table.sit_reader()));
        let mut outstanding: Vec<Token> = Vec::new();
        for (who, scrap, answer) in acts {
            // EPIPE is the server's word that this peer is finished; ECONNRESET too, and once, where it had left something unread.
            if let Err(error) = peers[who].write_all(&scrap) {
                let finished = [io::ErrorKind::BrokenPipe, io::ErrorKind::ConnectionReset];
                prop_assert!(finished.contains(&error.kind()), "{error}");
            }
            for incoming in table.turn() {
                prop_assert!(!outstanding.contains(&incoming.connection), "a second request before the reply");
                prop_assert!(incoming.peer.uid != READER || incoming.request.only_reads());
                outstanding.push(incoming.connection);
            }
            if answer {
                for connection in outstanding.drain(..) {
                    table.server.reply(connection, &Reply::List(vec![]), table.now);
                }
            }
            for connection in table.server.connections.values() {
                prop_assert!(connection.input.len() <= READER_MESSAGE_MAX_BYTES);
            }
        }
        let mut good = table.sit();
        good.write_all(b"{\"method\":\"org.varlink.service.GetInfo\"}\0").unwrap();
        table.turn();
        prop_assert_eq!(heard(&mut good).len(), 1);
    }
}
