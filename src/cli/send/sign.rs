//! What `forebay send` signs with, and where what is signed stands.

use std::path::Path;

use anyhow::{Context as _, anyhow, bail};
use http::Uri;

use super::Args;
use crate::base::Secret;
use crate::provider::{Check, Key, Keyring, Preset, Scheme, SignError, SigningKey};
use crate::router::{Params, Router};
use crate::source::SourceSettings;

/// The private key that is given: the text itself, or `@FILE`.
pub(super) fn signing_key(args: &Args) -> anyhow::Result<Option<SigningKey>> {
    let Some(text) = &args.signing_key else { return Ok(None) };
    let key = match text.strip_prefix('@') {
        None => SigningKey::parse(text),
        Some(path) => {
            let text = super::read(Path::new(path)).with_context(|| format!("the signing key {path}"))?;
            SigningKey::parse(&String::from_utf8_lossy(&text))
        }
    };
    key.map(Some).map_err(|error| anyhow!("--signing-key is {error}"))
}

/// The secrets to sign with: the given one, else the source's; of a key pair whose public half is nowhere, that of
/// `private`.
pub(super) fn keyring(
    args: &Args,
    preset: &Preset,
    source: Option<&SourceSettings>,
    private: Option<&SigningKey>,
) -> anyhow::Result<Keyring> {
    let mut keyring = match (&args.secret, source) {
        (Some(secret), _) => given(preset, secret)?,
        (None, Some(source)) => source.keyring.clone(),
        (None, None) if private.is_some() => Keyring::default(),
        (None, None) => bail!("nothing says what to sign with; give the secret with --secret"),
    };
    let missing = public_slots(preset).filter(|(slot, _)| keyring.0.iter().all(|(name, _)| name != slot));
    let public = private.map(|private| missing.map(|(slot, text)| (slot.to_owned(), vec![text(private)])).collect());
    keyring.0.extend::<Vec<_>>(public.unwrap_or_default());
    Ok(keyring)
}

/// Every secret that is needed, or would be filled by a source's `secret: X`, as `secret`; a name and a password are
/// `name:password`.
fn given(preset: &Preset, secret: &str) -> anyhow::Result<Keyring> {
    let leaves = preset.verify.leaves();
    let is_name = |slot: &str| {
        leaves.iter().any(|leaf| matches!(leaf, Check::Basic(basic) if basic.username.as_deref() == Some(slot)))
    };
    let pair = if preset.secrets.iter().any(|slot| is_name(&slot.name)) {
        let (name, password) = secret
            .split_once(':')
            .ok_or_else(|| anyhow!("`{}` takes a name and a password; write --secret NAME:PASSWORD", preset.name))?;
        Some((name, password))
    } else {
        None
    };
    let text = |slot: &str| match pair {
        Some((name, _)) if is_name(slot) => name,
        Some((_, password)) => password,
        None => secret,
    };
    let main = preset.main_slot().map(|slot| slot.name.as_str());
    let wanted = preset.secrets.iter().filter(|slot| !slot.optional || main == Some(slot.name.as_str()));
    Ok(Keyring(wanted.map(|slot| (slot.name.clone(), vec![key(text(&slot.name))])).collect()))
}

fn key(text: &str) -> Key {
    Key { secret: Secret::new(text), not_after: None }
}

/// The slots that hold a public key, each with how to write one there.
fn public_slots(preset: &Preset) -> impl Iterator<Item = (&str, impl Fn(&SigningKey) -> Key)> {
    preset.verify.leaves().into_iter().filter_map(|leaf| match leaf {
        Check::Signed(check) if check.scheme == Scheme::Ed25519 => {
            let write = |private: &SigningKey| key(&private.public_text(&check.key));
            Some((check.secret.as_str(), write))
        }
        _ => None,
    })
}

/// Why a request cannot be signed, with what to do.
pub(super) fn unsigned(error: SignError) -> anyhow::Error {
    match error {
        SignError::NoSigningKey => anyhow!(
            "{error}; make one of your own (`openssl rand -hex 32`), give it with --signing-key, and send to a source \
             that has its public half"
        ),
        error => error.into(),
    }
}

/// The path that the gateway sees of `to`: the one behind the public URL, whose prefix a proxy in front takes off.
pub(super) fn path<'t>(to: &'t Uri, public_url: &str) -> &'t str {
    let prefix =
        public_url.parse::<Uri>().ok().filter(|url| (url.scheme(), url.authority()) == (to.scheme(), to.authority()));
    let behind = prefix.and_then(|url| to.path().strip_prefix(url.path().trim_end_matches('/')));
    behind.filter(|path| path.starts_with('/')).unwrap_or(to.path())
}

/// What the `{param}` segments of `source`'s path match of `path`.
pub(super) fn params(source: Option<&SourceSettings>, path: &str) -> Params {
    let found = source.and_then(|source| {
        let router = Router::new([(None, source.path.clone(), ())]).ok()?;
        router.find(None, path).map(|((), params)| params)
    });
    found.unwrap_or_default()
}

/// Scheme, host and port of `to`.
pub(super) fn origin(to: &Uri) -> Box<str> {
    let authority = to.authority().map(http::uri::Authority::as_str).unwrap_or_default();
    format!("{}://{authority}", to.scheme_str().unwrap_or("http")).into()
}
