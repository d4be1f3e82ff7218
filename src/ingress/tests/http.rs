//! Requests and answers, over HTTP/1.1 and HTTP/2.

use ::http::{Request, StatusCode};
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};

use super::*;

#[tokio::test]
async fn a_request_arrives_as_it_was_sent_and_the_connection_stays() {
    let mut running = Running::start().await;
    let mut stream = running.connect().await;
    for body_sent in ["first", "second"] {
        let request = format!(
            "POST /hooks?a=%20b&a HTTP/1.1\r\nHost: Hooks.Test:80\r\nX-Twice: 1\r\nx-request-id: theirs\r\nX-Twice: 2\r\n\
             Content-Length: {}\r\n\r\n{body_sent}",
            body_sent.len()
        );
        stream.write_all(request.as_bytes()).await.unwrap();
        let answer = read_answer(&mut stream).await;
        assert_eq!((status(&answer), body(&answer)), (200, body_sent));
        assert_eq!(header(&answer, "connection"), None);
        assert!(header(&answer, "forebay-event-id").unwrap().starts_with("evt_"));
        assert_eq!(header(&answer, "x-request-id").unwrap().len(), 32, "ours, not the sender's");

        let head = running.heads.recv().await.unwrap();
        assert_eq!((head.method.as_str(), &*head.path, head.query.as_deref()), ("POST", "/hooks", Some("a=%20b&a")));
        let twice: Vec<_> = head.headers.get_all("x-twice").iter().collect();
        assert_eq!(twice, ["1", "2"]);
        assert_eq!(head.headers["x-request-id"], "theirs", "the application gets what was sent");
        assert_eq!(head.received_at, NOW);
        assert_eq!(head.client.host.as_deref(), Some("Hooks.Test:80"));
        assert!(head.client.ip.is_loopback() && !head.client.tls);
    }
}

