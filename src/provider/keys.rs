//! A slot's secrets, ready for use: decoded once, and each knows until when it is good.

use data_encoding::{HEXLOWER_PERMISSIVE, Specification};
use zeroize::Zeroizing;

use super::ed25519::VerifyingKey;
use super::{BadSecret, Check, CompileError, Key, KeyDecoding, KeyEncoding, Keyring, Preset, Rejection, Scheme};
use crate::base::UnixMillis;

/// At most so many secrets of a slot are tried: an attacker makes us compute one MAC for each.
const MAX_KEYS: usize = 5;

/// The usable forms of a slot's secrets; at least one.
#[derive(Debug)]
pub(super) struct Keys<T>(Vec<Usable<T>>);

/// One secret in its usable form.
#[derive(Debug)]
pub(super) struct Usable<T> {
    pub(super) value: T,
    /// For `explain`: the slot and the place in it, e.g. `secret[0]`.
    pub(super) label: Box<str>,
    not_after: Option<UnixMillis>,
}

impl<T> Keys<T> {
    /// The secrets of `slot`, each made usable by `prepare`.
    pub(super) fn new(
        keyring: &Keyring,
        slot: &str,
        prepare: impl Fn(&[u8]) -> Result<T, BadSecret>,
    ) -> Result<Self, CompileError> {
        let slot = slot.to_owned();
        let keys = keyring.0.iter().find(|(name, _)| *name == slot).map_or(&[][..], |(_, keys)| keys);
        match keys.len() {
            0 => return Err(CompileError::MissingSecret { slot }),
            1..=MAX_KEYS => {}
            count => return Err(CompileError::TooManySecrets { slot, count }),
        }
        let usable = |(index, key): (usize, &Key)| {
            let text = key.secret.expose();
            let value = if text.trim_ascii().is_empty() { Err(BadSecret::Empty) } else { prepare(text) };
            let bad = |problem| CompileError::BadSecret { slot: slot.clone(), index, problem };
            let value = value.map_err(bad)?;
            Ok(Usable { value, label: format!("{slot}[{index}]").into(), not_after: key.not_after })
        };
        keys.iter().enumerate().map(usable).collect::<Result<_, _>>().map(Self)
    }

    /// Those that are good at `now`; the last millisecond included.
    ///
    /// # Errors
    /// [`Rejection::NoGoodSecret`] if there are none.
    pub(super) fn good(&self, now: UnixMillis) -> Result<impl Iterator<Item = &Usable<T>>, Rejection> {
        let mut good = self.0.iter().filter(move |key| key.not_after.is_none_or(|end| now <= end)).peekable();
        if good.peek().is_none() { Err(Rejection::NoGoodSecret) } else { Ok(good) }
    }

    /// The one that signs.
    pub(super) fn first(&self) -> &Usable<T> {
        self.0.first().expect("a slot without secrets does not compile")
    }
}

/// What is wrong with `text` as a secret of `slot`, by the first use of it in `preset` that finds something.
#[must_use]
pub fn bad_secret(preset: &Preset, slot: &str, text: &[u8]) -> Option<BadSecret> {
    let bad = |leaf: &Check| match leaf {
        Check::Signed(signed) if signed.secret == slot => match signed.scheme {
            Scheme::Hmac(_) => shared_key(text, &signed.key).err(),
            Scheme::Ed25519 => public_key(text, &signed.key).err(),
        },
        Check::Basic(basic) if basic.username.as_deref() == Some(slot) && text.contains(&b':') => {
            Some(BadSecret::Colon)
        }
        _ => None,
    };
    let computed = preset.handshakes.iter().flat_map(|handshake| &handshake.compute);
    let mut keys = computed.filter(|(_, hmac)| hmac.secret == slot).map(|(_, hmac)| &hmac.key);
    let checked = preset.checks().flat_map(Check::leaves).find_map(bad);
    checked.or_else(|| keys.find_map(|key| shared_key(text, key).err()))
}

