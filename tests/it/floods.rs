//! HTTP/2 floods (row D9): each ends by the connection's being closed, the gateway's memory stays where it was, and the
//! next good request goes through.

use crate::support::gateway::{PATIENCE, github_to};
use crate::support::h2::{
    CONTINUATION, DATA, END_HEADERS, END_STREAM, Flooded, H2, HEADERS, PING, PRIORITY, RST_STREAM, SETTINGS,
    WINDOW_UPDATE, block, frame, integer, post, settings,
};
use crate::support::{FakeApp, Gateway};

/// More than any of them may take before it is closed.
const ENDLESS: usize = 200_000;
/// By how much the gateway may grow under a flood. Generous: what an allocator keeps is its affair.
const GROWTH_MAX: u64 = 48 << 20;

struct Bench {
    gateway: Gateway,
    _app: FakeApp,
    before: u64,
}

impl Bench {
    async fn start() -> Self {
        let app = FakeApp::start().await;
        let gateway = Gateway::start(&github_to(&app.url())).await;
        assert_eq!(gateway.github("warm", b"{}").await.status, 200);
        let before = gateway.memory();
        Self { gateway, _app: app, before }
    }

    async fn connect(&self) -> H2 {
        H2::connect(&self.gateway.ingress, &[]).await
    }

    async fn flood(&self, bytes: impl FnMut(usize) -> Vec<u8>) -> Flooded {
        self.connect().await.flood(ENDLESS, bytes).await
    }

    /// It came through: `flood` was cut off, memory stands, and the next request is answered.
    async fn holds(&self, what: &str, flood: &Flooded) {
        assert!(flood.taken < ENDLESS, "{what} was never stopped");
        self.is_well(what).await;
    }

    async fn is_well(&self, what: &str) {
        let grown = self.gateway.memory().saturating_sub(self.before);
        assert!(grown < GROWTH_MAX, "{what}: {grown} bytes more");
        assert_eq!(self.gateway.github(what, what.as_bytes()).await.status, 200, "{what}");
    }

    /// How many connections were ended for `reason`.
    async fn cut_off(&self, reason: &str) -> f64 {
        self.gateway.metric(&format!("forebay_connections_cut_off_total{{reason=\"{reason}\"}}")).await
    }
}

/// The number of the `n`th stream of a client.
fn stream(n: usize) -> u32 {
    u32::try_from(n).unwrap() * 2 + 1
}

#[tokio::test]
async fn requests_taken_back_at_once_end_the_connection() {
    let bench = Bench::start().await;
    let head = post("/webhooks/github", &[]);
    let flood = bench
        .flood(|n| {
            let request = frame(HEADERS, END_HEADERS, stream(n), &head);
            [request, frame(RST_STREAM, 0, stream(n), &8u32.to_be_bytes())].concat()
        })
        .await;
    bench.holds("rapid reset", &flood).await;
}

/// The peer never resets a stream itself: it breaks a rule so that the gateway has to (a window update of nothing).
#[tokio::test]
async fn resets_that_a_peer_provokes_end_the_connection() {
    let bench = Bench::start().await;
    let head = post("/webhooks/github", &[("content-length", "100")]);
    let flood = bench
        .flood(|n| {
            let request = frame(HEADERS, END_HEADERS, stream(n), &head);
            [request, frame(WINDOW_UPDATE, 0, stream(n), &0u32.to_be_bytes())].concat()
        })
        .await;
    bench.holds("provoked resets", &flood).await;
}

#[tokio::test]
async fn a_head_that_goes_on_for_ever_ends_the_connection() {
    let bench = Bench::start().await;
    let flood = bench
        .flood(|n| match n {
            0 => frame(HEADERS, 0, 1, &post("/webhooks/github", &[])),
            _ => frame(CONTINUATION, 0, 1, &block(&[("x-more", &"y".repeat(1000))])),
        })
        .await;
    bench.holds("continuation", &flood).await;
    let empty = bench
        .flood(|n| match n {
            0 => frame(HEADERS, 0, 1, &post("/webhooks/github", &[])),
            _ => frame(CONTINUATION, 0, 1, b""),
        })
        .await;
    bench.holds("empty continuation", &empty).await;
}

#[tokio::test]
async fn frames_that_ask_for_nothing_end_the_connection() {
    let bench = Bench::start().await;
    let open = frame(HEADERS, END_HEADERS, 1, &post("/webhooks/github", &[]));
    let empty_data = frame(DATA, 0, 1, b"");
    let cases = [
        ("pings", Vec::new(), frame(PING, 0, 0, &[7; 8])),
        ("settings", Vec::new(), settings(&[(4, 65_535)])),
        ("acknowledgements of nothing", Vec::new(), frame(SETTINGS, 1, 0, b"")),
        ("priorities", Vec::new(), frame(PRIORITY, 0, 5, &[0, 0, 0, 3, 9])),
        ("window updates", Vec::new(), frame(WINDOW_UPDATE, 0, 0, &1u32.to_be_bytes())),
        ("unknown frames", Vec::new(), frame(0xee, 0, 0, b"x")),
        ("empty data", open, empty_data),
    ];
    for (what, first, again) in cases {
        let flood = bench.flood(|n| if n == 0 { first.clone() } else { again.clone() }).await;
        bench.holds(what, &flood).await;
    }
    assert!(bench.cut_off("frames").await >= 4.0, "{}", bench.cut_off("frames").await);
}

