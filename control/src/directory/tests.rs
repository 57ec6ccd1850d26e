use super::*;
use runit_core::session::{Change, Offer};
use runit_core::upstream::{UpstreamPolicy, UpstreamUrl};
use runit_core::{SecretHash, Timestamp};
use uuid::Uuid;

fn session(number: u128) -> Session {
    let offer = Offer {
        upstream: UpstreamUrl::parse("https://a-b.trycloudflare.com", &UpstreamPolicy::default()).unwrap(),
        sealed_credential: Vec::new(),
        credential_hash: SecretHash::of("credential"),
        hardware: None,
        pricing: None,
    };
    let id = SessionId::from_uuid(Uuid::from_u128(number));
    Session::register(id, "p".parse().unwrap(), SecretHash::of("s"), None, offer, 1, Timestamp::default())
}

fn removed(mut session: Session) -> Session {
    session.apply(Change::Remove, Timestamp::default()).unwrap();
    session
}

fn credential() -> Option<Secret> {
    Some(Secret::new("credential"))
}

async fn next(watch: &mut BoxStream<'static, DirectoryChange>) -> DirectoryChange {
    watch.next().await.expect("watches for ever")
}

#[tokio::test]
async fn a_watch_begins_with_a_snapshot_and_goes_on_with_changes() {
    let directory = Arc::new(Directory::new());
    directory.publish(session(1), credential());
    let mut watch = directory.watch();
    assert!(matches!(next(&mut watch).await, DirectoryChange::Snapshot(views) if views.len() == 1));
    directory.publish(session(2), credential());
    assert!(matches!(next(&mut watch).await, DirectoryChange::Upsert(view) if view.id == session(2).id));
    directory.publish(removed(session(1)), credential());
    assert!(matches!(next(&mut watch).await, DirectoryChange::Remove(id, _) if id == session(1).id));
}

#[tokio::test]
async fn an_older_revision_that_comes_late_changes_nothing() {
    let directory = Arc::new(Directory::new());
    let mut watch = directory.watch();
    next(&mut watch).await;
    directory.publish(removed(session(1)), credential());
    directory.publish(session(1), credential());
    assert!(matches!(next(&mut watch).await, DirectoryChange::Remove(..)));
    assert!(directory.session(session(1).id).is_none(), "the dead stay dead");
    directory.publish(session(2), credential());
    assert!(matches!(next(&mut watch).await, DirectoryChange::Upsert(view) if view.id == session(2).id));
}

#[tokio::test]
async fn what_leaves_the_revision_as_it_was_is_not_sent_again() {
    let directory = Arc::new(Directory::new());
    let mut watch = directory.watch();
    next(&mut watch).await;
    directory.publish(session(1), credential());
    directory.publish(session(1), credential());
    directory.publish(session(2), credential());
    assert!(matches!(next(&mut watch).await, DirectoryChange::Upsert(view) if view.id == session(1).id));
    assert!(matches!(next(&mut watch).await, DirectoryChange::Upsert(view) if view.id == session(2).id));
}

#[tokio::test]
async fn a_watcher_that_lags_gets_a_new_snapshot() {
    let directory = Arc::new(Directory::new());
    let mut watch = directory.watch();
    next(&mut watch).await;
    let many = BACKLOG as u128 + 10;
    for number in 0..many {
        directory.publish(session(number), credential());
    }
    assert!(matches!(next(&mut watch).await, DirectoryChange::Snapshot(views) if views.len() as u128 == many));
    directory.publish(removed(session(3)), credential());
    assert!(matches!(next(&mut watch).await, DirectoryChange::Remove(id, _) if id == session(3).id));
}

#[tokio::test]
async fn a_session_whose_credential_cannot_be_opened_is_not_shown() {
    let directory = Arc::new(Directory::new());
    directory.publish(session(1), None);
    assert!(directory.sessions().is_empty());
}

#[test]
fn sessions_are_counted_by_state_as_they_change() {
    let directory = Directory::new();
    let mut renewed = session(1);
    renewed.apply(Change::IssueToken(SecretHash::of("t")), Timestamp::default()).unwrap();
    directory.publish(session(1), credential());
    directory.publish(renewed.clone(), credential());
    directory.publish(session(1), credential());
    directory.publish(session(2), credential());
    directory.publish(session(3), None);
    assert_eq!(directory.counts(), Counts { ready: 2, locked: 0, recycling: 0 });
    directory.publish(removed(renewed), credential());
    assert_eq!(directory.counts(), Counts { ready: 1, locked: 0, recycling: 0 });
}