/// The key that sender and receiver share, which `text` stands for.
pub(super) fn shared_key(text: &[u8], decoding: &KeyDecoding) -> Result<Zeroizing<Vec<u8>>, BadSecret> {
    match Kind::of(text) {
        Some(Kind::Public) => Err(BadSecret::PublicKey),
        Some(Kind::Private) => Err(BadSecret::PrivateKey),
        Some(Kind::Shared) | None => decode(text, decoding),
    }
}

/// The sender's public key, which `text` stands for.
pub(super) fn public_key(text: &[u8], decoding: &KeyDecoding) -> Result<VerifyingKey, BadSecret> {
    match Kind::of(text) {
        Some(Kind::Shared) => Err(BadSecret::SharedSecret),
        Some(Kind::Private) => Err(BadSecret::PrivateKey),
        Some(Kind::Public) | None => VerifyingKey::new(&decode(text, decoding)?),
    }
}

/// What a secret is by its own word: the Standard Webhooks specification has a prefix for each kind, so that a public
/// key is not taken for a secret that nobody else knows, nor the other way round.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Shared,
    Public,
    Private,
}

impl Kind {
    fn of(text: &[u8]) -> Option<Self> {
        let kinds = [(&b"whsec_"[..], Self::Shared), (b"whpk_", Self::Public), (b"whsk_", Self::Private)];
        kinds.into_iter().find(|(prefix, _)| text.starts_with(prefix)).map(|(_, kind)| kind)
    }
}

/// The key bytes that `text` stands for.
///
/// Base64 is read as leniently as the providers' own libraries do (either alphabet, padding or none):
/// it is the operator's own text, not an attacker's.
fn decode(text: &[u8], decoding: &KeyDecoding) -> Result<Zeroizing<Vec<u8>>, BadSecret> {
    let prefix = decoding.strip.as_deref().unwrap_or_default();
    let text = text.strip_prefix(prefix.as_bytes()).unwrap_or(text);
    let (bytes, encoding) = match decoding.encoding {
        KeyEncoding::Utf8 => (Some(text.to_vec()), "text"),
        KeyEncoding::Hex => (HEXLOWER_PERMISSIVE.decode(text).ok(), "hex"),
        KeyEncoding::Base64 => (decode_base64(text), "base64"),
    };
    match bytes.map(Zeroizing::new) {
        None => Err(BadSecret::Encoding(encoding)),
        Some(bytes) if bytes.is_empty() => Err(BadSecret::Empty),
        Some(bytes) => Ok(bytes),
    }
}

