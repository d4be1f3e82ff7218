//! Who sends the gateway its webhooks, signed as the Standard Webhooks specification says.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use hmac::{Hmac, KeyInit as _, Mac as _};
use http::{Request, Response};
use http_body_util::{BodyExt as _, Full};
use sha2::Sha256;

use super::super::super::client::HttpClient;
use super::books::{self, Answer, Books};
use crate::base::{Clock as _, SystemClock};

/// Made up, for gateways that are on loopback for a few seconds.
const KEY: &[u8] = b"a secret of doctor --crash alone";

/// For one webhook, answer included. Longer than a gateway sheds after.
const TIMEOUT: Duration = Duration::from_secs(30);

/// The secret as a config writes it.
pub(super) fn secret() -> String {
    format!("whsec_{}", data_encoding::BASE64.encode(KEY))
}

pub(super) struct Sender {
    http: HttpClient,
    ingress: String,
    books: Arc<Books>,
}

impl Sender {
    pub(super) fn new(http: HttpClient, ingress: &str, books: Arc<Books>) -> Self {
        Self { http, ingress: ingress.to_owned(), books }
    }

    /// Sends one webhook after the other, until one gets no answer.
    pub(super) async fn send_until_it_dies(self) {
        loop {
            let number = self.books.choose();
            if self.send(number).await.is_err() {
                return self.books.unanswered(number);
            }
        }
    }

    /// Sends webhook `number`, and notes the answer. An error is no answer.
    pub(super) async fn send(&self, number: u64) -> Result<(), ()> {
        let _under_way = self.books.sends();
        let exchange = async {
            let request = self.request(number).ok_or(())?;
            let answer = self.http.request(request).await.map_err(|_| ())?;
            let (head, body) = answer.into_parts();
            body.collect().await.map_err(|_| ())?;
            Ok::<_, ()>(Response::from_parts(head, ()))
        };
        let answer = tokio::time::timeout(TIMEOUT, exchange).await.map_err(|_| ())??;
        let text = |name: &str| answer.headers().get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
        let event = text("forebay-event-id").to_owned();
        let duplicate = text("forebay-duplicate") == "true";
        self.books.answered(number, Answer { accepted: answer.status().is_success(), event, duplicate });
        Ok(())
    }

    fn request(&self, number: u64) -> Option<Request<Full<Bytes>>> {
        let (id, time, body) = (format!("msg_{number}"), SystemClock.now().seconds(), books::body(number));
        let mut mac = Hmac::<Sha256>::new_from_slice(KEY).ok()?;
        mac.update(format!("{id}.{time}.").as_bytes());
        mac.update(&body);
        let signature = data_encoding::BASE64.encode(&mac.finalize().into_bytes());
        Request::post(format!("{}/{}", self.ingress, books::source(number)))
            .header("content-type", "application/json")
            .header("webhook-id", id)
            .header("webhook-timestamp", time)
            .header("webhook-signature", format!("v1,{signature}"))
            .body(Full::new(body))
            .ok()
    }
}
