//! Files that come, change, break and go.

use std::path::PathBuf;

use super::*;

const GOOD: &str = "pools: [{name: a, endpoints: [\"http://10.0.0.1:8000\"]}]\n";
const OTHER: &str = "pools: [{name: b, endpoints: [\"http://10.0.0.2:8000\"]}]\n";
const BAD: &str = "pools: [{name: a, endpoint: []}]\n";

fn pools(loaded: &Loaded) -> Vec<String> {
    loaded
        .objects
        .inference_pools
        .keys()
        .map(ToString::to_string)
        .collect()
}

fn errors(loaded: &Loaded) -> Vec<String> {
    loaded.errors.iter().map(ToString::to_string).collect()
}

#[test]
fn directories_are_searched_for_manifests_only() {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name);
    std::fs::create_dir_all(path("sub/deeper")).unwrap();
    std::fs::create_dir_all(path("..data")).unwrap();
    std::fs::write(path("a.yaml"), GOOD).unwrap();
    std::fs::write(
        path("sub/deeper/b.yml"),
        "apiVersion: v1\nkind: Secret\nmetadata: {name: s}\n",
    )
    .unwrap();
    std::fs::write(
        path("sub/c.json"),
        r#"{"apiVersion": "apps/v1", "kind": "Deployment"}"#,
    )
    .unwrap();
    for ignored in ["..data/a.yaml", "readme.md", ".a.yaml.swp", ".hidden.yaml"] {
        std::fs::write(path(ignored), BAD).unwrap();
    }
    let loaded = load(&[directory.path().to_owned()]);
    assert_eq!(errors(&loaded), [""; 0]);
    assert_eq!(pools(&loaded), ["default/a"]);
    assert_eq!(loaded.objects.secrets.len(), 1);
    assert_eq!(loaded.warnings.len(), 1);
}

#[test]
fn every_file_with_an_error_is_named() {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name);
    std::fs::write(path("bad.yaml"), BAD).unwrap();
    std::fs::write(path("good.yaml"), GOOD).unwrap();
    std::fs::write(path("twice.yaml"), GOOD).unwrap();
    std::fs::write(path("binary.yaml"), [0xff, 0xfe]).unwrap();
    let loaded = load(&[directory.path().to_owned(), path("gone.yaml")]);
    let shown = errors(&loaded).join("\n");
    for part in [
        "gone.yaml: no such file or directory",
        "bad.yaml:1:19: pools[0].endpoint: unknown field",
        "binary.yaml: the file is no text in utf-8",
        "is written twice",
    ] {
        assert!(shown.contains(part), "{part} is missing in\n{shown}");
    }
    assert_eq!(pools(&loaded), ["default/a"]);
}

#[test]
fn only_files_that_may_have_changed_are_read_again() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("a.yaml");
    std::fs::write(&file, GOOD).unwrap();
    let set_age = |seconds: u64| {
        let opened = std::fs::File::options().write(true).open(&file).unwrap();
        opened
            .set_modified(SystemTime::UNIX_EPOCH + Duration::from_secs(seconds))
            .unwrap();
    };
    let paths = [file.clone()];
    let mut files = Files::default();
    assert!(files.refresh(&paths), "new");
    assert!(!files.refresh(&paths), "the same");
    set_age(1_000);
    assert!(!files.refresh(&paths), "another time, the same content");
    let edited = GOOD.replace("10.0.0.1", "10.0.0.9");
    std::fs::write(&file, &edited).unwrap();
    set_age(1_000);
    assert!(
        !files.refresh(&paths),
        "same length and old time: taken for the same"
    );
    set_age(2_000);
    assert!(files.refresh(&paths), "another time and content");
    std::fs::remove_file(&file).unwrap();
    assert!(files.refresh(&paths), "gone");
    assert!(!files.refresh(&paths), "still gone");
}

/// A fresh file may change twice within one tick of the file system's clock.
#[test]
fn a_fresh_file_is_read_again_although_its_length_and_time_are_the_same() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("a.yaml");
    let now = tempfile::NamedTempFile::new().unwrap();
    let now = now.as_file().metadata().unwrap().modified().unwrap();
    let write = |text: &str| {
        std::fs::write(&file, text).unwrap();
        let opened = std::fs::File::options().write(true).open(&file).unwrap();
        opened
            .set_modified(now + Duration::from_secs(3_600))
            .unwrap();
    };
    let mut files = Files::default();
    write(GOOD);
    assert!(files.refresh(std::slice::from_ref(&file)));
    write(&GOOD.replace("10.0.0.1", "10.0.0.9"));
    assert!(files.refresh(std::slice::from_ref(&file)));
}

/// A watcher whose rounds are run by hand.
fn watched(paths: &[PathBuf]) -> Watched {
    Watched {
        paths: paths.to_vec(),
        ..Watched::default()
    }
}

/// The round that sees a change and the one that finds no further change.
fn settle(watched: &mut Watched) {
    watched.round();
    watched.round();
}

