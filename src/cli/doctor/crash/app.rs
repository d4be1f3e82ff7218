//! The application behind the gateway that is killed.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::Context as _;
use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;
use tokio::task::JoinSet;

use super::books::{Books, Says};

/// The largest body that is read; none that is sent comes near it.
const BODY_MAX: usize = 1 << 20;

/// An application that writes down what it gets. Dropped, it is gone.
pub(super) struct App {
    pub(super) address: SocketAddr,
    _server: JoinSet<()>, // aborts it
}

impl App {
    pub(super) async fn start(books: Arc<Books>) -> anyhow::Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.context("no address for the application")?;
        let address = listener.local_addr().context("no address for the application")?;
        let mut server = JoinSet::new();
        server.spawn(accept(listener, books));
        Ok(Self { address, _server: server })
    }
}

async fn accept(listener: TcpListener, books: Arc<Books>) {
    let mut connections = JoinSet::new();
    loop {
        while connections.try_join_next().is_some() {} // closed since
        let Ok((stream, _)) = listener.accept().await else { continue };
        let books = Arc::clone(&books);
        connections.spawn(async move {
            let service = service_fn(move |request| answer(request, Arc::clone(&books)));
            let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await; // gateways die here
        });
    }
}

async fn answer(request: Request<Incoming>, books: Arc<Books>) -> Result<Response<Empty<Bytes>>, Infallible> {
    let (head, body) = request.into_parts();
    let mut response = Response::new(Empty::new());
    let text = |name: &str| head.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let number = text("webhook-id").strip_prefix("msg_").and_then(|number| number.parse().ok()).unwrap_or(0);
    *response.status_mut() = match Limited::new(body, BODY_MAX).collect().await {
        Err(_) => StatusCode::BAD_REQUEST, // the gateway died while it sent
        Ok(body) => {
            let attempt = text("forebay-attempt").parse().unwrap_or(0);
            let (event, delivery) = (text("forebay-event-id"), text("forebay-delivery-id"));
            match books.arrives(number, event, delivery, attempt, &body.to_bytes()) {
                Says::Taken => StatusCode::OK,
                Says::Later => StatusCode::SERVICE_UNAVAILABLE,
                Says::Never => StatusCode::GONE,
            }
        }
    };
    Ok(response)
}
