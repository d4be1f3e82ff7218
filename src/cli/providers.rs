//! `forebay providers`: the presets that are built in or stand in the config, and what their signatures are worth.

use std::io::Write;
use std::process::ExitCode;

use comfy_table::{Table, presets::NOTHING};
use serde_json::{Value, json};

use crate::base::format_duration;
use crate::config::{presets, suggest};
use crate::provider::{Check, FirstOf, Handshake, Hash, KeyRule, Piece, Place, Preset, ProvenBy, Scheme, Template};

/// Shows the presets: those of the config first, then the built-in ones that they do not replace.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: Option<Command>,
    /// Print JSON for a program.
    #[arg(long, global = true)]
    json: bool,
}

/// What to show.
#[derive(Debug, clap::Subcommand)]
enum Command {
    /// All of them, a line each.
    List,
    /// One: its YAML, and what its signature covers.
    Show {
        /// Its name or an alias.
        name: String,
    },
}

/// Prints what `args` ask for, `own` being the config's presets; 2 where there is no such preset.
///
/// # Errors
/// The standard output cannot be written, or a built-in preset is not sound.
pub fn run(args: &Args, own: &[Preset]) -> anyhow::Result<ExitCode> {
    let mut presets = own.to_vec();
    presets.extend(presets::built_in()?.into_iter().filter(|preset| !own.iter().any(|own| own.name == preset.name)));
    let page = match &args.command {
        None | Some(Command::List) if args.json => {
            format!("{:#}\n", Value::Array(presets.iter().map(summary).collect()))
        }
        None | Some(Command::List) => table(&presets),
        Some(Command::Show { name }) => {
            let Some(preset) = presets::find(&presets, name) else {
                let known: Vec<_> = presets.iter().map(|preset| preset.name.as_str()).collect();
                anstream::eprintln!("there is no preset `{name}`; {}", suggest(name, known));
                return Ok(ExitCode::from(2));
            };
            if args.json { format!("{:#}\n", detail(preset)) } else { sheet(preset, yaml_of(preset, own)) }
        }
    };
    std::io::stdout().write_all(page.as_bytes())?;
    Ok(ExitCode::SUCCESS)
}

fn table(presets: &[Preset]) -> String {
    let mut table = Table::new();
    table.load_style(NOTHING).set_header(["NAME", "TITLE", "SCHEME", "ID", "DEDUPE", "DOCS"]);
    for preset in presets {
        let id = preset.event.id.as_ref().map_or_else(|| "-".to_owned(), FirstOf::to_string);
        let cells = [
            preset.name.to_string(),
            preset.title.clone(),
            scheme(&preset.verify),
            id,
            dedupe(preset),
            preset.docs.clone(),
        ];
        table.add_row(cells);
    }
    format!("{}\n", table.trim_fmt())
}

/// A preset's text; of one of the config's, a line that says where it stands.
fn yaml_of(preset: &Preset, own: &[Preset]) -> &'static str {
    if own.iter().any(|own| own.name == preset.name) {
        return "# A preset of your own: its YAML stands in the config, or in its `providers.dir`.";
    }
    presets::FILES.iter().find(|(name, _)| *name == preset.name.as_str()).map_or("", |(_, text)| text)
}

fn sheet(preset: &Preset, yaml: &str) -> String {
    let cover = Cover::of(&preset.verify);
    let mut page = format!(
        "{}\n\n# Scheme: {}\n# The signature covers: {}\n",
        yaml.trim_end(),
        scheme(&preset.verify),
        cover.words()
    );
    for (what, first) in [("id", &preset.event.id), ("type", &preset.event.kind)] {
        if let Some(first) = first {
            let signed = if cover.covers(first) { "signed" } else { "not signed" };
            page.push_str(&format!("# The {what}, {first}: {signed}\n"));
        }
    }
    page.push_str(&format!("# Two requests are one event by: {}\n", dedupe_with_cover(preset, &cover)));
    page
}

