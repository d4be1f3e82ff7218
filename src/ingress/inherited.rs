//! Sockets that the service manager opened before it started the gateway, as `sd_listen_fds(3)` describes:
//! `LISTEN_FDS` descriptors from number 3 on, meant for the process `LISTEN_PID`, called `LISTEN_FDNAMES` (`:` between them).
//!
//! Whoever opened them goes on to hold them, so connections queue up in them while the gateway restarts.

use std::io;
use std::sync::{LazyLock, Mutex, PoisonError};

use listenfd::ListenFd;
use socket2::SockRef;

use super::address::Inherited;
use super::socket::Socket;

/// The number of the first one.
const FIRST: u32 = 3;
/// Far more than anybody hands over.
const COUNT_MAX: u32 = 1024;

/// What was handed over, for the life of the process: a listener that goes and comes back finds its socket again.
pub(super) struct HandedOver(Vec<One>);

struct One {
    number: u32,
    name: String,
    /// Or why it is of no use.
    socket: Result<Socket, String>,
}

/// Why an inherited socket cannot be had.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum InheritError {
    /// The service manager handed nothing over.
    #[error(
        "no socket was handed over (LISTEN_FDS is not set): start it by a systemd socket unit or systemd-socket-activate, or write an address under `ingress.listen`"
    )]
    Nothing,
    /// The variables contradict themselves, or are another process's.
    #[error("{0}")]
    Environment(String),
    /// Others were handed over.
    #[error("no socket that was handed over is called so; there are {have}: name one of these, or write `fd:` for all")]
    NoSuch {
        /// Their numbers and names.
        have: String,
    },
    /// It cannot be listened on.
    #[error("{0}: hand over a listening stream socket (ListenStream= in the socket unit)")]
    Useless(String),
    /// Two listeners would share it.
    #[error("another entry of `ingress.listen` has this socket, too: leave one of them out")]
    Twice,
}

/// Who asks for a variable.
type Env<'e> = &'e dyn Fn(&str) -> Option<String>;

/// The sockets that `wanted` stands for, by their numbers, each to be shared with whoever asks for it again.
pub(super) fn take(wanted: &Inherited) -> Result<Vec<(u32, Socket)>, InheritError> {
    /// Descriptors are the process's, so this is the process's as well.
    static OURS: LazyLock<Mutex<Result<HandedOver, String>>> = LazyLock::new(|| Mutex::new(HandedOver::from_env()));
    let ours = OURS.lock().unwrap_or_else(PoisonError::into_inner);
    match &*ours {
        Ok(handed_over) => handed_over.find(wanted),
        Err(why) => Err(InheritError::Environment(why.clone())),
    }
}

impl HandedOver {
    fn from_env() -> Result<Self, String> {
        let env = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
        let Some(names) = names(&env, std::process::id())? else { return Ok(Self(Vec::new())) };
        let mut descriptors = ListenFd::from_env();
        Ok(Self(
            (FIRST..)
                .zip(names)
                .enumerate()
                .map(|(index, (number, name))| One { number, name, socket: socket(&mut descriptors, index) })
                .collect(),
        ))
    }

    fn find(&self, wanted: &Inherited) -> Result<Vec<(u32, Socket)>, InheritError> {
        if self.0.is_empty() {
            return Err(InheritError::Nothing);
        }
        let is_wanted = |one: &&One| match wanted {
            Inherited::All => true,
            Inherited::Named(name) => one.name == *name,
            Inherited::Number(number) => one.number == *number,
        };
        let found: Vec<_> = self.0.iter().filter(is_wanted).map(One::share).collect::<Result<_, _>>()?;
        if found.is_empty() {
            let have: Vec<_> = self.0.iter().map(|one| format!("{} ({})", one.number, one.name)).collect();
            return Err(InheritError::NoSuch { have: have.join(", ") });
        }
        Ok(found)
    }
}

impl One {
    fn share(&self) -> Result<(u32, Socket), InheritError> {
        let useless = |why: &dyn std::fmt::Display| {
            InheritError::Useless(format!("descriptor {} ({}) cannot be used: {why}", self.number, self.name))
        };
        let socket = self.socket.as_ref().map_err(|why| useless(why))?;
        Ok((self.number, socket.try_clone().map_err(|error| useless(&error))?))
    }
}

