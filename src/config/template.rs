//! Templates of the preset language: `v0:{header:X-Time}:{body}`.

use crate::provider::{Piece, Template};

use super::parse::place;

/// A template that says what is signed, and so is not empty.
pub(super) fn template(text: &str) -> Result<Template, String> {
    let pieces = split(text, Piece::Literal, placeholder)?;
    if pieces.is_empty() {
        Err("an empty template signs nothing; write `{body}`".to_owned())
    } else {
        Ok(Template(pieces))
    }
}

/// The pieces of a template: text, `{placeholders}`, and `{{` `}}` for the braces themselves.
pub(super) fn split<P>(
    text: &str,
    text_piece: impl Fn(String) -> P,
    placeholder: impl Fn(&str) -> Result<P, String>,
) -> Result<Vec<P>, String> {
    let mut pieces = Vec::new();
    let mut literal = String::new();
    let mut rest = text;
    while let Some(at) = rest.find(['{', '}']) {
        let (before, brace) = rest.split_at(at);
        literal.push_str(before);
        if let Some(after) = brace.strip_prefix("{{") {
            literal.push('{');
            rest = after;
        } else if let Some(after) = brace.strip_prefix("}}") {
            literal.push('}');
            rest = after;
        } else if let Some(inside) = brace.strip_prefix('{') {
            let (inside, after) = inside.split_once('}').ok_or("a `{` has no `}`; close it, or write `{{`")?;
            let piece = placeholder(inside)?;
            if !literal.is_empty() {
                pieces.push(text_piece(std::mem::take(&mut literal)));
            }
            pieces.push(piece);
            rest = after;
        } else {
            return Err("a `}` has no `{`; write `}}` for the brace itself".to_owned());
        }
    }
    literal.push_str(rest);
    if !literal.is_empty() {
        pieces.push(text_piece(literal));
    }
    Ok(pieces)
}

pub(super) fn placeholder(text: &str) -> Result<Piece, String> {
    match text.split_once(':') {
        Some(("header" | "json" | "query" | "form" | "param", _)) => place(text).map(Piece::At),
        Some(("field", name)) if !name.is_empty() => Ok(Piece::Field(name.to_owned())),
        None if text == "body" => Ok(Piece::Body),
        None if text == "method" => Ok(Piece::Method),
        None if text == "path" => Ok(Piece::Path),
        None if text == "query" => Ok(Piece::Query),
        None if text == "url" => Ok(Piece::Url),
        _ => Err(format!(
            "`{{{text}}}` stands for nothing; there are body, method, path, query, url, header:NAME, json:/a/b, \
             query:NAME, form:NAME, param:NAME and field:NAME"
        )),
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderName;

    use super::*;
    use crate::provider::Place;

    #[test]
    fn a_template_is_text_and_placeholders() {
        let literal = |text: &str| Piece::Literal(text.to_owned());
        let time = Piece::At(Place::Header(HeaderName::from_static("x-time")));
        assert_eq!(template("v0:{header:X-Time}:{body}").unwrap().0, [literal("v0:"), time, literal(":"), Piece::Body]);
        assert_eq!(template("{{{method}}}").unwrap().0, [literal("{"), Piece::Method, literal("}")]);
        let at = |place: Place| Piece::At(place);
        let json = at(Place::Json("/ab".into()));
        let others = [Piece::Url, json, at(Place::Query("a b".into())), at(Place::Form("f".into()))];
        assert_eq!(template("{url}{json:/ab}{query:a b}{form:f}").unwrap().0, others);
        for bad in [
            "",
            "{body",
            "body}",
            "{}",
            "{bodY}",
            "{header:}",
            "{header:a b}",
            "{field:}",
            "{x:y}",
            "{json:a}",
            "{query:}",
            "{urL}",
        ] {
            assert!(template(bad).is_err(), "{bad}");
        }
    }
}
