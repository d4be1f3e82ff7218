//! Where the signature stands: read strictly, and written as the provider writes it.
//!
//! Without a list the value is `prefix signature`. With a list it is items between `items`, each
//! `key pair prefix signature`, or `key pair text` for a field: `t=1,v1=ab,v1=cd`, `v1,ab v1,cd`. The order of
//! items is free, unknown keys and items without `pair` are skipped, a field may come once.

use data_encoding::{BASE64, BASE64URL_NOPAD, Encoding, HEXLOWER, HEXLOWER_PERMISSIVE};

use super::mac::Mac;
use super::pointer::Pointers;
use super::reading::{Reading, Site, Times};
use super::{CompileError, ListShape, Place, Rejection, SignatureEncoding};

/// At most so many signatures of a request are tried.
const MAX_SIGNATURES: usize = 10;

/// At most so many different fields are kept.
const MAX_FIELDS: usize = 4;

/// The longest signature in bytes as decoders count before they see the padding: 64 bytes are 88 of base64.
const MAX_DECODED: usize = 66;

/// Where a signature stands, compiled.
#[derive(Debug)]
pub(super) struct Carrier {
    site: Site,
    prefix: Box<str>,
    list: Option<List>,
    encoding: SignatureEncoding,
    len: usize,
}

#[derive(Debug)]
struct List {
    items: char,
    pair: char,
    key: Box<str>,
    fields: Vec<Box<str>>,
}

/// The values of the list's fields, by their number.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Fields<'a>([Field<'a>; MAX_FIELDS]);

#[derive(Clone, Copy, Debug, Default)]
enum Field<'a> {
    #[default]
    Never,
    Once(&'a str),
    Often,
}

/// What the value with the signature says.
pub(super) struct Read<'a> {
    pub(super) fields: Fields<'a>,
    texts: [&'a str; MAX_SIGNATURES],
    count: usize,
}

impl<'a> Fields<'a> {
    /// The value of field number `index`.
    pub(super) fn one(&self, index: usize) -> Result<&'a str, Rejection> {
        match self.0.get(index) {
            Some(Field::Once(value)) => Ok(value),
            Some(Field::Often) => Err(Rejection::RepeatedSignedPart),
            Some(Field::Never) | None => Err(Rejection::MissingSignedPart),
        }
    }

    pub(super) fn put(&mut self, index: usize, value: &'a str) {
        if let Some(field) = self.0.get_mut(index) {
            *field = match field {
                Field::Never => Field::Once(value),
                Field::Once(_) | Field::Often => Field::Often,
            };
        }
    }
}

impl<'a> Read<'a> {
    fn add(&mut self, signature: &'a str) -> Result<(), Rejection> {
        let slot = self.texts.get_mut(self.count).ok_or(Rejection::TooManySignatures)?;
        *slot = signature;
        self.count += 1;
        Ok(())
    }

    /// The signatures' texts, without their prefix.
    pub(super) fn signatures(&self) -> impl Iterator<Item = &'a str> {
        self.texts.iter().copied().take(self.count)
    }
}

impl Carrier {
    /// For signatures of `len` bytes.
    pub(super) fn new(carrier: &super::Carrier, len: usize, pointers: &mut Pointers) -> Result<Self, CompileError> {
        let list = match &carrier.list {
            Some(ListShape { items, pair, .. }) if items == pair => return Err(CompileError::SameSeparators),
            Some(shape) => {
                Some(List { items: shape.items, pair: shape.pair, key: shape.key.as_str().into(), fields: Vec::new() })
            }
            None => None,
        };
        Ok(Self {
            site: Site::new(&carrier.from, pointers)?,
            prefix: carrier.prefix.as_deref().unwrap_or_default().into(),
            list,
            encoding: carrier.encoding,
            len,
        })
    }

    /// The number of the field `name`, which is kept from now on.
    pub(super) fn field(&mut self, name: &str) -> Result<usize, CompileError> {
        let field = || name.to_owned();
        let list = self.list.as_mut().ok_or_else(|| CompileError::FieldWithoutList { field: field() })?;
        if *list.key == *name {
            return Err(CompileError::FieldIsSignature { field: field() });
        }
        if let Some(index) = list.fields.iter().position(|known| **known == *name) {
            return Ok(index);
        }
        if list.fields.len() == MAX_FIELDS {
            return Err(CompileError::TooManyFields);
        }
        list.fields.push(name.into());
        Ok(list.fields.len() - 1)
    }

    /// The name of field number `index`.
    pub(super) fn field_name(&self, index: usize) -> &str {
        self.list.as_ref().and_then(|list| list.fields.get(index)).map_or("", |name| name)
    }

