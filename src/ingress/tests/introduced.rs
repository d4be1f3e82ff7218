//! The PROXY protocol: whom a connection is from, and who may say so.

use super::*;

const V1: &str = "PROXY TCP4 203.0.113.7 192.0.2.1 35646 443\r\n";

const REQUEST: &str = "GET /hooks HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";

/// A public side that wants PROXY headers, from the networks `trusted` if there are any.
async fn introduced(trusted: &[&str]) -> Running {
    Running::with(|settings| {
        settings.listen[0].proxy_protocol = ProxyProtocol::Required;
        settings.trusted_proxies = trusted.iter().map(|network| network.parse().unwrap()).collect();
    })
    .await
}

fn refused(running: &Running) -> bool {
    running.metrics.render().contains("forebay_refusals_total{source=\"_unknown\",reason=\"proxy_header\"} 1\n")
}

#[tokio::test]
async fn the_client_is_whom_the_header_names() {
    let mut running = introduced(&[]).await;
    let v2 = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c\xcb\0\x71\x07\xc0\0\x02\x01\x8b\x3e\x01\xbb";
    let local = b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0";
    for (header, client) in [
        (V1.as_bytes(), "203.0.113.7"),
        (b"PROXY TCP6 2001:db8::7 ::1 1 2\r\n", "2001:db8::7"),
        (b"PROXY TCP6 ::ffff:203.0.113.7 ::1 1 2\r\n", "203.0.113.7"),
        (b"PROXY UNKNOWN\r\n", "127.0.0.1"),
        (v2, "203.0.113.7"),
        (local, "127.0.0.1"),
    ] {
        let answer = running.exchange([header, REQUEST.as_bytes()].concat()).await;
        assert_eq!(status(&answer), 200, "{header:?}");
        assert_eq!(running.heads.recv().await.unwrap().client.ip.to_string(), client);
    }
    assert!(!refused(&running));
}

#[tokio::test]
async fn a_trusted_proxy_in_front_of_the_one_that_introduces_is_still_believed() {
    let mut running = introduced(&["127.0.0.1/32", "203.0.113.0/24"]).await;
    let request = REQUEST.replace("Host: a\r\n", "Host: a\r\nX-Forwarded-For: 198.51.100.9\r\n");
    assert_eq!(status(&running.exchange(format!("{V1}{request}")).await), 200);
    assert_eq!(running.heads.recv().await.unwrap().client.ip.to_string(), "198.51.100.9");
}

#[tokio::test]
async fn a_connection_without_a_good_header_is_closed_without_a_word() {
    for sent in [
        REQUEST.to_owned(),
        V1.replace("443", "70000") + REQUEST,
        V1.replace("\r\n", "\n") + REQUEST,
        "\u{16}\u{3}\u{1}".to_owned(),
    ] {
        let mut running = introduced(&[]).await;
        let mut stream = running.connect().await;
        stream.write_all(sent.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        let _ = in_time(stream.read_to_end(&mut answer)).await; // closed or reset
        assert_eq!(answer, b"", "{sent:?}");
        assert!(running.heads.try_recv().is_err() && refused(&running), "{sent:?}");
    }
}

#[tokio::test]
async fn a_header_from_a_stranger_is_refused() {
    let mut running = introduced(&["10.0.0.0/8"]).await;
    let mut stream = running.connect().await;
    let _ = stream.write_all(format!("{V1}{REQUEST}").as_bytes()).await;
    let mut answer = Vec::new();
    let _ = in_time(stream.read_to_end(&mut answer)).await;
    assert_eq!(answer, b"");
    assert!(running.heads.try_recv().is_err() && refused(&running));
}

#[tokio::test]
async fn a_header_that_nobody_asked_for_is_no_http() {
    let mut running = Running::start().await;
    assert_eq!(status(&running.exchange(format!("{V1}{REQUEST}")).await), 400);
    assert!(running.heads.try_recv().is_err());
}

#[tokio::test(start_paused = true)]
async fn a_header_that_does_not_come_in_time_is_given_up() {
    for sent in ["", "PROXY TCP4 203.0.113.7"] {
        let running = introduced(&[]).await;
        let mut stream = running.connect().await;
        stream.write_all(sent.as_bytes()).await.unwrap();
        let start = tokio::time::Instant::now();
        let _ = in_time(stream.read_u8()).await.unwrap_err();
        assert_eq!(start.elapsed().as_secs(), 5, "{sent:?}");
        assert!(refused(&running));
    }
}