fn summary(preset: &Preset) -> Value {
    json!({
        "name": preset.name.as_str(),
        "title": preset.title,
        "aliases": preset.aliases.iter().map(|alias| alias.as_str()).collect::<Vec<_>>(),
        "scheme": scheme(&preset.verify),
        "id": preset.event.id.as_ref().map(FirstOf::to_string),
        "dedupe": dedupe(preset),
        "docs": preset.docs,
    })
}

fn detail(preset: &Preset) -> Value {
    let cover = Cover::of(&preset.verify);
    let signed = |first: &Option<FirstOf>| {
        first.as_ref().map(|first| json!({ "place": first.to_string(), "signed": cover.covers(first) }))
    };
    let mut value = summary(preset);
    let more = json!({
        "secrets": preset.secrets.iter().map(|slot| json!({ "name": slot.name, "hint": slot.hint, "optional": slot.optional })).collect::<Vec<_>>(),
        "methods": preset.methods.iter().map(http::Method::as_str).collect::<Vec<_>>(),
        "handshakes": preset.handshakes.iter().map(handshake).collect::<Vec<_>>(),
        "signature_covers": cover.list(),
        "id": signed(&preset.event.id),
        "type": signed(&preset.event.kind),
        "answer_within": preset.answer.within.map(format_duration),
        "success": preset.answer.success,
        "ends_on": preset.answer.ends_on,
        "retry_horizon": preset.retries.horizon.map(format_duration),
        "retries_after_429": preset.retries.after_429,
        "note": preset.retries.note,
    });
    if let (Some(value), Value::Object(more)) = (value.as_object_mut(), more) {
        value.extend(more);
    }
    value
}

fn handshake(handshake: &Handshake) -> Value {
    let proven_by = match &handshake.proven_by {
        ProvenBy::Verify => "verify".to_owned(),
        ProvenBy::Own(check) => scheme(check),
        ProvenBy::Nothing => "none".to_owned(),
    };
    json!({
        "name": handshake.name.as_str(),
        "method": handshake.method.as_ref().map(http::Method::as_str),
        "proven_by": proven_by,
    })
}

/// What holds for every request that a check lets through: the parts that nobody but the sender can have written.
#[derive(Debug, PartialEq, Eq)]
struct Cover(Vec<Piece>);

impl Cover {
    fn of(check: &Check) -> Self {
        match check {
            Check::Signed(signed) => Self::of_template(&signed.content),
            Check::Token(_) | Check::Basic(_) | Check::Nothing => Self(Vec::new()),
            Check::All(checks) => Self(checks.iter().flat_map(|check| Self::of(check).0).collect()),
            Check::Any(checks) => {
                let mut covers = checks.iter().map(Self::of);
                let mut common = covers.next().map(|cover| cover.0).unwrap_or_default();
                covers.for_each(|cover| common.retain(|piece| cover.0.contains(piece)));
                Self(common)
            }
        }
    }

    fn of_template(template: &Template) -> Self {
        Self(template.0.iter().filter(|piece| !matches!(piece, Piece::Literal(_))).cloned().collect())
    }

    /// Whether every place that may give a fact is covered.
    fn covers(&self, first: &FirstOf) -> bool {
        first.0.iter().all(|place| self.0.iter().any(|piece| piece.covers(place)))
    }

    fn list(&self) -> Vec<String> {
        let name = |piece: &Piece| match piece {
            Piece::Literal(text) => text.clone(),
            Piece::Body => "body".to_owned(),
            Piece::Method => "method".to_owned(),
            Piece::Path => "path".to_owned(),
            Piece::Query => "query".to_owned(),
            Piece::Url => "url".to_owned(),
            Piece::At(Place::Header(name)) => format!("header {name}"),
            Piece::At(place) => place.to_string(),
            Piece::Field(key) => format!("field {key} beside the signature"),
        };
        self.0.iter().map(name).collect()
    }