/// The names of what was handed over to the process `id`, by place; none if nothing was.
fn names(env: Env<'_>, id: u32) -> Result<Option<Vec<String>>, String> {
    let Some(count) = env("LISTEN_FDS") else { return Ok(None) };
    let count = count.parse().ok().filter(|count| (1..=COUNT_MAX).contains(count)).ok_or_else(|| {
        format!("LISTEN_FDS is `{count}`, and is no number from 1 to {COUNT_MAX}: let the service manager set it")
    })?;
    let process = env("LISTEN_PID").ok_or(
        "LISTEN_FDS is set and LISTEN_PID is not, so nobody knows whom the sockets are for: let the service manager set both",
    )?;
    if process.parse() != Ok(id) {
        return Err(format!(
            "the sockets are for process {process} (LISTEN_PID) and this is process {id}: start the gateway with `exec`, without a wrapper that stays"
        ));
    }
    let given = env("LISTEN_FDNAMES").unwrap_or_default();
    let mut given = given.split(':').map(str::to_owned);
    let name = |_| given.next().filter(|name| !name.is_empty()).unwrap_or_else(|| "unknown".to_owned());
    Ok(Some((0..count).map(name).collect()))
}

/// The listening socket at `index`.
fn socket(descriptors: &mut ListenFd, index: usize) -> Result<Socket, String> {
    let missing = || "it is gone".to_owned();
    let socket = match descriptors.take_tcp_listener(index) {
        Ok(socket) => Socket::Tcp(socket.ok_or_else(missing)?),
        Err(_) => match descriptors.take_unix_listener(index) {
            Ok(socket) => Socket::Unix(socket.ok_or_else(missing)?),
            Err(_) => return Err("it is no TCP or Unix stream socket".to_owned()),
        },
    };
    ready(&socket).map_err(|error| error.to_string())?;
    Ok(socket)
}

fn ready(socket: &Socket) -> io::Result<()> {
    let socket = match socket {
        Socket::Tcp(socket) => SockRef::from(socket),
        Socket::Unix(socket) => SockRef::from(socket),
    };
    if !socket.is_listener()? {
        return Err(io::Error::other("it is a connection and does not listen"));
    }
    socket.set_nonblocking(true)
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    fn from(variables: &[(&str, &str)]) -> Result<Option<Vec<String>>, String> {
        names(&|name| variables.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned()), 7)
    }

    #[test]
    fn the_variables_are_read_as_sd_listen_fds_does() {
        assert_eq!(from(&[]), Ok(None));
        assert_eq!(from(&[("LISTEN_PID", "7")]), Ok(None));
        let two = [("LISTEN_FDS", "2"), ("LISTEN_PID", "7")];
        assert_eq!(from(&two), Ok(Some(vec!["unknown".to_owned(), "unknown".to_owned()])));
        let named = [("LISTEN_FDS", "2"), ("LISTEN_PID", "7"), ("LISTEN_FDNAMES", "web:tls")];
        assert_eq!(from(&named), Ok(Some(vec!["web".to_owned(), "tls".to_owned()])));
        for (variables, says) in [
            (&[("LISTEN_FDS", "0"), ("LISTEN_PID", "7")][..], "LISTEN_FDS is `0`"),
            (&[("LISTEN_FDS", "-1"), ("LISTEN_PID", "7")], "no number"),
            (&[("LISTEN_FDS", "99999999"), ("LISTEN_PID", "7")], "no number"),
            (&[("LISTEN_FDS", "1")], "LISTEN_PID is not"),
            (&[("LISTEN_FDS", "1"), ("LISTEN_PID", "8")], "process 8"),
            (&[("LISTEN_FDS", "1"), ("LISTEN_PID", "x")], "process x"),
        ] {
            let error = from(variables).unwrap_err();
            assert!(error.contains(says), "{variables:?}: {error}");
        }
    }

    fn handed_over() -> HandedOver {
        let tcp = || Ok(Socket::Tcp(TcpListener::bind("127.0.0.1:0").unwrap()));
        let one = |number, name: &str, socket| One { number, name: name.to_owned(), socket };
        HandedOver(vec![
            one(3, "web", tcp()),
            one(4, "web", tcp()),
            one(5, "log", Err("it is no TCP or Unix stream socket".to_owned())),
        ])
    }

    #[test]
    fn sockets_are_found_by_name_and_number_and_again() {
        let all = handed_over();
        let numbers =
            |wanted| all.find(&wanted).map(|found| found.iter().map(|(number, _)| *number).collect::<Vec<_>>());
        for _ in 0..2 {
            assert_eq!(numbers(Inherited::Named("web".to_owned())), Ok(vec![3, 4]));
            assert_eq!(numbers(Inherited::Number(4)), Ok(vec![4]));
        }
        let error = numbers(Inherited::Number(6)).unwrap_err().to_string();
        assert!(error.contains("there are 3 (web), 4 (web), 5 (log)"), "{error}");
        let error = numbers(Inherited::All).unwrap_err().to_string();
        assert!(error.starts_with("descriptor 5 (log) cannot be used"), "{error}");
        assert_eq!(HandedOver(Vec::new()).find(&Inherited::All).err(), Some(InheritError::Nothing));
    }
}