pub(super) fn decode_base64(text: &[u8]) -> Option<Vec<u8>> {
    let end = text.iter().rposition(|byte| *byte != b'=').map_or(0, |last| last + 1);
    let (digits, padding) = text.split_at(end);
    let mut base64 = Specification::new();
    base64.symbols.push_str("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/");
    base64.translate.from.push_str("-_");
    base64.translate.to.push_str("+/");
    base64.check_trailing_bits = false;
    let base64 = base64.encoding().expect("the symbols are 64 different ones");
    if padding.len() > 2 { None } else { base64.decode(digits).ok() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::Secret;

    fn keyring(secrets: &[&str]) -> Keyring {
        let key = |text: &&str| Key { secret: Secret::new(*text), not_after: None };
        Keyring(vec![("secret".into(), secrets.iter().map(key).collect())])
    }

    fn base64() -> KeyDecoding {
        KeyDecoding { strip: Some("whsec_".into()), encoding: KeyEncoding::Base64 }
    }

    #[test]
    fn a_secret_is_decoded_as_the_preset_says() {
        let hex = KeyDecoding { strip: None, encoding: KeyEncoding::Hex };
        let text = KeyDecoding { strip: None, encoding: KeyEncoding::Utf8 };
        assert_eq!(*decode(b"whsec_+/8=", &base64()).unwrap(), [0xfb, 0xff]);
        assert_eq!(*decode(b"-_8", &base64()).unwrap(), [0xfb, 0xff]);
        assert_eq!(*decode(b"Ff00", &hex).unwrap(), [0xff, 0]);
        assert_eq!(*decode(b"whsec_x", &text).unwrap(), *b"whsec_x");
        for (text, decoding) in [("whsec_a b", base64()), ("YQ==\n", base64()), ("YQ===", base64()), ("abc", hex)] {
            assert!(decode(text.as_bytes(), &decoding).is_err(), "{text}");
        }
    }

    /// reliability: V10.
    #[test]
    fn a_secret_of_another_kind_is_refused() {
        let shared = |text: &[u8]| shared_key(text, &base64()).err();
        assert_eq!(shared(b"whsec_YWJj"), None);
        assert_eq!(shared(b"whpk_1SiA4o9hyqTCpIqC5V9HUakiiaeACeqfZTInDBbOir4="), Some(BadSecret::PublicKey));
        assert_eq!(shared(b"whsk_YWJj"), Some(BadSecret::PrivateKey));

        let decoding = KeyDecoding { strip: Some("whpk_".into()), encoding: KeyEncoding::Base64 };
        let public = |text: &[u8]| public_key(text, &decoding).err();
        assert_eq!(public(b"whpk_1SiA4o9hyqTCpIqC5V9HUakiiaeACeqfZTInDBbOir4="), None);
        assert_eq!(public(b"1SiA4o9hyqTCpIqC5V9HUakiiaeACeqfZTInDBbOir4="), None);
        assert_eq!(public(b"whsec_1SiA4o9hyqTCpIqC5V9HUakiiaeACeqfZTInDBbOir4="), Some(BadSecret::SharedSecret));
        assert_eq!(public(b"whsk_1SiA4o9hyqTCpIqC5V9HUakiiaeACeqfZTInDBbOir4="), Some(BadSecret::PrivateKey));
    }

    #[test]
    fn a_bad_secret_is_named_by_its_place_and_never_shown() {
        let prepare = |text: &[u8]| decode(text, &base64()).map(drop);
        let error = Keys::new(&keyring(&["whsec_YWJj", "hunter2!"]), "secret", prepare).unwrap_err().to_string();
        assert!(error.starts_with("secret `secret[1]` is not base64"), "{error}");
        assert!(!error.contains("hunter2"), "{error}");
    }

    #[test]
    fn an_empty_secret_does_not_compile() {
        let prepare = |text: &[u8]| decode(text, &base64()).map(drop);
        for text in ["", " \n", "whsec_", "==", "whsec_="] {
            let error = Keys::new(&keyring(&[text]), "secret", prepare).unwrap_err();
            let empty = CompileError::BadSecret { slot: "secret".into(), index: 0, problem: BadSecret::Empty };
            assert_eq!(error, empty, "{text:?}");
        }
        let error = Keys::new(&keyring(&[]), "secret", prepare).unwrap_err();
        assert_eq!(error, CompileError::MissingSecret { slot: "secret".into() });
        let error = Keys::new(&keyring(&["YWJj"; 6]), "secret", prepare).unwrap_err();
        assert_eq!(error, CompileError::TooManySecrets { slot: "secret".into(), count: 6 });
    }

    #[test]
    fn a_secret_counts_up_to_its_last_millisecond() {
        let keyring = Keyring(vec![(
            "secret".into(),
            vec![Key { secret: Secret::new("old"), not_after: Some(UnixMillis(1_000)) }],
        )]);
        let keys = Keys::new(&keyring, "secret", |_| Ok(())).unwrap();
        assert_eq!(keys.good(UnixMillis(1_000)).unwrap().count(), 1);
        assert_eq!(keys.good(UnixMillis(1_001)).err(), Some(Rejection::NoGoodSecret));
    }
}
