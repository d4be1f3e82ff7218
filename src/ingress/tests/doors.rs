//! Doors that open, close and change while the public side runs, and Unix sockets.

use std::io::ErrorKind;
use std::path::Path;
use std::sync::Mutex;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::UnixStream;

use super::*;

const REQUEST: &[u8] = b"GET /hooks HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";

async fn ask(mut stream: impl AsyncRead + AsyncWrite + Unpin) -> String {
    stream.write_all(REQUEST).await.unwrap();
    let mut answer = String::new();
    in_time(stream.read_to_string(&mut answer)).await.unwrap();
    answer
}

/// Settings that listen at `addresses`.
fn at(addresses: &[Address]) -> Settings {
    let listen = addresses.iter().cloned().map(Listen::plain).collect();
    Settings::listening(listen)
}

fn unix(dir: &tempfile::TempDir, name: &str) -> Address {
    Address::Unix(dir.path().join(name))
}

fn path(address: &Address) -> &Path {
    let Address::Unix(path) = address else { panic!("{address} is no socket file") };
    path
}

/// An address that nobody listens on, as a configured one. A socket that never listens keeps it from all who ask for any.
fn free() -> Address {
    static KEPT: Mutex<Vec<socket2::Socket>> = Mutex::new(Vec::new());
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    socket.set_reuse_address(true).unwrap();
    socket.bind(&LOOPBACK.into()).unwrap();
    let address = socket.local_addr().unwrap().as_socket().unwrap();
    KEPT.lock().unwrap().push(socket);
    address.into()
}

async fn connect(address: &Address) -> std::io::Result<TcpStream> {
    TcpStream::connect(address.tcp().unwrap()).await
}

#[tokio::test]
async fn a_unix_socket_serves_somebody_on_this_machine() {
    let dir = tempfile::tempdir().unwrap();
    let address = unix(&dir, "s");
    let mut running = Running::with(|settings| {
        settings.listen = vec![Listen::plain(address.clone())];
        settings.trusted_proxies = vec!["127.0.0.1/32".parse().unwrap()];
    })
    .await;
    assert_eq!(running.bound.addresses(), std::slice::from_ref(&address));
    let answer = ask(UnixStream::connect(path(&address)).await.unwrap()).await;
    assert_eq!(status(&answer), 200);
    assert_eq!(running.heads.recv().await.unwrap().client.ip.to_string(), "127.0.0.1");

    let mut stream = UnixStream::connect(path(&address)).await.unwrap();
    let proxied = "GET /hooks HTTP/1.1\r\nHost: a\r\nConnection: close\r\nX-Forwarded-For: 203.0.113.7\r\n\r\n";
    stream.write_all(proxied.as_bytes()).await.unwrap();
    in_time(stream.read_to_string(&mut String::new())).await.unwrap();
    assert_eq!(running.heads.recv().await.unwrap().client.ip.to_string(), "203.0.113.7");

    running.tasks.stop();
    in_time(running.tasks.ended()).await;
    assert!(!path(&address).exists(), "the file goes at the end");
}

#[tokio::test]
async fn every_worker_takes_connections_from_a_unix_socket() {
    let dir = tempfile::tempdir().unwrap();
    let bound = bind(&at(&[unix(&dir, "s")]), 2).unwrap();
    let mut acceptors = Vec::new();
    for worker in bound.listeners() {
        for listener in worker.take() {
            acceptors.push((listener.socket.into_acceptor().unwrap(), listener.file));
        }
    }
    assert_eq!(acceptors.len(), 2);
    for (acceptor, _file) in &acceptors {
        let _client = UnixStream::connect(dir.path().join("s")).await.unwrap();
        in_time(acceptor.accept()).await.unwrap();
    }
}

