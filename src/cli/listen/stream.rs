//! Reads server-sent events (WHATWG HTML, section 9.2.6), as far as the gateway's tail uses them.

use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use bytes::{Buf as _, BytesMut};
use http::Response;
use http_body_util::BodyExt as _;
use hyper::body::Incoming;

use crate::event::EventId;

/// The gateway says every 15 s that it lives; one that has not for so long does not.
const SILENCE_MAX: Duration = Duration::from_secs(45);

/// A line, at most. An event's path alone may have 32 KiB.
const LINE_BYTES: usize = 1 << 20;

/// What the stream says.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Message {
    /// An event, and where the stream is after it.
    Event {
        id: EventId,
        data: String,
    },
    /// Where the stream begins.
    Place(EventId),
    Comment(String),
}

pub(super) struct Stream {
    body: Incoming,
    read: Reader,
}

impl Stream {
    pub(super) fn new(answer: Response<Incoming>) -> Self {
        Self { body: answer.into_body(), read: Reader::default() }
    }

    /// The next message; none at the end.
    pub(super) async fn next(&mut self) -> anyhow::Result<Option<Message>> {
        loop {
            if let Some(message) = self.read.message()? {
                return Ok(Some(message));
            }
            let frame = match tokio::time::timeout(SILENCE_MAX, self.body.frame()).await {
                Ok(Some(frame)) => frame.context("the connection to the gateway broke")?,
                Ok(None) => return Ok(None),
                Err(_) => bail!("the gateway has been silent for {} s", SILENCE_MAX.as_secs()),
            };
            if let Some(bytes) = frame.data_ref() {
                self.read.buffer.extend_from_slice(bytes);
            }
        }
    }
}

/// Bytes into messages.
#[derive(Debug, Default)]
struct Reader {
    buffer: BytesMut,
    id: Option<EventId>,
    data: Option<String>,
}

impl Reader {
    /// A message, if one is complete.
    fn message(&mut self) -> anyhow::Result<Option<Message>> {
        while let Some(line) = self.line()? {
            if line.is_empty() {
                match (self.id.take(), self.data.take()) {
                    (Some(id), Some(data)) => return Ok(Some(Message::Event { id, data })),
                    (Some(id), None) => return Ok(Some(Message::Place(id))),
                    (None, _) => continue, // this stream's events have ids
                }
            }
            let (field, value) = line.split_once(':').unwrap_or((&line, ""));
            let value = value.strip_prefix(' ').unwrap_or(value);
            match field {
                "" => return Ok(Some(Message::Comment(value.to_owned()))),
                "id" => self.id = Some(value.parse().context("the stream's ids are not those of events")?),
                "data" => self.data = Some(value.to_owned()), // JSON stands on one line
                _ => {}
            }
        }
        Ok(None)
    }

    fn line(&mut self) -> anyhow::Result<Option<String>> {
        let Some(end) = self.buffer.iter().position(|byte| *byte == b'\n') else {
            ensure!(self.buffer.len() <= LINE_BYTES, "the stream has a line of over 1 MiB; it is no gateway's");
            return Ok(None);
        };
        let line = self.buffer.split_to(end);
        self.buffer.advance(1);
        let text = std::str::from_utf8(&line).context("the stream is not text; it is no gateway's")?;
        Ok(Some(text.trim_end_matches('\r').to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "evt_0000000000000000000000000000000a";

    fn messages(pieces: &[&str]) -> Vec<Message> {
        let mut reader = Reader::default();
        let mut messages = Vec::new();
        for piece in pieces {
            reader.buffer.extend_from_slice(piece.as_bytes());
            while let Some(message) = reader.message().unwrap() {
                messages.push(message);
            }
        }
        messages
    }

    #[test]
    fn messages_are_whole_however_they_are_cut() {
        let text = format!(
            ": hello\nretry: 1000\nid: {ID}\n\nevent: event\r\nid: {ID}\r\ndata: {{\"a\":\"b: c\"}}\r\n\r\n: bye\n\n"
        );
        let id: EventId = ID.parse().unwrap();
        let wanted = [
            Message::Comment("hello".to_owned()),
            Message::Place(id),
            Message::Event { id, data: "{\"a\":\"b: c\"}".to_owned() },
            Message::Comment("bye".to_owned()),
        ];
        assert_eq!(messages(&[&text]), wanted);
        let letters: Vec<String> = text.chars().map(String::from).collect();
        let letters: Vec<&str> = letters.iter().map(String::as_str).collect();
        assert_eq!(messages(&letters), wanted);
    }

    #[test]
    fn what_is_no_gateways_tail_is_an_error() {
        for text in ["id: 7\n\n".to_owned(), "x".repeat(LINE_BYTES + 1)] {
            let mut reader = Reader { buffer: text.as_bytes().into(), ..Reader::default() };
            assert!(reader.message().is_err());
        }
    }
}