    /// Where the signature stands.
    pub(super) fn place(&self) -> &Place {
        self.site.place()
    }

    /// Takes the value apart.
    ///
    /// # Errors
    /// A [`Rejection`] if it is not there exactly once, is not visible ASCII, or has no signature or too many.
    pub(super) fn read<'s>(&self, reading: &'s Reading<'_>) -> Result<Read<'s>, Rejection> {
        let value = match reading.value(&self.site) {
            Times::Never => return Err(Rejection::MissingSignature),
            Times::Often => return Err(Rejection::RepeatedSignature),
            Times::Once(value) => visible(value).ok_or(Rejection::MalformedSignature)?,
        };
        let mut read = Read { fields: Fields::default(), texts: [""; MAX_SIGNATURES], count: 0 };
        match &self.list {
            None => read.add(value.strip_prefix(&*self.prefix).ok_or(Rejection::MalformedSignature)?)?,
            Some(list) => self.read_list(list, value, &mut read)?,
        }
        if read.count == 0 { Err(Rejection::MissingSignature) } else { Ok(read) }
    }

    fn read_list<'a>(&self, list: &List, value: &'a str, read: &mut Read<'a>) -> Result<(), Rejection> {
        for item in value.split(list.items) {
            let Some((key, value)) = item.trim_matches(' ').split_once(list.pair) else { continue };
            if *key == *list.key {
                read.add(value.strip_prefix(&*self.prefix).unwrap_or_default())?;
            } else if let Some(index) = list.fields.iter().position(|field| **field == *key) {
                read.fields.put(index, value);
            }
        }
        Ok(())
    }

    /// The bytes that `text` says are a signature; none if it is not exactly one, in the one way to write it.
    pub(super) fn decode(&self, text: &str) -> Option<Mac> {
        let encoding = self.encoding.reader();
        // Only what is missing at the end is padded: some decoders take `=` in the middle too.
        let padded_inside = text.trim_end_matches('=').contains('=');
        if text.len() != encoding.encode_len(self.len) || padded_inside {
            return None;
        }
        let mut buffer = [0u8; MAX_DECODED];
        let decoded = buffer.get_mut(..encoding.decode_len(text.len()).ok()?)?;
        let len = encoding.decode_mut(text.as_bytes(), decoded).ok()?;
        if len == self.len { decoded.get(..len).and_then(Mac::new) } else { None }
    }

    /// The value for `mac`, with `field` (its number and value) in front if there is one.
    pub(super) fn write(&self, mac: &Mac, field: Option<(usize, &str)>) -> String {
        let signature = format!("{}{}", self.prefix, self.encoding.writer().encode(mac.as_bytes()));
        match (&self.list, field) {
            (None, _) => signature,
            (Some(list), None) => format!("{}{}{signature}", list.key, list.pair),
            (Some(list), Some((index, value))) => {
                let List { items, pair, key, .. } = list;
                format!("{}{pair}{value}{items}{key}{pair}{signature}", self.field_name(index))
            }
        }
    }
}

/// `value` as text, where it is nothing but visible ASCII, spaces and tabs.
pub(super) fn visible(value: &[u8]) -> Option<&str> {
    let shown = value.iter().all(|byte| matches!(byte, b' '..=b'~' | b'\t'));
    str::from_utf8(value).ok().filter(|_| shown)
}

impl SignatureEncoding {
    /// All of these are canonical: other trailing bits or padding are refused. Only hex has two cases.
    fn reader(self) -> Encoding {
        match self {
            Self::Hex => HEXLOWER_PERMISSIVE,
            Self::Base64 => BASE64,
            Self::Base64Url => BASE64URL_NOPAD,
        }
    }

