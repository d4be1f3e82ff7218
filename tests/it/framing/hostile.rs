//! `tests/data/framing/hostile.jsonl`, one test for each of its rows. What is kept and what reaches the application is
//! counted over all streams of a row and the good requests between them.

use serde_json::Value;
use tokio::io::AsyncWriteExt;

use super::{kept_are, next_good_one_passes, open};
use crate::support::raw::{Then, connect, raw, statuses};

/// A stream of the file.
struct Stream {
    row: String,
    about: String,
    bytes: Vec<u8>,
    then: Then,
    answers: Vec<u16>,
    stored: usize,
}

impl Stream {
    fn parse(line: &str) -> Self {
        let value: Value = serde_json::from_str(line).unwrap();
        let text = |key: &str| value[key].as_str().unwrap().to_owned();
        Self {
            row: text("row"),
            about: text("about"),
            bytes: value["send"].as_array().unwrap().iter().flat_map(bytes).collect(),
            then: if value["end"] == true { Then::End } else { Then::Wait },
            answers: value["answers"].as_array().unwrap().iter().map(|n| n.as_u64().unwrap() as u16).collect(),
            stored: value["stored"].as_u64().unwrap() as usize,
        }
    }
}

/// A text, or one that is repeated; each character is a byte.
fn bytes(part: &Value) -> Vec<u8> {
    let (text, times) = match part {
        Value::Array(parts) => (parts[0].as_str().unwrap(), parts[1].as_u64().unwrap() as usize),
        text => (text.as_str().unwrap(), 1),
    };
    text.chars().map(|char| u8::try_from(char).unwrap()).collect::<Vec<u8>>().repeat(times)
}

fn streams() -> Vec<Stream> {
    include_str!("../../data/framing/hostile.jsonl").lines().map(Stream::parse).collect()
}

async fn check(row: &str) {
    let (app, gateway) = open().await;
    let mut kept = 0;
    let of_row: Vec<_> = streams().into_iter().filter(|stream| stream.row == row).collect();
    assert!(!of_row.is_empty(), "no stream has the row {row}");
    for stream in of_row {
        let answers = raw(&gateway, &stream.bytes, stream.then).await;
        assert_eq!(statuses(&answers), stream.answers, "{row}, {}: {answers}", stream.about);
        for refused in answers.split("HTTP/1.").filter(|answer| answer.get(2..3) == Some("4")) {
            assert!(refused.contains("\"request_id\":\"") && refused.contains("\r\nx-request-id: "), "{refused}");
        }
        next_good_one_passes(&gateway, &stream.about).await;
        kept += stream.stored + 1;
    }
    kept_are(&app, &gateway, kept).await;
}

macro_rules! rows {
    ($($name:ident = $row:literal,)+) => {
        $(#[tokio::test]
        async fn $name() {
            check($row).await;
        })+

        #[test]
        fn every_row_of_the_file_has_its_test() {
            let rows = [$($row),+];
            assert!(streams().iter().all(|stream| rows.contains(&stream.row.as_str())));
        }
    };
}

rows! {
    a_length_and_a_coding = "F1",
    codings_other_than_chunked = "F2",
    two_codings = "F3",
    http_1_0_and_bodies_without_a_length = "F4",
    two_lengths = "F5",
    lengths_that_are_no_number = "F6",
    chunk_sizes = "F7",
    chunk_extensions = "F8",
    bare_line_ends = "F9",
    folded_and_nameless_headers = "F10",
    characters_that_have_no_place_in_a_head = "F11",
    hosts = "F12",
    what_comes_before_a_request = "F13",
    trailers = "F14",
    messages_cut_short = "F15",
    several_requests_at_once = "F16",
    tunnels_and_upgrades = "F17",
    expectations = "F18",
    other_versions_and_protocols = "F19",
    targets = "F20",
    counts_and_sizes = "D7",
}

/// What is refused before it is anybody's is counted as malformed, under no source's name, and logged with the id that
/// the answer has.
#[tokio::test]
async fn a_refused_head_is_counted_and_logged() {
    let (_app, gateway) = open().await;
    let answer = raw(&gateway, b"POST /hooks HTTP/1.1\r\nHost: a\r\nX: canary\n\r\n", Then::Wait).await;
    let json: Value = serde_json::from_str(answer.split_once("\r\n\r\n").unwrap().1).unwrap();
    assert_eq!(json["error"], "malformed request");
    let requests = gateway.metric("forebay_requests_total{source=\"_unknown\",outcome=\"refused\"}").await;
    let refusals = gateway.metric("forebay_refusals_total{source=\"_unknown\",reason=\"malformed\"}").await;
    assert_eq!((requests, refusals), (1.0, 1.0));
    gateway.says("request refused").await;
    let log = gateway.log();
    let lines: Vec<_> = log.iter().filter(|line| line.contains("request refused")).collect();
    assert_eq!(lines.len(), 1, "{lines:?}");
    assert!(lines[0].contains(json["request_id"].as_str().unwrap()) && lines[0].contains("malformed"), "{lines:?}");
    assert!(!log.iter().any(|line| line.contains("canary")), "what was sent is not logged");
}

/// Row F15, a message cut short: by a reset, where there is nobody left to answer.
#[tokio::test]
async fn a_body_cut_off_by_a_reset_keeps_nothing() {
    let (app, gateway) = open().await;
    let mut stream = connect(&gateway).await;
    stream.write_all(b"POST /hooks HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nok").await.unwrap();
    socket2::SockRef::from(&stream).set_linger(Some(std::time::Duration::ZERO)).unwrap();
    drop(stream);
    gateway.until_metric("forebay_refusals_total{source=\"hooks\",reason=\"broken\"}", 1.0).await;
    next_good_one_passes(&gateway, "a reset").await;
    kept_are(&app, &gateway, 1).await;
}

/// Broken chunks are found out when the request is under way already; they are no less malformed.
#[tokio::test]
async fn broken_chunks_are_counted_as_malformed() {
    let (_app, gateway) = open().await;
    let head = "POST /hooks HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
    let answer = raw(&gateway, format!("{head}2;a=b\r\nok\r\n0\r\n\r\n").as_bytes(), Then::Wait).await;
    assert_eq!(statuses(&answer), [400]);
    assert_eq!(gateway.metric("forebay_refusals_total{source=\"hooks\",reason=\"malformed\"}").await, 1.0);
}