/// One large header goes into the table of the compression, and each byte after it stands for it again.
#[tokio::test]
async fn a_head_that_unpacks_to_much_more_is_refused() {
    let bench = Bench::start().await;
    let value = "v".repeat(3000);
    let learn = [vec![0x40], integer(6, 7), b"x-bomb".to_vec(), integer(value.len(), 7), value.into_bytes()].concat();
    let first = [post("/webhooks/github", &[]), learn].concat();
    let bomb = [post("/webhooks/github", &[]), vec![0x80 | 62; 10_000]].concat(); // 62 is the newest entry
    let mut h2 = bench.connect().await;
    assert!(h2.send(&frame(HEADERS, END_HEADERS | END_STREAM, 1, &first)).await);
    assert_eq!(status(&mut h2, 1).await, Some(401));
    assert!(h2.send(&frame(HEADERS, END_HEADERS | END_STREAM, 3, &bomb)).await);
    let refused = status(&mut h2, 3).await;
    assert!(matches!(refused, None | Some(431)), "reset, closed or told so: {refused:?}");
    bench.is_well("bomb").await;
    let flood =
        bench.flood(|n| frame(HEADERS, END_HEADERS | END_STREAM, stream(n), if n == 0 { &first } else { &bomb })).await;
    bench.holds("many bombs", &flood).await;
}

/// Its status, written out in the header block or by its number in the table; none if the stream or connection ends.
async fn status(h2: &mut H2, stream: u32) -> Option<u16> {
    loop {
        let frame = h2.next().await?;
        match frame.kind {
            RST_STREAM if frame.stream == stream => return None,
            HEADERS if frame.stream == stream => {
                let static_table = [200, 204, 206, 304, 400, 404, 500];
                return Some(match frame.payload[0] {
                    indexed @ 0x88..=0x8e => static_table[usize::from(indexed - 0x88)],
                    _ => {
                        let digits =
                            frame.payload.windows(3).find_map(|three| std::str::from_utf8(three).ok()?.parse().ok());
                        digits.unwrap_or_else(|| huffman(&frame.payload))
                    }
                });
            }
            _ => {}
        }
    }
}

/// The statuses here that the other side writes with Huffman's code (RFC 7541, appendix B): each digit has 5 bits
/// (0, 1, 2) or 6.
fn huffman(block: &[u8]) -> u16 {
    let digits =
        [(0x0, 5), (0x1, 5), (0x2, 5), (0x19, 6), (0x1a, 6), (0x1b, 6), (0x1c, 6), (0x1d, 6), (0x1e, 6), (0x1f, 6)];
    let length = block.iter().position(|byte| byte & 0x80 != 0 && byte & 0x7f <= 3).expect("a Huffman string");
    let bits = block[length + 1..].iter().take(3).fold(0u32, |all, byte| all << 8 | u32::from(*byte)) << 8;
    let (mut at, mut number) = (0, 0);
    for _ in 0..3 {
        let digit = digits.iter().position(|(code, len)| bits << at >> (32 - len) == *code).expect("a digit");
        at += digits[digit].1;
        number = number * 10 + u16::try_from(digit).unwrap();
    }
    number
}

/// A peer that gives no window: its answers stay behind, its connection goes after `write_timeout`.
#[tokio::test]
async fn answers_that_are_never_read_end_the_connection() {
    let app = FakeApp::start().await;
    let limits = "listen: 127.0.0.1:0, limits: { write_timeout: 200ms }";
    let gateway = Gateway::start_with(limits, &github_to(&app.url())).await;
    let before = gateway.memory();
    let mut h2 = H2::connect(&gateway.ingress, &[(4, 0)]).await; // every stream begins with no window
    for n in 0..10 {
        assert!(h2.send(&frame(HEADERS, END_HEADERS | END_STREAM, stream(n), &post("/nowhere", &[]))).await);
    }
    while h2.next().await.is_some() {} // heads come, bodies do not, and then it is closed
    let unread = gateway.metric("forebay_connections_cut_off_total{reason=\"unread\"}").await;
    assert_eq!(unread, 1.0);
    assert!(gateway.memory().saturating_sub(before) < GROWTH_MAX);
    assert_eq!(gateway.github("next", b"{}").await.status, 200);
}

/// Sixty-four bodies may be open on a connection; one more is refused, and all together wait no longer than others.
#[tokio::test]
async fn only_so_many_bodies_are_open_on_a_connection() {
    let bench = Bench::start().await;
    let mut h2 = bench.connect().await;
    let head = post("/webhooks/github", &[("content-length", "1000")]);
    assert!(h2.until(SETTINGS, 0).await.is_some());
    let heads: Vec<u8> = (0..65).flat_map(|n| frame(HEADERS, END_HEADERS, stream(n), &head)).collect();
    assert!(h2.send(&heads).await);
    let refused = h2.until(RST_STREAM, stream(64)).await;
    assert!(refused.is_some_and(|frame| frame.payload == 7u32.to_be_bytes()), "REFUSED_STREAM");
    assert!(h2.send(&frame(DATA, END_STREAM, stream(0), &[b'x'; 1000])).await);
    assert_eq!(status(&mut h2, stream(0)).await, Some(401), "the others are under way, and none is held up");
    bench.is_well("open bodies").await;
    drop(h2);
    let deadline = tokio::time::Instant::now() + PATIENCE;
    while bench.gateway.metric("forebay_connections").await > 2.0 {
        assert!(tokio::time::Instant::now() < deadline);
        tokio::task::yield_now().await;
    }
}
