//! Hides what is secret in a request from everybody but the application.

use bytes::Bytes;
use http::{HeaderName, header};
use serde_json::Value;

use crate::event::Headers;
use crate::provider::Place;

/// What stands in place of a secret.
const STARS: &str = "***";

/// Headers that carry credentials, whoever sends them.
const ALWAYS: [HeaderName; 3] = [header::AUTHORIZATION, header::PROXY_AUTHORIZATION, header::COOKIE];

/// Headers as text, secret ones as `***`: those of `secret`, and [`ALWAYS`]. All, if nobody knows which.
/// What is not UTF-8 is shown with replacement characters.
pub(super) fn headers(headers: &Headers, secret: Option<&[Place]>) -> Vec<(String, String)> {
    let is_secret = |name: &HeaderName| match secret {
        None => true,
        Some(places) => {
            let listed = |place: &Place| matches!(place, Place::Header(header) if header == name);
            ALWAYS.contains(name) || places.iter().any(listed)
        }
    };
    let shown = headers.iter().map(|(name, value)| {
        let value = if is_secret(name) { STARS.into() } else { String::from_utf8_lossy(value.as_bytes()) };
        (name.to_string(), value.into_owned())
    });
    shown.collect()
}

/// A body that may be shown.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Shown {
    /// There is nothing secret in it: its exact bytes.
    Exact(Bytes),
    /// It was read, and written again without its secrets.
    Redacted(Bytes),
    /// There may be secrets in it, and they cannot be found.
    Withheld,
}

/// `body` without what `secret` points at. JSON and forms are read; pointers into a form name a field, and
/// apply to JSON within a field too. A secret field is hidden whatever the `Content-Type`, which nobody signed.
pub(super) fn body(body: Bytes, content_type: Option<&[u8]>, secret: &[Place]) -> Shown {
    let pointers: Vec<&str> = secret.iter().filter_map(pointer).collect();
    let fields: Vec<&str> = secret.iter().filter_map(field).collect();
    let form = b"application/x-www-form-urlencoded";
    let is_form = content_type.and_then(|value| value.get(..form.len())).is_some_and(|v| v.eq_ignore_ascii_case(form));
    let has_field = || form_urlencoded::parse(&body).any(|(name, _)| fields.iter().any(|field| *field == name));
    let has_field = !fields.is_empty() && has_field();
    if body.is_empty() || (pointers.is_empty() && !has_field) {
        return Shown::Exact(body);
    }
    // JSON has no fields, whatever stands in its strings (as `form:` places see it), unless it says that it is a form.
    let is_json = body.trim_ascii_start().starts_with(b"{") || body.trim_ascii_start().starts_with(b"[");
    if let Some(json) = redact_json(&body, &pointers).filter(|_| !has_field || (is_json && !is_form)) {
        return if pointers.is_empty() { Shown::Exact(body) } else { Shown::Redacted(json.into()) };
    }
    if is_form || has_field { Shown::Redacted(redact_form(&body, &pointers, &fields).into()) } else { Shown::Withheld }
}

/// `query` with `***` in place of secret values, otherwise as received; nothing of it, if nobody knows which are secret.
pub(super) fn query(query: &str, secret: Option<&[Place]>) -> String {
    let Some(places) = secret else { return STARS.to_owned() };
    let is_secret = |name: &str| places.iter().any(|place| matches!(place, Place::Query(secret) if secret == name));
    let pair = |pair: &str| {
        let name = pair.split('=').next().unwrap_or_default();
        let hide = form_urlencoded::parse(pair.as_bytes()).any(|(decoded, _)| is_secret(&decoded));
        if hide { format!("{name}={STARS}") } else { pair.to_owned() }
    };
    query.split('&').map(pair).collect::<Vec<_>>().join("&")
}

/// `path`, or `***` if a part of it is secret, or nobody knows.
pub(super) fn path<'p>(path: &'p str, secret: Option<&[Place]>) -> &'p str {
    let is_secret = secret.is_none_or(|places| places.iter().any(|place| matches!(place, Place::Param(_))));
    if is_secret { STARS } else { path }
}

fn pointer(place: &Place) -> Option<&str> {
    if let Place::Json(pointer) = place { Some(pointer) } else { None }
}

fn field(place: &Place) -> Option<&str> {
    if let Place::Form(name) = place { Some(name) } else { None }
}

/// None if `text` is not JSON.
fn redact_json(text: &[u8], pointers: &[&str]) -> Option<Vec<u8>> {
    let mut json: Value = serde_json::from_slice(text).ok()?;
    for pointer in pointers {
        let steps: Vec<&str> = pointer.split('/').skip(1).collect();
        hide(&mut json, &steps);
    }
    serde_json::to_vec(&json).ok()
}

/// Puts `***` where `steps` lead from `at`; a `*` is every item of an array.
fn hide(at: &mut Value, steps: &[&str]) {
    let Some((step, rest)) = steps.split_first() else {
        *at = STARS.into();
        return;
    };
    match at {
        Value::Array(items) if *step == "*" => items.iter_mut().for_each(|item| hide(item, rest)),
        _ => {
            if let Some(inside) = at.pointer_mut(&format!("/{step}")) {
                hide(inside, rest);
            }
        }
    }
}

