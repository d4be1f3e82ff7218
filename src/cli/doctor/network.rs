//! The addresses to listen on, and the way to the destinations.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use http::Uri;
use hyper_util::client::legacy::connect::Connection as _;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::Check;
use super::disk::Holder;
use crate::base::{UnixMillis, format_duration};
use crate::config::Config;
use crate::deliver::{self, Destination};
use crate::ingress::Address;
use crate::ingress::unix::{self, Found};

/// How long the running gateway, or a destination that is connected, may take to tell the time.
const ANSWER_WITHIN: Duration = Duration::from_secs(2);

/// The head of an answer that is looked at, at most.
const HEAD_BYTES: u64 = 16 << 10;

/// Who has an address that is in use.
#[derive(Clone, Copy)]
enum Owner {
    /// The gateway that holds this config's journal.
    Ours,
    /// A gateway, but nobody holds this config's journal: it has another one.
    OtherGateway,
    Unknown,
}

/// Checks the addresses to listen on. Gives the running gateway's time, if it answers. Only the journal's lock says that
/// a gateway is this config's: another one answers the same.
pub(super) async fn addresses(config: &Config, holder: Option<Holder>, checks: &mut Vec<Check>) -> Option<UnixMillis> {
    let admin = config.admin.listen;
    let said = if admin.port() == 0 { None } else { ask_health(admin).await };
    let healthy = said.as_ref().is_some_and(|said| said.contains("{\"status\":\"ok\"}"));
    let owner = match holder {
        Some(_) => Owner::Ours,
        None if healthy => Owner::OtherGateway,
        None => Owner::Unknown,
    };
    for listen in &config.ingress.listen {
        checks.push(match &listen.address {
            Address::Tcp(tcp) => address("ingress.listen", *tcp, owner),
            Address::Unix(path) => socket_file(&listen.address, path, owner),
            Address::Inherited(_) => inherited(&listen.address),
        });
    }
    checks.push(address("admin.listen", admin, owner));
    said.filter(|_| holder.is_some()).as_deref().and_then(date)
}

fn address(what: &str, address: SocketAddr, owner: Owner) -> Check {
    let what = format!("{what} {address}");
    match TcpListener::bind(address) {
        Ok(_) if address.port() == 0 => Check::ok(what, "any free port"),
        Ok(_) => Check::ok(what, "free"),
        Err(error) => {
            let cure = match error.kind() {
                io::ErrorKind::AddrInUse => match owner {
                    Owner::Ours => {
                        return Check::ok(what, "in use, and a gateway runs on this journal: it is taken for its own");
                    }
                    Owner::OtherGateway => {
                        "a gateway runs here on another journal: stop it, choose another port, or set journal.dir to its own"
                    }
                    Owner::Unknown => "another program has it (`ss -ltnp` names it): stop it, or choose another port",
                },
                io::ErrorKind::PermissionDenied => {
                    "ports below 1024 need CAP_NET_BIND_SERVICE: grant it, or choose a higher port"
                }
                io::ErrorKind::AddrNotAvailable => "no interface has this address: use 0.0.0.0 or [::] for all of them",
                _ => "choose another address",
            };
            Check::fail(what, error.to_string(), cure)
        }
    }
}

fn socket_file(address: &Address, path: &Path, owner: Owner) -> Check {
    let what = format!("ingress.listen {address}");
    let dir = path.parent().unwrap_or(Path::new("/"));
    match unix::state(path) {
        Ok(Found::Nothing) if !dir.is_dir() => {
            let cure = "make it, and let the user who runs forebay write there (systemd: RuntimeDirectory=)";
            Check::fail(what, format!("there is no directory {}", dir.display()), cure)
        }
        Ok(Found::Nothing) => Check::ok(what, "free"),
        Ok(Found::Stale) => Check::ok(what, "left by a gateway that was killed; the next start replaces it"),
        Ok(Found::InUse) => match owner {
            Owner::Ours => Check::ok(what, "in use, and a gateway runs on this journal: it is taken for its own"),
            Owner::OtherGateway | Owner::Unknown => {
                let cure = "another program listens on it (`ss -lxp` names it): stop it, or choose another path";
                Check::fail(what, "in use", cure)
            }
        },
        Ok(Found::NoSocket) => {
            Check::fail(what, "a file that is no socket has this name", "move it away, or choose another path")
        }
        Err(error) => Check::fail(what, error.to_string(), "let the user who runs forebay use the path"),
    }
}

/// They are handed to the gateway, not to this command.
fn inherited(address: &Address) -> Check {
    let detail = "handed over by the service manager when the gateway starts; not looked at here";
    Check::ok(format!("ingress.listen {address}"), detail)
}

