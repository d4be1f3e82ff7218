//! Which source a request is for: host and path, byte for byte.
//!
//! Nothing is decoded or tidied: `/a/`, `//a`, `/%61` and `/x/../a` are four paths that are not `/a`. A part
//! that a pattern captured may not be a dot segment, so that whoever puts it into another path stays below it.

use std::collections::HashMap;

/// What a pattern's `{name}` parts matched, in order.
pub type Params = Vec<(Box<str>, Box<str>)>;

/// The table of all sources. Built once, then only read; share it in an `Arc`.
#[derive(Clone, Debug)]
pub struct Router<T> {
    exact: HashMap<Box<str>, matchit::Router<T>>,
    /// With their leading dot, the longest first.
    suffixes: Vec<(Box<str>, matchit::Router<T>)>,
    any: matchit::Router<T>,
}

/// Why a table cannot be built. `entry`, `first` and `second` count the entries from 0.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RouteError {
    /// Two entries that would match the same requests, neither of them more exact.
    #[error("{second_route} clashes with {first_route}: both would match the same requests")]
    Clash {
        /// The earlier entry.
        first: usize,
        /// Its host and path.
        first_route: String,
        /// The later entry.
        second: usize,
        /// Its host and path.
        second_route: String,
    },
    /// A path that is no pattern.
    #[error("`{path}` is not a path: {why}")]
    Path {
        /// Which entry.
        entry: usize,
        /// Its path.
        path: String,
        /// What is wrong, and how to write it.
        why: &'static str,
    },
    /// A host that is neither a name nor `*.` and a name.
    #[error("`{host}` is not a host: {why}")]
    Host {
        /// Which entry.
        entry: usize,
        /// Its host.
        host: String,
        /// What is wrong, and how to write it.
        why: &'static str,
    },
}

impl<T: Clone> Router<T> {
    /// Builds the table from `(host, path pattern, target)`.
    ///
    /// A pattern has `{name}` for a part of one segment and, at its end, `{*name}` for all the rest, neither of
    /// them empty; `{{` and `}}` are plain braces. A host is a name, or `*.` and a name for every name below it.
    ///
    /// # Errors
    /// [`RouteError`] for the first entry that is wrong in itself or clashes with an earlier one.
    pub fn new(entries: impl IntoIterator<Item = (Option<String>, String, T)>) -> Result<Self, RouteError> {
        let mut router = Self { exact: HashMap::new(), suffixes: Vec::new(), any: matchit::Router::new() };
        let mut routes: Vec<Route> = Vec::new();
        for (entry, (host, path, target)) in entries.into_iter().enumerate() {
            let route = Route::new(entry, host, path)?;
            let table = router.table(route.host.as_deref());
            match table.insert(&*route.path, target) {
                Ok(()) => routes.push(route),
                Err(error) => return Err(route.refused(entry, &routes, &error)),
            }
        }
        router.suffixes.sort_by_key(|(suffix, _)| std::cmp::Reverse(suffix.len()));
        Ok(router)
    }

    fn table(&mut self, host: Option<&str>) -> &mut matchit::Router<T> {
        let Some(host) = host else { return &mut self.any };
        let Some(suffix) = host.strip_prefix('*') else {
            return self.exact.entry(Box::from(host)).or_default();
        };
        let at = match self.suffixes.iter().position(|(known, _)| **known == *suffix) {
            Some(at) => at,
            None => {
                self.suffixes.push((Box::from(suffix), matchit::Router::new()));
                self.suffixes.len() - 1
            }
        };
        &mut self.suffixes.get_mut(at).expect("it was found or pushed").1
    }

    /// The target for a request, and what its pattern captured.
    ///
    /// `host` is the request's, a port and upper case allowed. An exact host goes before `*.suffix`, the longer
    /// suffix first, and those before entries for any host; within a host an exact path goes before a pattern.
    #[must_use]
    pub fn find(&self, host: Option<&str>, path: &str) -> Option<(T, Params)> {
        self.by_host(host, path).or_else(|| matched(&self.any, path))
    }

