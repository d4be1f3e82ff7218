//! A request that is being signed: what signing changes is put where the preset says it stands.

use http::Method;
use http::header::{CONTENT_TYPE, HeaderMap, HeaderValue};
use serde_json::Value;

use super::{Place, Request, SignError};

/// The content type of a form.
const FORM: &str = "application/x-www-form-urlencoded";

/// A request that is being signed.
#[derive(Clone, Debug)]
pub struct Draft {
    /// The method.
    pub method: Method,
    /// The path.
    pub path: String,
    /// The query, without the `?`.
    pub query: Option<String>,
    /// What the `{param}` segments of the source's path match: name and value.
    pub params: Vec<(Box<str>, Box<str>)>,
    /// The headers.
    pub headers: HeaderMap,
    /// The body.
    pub body: Vec<u8>,
}

impl Draft {
    /// As a signature sees it.
    #[must_use]
    pub fn request(&self) -> Request<'_> {
        Request {
            method: &self.method,
            path: &self.path,
            query: self.query.as_deref(),
            params: &self.params,
            headers: &self.headers,
            body: &self.body,
        }
    }

    /// Puts `value` at `place`, in the stead of what is there: in a JSON body, as a number where one stands.
    ///
    /// # Errors
    /// [`SignError`] if there is no room for it, or `value` cannot stand there.
    pub fn put(&mut self, place: &Place, value: &[u8]) -> Result<(), SignError> {
        match place {
            Place::Header(name) => {
                let mut value = HeaderValue::from_bytes(value).map_err(|_| SignError::Header(place.clone()))?;
                value.set_sensitive(true);
                self.headers.insert(name.clone(), value);
            }
            Place::Query(name) => {
                self.query = Some(with_pair(self.query.as_deref().unwrap_or_default().as_bytes(), name, value));
            }
            Place::Form(name) => {
                if !self.headers.contains_key(CONTENT_TYPE) {
                    self.headers.insert(CONTENT_TYPE, HeaderValue::from_static(FORM));
                }
                if !self.is_form() {
                    return Err(SignError::Body(place.clone()));
                }
                self.body = with_pair(&self.body, name, value).into_bytes();
            }
            Place::Json(pointer) => {
                let body = with_member(&self.body, pointer, &String::from_utf8_lossy(value));
                self.body = body.ok_or_else(|| SignError::Body(place.clone()))?;
            }
            Place::Param(_) => return Err(SignError::Param(place.clone())),
        }
        Ok(())
    }

    /// Whether its one content type is that of a form, in whatever case and with whatever parameters.
    fn is_form(&self) -> bool {
        let mut types = self.headers.get_all(CONTENT_TYPE).iter().map(HeaderValue::as_bytes);
        let essence = |value: &[u8]| value.split(|byte| *byte == b';').next().unwrap_or_default().trim_ascii().to_vec();
        let is_form = types.next().is_some_and(|value| essence(value).eq_ignore_ascii_case(FORM.as_bytes()));
        is_form && types.next().is_none()
    }
}

/// `pairs` with one called `name` at its end, and no other of that name.
fn with_pair(pairs: &[u8], name: &str, value: &[u8]) -> String {
    let other = |pair: &&[u8]| form_urlencoded::parse(pair).all(|(known, _)| known != name);
    let mut kept: Vec<String> = pairs
        .split(|byte| *byte == b'&')
        .filter(|pair| !pair.is_empty())
        .filter(other)
        .map(|pair| String::from_utf8_lossy(pair).into_owned())
        .collect();
    let name: String = form_urlencoded::byte_serialize(name.as_bytes()).collect();
    let value: String = form_urlencoded::byte_serialize(value).collect();
    kept.push(format!("{name}={value}"));
    kept.join("&")
}

/// `body` with `value` at `pointer`; none if it is not JSON, or has nothing that could hold it.
fn with_member(body: &[u8], pointer: &str, value: &str) -> Option<Vec<u8>> {
    let mut root: Value = serde_json::from_slice(body).ok()?;
    put(&mut root, pointer.strip_prefix('/')?.split('/').collect::<Vec<_>>().as_slice(), value)?;
    serde_json::to_vec(&root).ok()
}

/// Puts `value` where `steps` lead from `at`; a `*` is every item of an array.
fn put(at: &mut Value, steps: &[&str], value: &str) -> Option<()> {
    let Some((step, rest)) = steps.split_first() else {
        let number = if at.is_number() { value.parse::<i64>().ok() } else { None };
        *at = number.map_or_else(|| Value::from(value), Value::from);
        return Some(());
    };
    match at {
        Value::Array(items) if *step == "*" => items.iter_mut().try_for_each(|item| put(item, rest, value)),
        Value::Array(items) => put(items.get_mut(step.parse::<usize>().ok()?)?, rest, value),
        Value::Object(members) => {
            let key = step.replace("~1", "/").replace("~0", "~");
            if rest.is_empty() {
                put(members.entry(key).or_insert(Value::Null), rest, value)
            } else {
                put(members.get_mut(&key)?, rest, value)
            }
        }
        _ => None,
    }
}
