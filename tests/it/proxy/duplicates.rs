//! The same event again: while its first request is under way, and after it was answered.

use super::{LATER, SOON, assert_kept, id, post, post_to, proxied, says, to};
use crate::support::http::Answer;
use crate::support::{FakeApp, Gateway};

/// A request, and 64 that wait for its answer while the application holds. That all of them wait shows in a 65th, which
/// is turned away for it; then the application goes on.
async fn one_and_64_that_wait(app: &FakeApp, gateway: &Gateway) -> (Answer, Vec<Answer>) {
    app.hold();
    let first = post(gateway, "1");
    let others = async {
        app.until("the first request", |seen| !seen.is_empty()).await;
        let others = (0..65).map(|_| async {
            let answer = post(gateway, "1").await;
            if answer.status == 503 {
                app.go_on();
            }
            answer
        });
        futures_util::future::join_all(others).await
    };
    let (first, mut others) = futures_util::future::join(first, others).await;
    others.retain(|answer| answer.status != 503);
    assert_eq!(others.len(), 64);
    (first, others)
}

#[tokio::test]
async fn duplicates_of_a_request_under_way_wait_and_get_its_answer() {
    let app = FakeApp::start().await;
    app.behave(|_| Some(says(202, "once")));
    let gateway = to(&app).await;
    app.hold();
    let first = post(&gateway, "1");
    let others = async {
        app.until("the first request", |seen| !seen.is_empty()).await;
        let others = futures_util::future::join_all((0..10).map(|_| post(&gateway, "1")));
        let go = async {
            // All of them have been verified; that they wait is what the application sees of them: nothing.
            let verified = r#"forebay_verifications_total{source="s",outcome="verified",slot=""}"#;
            gateway.until_metric(verified, 11.0).await;
            app.go_on();
        };
        futures_util::future::join(others, go).await.0
    };
    let (first, others) = futures_util::future::join(first, others).await;
    assert_eq!((first.status, first.text().as_str(), first.header("forebay-duplicate")), (202, "once", None));
    for other in &others {
        assert_eq!((other.status, other.text().as_str(), id(other)), (202, "once", id(&first)));
        assert_eq!(other.header("forebay-duplicate"), Some("true"));
        assert_eq!(other.header("content-type"), Some("text/x-app"));
    }
    assert_eq!(app.seen().len(), 1);
    assert_eq!(gateway.metric(r#"forebay_duplicates_total{source="s",kind="same"}"#).await, 10.0);
}

#[tokio::test]
async fn more_than_64_that_wait_for_one_key_are_told_to_come_again() {
    let app = FakeApp::start().await;
    let gateway = to(&app).await;
    app.hold();
    let first = post(&gateway, "1");
    let rest = async {
        app.until("the first request", |seen| !seen.is_empty()).await;
        let rest = (0..80).map(|_| async {
            let answer = post(&gateway, "1").await;
            if answer.status == 503 {
                assert_eq!(answer.header("retry-after"), Some("1"));
                let turned_away = r#"forebay_refusals_total{source="s",reason="under_way"}"#;
                if gateway.metric(turned_away).await >= 16.0 {
                    app.go_on();
                }
            }
            answer.status
        });
        futures_util::future::join_all(rest).await
    };
    let (first, rest) = futures_util::future::join(first, rest).await;
    assert_eq!(first.status, 200);
    assert_eq!(rest.iter().filter(|status| **status == 200).count(), 64);
    assert_eq!(rest.iter().filter(|status| **status == 503).count(), 16);
    assert_eq!(app.seen().len(), 1);
}

#[tokio::test]
async fn a_duplicate_of_a_relayed_event_gets_the_applications_answer_again_also_after_a_restart() {
    let app = FakeApp::start().await;
    app.behave(|_| Some(says(201, vec![b'x'; 16 << 10])));
    let gateway = to(&app).await;
    let first = post(&gateway, "1").await;
    gateway.event(&id(&first), "delivered").await;
    app.behave(|_| Some(says(201, vec![b'x'; (16 << 10) + 1])));
    let longer = post(&gateway, "2").await;
    gateway.event(&id(&longer), "delivered").await;
    app.behave(|_| panic!("a duplicate is nothing to the application"));

    let (code, dir) = gateway.terminate().await;
    assert_eq!(code, 0);
    let gateway = Gateway::start_in(dir).await;
    for _ in 0..2 {
        let again = post(&gateway, "1").await;
        assert_eq!((again.status, &again.body, id(&again)), (201, &first.body, id(&first)));
        assert_eq!(
            (again.header("content-type"), again.header("forebay-duplicate")),
            (Some("text/x-app"), Some("true"))
        );
    }
    let again = post(&gateway, "2").await;
    assert_eq!((again.status, id(&again), again.header("forebay-duplicate")), (200, id(&longer), Some("true")));
    assert_eq!(again.json()["id"], id(&longer), "too long to be kept: the source's own answer");
    assert_eq!(gateway.event(&id(&first), "delivered").await["duplicates"], 2);
}

#[tokio::test]
async fn those_who_wait_for_a_request_that_is_kept_are_told_that_it_is_kept() {
    let app = FakeApp::start().await;
    app.behave(|_| Some(says(503, "not now")));
    let gateway = Gateway::start(&proxied(&app.url(), "deadline: 60s", "timeout: 1h").replace(SOON, LATER)).await;
    let (first, others) = one_and_64_that_wait(&app, &gateway).await;
    assert_kept(&first);
    assert_eq!(first.header("forebay-duplicate"), None);
    for other in &others {
        assert_kept(other);
        assert_eq!((id(other), other.header("forebay-duplicate")), (id(&first), Some("true")));
    }
    assert_eq!(app.seen().len(), 1);
    assert_eq!(gateway.metric(r#"forebay_events_stored_total{source="s"}"#).await, 1.0);
}

#[tokio::test]
async fn those_who_wait_for_a_request_that_is_refused_are_refused_and_the_next_one_is_not() {
    let app = FakeApp::start().await;
    app.behave(|_| Some(says(422, "no such customer")));
    let gateway = Gateway::start(&proxied(&app.url(), "deadline: 60s", "timeout: 1h")).await;
    let (first, others) = one_and_64_that_wait(&app, &gateway).await;
    assert_eq!((first.status, first.header("forebay-duplicate")), (422, None));
    for other in &others {
        assert_eq!((other.status, other.text().as_str(), id(other)), (422, "no such customer", id(&first)));
        assert_eq!((other.header("forebay-duplicate"), other.header("forebay-buffered")), (Some("true"), None));
    }
    assert_eq!(app.seen().len(), 1);
    gateway.event(&id(&first), "refused_by_app").await;

    app.behave(|_| Some(says(200, "now")));
    let again = post(&gateway, "1").await;
    assert_eq!((again.status, again.text().as_str(), again.header("forebay-duplicate")), (200, "now", None));
    assert_ne!(id(&again), id(&first));
    assert_eq!(app.seen().len(), 2);
}

#[tokio::test]
async fn another_body_under_the_key_of_a_request_under_way_gets_its_answer_and_counts_as_a_conflict() {
    let app = FakeApp::start().await;
    app.behave(|_| Some(says(202, "once")));
    let gateway = Gateway::start(&proxied(&app.url(), "deadline: 60s", "timeout: 1h")).await;
    app.hold();
    let first = post_to(&gateway, "/s", r#"{"id":"1","n":1}"#);
    let other = async {
        app.until("the first request", |seen| !seen.is_empty()).await;
        let go = async {
            gateway.until_metric(r#"forebay_verifications_total{source="s",outcome="verified",slot=""}"#, 2.0).await;
            app.go_on();
        };
        futures_util::future::join(post_to(&gateway, "/s", r#"{"id":"1","n":2}"#), go).await.0
    };
    let (first, other) = futures_util::future::join(first, other).await;
    assert_eq!((other.status, other.text().as_str(), id(&other)), (202, "once", id(&first)));
    assert_eq!((first.header("forebay-duplicate"), other.header("forebay-duplicate")), (None, Some("true")));
    assert_eq!(app.seen().len(), 1);
    assert_eq!(gateway.metric(r#"forebay_duplicates_total{source="s",kind="conflict"}"#).await, 1.0);
    assert_eq!(gateway.metric(r#"forebay_duplicates_total{source="s",kind="same"}"#).await, 0.0);
}

/// The answer of a request that the application refused is nobody else's: whoever comes again at once is asked about again.
#[tokio::test]
async fn a_key_is_free_as_soon_as_its_4xx_is_told() {
    let app = FakeApp::start().await;
    app.behave(|_| Some(says(422, "no")));
    let gateway = to(&app).await;
    for asked in 1..=50 {
        let answer = post(&gateway, "1").await;
        assert_eq!((answer.status, answer.header("forebay-duplicate"), app.seen().len()), (422, None, asked));
    }
}