    fn by_host(&self, host: Option<&str>, path: &str) -> Option<(T, Params)> {
        if self.exact.is_empty() && self.suffixes.is_empty() {
            return None; // the usual table: the host need not even be looked at
        }
        let host = without_port(host?).to_ascii_lowercase();
        let exact = self.exact.get(host.as_str()).and_then(|table| matched(table, path));
        let below = |suffix: &str| host.len() > suffix.len() && host.ends_with(suffix);
        let suffixes = || self.suffixes.iter().filter(|(suffix, _)| below(suffix));
        exact.or_else(|| suffixes().find_map(|(_, table)| matched(table, path)))
    }
}

fn matched<T: Clone>(table: &matchit::Router<T>, path: &str) -> Option<(T, Params)> {
    let found = table.at(path).ok()?;
    if found.params.iter().any(|(_, value)| value.split('/').any(is_dot_segment)) {
        return None;
    }
    let params = found.params.iter().map(|(name, value)| (Box::from(name), Box::from(value))).collect();
    Some((found.value.clone(), params))
}

/// `.` and `..`, also with their dots written `%2e`, which some servers behind us would read as dots.
fn is_dot_segment(segment: &str) -> bool {
    segment.len() <= "%2e%2e".len() && matches!(&*segment.to_ascii_lowercase().replace("%2e", "."), "." | "..")
}

/// `host:port` and `[::1]:port` without the port.
fn without_port(host: &str) -> &str {
    match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) && !is_bare_ipv6(name) => name,
        _ => host,
    }
}

/// Whether `name`, cut before its last colon, still has one outside of brackets.
fn is_bare_ipv6(name: &str) -> bool {
    name.contains(':') && !name.ends_with(']')
}

/// An entry's host and path, checked.
struct Route {
    host: Option<Box<str>>,
    path: String,
}

impl Route {
    fn new(entry: usize, host: Option<String>, path: String) -> Result<Self, RouteError> {
        if let Some(why) = path_problem(&path) {
            return Err(RouteError::Path { entry, path, why });
        }
        if let Some(why) = host.as_deref().and_then(host_problem) {
            return Err(RouteError::Host { entry, host: host.unwrap_or_default(), why });
        }
        Ok(Self { host: host.map(|host| Box::from(host.to_ascii_lowercase())), path })
    }

    /// What it means that the table did not take this route, the `entry`th, after `earlier`.
    fn refused(self, entry: usize, earlier: &[Self], error: &matchit::InsertError) -> RouteError {
        use matchit::InsertError::{Conflict, InvalidCatchAll, InvalidParam, InvalidParamSegment};
        let why = match error {
            Conflict { .. } => {
                let clashes = |other: &&Self| other.host == self.host && other.path_clashes(&self.path);
                let first = earlier.iter().position(|other| clashes(&other)).unwrap_or(0);
                let first_route = earlier.get(first).map_or_else(String::new, Self::text);
                return RouteError::Clash { first, first_route, second: entry, second_route: self.text() };
            }
            InvalidParam => "a part to capture is `{name}`, or `{*name}` for the rest; a plain brace is `{{` or `}}`",
            InvalidParamSegment => "there can be only one `{name}` between two slashes",
            InvalidCatchAll => "`{*name}` takes all the rest, so it can stand only at the end",
            _ => "it cannot be read as a pattern",
        };
        RouteError::Path { entry, path: self.path, why }
    }

    fn path_clashes(&self, path: &str) -> bool {
        let mut table = matchit::Router::new();
        table.insert(&*self.path, ()).is_ok() && table.insert(path, ()).is_err()
    }

    fn text(&self) -> String {
        match &self.host {
            Some(host) => format!("`{}` on host `{host}`", self.path),
            None => format!("`{}`", self.path),
        }
    }
}

