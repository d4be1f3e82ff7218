use std::time::Duration;

use super::*;
use crate::base::{Name, Rate};
use crate::deliver::BreakerPolicy;
use crate::telemetry::Metrics;

const COOLDOWN: Duration = Duration::from_secs(10);

fn target(concurrency: usize) -> Arc<Target> {
    limited(concurrency, None)
}

fn limited(concurrency: usize, rate: Option<&str>) -> Arc<Target> {
    let name = Name::new("app").unwrap();
    let destination = Destination {
        concurrency,
        rate_limit: rate.map(|rate| Rate::parse(rate).unwrap()),
        breaker: BreakerPolicy { failures: 2, cooldown: COOLDOWN },
        ..Destination::at("http://127.0.0.1:9/")
    };
    let metrics = Metrics::new("test").destination(&name);
    Arc::new(Target::new(Way::new(destination).unwrap(), metrics, Pause::Resumed))
}

fn granted(target: &Arc<Target>) -> Turn {
    match target.ask(Patience::Any) {
        Asked::Granted(turn) => turn,
        Asked::Line(_) | Asked::Not(_) => panic!("wait"),
        Asked::Shut(_) => panic!("shut"),
    }
}

fn waits(target: &Arc<Target>, expected: Wait) -> oneshot::Receiver<Turn> {
    if expected != Wait::Full {
        assert!(matches!(target.ask(Patience::Place), Asked::Not(why) if why == expected));
    }
    match target.ask(Patience::Any) {
        Asked::Line(line) => line,
        Asked::Granted(_) | Asked::Not(_) | Asked::Shut(_) => panic!("does not wait"),
    }
}

#[tokio::test(start_paused = true)]
async fn turns_are_given_in_the_order_in_which_they_were_asked_for() {
    let target = target(2);
    let (one, two) = (granted(&target), granted(&target));
    let (mut three, four, mut five) =
        (waits(&target, Wait::Full), waits(&target, Wait::Full), waits(&target, Wait::Full));
    assert!(three.try_recv().is_err());
    one.over(Healthy::Yes);
    let three = three.try_recv().unwrap();
    drop(four); // it gave up waiting
    two.over(Healthy::Yes);
    let five = five.try_recv().unwrap();
    waits(&target, Wait::Full);
    drop((three, five));
    drop((granted(&target), granted(&target)));
}

#[tokio::test(start_paused = true)]
async fn an_open_breaker_sends_the_line_away_and_one_probe_decides() {
    let target = target(1);
    granted(&target).over(Healthy::No);
    let turn = granted(&target);
    let mut line = waits(&target, Wait::Full);
    turn.over(Healthy::No);
    assert_eq!(line.try_recv().map(drop), Err(oneshot::error::TryRecvError::Closed));
    let Asked::Shut(until) = target.ask(Patience::Place) else { panic!("the breaker is open") };
    assert_eq!(until, Instant::now() + COOLDOWN);
    tokio::time::advance(COOLDOWN).await;
    let probe = granted(&target);
    let mut behind = waits(&target, Wait::Probing);
    probe.over(Healthy::Yes);
    assert!(behind.try_recv().is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_paused_destination_has_no_turns_until_it_goes_on() {
    let target = target(1);
    target.set_pause(Pause::Paused);
    let mut line = waits(&target, Wait::Paused);
    target.set_pause(Pause::Resumed);
    assert_eq!(line.try_recv().map(drop), Err(oneshot::error::TryRecvError::Closed), "it asks again");
    drop(granted(&target));
}

fn way(concurrency: usize, rate: Option<&str>) -> Way {
    let destination = Destination {
        concurrency,
        rate_limit: rate.map(|rate| Rate::parse(rate).unwrap()),
        ..Destination::at("http://127.0.0.1:10/")
    };
    Way::new(destination).unwrap()
}

#[tokio::test(start_paused = true)]
async fn another_way_holds_for_the_next_turn_and_what_was_spent_stays_spent() {
    let target = limited(1, Some("1/m"));
    let first = granted(&target);
    let mut line = waits(&target, Wait::Full);
    target.go(way(2, Some("1/m")));
    assert_eq!(line.try_recv().map(drop), Err(oneshot::error::TryRecvError::Closed), "it asks again");
    drop(waits(&target, Wait::Full)); // there is a place for it, and the rate is spent all the same
    target.go(way(2, None));
    let second = granted(&target);
    waits(&target, Wait::Full);
    assert_eq!(target.way().destination.url.port_u16(), Some(10));
    first.over(Healthy::Yes);
    second.over(Healthy::Yes);
}

#[tokio::test(start_paused = true)]
async fn one_that_left_the_config_has_no_turns_until_it_is_back() {
    let target = target(1);
    let under_way = granted(&target);
    target.leave_alone();
    let mut line = waits(&target, Wait::Paused);
    under_way.over(Healthy::Yes);
    assert!(line.try_recv().is_err());
    target.set_pause(Pause::Paused);
    target.go(way(1, None));
    waits(&target, Wait::Paused);
    target.set_pause(Pause::Resumed);
    drop(granted(&target));
}

#[tokio::test(start_paused = true)]
async fn whoever_waits_for_the_rate_stands_in_the_same_line_and_hears_of_a_pause() {
    let target = limited(8, Some("1/s"));
    let first = granted(&target);
    let (mut backlog, live) = (waits(&target, Wait::Full), {
        let target = Arc::clone(&target);
        tokio::runtime::Handle::current().spawn(async move { target.turn(Instant::now() + COOLDOWN).await.is_some() })
    });
    tokio::task::yield_now().await;
    assert!(backlog.try_recv().is_err());
    tokio::time::sleep(Duration::from_millis(1_001)).await;
    assert!(backlog.try_recv().is_ok(), "the live request woke the line, and those before it were served");
    assert!(!live.is_finished());
    target.set_pause(Pause::Paused);
    assert!(!live.await.unwrap(), "it does not wait for the rate of a paused destination");
    drop(first);
}

#[tokio::test(start_paused = true)]
async fn those_who_have_left_the_line_take_no_memory() {
    let target = target(1);
    let hangs = granted(&target);
    let stays = waits(&target, Wait::Full);
    for _ in 0..10_000 {
        drop(waits(&target, Wait::Full)); // its time is over, the attempt before it goes on
    }
    assert!(target.turns().line.len() <= SWEEP_LEAST, "{}", target.turns().line.len());
    hangs.over(Healthy::Yes);
    assert!(stays.await.is_ok(), "whoever has waited longest is not swept out");
}