/// Connects to every destination at once, as an attempt would. Gives the times they tell, too.
pub(crate) async fn destinations(destinations: &[Destination]) -> (Vec<Check>, Vec<(String, UnixMillis)>) {
    let (checks, times): (Vec<_>, Vec<_>) = join_all(destinations.iter().map(reach)).await.into_iter().unzip();
    (checks, times.into_iter().flatten().collect())
}

async fn reach(destination: &Destination) -> (Check, Option<(String, UnixMillis)>) {
    let what = format!("destinations.{}", destination.name);
    let host = destination.url.authority().map_or("", |authority| authority.as_str());
    let started = Instant::now();
    match deliver::connect(destination).await {
        Ok(connection) => {
            let over = if destination.url.scheme_str() == Some("https") { "TLS included" } else { "without TLS" };
            let detail = format!("{host}: connected in {:.1?}, {over}", started.elapsed());
            let is_http2 = connection.inner().connected().is_negotiated_h2();
            let time = if is_http2 { None } else { tell_time(connection, &destination.url).await };
            (Check::ok(what, detail), time.map(|time| (destination.name.to_string(), time)))
        }
        Err(failure) => {
            let within = format_duration(destination.connect_timeout);
            let cure =
                "start the application, or mend destinations.….url; what comes meanwhile is kept and delivered later";
            (Check::fail(what, format!("{host}: {failure} (connect_timeout {within})"), cure), None)
        }
    }
}

/// What a server says its time is: `OPTIONS *` asks for nothing, and an answer to it has a `Date` (RFC 9110, sections 9.3.7
/// and 6.6.1).
async fn tell_time(connection: impl AsyncRead + AsyncWrite + Unpin, url: &Uri) -> Option<UnixMillis> {
    date(
        &exchange(connection, &format!("OPTIONS * HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\r\n", url.host()?))
            .await?,
    )
}

async fn ask_health(address: SocketAddr) -> Option<String> {
    let mut address = address;
    if address.ip().is_unspecified() {
        let local: std::net::IpAddr =
            if address.is_ipv4() { std::net::Ipv4Addr::LOCALHOST.into() } else { std::net::Ipv6Addr::LOCALHOST.into() };
        address.set_ip(local);
    }
    let connection = tokio::time::timeout(ANSWER_WITHIN, TcpStream::connect(address)).await.ok()?.ok()?;
    exchange(connection, &format!("GET /healthz HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n")).await
}

async fn exchange(mut connection: impl AsyncRead + AsyncWrite + Unpin, request: &str) -> Option<String> {
    let mut said = Vec::new();
    let whole = async {
        connection.write_all(request.as_bytes()).await?;
        connection.take(HEAD_BYTES).read_to_end(&mut said).await
    };
    let _ = tokio::time::timeout(ANSWER_WITHIN, whole).await; // whatever came of it by then
    String::from_utf8(said).ok().filter(|said| !said.is_empty())
}

/// The `Date` of an answer (RFC 9110, section 5.6.7).
fn date(answer: &str) -> Option<UnixMillis> {
    let mut lines = answer.lines().take_while(|line| !line.is_empty());
    let text = lines.find_map(|line| line.split_once(':').filter(|(name, _)| name.eq_ignore_ascii_case("date")))?.1;
    let time = jiff::fmt::rfc2822::DateTimeParser::new().parse_timestamp(text.trim()).ok()?;
    Some(UnixMillis(time.as_millisecond()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_socket_file_may_be_free_left_behind_in_use_or_no_socket() {
        let dir = tempfile::tempdir().unwrap();
        let look = |name: &str, owner| {
            let path = dir.path().join(name);
            socket_file(&Address::Unix(path.clone()), &path, owner)
        };
        let said = |check: Check| format!("{check:?}");
        assert!(said(look("s", Owner::Unknown)).contains("free"));
        assert!(said(look("none/s", Owner::Unknown)).contains("there is no directory"));
        let socket = std::os::unix::net::UnixListener::bind(dir.path().join("s")).unwrap();
        assert!(said(look("s", Owner::Unknown)).contains("stop it, or choose another path"));
        assert!(said(look("s", Owner::Ours)).contains("taken for its own"));
        drop(socket);
        assert!(said(look("s", Owner::Unknown)).contains("left by a gateway that was killed"));
        std::fs::write(dir.path().join("file"), "").unwrap();
        assert!(said(look("file", Owner::Unknown)).contains("no socket"));
    }

    #[test]
    fn the_date_of_an_answer_is_read() {
        let answer = "HTTP/1.1 404 Not Found\r\nx: y\r\ndate: Sun, 06 Nov 1994 08:49:37 GMT\r\n\r\ndate: no";
        assert_eq!(date(answer), Some(UnixMillis(784_111_777_000)));
        assert_eq!(date("HTTP/1.1 200 OK\r\n\r\nDate: Sun, 06 Nov 1994 08:49:37 GMT"), None);
    }
}
