//! Sizes, counts and times: both sides of each border.

use tokio::time::Instant;

use super::*;

fn post(size: usize) -> String {
    let body = "x".repeat(size);
    format!("POST /hooks HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: {size}\r\n\r\n{body}")
}

fn chunked(size: usize) -> String {
    let chunks = "64\r\n".to_owned() + &"x".repeat(100) + "\r\n";
    let rest = format!("{:x}\r\n{}\r\n", size % 100, "x".repeat(size % 100));
    let rest = if size.is_multiple_of(100) { String::new() } else { rest };
    format!(
        "POST /hooks HTTP/1.1\r\nHost: a\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n{}{rest}0\r\n\r\n",
        chunks.repeat(size / 100)
    )
}

#[tokio::test]
async fn a_body_of_the_limit_is_taken_and_one_byte_more_is_413() {
    let running = Running::start().await;
    for request in [post(BODY_LIMIT), chunked(BODY_LIMIT)] {
        let answer = running.exchange(request).await;
        assert_eq!((status(&answer), body(&answer).len()), (200, BODY_LIMIT));
    }
    for request in [post(BODY_LIMIT + 1), chunked(BODY_LIMIT + 1), post(500_000), chunked(500_000)] {
        let answer = running.exchange(request).await;
        assert_eq!((status(&answer), header(&answer, "connection")), (413, Some("close")));
    }
    running.until_budget_is_whole().await;
}

/// Most senders write all of their request before they read: a connection closed with bytes unread would be reset
/// under them, and the answer lost.
#[tokio::test]
async fn a_sender_sees_its_413_even_if_it_first_sends_everything() {
    let running = Running::start().await;
    for request in [post(900_000), chunked(900_000)] {
        let socket = tokio::net::TcpSocket::new_v4().unwrap();
        socket.set_send_buffer_size(16 << 10).unwrap(); // so that the system cannot take it all in by itself
        let mut stream = socket.connect(running.address).await.unwrap();
        in_time(stream.write_all(request.as_bytes())).await.expect("the rest is taken in");
        let mut answer = String::new();
        in_time(stream.read_to_string(&mut answer)).await.expect("closed, not reset");
        assert_eq!(status(&answer), 413);
    }
}

#[tokio::test]
async fn a_length_declared_too_large_is_refused_before_the_body() {
    let running = Running::start().await;
    for length in [BODY_LIMIT + 1, 9_000_000_000_000_000_000] {
        let head =
            format!("POST /hooks HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: {length}\r\n\r\n");
        let mut stream = running.connect().await;
        stream.write_all(head.as_bytes()).await.unwrap();
        let answer = read_answer(&mut stream).await;
        assert_eq!(status(&answer), 413, "not even a 100: {answer}");
    }
}

#[tokio::test]
async fn a_sender_that_expects_100_gets_it_once_its_body_is_wanted() {
    let running = Running::start().await;
    let mut stream = running.connect().await;
    let head = "POST /hooks HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n";
    stream.write_all(head.as_bytes()).await.unwrap();
    assert_eq!(status(&read_answer(&mut stream).await), 100);
    stream.write_all(b"ok").await.unwrap();
    let answer = read_answer(&mut stream).await;
    assert_eq!((status(&answer), body(&answer)), (200, "ok"));
}

#[tokio::test]
async fn a_sender_that_hangs_up_in_its_body_gives_its_bytes_back() {
    let mut running = Running::start().await;
    let mut stream = running.connect().await;
    stream.write_all(b"POST /hooks HTTP/1.1\r\nHost: a\r\nContent-Length: 900\r\n\r\nhalf").await.unwrap();
    running.heads.recv().await.unwrap();
    while running.budget.used() != ByteSize(900) {
        tokio::task::yield_now().await;
    }
    drop(stream);
    in_time(running.until_budget_is_whole()).await;
}