#[tokio::test]
async fn addresses_change_while_connections_go_on() {
    let (first, second) = (free(), free());
    let mut running = Running::with(|settings| settings.listen = vec![Listen::plain(first.clone())]).await;
    let mut kept = connect(&first).await.unwrap();
    kept.write_all(b"GET /hooks HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
    read_answer(&mut kept).await;

    assert_eq!(running.bound.change(&at(&[first.clone(), second.clone()])).unwrap(), [first.clone(), second.clone()]);
    for address in [&first, &second] {
        assert_eq!(status(&ask(connect(address).await.unwrap()).await), 200, "{address}");
    }

    running.bound.change(&at(std::slice::from_ref(&second))).unwrap();
    let refused = async {
        while connect(&first).await.is_ok() {
            tokio::task::yield_now().await;
        }
    };
    in_time(refused).await;
    kept.write_all(REQUEST).await.unwrap();
    assert_eq!(status(&read_answer(&mut kept).await), 200, "a connection outlives its door");
    assert_eq!(status(&ask(connect(&second).await.unwrap()).await), 200);

    running.bound.change(&at(&[first.clone(), second])).unwrap();
    assert_eq!(status(&ask(connect(&first).await.unwrap()).await), 200, "it opens again");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_door_that_stays_refuses_nobody_while_others_come_and_go() {
    let dir = tempfile::tempdir().unwrap();
    let (stays, others) = (free(), [free(), unix(&dir, "s")]);
    let mut running = Running::with(|settings| settings.listen = vec![Listen::plain(stays.clone())]).await;
    let mut heads = std::mem::replace(&mut running.heads, mpsc::channel(1).1);
    let drain = async {
        while heads.recv().await.is_some() {} // the handler waits for whoever counts
    };
    let sending = async {
        for _ in 0..300 {
            assert_eq!(status(&ask(connect(&stays).await.expect("never refused")).await), 200);
        }
    };
    let changing = async {
        for round in 0.. {
            let all = [&[stays.clone()][..], &others].concat();
            running.bound.change(&at(if round % 2 == 0 { &all } else { &all[..1] })).unwrap();
            tokio::task::yield_now().await;
        }
    };
    tokio::select! {
        () = sending => {}
        () = changing => {}
        () = drain => {}
    }
}

#[tokio::test]
async fn a_bad_new_address_changes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let (first, file) = (free(), unix(&dir, "new"));
    let taken = std::net::TcpListener::bind(LOOPBACK).unwrap();
    let taken: Address = taken
        .local_addr()
        .map(|address| (address, taken))
        .map(|(address, taken)| {
            std::mem::forget(taken); // held to the end of the process
            address.into()
        })
        .unwrap();
    let mut running = Running::with(|settings| settings.listen = vec![Listen::plain(first.clone())]).await;
    let error = running.bound.change(&at(&[file.clone(), taken.clone()])).unwrap_err().to_string();
    assert!(error.starts_with(&taken.to_string()), "{error}");
    assert!(!path(&file).exists(), "what was opened before the bad one is closed again");
    assert_eq!(running.bound.addresses(), std::slice::from_ref(&first));
    assert_eq!(status(&ask(connect(&first).await.unwrap()).await), 200);

    let error = running.bound.change(&at(&[Address::Inherited(Inherited::All)])).unwrap_err().to_string();
    assert!(error.contains("no socket was handed over"), "{error}");
    assert_eq!(status(&ask(connect(&first).await.unwrap()).await), 200);
}

/// From one machine's address to all of them and back: our own socket has the port.
#[tokio::test]
async fn an_address_may_widen_on_the_same_port() {
    let narrow = free();
    let wide: Address = SocketAddr::from(([0, 0, 0, 0], narrow.tcp().unwrap().port())).into();
    let mut running = Running::with(|settings| settings.listen = vec![Listen::plain(narrow.clone())]).await;
    for addresses in [[wide], [narrow.clone()]] {
        running.bound.change(&at(&addresses)).unwrap();
        assert_eq!(status(&ask(connect(&narrow).await.unwrap()).await), 200);
    }
}

/// Who is in the queue of a door that closes was told that it is connected.
#[tokio::test]
async fn a_door_that_closes_takes_in_who_is_in_its_queue() {
    let dir = tempfile::tempdir().unwrap();
    for address in [unix(&dir, "s"), free()] {
        let mut running = Running::with(|settings| {
            settings.listen = vec![Listen::plain(address.clone())];
            settings.limits.connections = 1;
        })
        .await;
        let connect = async || match &address {
            Address::Tcp(tcp) => Box::new(TcpStream::connect(tcp).await.unwrap()) as Box<dyn Both>,
            other => Box::new(UnixStream::connect(path(other)).await.unwrap()),
        };
        let mut busy = connect().await;
        busy.write_all(b"GET /wait HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").await.unwrap();
        running.heads.recv().await.unwrap();
        let mut queued = Vec::new();
        for _ in 0..3 {
            let mut stream = connect().await;
            stream.write_all(REQUEST).await.unwrap();
            queued.push(stream);
        }
        running.bound.change(&at(&[free()])).unwrap();
        if let Address::Unix(path) = &address {
            let error = UnixStream::connect(path).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::NotFound);
        }
        running.go.notify_one();
        for mut stream in queued {
            let mut answer = String::new();
            in_time(stream.read_to_string(&mut answer)).await.expect("answered, not reset");
            assert_eq!(status(&answer), 200, "{address}");
        }
    }
}

trait Both: AsyncRead + AsyncWrite + Unpin {}
impl<S: AsyncRead + AsyncWrite + Unpin> Both for S {}
