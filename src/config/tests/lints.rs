//! What is well written, and would go wrong once webhooks come.

use super::*;

#[test]
fn paths_that_take_the_same_requests_clash() {
    let two = |one: &str, other: &str| {
        let source = "verify: none, to: []";
        said(&format!("sources:\n  one: {{ {source}, {one} }}\n  two: {{ {source}, {other} }}\n"))
            .lines()
            .filter(|line| !line.contains("warning"))
            .collect::<String>()
    };
    let clash = "forebay.yaml:3:38: sources.two.path: takes the same requests as source `one` (forebay.yaml:2:38); give one of them another path or host";
    assert_eq!(two("path: /a", "path: /a"), clash);
    assert!(
        two("path: \"/a/{x}\"", "path: \"/a/{y}\"")
            .contains("takes the same requests as source `one` (forebay.yaml:2:38)")
    );
    assert!(two("path: /a, host: x.com", "path: /a, host: X.com").contains("takes the same requests"));
    assert_eq!(two("path: /a, host: x.com", "path: /a"), "");
    assert_eq!(two("path: /a/b", "path: \"/a/{x}\""), "");
}

#[test]
fn a_window_that_forgets_too_early_is_a_warning() {
    let timed = "    retries: { horizon: 24h }
    verify: { hmac: { hash: sha256, signature: { header: X }, content: \"{header:T}{body}\", timestamp: { from: \"header:T\" } } }";
    let text =
        WHOLE.replace("    verify: { hmac: { hash: sha256, signature: { header: X-Sig, encoding: hex } } }", timed);
    let window = |line: &str| said(&text.replace("    to: [app]", &format!("    {line}\n    to: [app]")));
    assert_eq!(window("dedupe: { window: 24h }"), "");
    assert_eq!(
        window("dedupe: { window: 23h }"),
        "forebay.yaml:10:23: warning: sources.hooks.dedupe.window: `acme` may send an event again for 1d, and later ones count as new; write 1d or more\n"
    );
    assert_eq!(window("tolerance: 12h\n    dedupe: { window: 24h }"), "");
    assert!(window("tolerance: 13h\n    dedupe: { window: 24h }").contains("shorter than twice the tolerance"));
    let both = window("tolerance: 13h\n    dedupe: { window: 1h }");
    assert!(both.contains("may send an event again for 1d") && both.contains("twice the tolerance"), "{both}");
}

#[test]
fn an_answer_that_is_no_success_to_the_provider_is_said() {
    let facts = |answer: &str, respond: &str| {
        let text = WHOLE.replace("    event:", &format!("    answer: {answer}\n    event:"));
        said(&text.replace("    to: [app]", &format!("    respond: {respond}\n    to: [app]")))
    };
    assert_eq!(facts("{ success: [200, 204] }", "{ status: 204 }"), "");
    assert_eq!(
        facts("{ success: [200, 204] }", "{ status: 202 }"),
        "forebay.yaml:10:24: sources.hooks.respond.status: 202 is no success to `acme`, so what is kept would count as failed; write 200 or 204\n"
    );
    assert_eq!(
        facts("{ ends_on: [410] }", "{ status: 410 }"),
        "forebay.yaml:10:24: sources.hooks.respond.status: 410 has `acme` end the subscription, although the event is kept; write a status from 200 to 299\n"
    );
    let said = facts("{ success: [202] }", "{ status: 202 }");
    assert!(said.contains("providers.acme.answer.respond: 200 is no success to it"), "{said}");
    assert!(facts("{ success: [410] }", "{ status: 200 }").contains("not a status from 200 to 299"));
}