#[tokio::test]
async fn a_head_too_large_or_with_too_many_lines_is_431() {
    let running = Running::start().await;
    let with_bytes = |bytes: usize| {
        let head = "GET /hooks HTTP/1.1\r\nHost: a\r\nConnection: close\r\nX: ";
        format!("{head}{}\r\n\r\n", "x".repeat(bytes - head.len() - 4))
    };
    assert_eq!(status(&running.exchange(with_bytes(32 << 10)).await), 200);
    assert_eq!(status(&running.exchange(with_bytes((32 << 10) + 1)).await), 431);
    assert_eq!(status(&running.exchange(with_bytes(500_000)).await), 431);

    let with_lines = |lines: usize| {
        let more: String = (2..lines).map(|n| format!("X-{n}: y\r\n")).collect();
        format!("GET /hooks HTTP/1.1\r\nHost: a\r\nConnection: close\r\n{more}\r\n")
    };
    assert_eq!(status(&running.exchange(with_lines(100)).await), 200);
    assert_eq!(status(&running.exchange(with_lines(101)).await), 431);
    let strict = Running::with(|settings| settings.limits.headers = 10).await;
    assert_eq!(status(&strict.exchange(with_lines(10)).await), 200);
    assert_eq!(status(&strict.exchange(with_lines(11)).await), 431);
}

/// How long the public side, left at its defaults, keeps a connection on which `sent` was all that came.
async fn closed_after(sent: &[u8], answers: usize) -> Duration {
    let running = Running::start().await;
    let mut stream = running.connect().await;
    stream.write_all(sent).await.unwrap();
    for _ in 0..answers {
        read_answer(&mut stream).await;
    }
    let start = Instant::now();
    let mut rest = Vec::new();
    let _ = in_time(stream.read_to_end(&mut rest)).await; // reset or closed, it is over
    assert_eq!(rest, b"");
    start.elapsed()
}

fn about(took: Duration, seconds: u64) -> bool {
    took.as_secs_f64().round() as u64 == seconds // tokio's timers are good to a millisecond
}

#[tokio::test(start_paused = true)]
async fn a_head_that_does_not_end_in_time_is_the_end() {
    for sent in [&b""[..], b"P", b"PRI * HTTP/2.0\r\n", b"POST /hooks HTTP/1.1\r\nHost: a\r\n"] {
        let took = closed_after(sent, 0).await;
        assert!(about(took, 10), "{sent:?}: {took:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_head_that_begins_like_the_preface_of_http2_wins_no_time() {
    let running = Running::start().await;
    let mut stream = running.connect().await;
    let start = Instant::now();
    stream.write_all(b"P").await.unwrap();
    tokio::time::sleep(Duration::from_secs(9)).await;
    stream.write_all(b"OST /hooks HTTP/1.1\r\n").await.unwrap();
    let _ = in_time(stream.read_u8()).await.unwrap_err();
    assert!(about(start.elapsed(), 10), "{:?}", start.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_slow_head_on_a_connection_in_use_has_the_same_time() {
    let took = closed_after(b"GET /hooks HTTP/1.1\r\nHost: a\r\n\r\n", 1).await;
    assert!(about(took, 30), "an idle connection: {took:?}");
    let running = Running::start().await;
    let mut stream = running.connect().await;
    stream.write_all(b"GET /hooks HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
    read_answer(&mut stream).await;
    stream.write_all(b"GET /hooks HTTP/1.1\r\n").await.unwrap();
    let start = Instant::now();
    let _ = in_time(stream.read_u8()).await.unwrap_err();
    assert!(about(start.elapsed(), 10), "{:?}", start.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_request_under_way_is_not_idle() {
    let mut running = Running::start().await;
    let mut stream = running.connect().await;
    stream.write_all(b"GET /wait HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
    running.heads.recv().await.unwrap();
    tokio::time::advance(Duration::from_secs(120)).await;
    running.go.notify_one();
    assert_eq!(status(&read_answer(&mut stream).await), 200);
}

#[tokio::test(start_paused = true)]
async fn a_silent_body_is_408_after_the_grace() {
    let running = Running::start().await;
    let mut stream = running.connect().await;
    stream.write_all(b"POST /hooks HTTP/1.1\r\nHost: a\r\nContent-Length: 900\r\n\r\n").await.unwrap();
    let answer = read_answer(&mut stream).await;
    assert_eq!((status(&answer), header(&answer, "connection")), (408, Some("close")));
    running.until_budget_is_whole().await;
}

#[tokio::test]
async fn a_connection_beyond_the_limit_waits_for_one_to_end() {
    let mut running = Running::with(|settings| settings.limits.connections = 1).await;
    let mut first = running.connect().await;
    first.write_all(b"GET /wait HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").await.unwrap();
    running.heads.recv().await.unwrap();
    let mut second = running.connect().await;
    second.write_all(b"GET /hooks HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
    assert!(running.heads.try_recv().is_err(), "the second was served beside the first");
    running.go.notify_one();
    assert_eq!(status(&read_answer(&mut first).await), 200);
    assert_eq!(status(&read_answer(&mut second).await), 200);
}