#[test]
fn a_file_that_is_still_written_is_waited_for() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("a.yaml");
    std::fs::write(&file, GOOD).unwrap();
    let mut watched = watched(std::slice::from_ref(&file));
    watched.round();
    std::fs::write(&file, "").unwrap();
    watched.round();
    std::fs::write(&file, OTHER).unwrap();
    watched.round();
    assert_eq!(pools(&watched.current), ["default/a"], "not settled yet");
    watched.round();
    assert_eq!(pools(&watched.current), ["default/b"]);
    for number in 0..=MOST_UNSETTLED {
        std::fs::write(&file, GOOD.replace("name: a", &format!("name: a{number}"))).unwrap();
        watched.round();
    }
    assert_ne!(
        pools(&watched.current),
        ["default/b"],
        "it is not waited for ever"
    );
}

#[test]
fn a_bad_edit_is_refused_whole_and_the_last_good_stays() {
    let directory = tempfile::tempdir().unwrap();
    let (one, two) = (
        directory.path().join("1.yaml"),
        directory.path().join("2.yaml"),
    );
    let secret = "apiVersion: v1\nkind: Secret\nmetadata: {name: s}\n";
    std::fs::write(&one, GOOD).unwrap();
    std::fs::write(&two, secret).unwrap();
    let mut watched = watched(&[directory.path().to_owned()]);
    watched.round();
    let good = Arc::clone(&watched.current);
    assert_eq!(
        (pools(&good), good.version),
        (vec!["default/a".to_owned()], 1)
    );

    std::fs::write(&one, BAD).unwrap();
    std::fs::remove_file(&two).unwrap();
    settle(&mut watched);
    let refused = Arc::clone(&watched.current);
    assert!(
        Arc::ptr_eq(&refused.objects, &good.objects),
        "nothing of the edit is taken"
    );
    assert_eq!((refused.errors.len(), refused.version), (1, 1));

    watched.round();
    assert!(
        Arc::ptr_eq(&watched.current, &refused),
        "no change, no new state"
    );

    std::fs::write(&one, OTHER).unwrap();
    settle(&mut watched);
    assert_eq!(pools(&watched.current), ["default/b"]);
    assert_eq!(
        (errors(&watched.current), watched.current.version),
        (vec![], 2)
    );
    assert_eq!(watched.current.objects.secrets.len(), 0);
}

#[test]
fn a_vanished_argument_is_named_and_the_last_good_stays() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("a.yaml");
    std::fs::write(&file, GOOD).unwrap();
    let mut watched = watched(std::slice::from_ref(&file));
    watched.round();
    std::fs::remove_file(&file).unwrap();
    settle(&mut watched);
    assert_eq!(pools(&watched.current), ["default/a"]);
    let shown = errors(&watched.current);
    assert!(
        shown[0].ends_with("a.yaml: no such file or directory"),
        "{shown:?}"
    );
}

#[test]
fn a_file_that_is_named_and_missing_is_told_with_the_place_that_names_it() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("a.yaml");
    let endpoint = "endpoints: ['https://a.example']";
    let text = format!("{GOOD}---\npools:\n- {{name: a, {endpoint}, ca: gone.pem}}\n");
    std::fs::write(&file, &text).unwrap();
    let loaded = load(std::slice::from_ref(&file));
    let named = text.lines().position(|line| line.contains("gone")).unwrap() + 1;
    let place = format!("a.yaml:{named}:{}", 19 + endpoint.len());
    let shown = errors(&loaded);
    assert!(shown[0].contains("gone.pem: no such file"), "{shown:?}");
    assert!(
        shown[0].ends_with(&format!("{place} names it")),
        "{shown:?}"
    );
}

#[test]
fn unchanged_objects_are_shared_between_states() {
    let directory = tempfile::tempdir().unwrap();
    let (one, two) = (
        directory.path().join("1.yaml"),
        directory.path().join("2.yaml"),
    );
    std::fs::write(&one, GOOD).unwrap();
    let mut watched = watched(&[directory.path().to_owned()]);
    watched.round();
    let before = watched.current.objects.inference_pools[0].object.clone();
    std::fs::write(&two, "apiVersion: v1\nkind: Secret\nmetadata: {name: s}\n").unwrap();
    settle(&mut watched);
    assert!(Arc::ptr_eq(
        &before,
        &watched.current.objects.inference_pools[0].object
    ));
}

#[tokio::test]
async fn the_watcher_sends_changes_and_ends_when_cancelled() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("a.yaml");
    std::fs::write(&file, GOOD).unwrap();
    let (cancel, tracker) = (CancellationToken::new(), TaskTracker::new());
    let interval = Duration::from_millis(1);
    let watching = watch(vec![file.clone()], interval, cancel.clone(), &tracker).await;
    let mut states = watching.loaded.clone();
    assert_eq!(pools(&states.borrow_and_update().clone()), ["default/a"]);
    std::fs::write(&file, OTHER).unwrap();
    states
        .wait_for(|state| pools(state) == ["default/b"])
        .await
        .unwrap();
    cancel.cancel();
    tracker.close();
    tracker.wait().await;
    assert!(states.changed().await.is_err(), "nobody sends any more");
}
