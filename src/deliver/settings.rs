//! What a destination is, and how it wants to be called.

use std::time::Duration;

use http::{HeaderName, HeaderValue, Uri};

use crate::base::{Name, Rate};

/// One internal service.
#[derive(Clone, Debug, PartialEq)]
pub struct Destination {
    /// Its name in the config.
    pub name: Name,
    /// Where it is: `http` or `https`, with a host.
    pub url: Uri,
    /// Whether its URL came from a variable or a file: nobody is shown more of it than the host.
    pub url_is_private: bool,
    /// How long one attempt may take, connecting included.
    pub timeout: Duration,
    /// How long connecting may take, TLS included.
    pub connect_timeout: Duration,
    /// Attempts at the same time, at most; at least 1.
    pub concurrency: usize,
    /// Attempts in a time, at most.
    pub rate_limit: Option<Rate>,
    /// When to try again, and when to give up.
    pub retry: RetryPolicy,
    /// When to stop trying for a while.
    pub breaker: BreakerPolicy,
    /// Headers set and removed on the way.
    pub headers: HeaderEdits,
}

/// Changes to the headers that go to the application.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct HeaderEdits {
    /// Set, in place of all of that name.
    pub set: Vec<(HeaderName, HeaderValue)>,
    /// Taken out.
    pub remove: Vec<HeaderName>,
}

/// When a failed delivery is tried again, and when it is given up.
#[derive(Clone, Debug, PartialEq)]
pub struct RetryPolicy {
    /// The longest wait before the second attempt.
    pub initial: Duration,
    /// By how much the longest wait grows from one attempt to the next; at least 1.
    pub factor: f64,
    /// The longest wait of all.
    pub max: Duration,
    /// How waits are spread.
    pub jitter: Jitter,
    /// A delivery older than this that fails is dead.
    pub max_age: Duration,
    /// A delivery that has failed this often is dead; none is no limit.
    pub max_attempts: Option<u32>,
    /// Statuses that end a delivery at once.
    pub give_up_on: Vec<u16>,
    /// The longest `Retry-After` that is honoured in full.
    pub retry_after_max: Duration,
}

/// How waits are spread, so that a thousand failed deliveries do not come back in one instant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Jitter {
    /// Anything from nothing to the whole wait, evenly.
    Full,
    /// The whole wait.
    Off,
}

impl Default for RetryPolicy {
    fn default() -> Self {
        Self {
            initial: Duration::from_secs(1),
            factor: 2.0,
            max: Duration::from_secs(10 * 60),
            jitter: Jitter::Full,
            max_age: Duration::from_secs(72 * 3600),
            max_attempts: None,
            give_up_on: vec![410],
            retry_after_max: Duration::from_secs(3600),
        }
    }
}

/// When a destination is left alone for a while.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BreakerPolicy {
    /// Failures in a row that open it.
    pub failures: u32,
    /// How long it stays open before one attempt probes.
    pub cooldown: Duration,
}

impl Default for BreakerPolicy {
    fn default() -> Self {
        Self { failures: 5, cooldown: Duration::from_secs(10) }
    }
}

impl Destination {
    /// How long one attempt may take where nothing is said.
    pub const TIMEOUT: Duration = Duration::from_secs(30);
    /// How long connecting may take where nothing is said.
    pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
    /// Attempts at the same time where nothing is said.
    pub const CONCURRENCY: usize = 32;

    /// Its URL for people: without a query, where a key may be, and without a path where the URL is private.
    #[must_use]
    pub fn shown_url(&self) -> String {
        let base = |path: &str| {
            let (scheme, host) = (self.url.scheme_str().unwrap_or_default(), self.url.authority());
            format!("{scheme}://{}{path}", host.map_or("", |host| host.as_str()))
        };
        match (self.url_is_private, self.url.query()) {
            (true, _) if self.url.path() == "/" && self.url.query().is_none() => base("/"),
            (true, _) => base("/***"),
            (false, Some(_)) => base(&format!("{}?***", self.url.path())),
            (false, None) => self.url.to_string(),
        }
    }
}

#[cfg(test)]
impl Destination {
    /// The destination `app` at `url`, where nothing else is said.
    pub fn at(url: &str) -> Self {
        Self {
            name: Name::new("app").expect("`app` is a name"),
            url: url.parse().expect("a test's URL is one"),
            url_is_private: false,
            timeout: Self::TIMEOUT,
            connect_timeout: Self::CONNECT_TIMEOUT,
            concurrency: Self::CONCURRENCY,
            rate_limit: None,
            retry: RetryPolicy::default(),
            breaker: BreakerPolicy::default(),
            headers: HeaderEdits::default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_is_shown_without_what_may_be_secret_in_it() {
        let shown = |url: &str, url_is_private| Destination { url_is_private, ..Destination::at(url) }.shown_url();
        assert_eq!(shown("http://127.0.0.1:3000/hooks", false), "http://127.0.0.1:3000/hooks");
        assert_eq!(shown("http://app/hooks?key=hunter2", false), "http://app/hooks?***");
        assert_eq!(shown("https://app:8443/hunter2?key=hunter2", true), "https://app:8443/***");
        assert_eq!(shown("http://app?hunter2", true), "http://app/***");
        assert_eq!(shown("http://app", true), "http://app/");
    }
}