    pub(super) fn writer(self) -> Encoding {
        match self {
            Self::Hex => HEXLOWER,
            Self::Base64 => BASE64,
            Self::Base64Url => BASE64URL_NOPAD,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Hash, Request};
    use super::*;
    use http::{HeaderMap, HeaderName, HeaderValue, Method};

    const HEADER: HeaderName = HeaderName::from_static("acme-signature");

    fn carrier(encoding: SignatureEncoding, prefix: &str, list: Option<(char, char, &str)>) -> Carrier {
        let list = list.map(|(items, pair, key)| ListShape { items, pair, key: key.into() });
        let carrier =
            super::super::Carrier { from: Place::Header(HEADER), prefix: Some(prefix.into()), list, encoding };
        Carrier::new(&carrier, Hash::Sha256.mac_len(), &mut Pointers::default()).unwrap()
    }

    fn listed() -> Carrier {
        let mut carrier = carrier(SignatureEncoding::Hex, "", Some((',', '=', "v1")));
        assert_eq!(carrier.field("t"), Ok(0));
        carrier
    }

    /// The signatures, and the field `t`, that are read from header lines.
    fn read(carrier: &Carrier, lines: &[&str]) -> Result<(Vec<String>, Option<String>), Rejection> {
        let headers: HeaderMap =
            lines.iter().map(|line| (HEADER, HeaderValue::from_bytes(line.as_bytes()).unwrap())).collect();
        let method = Method::POST;
        let request = Request { method: &method, path: "/", query: None, params: &[], headers: &headers, body: b"" };
        let pointers = Pointers::default();
        let reading = Reading::new(request, None, &pointers);
        let read = carrier.read(&reading)?;
        Ok((read.signatures().map(String::from).collect(), read.fields.one(0).ok().map(String::from)))
    }

    #[test]
    fn a_plain_header_is_its_prefix_and_one_signature() {
        let carrier = carrier(SignatureEncoding::Hex, "sha256=", None);
        assert_eq!(read(&carrier, &["sha256=ab"]), Ok((vec!["ab".into()], None)));
        assert_eq!(read(&carrier, &["sha256=ab,sha256=cd"]), Ok((vec!["ab,sha256=cd".into()], None)));
        assert_eq!(read(&carrier, &["sha1=ab"]), Err(Rejection::MalformedSignature));
        assert_eq!(read(&carrier, &["SHA256=ab"]), Err(Rejection::MalformedSignature));
        assert_eq!(read(&carrier, &["sha256=\u{ff11}"]), Err(Rejection::MalformedSignature));
        assert_eq!(read(&carrier, &[]), Err(Rejection::MissingSignature));
        assert_eq!(read(&carrier, &["sha256=ab", "sha256=ab"]), Err(Rejection::RepeatedSignature));
    }

    #[test]
    fn a_list_gives_its_signatures_and_fields_in_any_order() {
        let two = Ok((vec!["ab".into(), "cd".into()], Some("1".into())));
        for line in ["t=1,v1=ab,v1=cd", "v1=ab, v1=cd ,t=1", "v0=x,v1=ab,junk,,v1=cd,t=1,v2=y"] {
            assert_eq!(read(&listed(), &[line]), two, "{line}");
        }
        for line in ["", ",", "t=1", "t=1,v0=ab", "v1", "v1 =ab"] {
            assert_eq!(read(&listed(), &[line]), Err(Rejection::MissingSignature), "{line}");
        }
        assert_eq!(read(&listed(), &["t=1,t=1,v1=ab"]), Ok((vec!["ab".into()], None)));
    }

    #[test]
    fn an_eleventh_signature_is_one_too_many() {
        let line = |count: usize| vec!["v1=ab"; count].join(",");
        assert_eq!(read(&listed(), &[&line(10)]).unwrap().0.len(), 10);
        assert_eq!(read(&listed(), &[&line(11)]), Err(Rejection::TooManySignatures));
    }

    #[test]
    fn a_signature_has_one_way_to_be_written() {
        let hex = carrier(SignatureEncoding::Hex, "", None);
        let (lower, upper) = ("5bdcc146".repeat(8), "5BDCC146".repeat(8));
        assert!(hex.decode(&lower).is_some() && hex.decode(&upper).is_some());
        let longer = format!("{lower}00");
        for text in ["", &lower[..62], &lower[..63], &longer, &lower.replace('b', "g"), &lower.replace("5b", " b")] {
            assert!(hex.decode(text).is_none(), "{text}");
        }

        let base64 = carrier(SignatureEncoding::Base64, "", None);
        let good = "g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=";
        assert!(base64.decode(good).is_some());
        let noncanonical = good.replace("OE=", "OF=");
        let url_alphabet = good.replace('+', "-").replace('/', "_");
        let moved_padding = format!("{}=={}", &good[..2], &good[4..]);
        for text in [&good[..43], &noncanonical, &url_alphabet, &moved_padding, &format!("{good}=")] {
            assert!(base64.decode(text).is_none(), "{text}");
        }
        let url = carrier(SignatureEncoding::Base64Url, "", None);
        assert!(url.decode(&url_alphabet[..43]).is_some());
        assert!(url.decode(&url_alphabet).is_none());
    }

    /// SHA-1's 20 bytes could also be written with the padding of one group in the middle.
    #[test]
    fn padding_in_the_middle_is_refused() {
        let mut carrier = carrier(SignatureEncoding::Base64, "", None);
        carrier.len = Hash::Sha1.mac_len();
        assert!(carrier.decode("AAAAAAAAAAAAAAAAAAAAAAAAAAA=").is_some());
        assert!(carrier.decode("AAA=AAAAAAAAAAAAAAAAAAAAAAAA").is_none());
    }
}