fn redact_form(form: &[u8], pointers: &[&str], fields: &[&str]) -> String {
    let mut redacted = form_urlencoded::Serializer::new(String::new());
    for (name, value) in form_urlencoded::parse(form) {
        let secret = fields.iter().any(|field| *field == name)
            || pointers.iter().any(|pointer| pointer.strip_prefix('/').is_some_and(|field| field == name));
        let within = if value.starts_with(['{', '[']) { redact_json(value.as_bytes(), pointers) } else { None };
        match (secret, within) {
            (true, _) => redacted.append_pair(&name, STARS),
            (false, Some(json)) => redacted.append_pair(&name, &String::from_utf8_lossy(&json)),
            (false, None) => redacted.append_pair(&name, &value),
        };
    }
    redacted.finish()
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    fn json_places(pointers: &[&str]) -> Vec<Place> {
        pointers.iter().map(|pointer| Place::Json((*pointer).to_owned())).collect()
    }

    #[test]
    fn listed_headers_and_credentials_are_stars() {
        let given: Headers = [("x-token", "s"), ("authorization", "s"), ("cookie", "s"), ("x-other", "seen")]
            .map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)))
            .into();
        let listed = [Place::Header(HeaderName::from_static("x-token"))];
        let shown: Vec<_> = headers(&given, Some(&listed)).into_iter().map(|(_, value)| value).collect();
        assert_eq!(shown, ["***", "***", "***", "seen"]);
        assert!(headers(&given, None).iter().all(|(_, value)| value == "***"), "nobody knows what is secret");
    }

    #[test]
    fn a_header_that_is_not_utf_8_is_shown_as_far_as_it_can_be() {
        let given = vec![(HeaderName::from_static("x"), HeaderValue::from_bytes(b"a\xffb").unwrap())];
        assert_eq!(headers(&given, Some(&[])), [("x".to_owned(), "a\u{fffd}b".to_owned())]);
    }

    #[test]
    fn a_body_without_secrets_is_shown_byte_for_byte() {
        let text = Bytes::from_static(b"{ \"b\":1, \"a\":2 }\n");
        assert_eq!(body(text.clone(), None, &[]), Shown::Exact(text.clone()));
        let header_only = [Place::Header(HeaderName::from_static("x-token"))];
        assert_eq!(body(text.clone(), None, &header_only), Shown::Exact(text));
    }

    #[test]
    fn secrets_in_json_are_stars() {
        let text = Bytes::from_static(br#"{"token":"s","deep":{"keys":["s","seen"]},"token":"t"}"#);
        let shown = body(text, None, &json_places(&["/token", "/deep/keys/0", "/missing"]));
        let expected = Bytes::from_static(br#"{"deep":{"keys":["***","seen"]},"token":"***"}"#);
        assert_eq!(shown, Shown::Redacted(expected));
    }

    #[test]
    fn secrets_in_a_form_are_stars_also_within_json_in_it() {
        let text = Bytes::from_static(b"token=s&text=a+b&payload=%7B%22token%22%3A%22s%22%7D");
        let form = Some(&b"application/x-www-form-urlencoded; charset=utf-8"[..]);
        let expected = Bytes::from_static(b"token=***&text=a+b&payload=%7B%22token%22%3A%22***%22%7D");
        assert_eq!(body(text.clone(), form, &json_places(&["/token"])), Shown::Redacted(expected));
        assert_eq!(body(text, Some(b"text/plain"), &json_places(&["/token"])), Shown::Withheld);
    }

    #[test]
    fn a_body_that_cannot_be_read_is_withheld() {
        let deep = "[".repeat(100_000);
        for text in ["{\"token\":\"s\"", "\u{1}", &deep] {
            let shown = body(Bytes::from(text.to_owned()), None, &json_places(&["/token"]));
            assert_eq!(shown, Shown::Withheld);
        }
    }

    #[test]
    fn secrets_in_every_item_are_stars() {
        let text = Bytes::from_static(br#"{"value":[{"state":"s","x":1},{"state":"s"},3]}"#);
        let shown = body(text, None, &json_places(&["/value/*/state", "/value/0/x"]));
        let expected = Bytes::from_static(br#"{"value":[{"state":"***","x":"***"},{"state":"***"},3]}"#);
        assert_eq!(shown, Shown::Redacted(expected));
    }

    #[test]
    fn a_secret_field_is_stars_in_a_form_whatever_it_is_called_and_nowhere_else() {
        let secret = [Place::Form("token".into())];
        let form = Some(&b"application/x-www-form-urlencoded"[..]);
        let text = Bytes::from_static(b"a=1&%74oken=s&token=t");
        let expected = Bytes::from_static(b"a=1&token=***&token=***");
        assert_eq!(body(text.clone(), form, &secret), Shown::Redacted(expected.clone()));
        for lie in [Some(&b"text/plain"[..]), Some(b"application/json"), None] {
            assert_eq!(body(text.clone(), lie, &secret), Shown::Redacted(expected.clone()), "{lie:?}");
        }
        for other in ["{\"text\":\"&token=s&\"}", "a=1&b=2", "nothing"].map(Bytes::from) {
            assert_eq!(body(other.clone(), Some(b"text/plain"), &secret), Shown::Exact(other));
        }
    }

    #[test]
    fn secrets_in_a_query_or_a_path_are_stars() {
        let secret = [Place::Query("token".into())];
        let shown = query("a=%41&token=s&%74oken=s&token&b", Some(&secret));
        assert_eq!(shown, "a=%41&token=***&%74oken=***&token=***&b");
        assert_eq!(query("a=1", Some(&[])), "a=1");
        assert_eq!(query("a=1", None), "***");
        assert_eq!(path("/hook/s", Some(&secret)), "/hook/s");
        assert_eq!(path("/hook/s", Some(&[Place::Param("token".into())])), "***");
        assert_eq!(path("/hook/s", None), "***");
    }
}