    fn words(&self) -> String {
        if self.0.is_empty() {
            "nothing; who knows the token can send anything".to_owned()
        } else {
            self.list().join(", ")
        }
    }
}

fn scheme(check: &Check) -> String {
    let several = |checks: &[Check], word: &str| checks.iter().map(scheme).collect::<Vec<_>>().join(word);
    match check {
        Check::Signed(signed) => match signed.scheme {
            Scheme::Hmac(Hash::Sha1) => "hmac-sha1",
            Scheme::Hmac(Hash::Sha256) => "hmac-sha256",
            Scheme::Hmac(Hash::Sha384) => "hmac-sha384",
            Scheme::Hmac(Hash::Sha512) => "hmac-sha512",
            Scheme::Ed25519 => "ed25519",
        }
        .to_owned(),
        Check::Basic(_) => "basic".to_owned(),
        Check::Token(_) => "token".to_owned(),
        Check::Nothing => "none".to_owned(),
        Check::Any(checks) => several(checks, " or "),
        Check::All(checks) => several(checks, " and "),
    }
}

fn dedupe(preset: &Preset) -> String {
    match presets::default_key(preset) {
        KeyRule::Parts(parts) => parts.iter().map(FirstOf::to_string).collect::<Vec<_>>().join(" + "),
        KeyRule::Signed => "signed".to_owned(),
        KeyRule::Body => "body".to_owned(),
        KeyRule::Off => "off".to_owned(),
    }
}

fn dedupe_with_cover(preset: &Preset, cover: &Cover) -> String {
    let unsigned =
        matches!(presets::default_key(preset), KeyRule::Parts(parts) if !parts.iter().all(|part| cover.covers(part)));
    let bound = if unsigned && !cover.0.is_empty() { ", together with the digest of what is signed" } else { "" };
    format!("{}{bound}", dedupe(preset))
}

#[cfg(test)]
mod tests {
    use http::HeaderName;

    use super::*;
    use crate::provider::{Carrier, KeyDecoding, KeyEncoding, SignatureEncoding, SignedCheck, TokenCheck};

    fn token() -> Check {
        Check::Token(TokenCheck {
            secret: "secret".to_owned(),
            from: Place::Header(HeaderName::from_static("x-token")),
            prefix: None,
        })
    }

    fn hmac(content: Vec<Piece>) -> Check {
        let from = Place::Header(HeaderName::from_static("x-sig"));
        Check::Signed(SignedCheck {
            scheme: Scheme::Hmac(Hash::Sha256),
            secret: "secret".to_owned(),
            key: KeyDecoding { strip: None, encoding: KeyEncoding::Utf8 },
            signature: Carrier { from, prefix: None, list: None, encoding: SignatureEncoding::Hex },
            content: Template(content),
            timestamp: None,
        })
    }

    #[test]
    fn a_signature_covers_what_every_alternative_signs() {
        let time = Piece::At(Place::Header(HeaderName::from_static("x-time")));
        let both = hmac(vec![time.clone(), Piece::Literal(".".to_owned()), Piece::Body]);
        let body = hmac(vec![Piece::Body]);
        assert_eq!(Cover::of(&both).0, [time.clone(), Piece::Body]);
        assert_eq!(Cover::of(&Check::Any(vec![both.clone(), body.clone()])).0, [Piece::Body]);
        assert_eq!(Cover::of(&Check::Any(vec![body.clone(), token()])).0, []);
        assert_eq!(Cover::of(&Check::All(vec![body.clone(), token()])).0, [Piece::Body]);

        let id = FirstOf(vec![Place::Json("/id".to_owned())]);
        let header = FirstOf(vec![Place::Json("/id".to_owned()), Place::Header(HeaderName::from_static("x-id"))]);
        assert!(Cover::of(&body).covers(&id));
        assert!(!Cover::of(&body).covers(&header));
    }
}
