//! What a client sees of the end.

use std::io::ErrorKind;

use super::*;

const HEAD: &[u8] = b"GET /hooks HTTP/1.1\r\nHost: a\r\n";

/// Everything until the end, which is one and no reset.
async fn rest(stream: &mut TcpStream) -> String {
    let mut rest = String::new();
    in_time(stream.read_to_string(&mut rest)).await.expect("closed, not reset");
    rest
}

#[tokio::test]
async fn who_is_connected_and_not_served_yet_is_served() {
    let running = Running::start().await;
    let mut streams = Vec::new();
    for _ in 0..20 {
        let mut stream = std::net::TcpStream::connect(running.address).unwrap(); // blocks: no task runs meanwhile
        std::io::Write::write_all(&mut stream, &[HEAD, b"\r\n"].concat()).unwrap();
        stream.set_nonblocking(true).unwrap();
        streams.push(TcpStream::from_std(stream).unwrap());
    }
    running.tasks.stop();
    for mut stream in streams {
        let answer = rest(&mut stream).await;
        assert_eq!((status(&answer), header(&answer, "connection")), (200, Some("close")));
    }
    in_time(running.tasks.ended()).await;
    assert_eq!(TcpStream::connect(running.address).await.unwrap_err().kind(), ErrorKind::ConnectionRefused);
}

#[tokio::test]
async fn a_head_that_is_under_way_is_read_to_its_end_and_answered() {
    let running = Running::start().await;
    let mut first = running.connect().await;
    first.write_all(HEAD).await.unwrap();
    let mut second = running.connect().await;
    second.write_all(&[HEAD, b"\r\n"].concat()).await.unwrap();
    read_answer(&mut second).await;
    second.write_all(HEAD).await.unwrap();
    let silent = running.connect().await;
    let mut third = running.connect().await; // served after both heads were read
    third.write_all(&[HEAD, b"\r\n"].concat()).await.unwrap();
    read_answer(&mut third).await;

    running.tasks.stop();
    assert_eq!(rest(&mut third).await, "", "an idle one is closed");
    for stream in [&mut first, &mut second] {
        stream.write_all(b"\r\n").await.unwrap();
        let answer = rest(stream).await;
        assert_eq!((status(&answer), header(&answer, "connection")), (200, Some("close")));
    }
    in_time(running.tasks.ended()).await;
    drop(silent);
}

#[tokio::test]
async fn a_head_of_which_a_part_of_a_line_has_come_to_a_resting_connection_is_read_to_its_end_and_answered() {
    let running = Running::start().await;
    let mut stream = running.connect().await;
    stream.write_all(&[HEAD, b"\r\n"].concat()).await.unwrap();
    read_answer(&mut stream).await;
    tokio::time::sleep(Duration::from_secs(1)).await; // it rests by now
    let (begin, end) = HEAD.split_at(8);
    stream.write_all(begin).await.unwrap();
    tokio::time::sleep(Duration::from_millis(100)).await;
    running.tasks.stop();
    tokio::time::sleep(Duration::from_millis(100)).await;
    stream.write_all(&[end, b"\r\n"].concat()).await.unwrap();
    let answer = rest(&mut stream).await;
    assert_eq!((status(&answer), header(&answer, "connection")), (200, Some("close")));
    in_time(running.tasks.ended()).await;
}

#[tokio::test]
async fn a_request_on_an_idle_connection_that_is_being_closed_meets_an_end_and_no_reset() {
    let mut running = Running::start().await;
    let mut stream = running.connect().await;
    stream.write_all(&[HEAD, b"\r\n"].concat()).await.unwrap();
    read_answer(&mut stream).await;
    running.heads.recv().await.unwrap();
    // Both before any task runs: the connection is told to end before it is told that there is something to read.
    assert_eq!(stream.try_write(&[HEAD, b"\r\n"].concat()).unwrap(), HEAD.len() + 2);
    running.tasks.stop();
    assert_eq!(rest(&mut stream).await, "");
    stream.write_all(b"more of it").await.expect("taken in, not reset");
    tokio::task::yield_now().await;
    assert!(stream.take_error().unwrap().is_none());
    drop(stream);
    in_time(running.tasks.ended()).await;
    assert!(running.heads.try_recv().is_err(), "what is not answered is not taken");
}

#[tokio::test(start_paused = true)]
async fn silence_holds_the_end_up_for_a_second() {
    let running = Running::start().await;
    let silent = running.connect().await;
    let mut idle = running.connect().await;
    idle.write_all(&[HEAD, b"\r\n"].concat()).await.unwrap();
    read_answer(&mut idle).await;
    let start = tokio::time::Instant::now();
    running.tasks.stop();
    in_time(running.tasks.ended()).await;
    assert!(start.elapsed() <= Duration::from_millis(2100), "{:?}", start.elapsed());
    drop((silent, idle));
}