fn path_problem(path: &str) -> Option<&'static str> {
    if !path.starts_with('/') {
        Some("it starts with `/`")
    } else if path.contains(['?', '#']) {
        Some("a query or fragment is no part of it; any query is accepted")
    } else if path.bytes().any(|byte| byte <= b' ' || byte == 0x7f) {
        Some("spaces and control characters are written as `%20` and so on, as the sender writes them")
    } else {
        None
    }
}

fn host_problem(host: &str) -> Option<&'static str> {
    let name = host.strip_prefix("*.").unwrap_or(host);
    let bracketed = name.starts_with('[') && name.ends_with(']');
    if name.is_empty() {
        Some("it is empty; leave `host` out to match any")
    } else if name.contains('*') {
        Some("a `*` can stand only in front, as in `*.example.com`")
    } else if name.contains("://") || name.contains('/') {
        Some("only the name, as in `hooks.example.com`, without scheme or path")
    } else if name.contains(':') && !bracketed {
        Some("leave the port out: every port matches; an IPv6 address stands in `[` and `]`")
    } else if name.starts_with('.') || name.bytes().any(|byte| byte <= b' ' || byte >= 0x7f) {
        Some("a name is letters, digits, `-` and `.`; other scripts in their `xn--` form")
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(routes: &[&'static str]) -> Router<&'static str> {
        Router::new(routes.iter().map(|route| entry(route))).unwrap()
    }

    /// `host/path` or `/path`; the target is the text itself.
    fn entry(route: &'static str) -> (Option<String>, String, &'static str) {
        let (host, path) = route.split_at(route.find('/').unwrap());
        (Some(host.to_owned()).filter(|host| !host.is_empty()), path.to_owned(), route)
    }

    fn find(router: &Router<&'static str>, host: &str, path: &str) -> Option<&'static str> {
        router.find(Some(host), path).map(|(target, _)| target)
    }

    #[test]
    fn a_path_matches_only_itself_byte_for_byte() {
        let router = table(&["/hooks/acme", "/x%2fy", "/d//e"]);
        for same in ["/hooks/acme", "/x%2fy", "/d//e"] {
            assert_eq!(find(&router, "h", same), Some(same));
        }
        for other in [
            "",
            "/",
            "/hooks/acme/",
            "//hooks/acme",
            "/hooks//acme",
            "/hooks/%61cme",
            "/Hooks/acme",
            "/hooks/x/../acme",
            "/hooks/./acme",
            "/hooks%2facme",
            "/x/y",
            "/x%2Fy",
            "/d/e",
            "/hooks/acm",
            "/hooks/acme#a",
            "hooks/acme",
        ] {
            assert_eq!(find(&router, "h", other), None, "{other}");
        }
    }

    #[test]
    fn an_exact_path_goes_before_a_pattern_and_a_pattern_before_the_rest() {
        let router = table(&["/t/{*rest}", "/s/{tenant}/in", "/s/acme/in", "/t/exact"]);
        assert_eq!(find(&router, "h", "/s/acme/in"), Some("/s/acme/in"));
        assert_eq!(find(&router, "h", "/s/acm/in"), Some("/s/{tenant}/in"));
        assert_eq!(find(&router, "h", "/t/exact"), Some("/t/exact"));
        assert_eq!(find(&router, "h", "/t/exact/more"), Some("/t/{*rest}"));
    }

    #[test]
    fn captured_parts_are_given_in_order_and_as_received() {
        let router = table(&["/{tenant}/in/{*rest}"]);
        let (_, params) = router.find(None, "/a%2Fb/in/c//d%20").unwrap();
        let want: [(Box<str>, Box<str>); 2] = [("tenant".into(), "a%2Fb".into()), ("rest".into(), "c//d%20".into())];
        assert_eq!(params, want);
        for path in ["//in/c", "/a/in/", "/a/in"] {
            assert_eq!(router.find(None, path), None, "{path}: a part is never empty");
        }
    }

    #[test]
    fn a_dot_segment_is_never_captured() {
        let router = table(&["/in/{name}", "/all/{*rest}", "/in/..x", "/lit/.."]);
        for path in ["/in/..", "/in/.", "/in/%2e%2E", "/in/.%2e", "/all/a/../b", "/all/..", "/all/a/%2E"] {
            assert_eq!(find(&router, "h", path), None, "{path}");
        }
        assert_eq!(find(&router, "h", "/in/..."), Some("/in/{name}"));
        assert_eq!(find(&router, "h", "/all/a..b"), Some("/all/{*rest}"));
        assert_eq!(find(&router, "h", "/lit/.."), Some("/lit/.."));
    }

    #[test]
    fn an_exact_host_goes_before_a_suffix_and_a_suffix_before_none() {
        let router = table(&["/a", "*.example.com/a", "*.eu.example.com/a", "x.eu.example.com/a", "/b"]);
        for (host, want) in [
            ("x.eu.example.com", "x.eu.example.com/a"),
            ("X.EU.Example.COM:8443", "x.eu.example.com/a"),
            ("y.eu.example.com", "*.eu.example.com/a"),
            ("eu.example.com:80", "*.example.com/a"),
            ("example.com", "/a"),
            ("badexample.com", "/a"),
            (".example.com", "/a"),
            ("x.eu.example.com.evil.org", "/a"),
            ("", "/a"),
        ] {
            assert_eq!(find(&router, host, "/a"), Some(want), "{host}");
        }
        assert_eq!(router.find(None, "/a").unwrap().0, "/a");
        assert_eq!(find(&router, "x.eu.example.com", "/b"), Some("/b"), "any host means any");
        assert_eq!(find(&router, "x.eu.example.com", "/c"), None);
    }

    #[test]
    fn a_host_is_compared_without_its_port() {
        let router = table(&["[::1]/a", "h/a"]);
        assert_eq!(find(&router, "[::1]:8080", "/a"), Some("[::1]/a"));
        assert_eq!(find(&router, "[::1]", "/a"), Some("[::1]/a"));
        assert_eq!(find(&router, "h:", "/a"), Some("h/a"));
        assert_eq!(find(&router, "h:8080x", "/a"), None);
    }

    #[test]
    fn two_entries_that_clash_are_both_named() {
        let clash = |routes: &[&'static str]| Router::new(routes.iter().map(|route| entry(route))).unwrap_err();
        let error = clash(&["/x", "/a/{b}", "/a/{c}"]);
        assert!(matches!(error, RouteError::Clash { first: 1, second: 2, .. }), "{error:?}");
        assert_eq!(error.to_string(), "`/a/{c}` clashes with `/a/{b}`: both would match the same requests");
        let error = clash(&["h/a", "/a", "H/a"]);
        assert!(matches!(error, RouteError::Clash { first: 0, second: 2, .. }), "{error:?}");
        assert!(error.to_string().contains("on host `h`"), "{error}");
        assert!(matches!(clash(&["/t/{*rest}", "/t/{one}"]), RouteError::Clash { first: 0, second: 1, .. }));
    }

    #[test]
    fn what_is_no_path_or_host_says_how_to_write_it() {
        let error = |host: Option<&str>, path: &str| {
            Router::new([(host.map(str::to_owned), path.to_owned(), ())]).unwrap_err().to_string()
        };
        for (path, says) in [
            ("", "starts with `/`"),
            ("a", "starts with `/`"),
            ("/a?b", "query"),
            ("/a b", "%20"),
            ("/{a", "`{name}`"),
            ("/{}", "`{name}`"),
            ("/{a}{b}", "only one"),
            ("/{*a}/b", "only at the end"),
        ] {
            assert!(error(None, path).contains(says), "{path}: {}", error(None, path));
        }
        for (host, says) in [
            ("", "empty"),
            ("*.", "empty"),
            ("a.*.b", "only in front"),
            ("https://a", "scheme"),
            ("a:80", "port"),
            ("::1", "IPv6"),
            ("bücher.example", "xn--"),
        ] {
            assert!(error(Some(host), "/").contains(says), "{host}: {}", error(Some(host), "/"));
        }
    }
}