#[tokio::test]
async fn http2_is_spoken_to_who_begins_with_its_preface() {
    let mut running = Running::start().await;
    let io = TokioIo::new(running.connect().await);
    let (mut sender, connection) = http2::handshake(TokioExecutor::new(), io).await.unwrap();
    running.tasks.spawn("client", async {
        let _ = connection.await;
    });
    for body_sent in ["first", "second"] {
        let request = Request::post("http://hooks.test/hooks?q").body(Full::new(Bytes::from(body_sent))).unwrap();
        let answer = in_time(sender.send_request(request)).await.unwrap();
        assert_eq!(answer.status(), StatusCode::OK);
        assert!(answer.headers().contains_key("x-request-id"));
        assert_eq!(answer.into_body().collect().await.unwrap().to_bytes(), body_sent);
        let head = running.heads.recv().await.unwrap();
        assert_eq!((&*head.path, head.query.as_deref()), ("/hooks", Some("q")));
        assert_eq!(head.client.host.as_deref(), Some("hooks.test"));
    }
    let request = Request::post("http://hooks.test/none").body(Full::new(Bytes::from("unread"))).unwrap();
    let answer = in_time(sender.send_request(request)).await.unwrap();
    assert_eq!(answer.status(), StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn a_preface_in_pieces_is_still_http2() {
    let running = Running::start().await;
    let mut stream = running.connect().await;
    stream.set_nodelay(true).unwrap();
    for piece in ["PRI * HTT", "P/2.0\r\n\r\nSM\r", "\n\r\n"] {
        stream.write_all(piece.as_bytes()).await.unwrap();
        tokio::task::yield_now().await;
    }
    stream.write_all(&[0, 0, 0, 4, 0, 0, 0, 0, 0]).await.unwrap(); // empty SETTINGS
    let mut frame = [0; 9];
    in_time(stream.read_exact(&mut frame)).await.unwrap();
    assert_eq!(frame[3], 4, "a SETTINGS frame answers");
}

#[tokio::test]
async fn an_error_is_json_with_the_requests_id() {
    let running = Running::start().await;
    let answer = running.exchange("GET /none HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").await;
    assert_eq!(status(&answer), 404);
    assert_eq!(header(&answer, "content-type"), Some("application/json"));
    let json: serde_json::Value = serde_json::from_str(body(&answer)).unwrap();
    assert_eq!(json["error"], "not found");
    assert_eq!(json["request_id"].as_str(), header(&answer, "x-request-id"));
    assert_eq!(json.as_object().unwrap().len(), 2);
}

#[tokio::test]
async fn a_connection_ends_after_a_body_that_was_not_read_and_only_then() {
    let running = Running::start().await;
    let answer = running.exchange("POST /forbidden HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc").await;
    assert_eq!((status(&answer), header(&answer, "connection")), (403, Some("close")));

    let mut stream = running.connect().await;
    for _ in 0..2 {
        stream.write_all(b"GET /forbidden HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
        let answer = read_answer(&mut stream).await;
        assert_eq!((status(&answer), header(&answer, "connection")), (403, None));
    }
}

#[tokio::test]
async fn a_panic_is_a_500_that_says_nothing_and_the_connection_goes_on() {
    let running = Running::start().await;
    let mut stream = running.connect().await;
    stream.write_all(b"GET /panic HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
    let answer = read_answer(&mut stream).await;
    assert_eq!(status(&answer), 500);
    let json: serde_json::Value = serde_json::from_str(body(&answer)).unwrap();
    assert_eq!(json["error"], "internal error");
    assert_eq!(json["request_id"].as_str(), header(&answer, "x-request-id"));
    stream.write_all(b"GET /hooks HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
    assert_eq!(status(&read_answer(&mut stream).await), 200);
}

#[tokio::test]
async fn ambiguous_requests_are_refused_before_the_handler_and_counted() {
    let mut running = Running::start().await;
    for (request, want) in [
        ("POST /hooks HTTP/1.1\r\n\r\n", 400),
        ("POST /hooks HTTP/1.1\r\nHost: a\r\nHost: a\r\nConnection: close\r\n\r\n", 400),
        ("POST http://b/hooks HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", 400),
        ("CONNECT a:80 HTTP/1.1\r\nHost: a:80\r\nConnection: close\r\n\r\n", 400),
        ("GET /hooks HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: upgrade, close\r\n\r\n", 400),
        ("POST /hooks HTTP/1.1\r\nHost: a\r\nExpect: 200-ok\r\nConnection: close\r\n\r\n", 417),
        ("POST /hooks HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip\r\n\r\n", 400),
        ("POST /hooks HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n", 400),
        ("POST /hooks HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n", 400),
        ("POST /hooks HTTP/1.1\r\nHost: a\r\nContent-Length: +1\r\n\r\n", 400),
        ("\x16\x03\x01 no HTTP at all\r\n\r\n", 400),
    ] {
        let request = request.replace("HTTP/1.1\r\n\r\n", "HTTP/1.1\r\nConnection: close\r\n\r\n");
        assert_eq!(status(&running.exchange(&request).await), want, "{request:?}");
    }
    assert!(running.heads.try_recv().is_err(), "the handler saw one of them");
    let counted = "forebay_refusals_total{source=\"_unknown\",reason=\"malformed\"} 11\n";
    assert!(running.metrics.render().contains(counted), "each of them");
}

#[tokio::test]
async fn the_answer_to_ambiguous_framing_is_like_any_other_and_the_last_one() {
    let mut running = Running::start().await;
    let good = "POST /hooks HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nok";
    let both = "POST /hooks HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n";
    let answers = running.exchange(format!("{good}{good}{both}0\r\n\r\n{good}")).await;
    let heads: Vec<_> = answers.match_indices("HTTP/1.1 ").map(|(at, _)| &answers[at..]).collect();
    let statuses: Vec<_> = heads.iter().map(|head| status(head)).collect();
    assert_eq!(statuses, [200, 200, 400], "what came before is answered, what came after is not heard: {answers}");
    let refused = heads[2];
    assert_eq!(header(refused, "content-type"), Some("application/json"));
    assert_eq!(header(refused, "connection"), Some("close"));
    assert_eq!(header(refused, "date"), Some("Tue, 14 Nov 2023 22:13:20 GMT"));
    let json: serde_json::Value = serde_json::from_str(body(refused)).unwrap();
    assert_eq!(json["error"], "malformed request");
    assert_eq!(json["request_id"].as_str(), header(refused, "x-request-id"));
    assert_eq!(header(refused, "content-length"), Some(body(refused).len().to_string().as_str()));
    for _ in 0..2 {
        running.heads.recv().await.unwrap();
    }
    assert!(running.heads.try_recv().is_err(), "the handler saw what is ambiguous");
}

/// Nothing follows an answer that says it is the last, whatever the sender had sent behind its request.
#[tokio::test]
async fn a_fault_behind_the_last_answer_is_nobodys_business() {
    let running = Running::start().await;
    let last = "POST /hooks HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok";
    let answer = running.exchange(format!("{last}no HTTP at all\r\n\r\n")).await;
    assert_eq!((status(&answer), body(&answer)), (200, "ok"));
    assert!(!running.metrics.render().contains("reason=\"malformed\"} 1"));
}

#[tokio::test]
async fn broken_chunks_are_a_400_of_the_request_that_has_them() {
    let running = Running::start().await;
    let chunked = "POST /hooks HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
    for broken in ["2;x\r\nok\r\n0\r\n\r\n", "2\r\nok0\r\n\r\n", "2\nok\n0\n\n", "0\r\nX\r\n\r\n", "\r\n"] {
        let answer = running.exchange(format!("{chunked}{broken}")).await;
        assert_eq!((status(&answer), header(&answer, "connection")), (400, Some("close")), "{broken:?}");
        assert_eq!(answer.matches("HTTP/1.1").count(), 1, "{answer}");
        assert!(body(&answer).contains("malformed request"), "{broken:?}: {answer}");
    }
    let answer = running.exchange(format!("{chunked}2\r\nok\r\n0\r\nX-Trailer: dropped\r\n\r\nno HTTP\r\n")).await;
    assert!(answer.starts_with("HTTP/1.1 200 OK") && answer.contains("\r\n\r\nokHTTP/1.1 400"), "{answer}");
}

/// A sender may say that it is done before it reads: `shutdown(SHUT_WR)` ends its half alone.
#[tokio::test]
async fn a_sender_that_closes_its_half_gets_its_answers() {
    let mut running = Running::start().await;
    let mut stream = running.connect().await;
    let request = "POST /wait HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nok";
    stream.write_all(format!("{request}{request}").as_bytes()).await.unwrap();
    stream.shutdown().await.unwrap();
    for _ in 0..2 {
        in_time(running.heads.recv()).await.expect("both are heard");
        running.go.notify_one();
    }
    let mut answers = String::new();
    in_time(stream.read_to_string(&mut answers)).await.unwrap();
    assert_eq!(answers.matches("HTTP/1.1 200 OK").count(), 2, "{answers}");
}

/// Whoever is gone before its answer leaves nothing behind: its place is free once the request is done.
#[tokio::test]
async fn a_sender_that_goes_away_gives_its_place_back() {
    let mut running = Running::with(|settings| settings.limits.connections = 1).await;
    let mut gone = running.connect().await;
    gone.write_all(b"POST /wait HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nok").await.unwrap();
    running.heads.recv().await.unwrap();
    drop(gone);
    let mut next = running.connect().await;
    next.write_all(b"GET /hooks HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
    running.go.notify_one();
    assert_eq!(status(&read_answer(&mut next).await), 200);
}

#[tokio::test]
async fn the_health_path_answers_probes() {
    let mut running = Running::with(|settings| settings.health_path = Some("/up".to_owned())).await;
    let ask = async |method: &str, path: &str| {
        running.exchange(format!("{method} {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")).await
    };
    let answer = ask("GET", "/up").await;
    assert_eq!((status(&answer), body(&answer)), (200, "ok"));
    let answer = ask("HEAD", "/up").await;
    assert_eq!((status(&answer), body(&answer)), (200, ""));
    let answer = ask("POST", "/up").await;
    assert_eq!((status(&answer), header(&answer, "allow")), (405, Some("GET, HEAD")));
    // Its body is not read, so what comes next on the connection would not be either: that has to be said.
    let with_body = "GET /up HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\n";
    let answer = running.exchange(with_body).await;
    assert_eq!((status(&answer), header(&answer, "connection")), (200, Some("close")));
    assert!(running.heads.try_recv().is_err());
    assert_eq!(status(&running.exchange("GET /up/ HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").await), 404);
}

#[tokio::test]
async fn a_shutdown_finishes_what_is_under_way_and_closes_the_rest() {
    let mut running = Running::start().await;
    let mut idle = running.connect().await;
    idle.write_all(b"GET /hooks HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
    read_answer(&mut idle).await;
    let mut busy = running.connect().await;
    busy.write_all(b"POST /wait HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nok").await.unwrap();
    while &*running.heads.recv().await.unwrap().path != "/wait" {}

    running.tasks.stop();
    assert_eq!(in_time(idle.read_u8()).await.unwrap_err().kind(), std::io::ErrorKind::UnexpectedEof);
    running.go.notify_one();
    let answer = read_answer(&mut busy).await;
    assert_eq!((status(&answer), body(&answer)), (200, "ok"));
    assert_eq!(in_time(busy.read_u8()).await.unwrap_err().kind(), std::io::ErrorKind::UnexpectedEof);
    in_time(running.tasks.ended()).await;
    assert!(TcpStream::connect(running.address).await.is_err(), "nobody listens any more");
}

#[tokio::test]
async fn an_http2_shutdown_finishes_what_is_under_way() {
    let mut running = Running::start().await;
    let io = TokioIo::new(running.connect().await);
    let (mut sender, connection) = http2::handshake(TokioExecutor::new(), io).await.unwrap();
    running.tasks.spawn("client", async {
        let _ = connection.await;
    });
    let request = Request::post("http://a/wait").body(Full::new(Bytes::from("ok"))).unwrap();
    let answer = sender.send_request(request);
    let (answer, ()) = tokio::join!(in_time(answer), async {
        running.heads.recv().await.unwrap();
        running.tasks.stop();
        running.go.notify_one();
    });
    assert_eq!(answer.unwrap().into_body().collect().await.unwrap().to_bytes(), "ok");
    in_time(running.tasks.ended()).await;
}

/// What comes with a request, or in pieces after it, is the next one.
#[tokio::test]
async fn requests_may_come_together_and_in_pieces() {
    let running = Running::start().await;
    let mut stream = running.connect().await;
    let request = b"POST /hooks HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nok";
    let all = request.repeat(5);
    for cut in [1, 20, request.len() - 2, request.len(), request.len() + 1, 2 * request.len() + 30] {
        let (first, rest) = all.split_at(cut);
        stream.write_all(first).await.unwrap();
        let mut answers = String::new();
        for _ in 0..cut / request.len() {
            answers += &read_answer(&mut stream).await;
        }
        stream.write_all(rest).await.unwrap();
        while answers.matches("\r\n\r\nok").count() < 5 {
            answers += &read_answer(&mut stream).await;
        }
        assert_eq!(answers.matches("HTTP/1.1 200").count(), 5, "{cut}: {answers}");
    }
}

/// A part of a head that came with the request before has a head's time, and no more.
#[tokio::test(start_paused = true)]
async fn a_part_of_a_head_behind_a_request_has_a_heads_time() {
    let running = Running::start().await;
    let mut stream = running.connect().await;
    stream.write_all(b"GET /hooks HTTP/1.1\r\nHost: a\r\n\r\nGET /ho").await.unwrap();
    read_answer(&mut stream).await;
    let start = tokio::time::Instant::now();
    let _ = in_time(stream.read_u8()).await.unwrap_err();
    assert_eq!(start.elapsed().as_secs_f64().round(), 10.0);
}
