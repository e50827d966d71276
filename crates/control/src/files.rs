//! Objects from files and directories, read once or watched by polling.
//!
//! A file is looked at by length and modification time each round, and read again only if one of
//! them changed, or if its last change is so recent that another one could hide behind the same
//! time. A change counts once a second look, a moment later, finds no further one: editors write in
//! pieces, and an empty file is valid. An edit is taken whole or not at all: while any file has an error, the last good objects
//! stay and the errors are reported beside them.

use std::collections::BTreeMap;
use std::fs::File;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use config::yaml::{self, Decoded};
use config::{ConfigError, Objects};
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// How deep directories are searched.
const DEPTH: usize = 16;
/// Most files that are read.
const FILES: usize = 10_000;
/// A change younger than this may hide another one with the same modification time.
const SETTLED: Duration = Duration::from_secs(3);

/// How long files must stay as they are before a change counts, if rounds are not faster anyway.
const SETTLING: Duration = Duration::from_millis(50);
/// Rounds after which a change counts although files go on changing.
const MOST_UNSETTLED: u32 = 20;

/// What was read from files.
#[derive(Clone, Debug, Default)]
pub struct Loaded {
    /// The objects; the last good ones when there are errors.
    pub objects: Arc<Objects>,
    /// Why the newest state of the files was refused; empty if it was taken.
    pub errors: Vec<ConfigError>,
    /// What was left aside.
    pub warnings: Vec<ConfigError>,
    /// Grows with every state of the files that was taken.
    pub version: u64,
}

/// Reads files and directories once. Objects of the files without errors are there even when
/// others have some: `penstock check` wants both.
pub fn load(paths: &[PathBuf]) -> Loaded {
    Files::default().read(paths, &Objects::default())
}

/// Files under watch: what they say now, and a way to look at once.
#[derive(Clone, Debug)]
pub struct Watching {
    /// The newest state; the first is there from the start.
    pub loaded: watch::Receiver<Arc<Loaded>>,
    asked: Arc<Notify>,
}

impl Watching {
    /// Reads every file again now, whatever its length and time say.
    pub fn look_now(&self) {
        self.asked.notify_one();
    }
}

/// Watches files and directories, every `interval`, until `cancel`. The task belongs to `tracker`;
/// the first state is in the channel when this returns.
pub async fn watch(
    paths: Vec<PathBuf>,
    interval: Duration,
    cancel: CancellationToken,
    tracker: &TaskTracker,
) -> Watching {
    let mut watched = Watched {
        paths,
        ..Watched::default()
    };
    watched = watched.look().await.unwrap_or_default();
    let (sender, loaded) = watch::channel(Arc::clone(&watched.current));
    let asked = Arc::<Notify>::default();
    let watching = Watching {
        loaded,
        asked: Arc::clone(&asked),
    };
    tracker.spawn(async move {
        loop {
            let pause = if watched.unsettled > 0 {
                SETTLING.min(interval)
            } else {
                interval
            };
            tokio::select! {
                () = cancel.cancelled() => break,
                () = tokio::time::sleep(pause) => {}
                () = asked.notified() => watched.files.distrust(),
            }
            let before = Arc::clone(&watched.current);
            match watched.look().await {
                Some(next) => watched = next,
                None => break,
            }
            if !Arc::ptr_eq(&before, &watched.current) {
                sender.send_replace(Arc::clone(&watched.current));
            }
        }
    });
    watching
}

/// The state between two rounds.
#[derive(Default)]
struct Watched {
    paths: Vec<PathBuf>,
    files: Files,
    current: Arc<Loaded>,
    /// Rounds in a row that found a change which has not been taken yet.
    unsettled: u32,
}

impl Watched {
    /// One round, on a thread that may block. `None` if the runtime is going down.
    async fn look(self) -> Option<Self> {
        let round = move || {
            let mut watched = self;
            watched.round();
            watched
        };
        match tokio::task::spawn_blocking(round).await {
            Ok(watched) => Some(watched),
            Err(error) => {
                // Not what a panic says: it may quote a file.
                let panicked = error.is_panic();
                tracing::error!(panicked, "watching configuration files ended");
                None
            }
        }
    }

    fn round(&mut self) {
        let is_first = self.current.version == 0 && self.current.errors.is_empty();
        let is_changed = self.files.refresh(&self.paths);
        if is_changed && !is_first && self.unsettled < MOST_UNSETTLED {
            self.unsettled += 1;
            return;
        }
        if self.unsettled == 0 && !is_first {
            return;
        }
        self.unsettled = 0;
        let mut next = self.files.decode(&self.current.objects);
        if next.errors.is_empty() {
            next.version = self.current.version + 1;
        } else {
            next.objects = Arc::clone(&self.current.objects);
            next.version = self.current.version;
        }
        self.current = Arc::new(next);
    }
}

/// The files as they were last seen.
#[derive(Default)]
struct Files {
    seen: BTreeMap<PathBuf, Seen>,
    /// Files that Secrets and ConfigMaps stand for: certificates and keys, as they are now.
    attached: BTreeMap<PathBuf, Result<String, String>>,
    /// What could not be found or searched.
    failures: Vec<(PathBuf, String)>,
}

/// One file.
struct Seen {
    length: u64,
    modified: Option<SystemTime>,
    /// Hash of the content; `None` if it cannot be read.
    hash: Option<u64>,
    /// What the content says, or why it cannot be read.
    decoded: Decoded,
    /// Whether the same length and time prove the same content.
    is_settled: bool,
}

impl Files {
    fn read(mut self, paths: &[PathBuf], earlier: &Objects) -> Loaded {
        self.refresh(paths);
        self.decode(earlier)
    }

    /// Looks at every file; whether anything is new, changed or gone.
    fn refresh(&mut self, paths: &[PathBuf]) -> bool {
        let mut found = Found::default();
        for path in paths {
            found.add(path, 0);
        }
        let mut changed = found.failures != self.failures;
        self.failures = found.failures;
        let before = self.seen.len();
        self.seen.retain(|path, _| found.files.contains(path));
        changed |= self.seen.len() != before;
        for path in found.files {
            changed |= self.look(path);
        }
        changed | self.look_at_attached()
    }

    /// Reads the files that objects stand for. They are small and few, so their content is
    /// compared, whatever their time says.
    fn look_at_attached(&mut self) -> bool {
        let mut attached = BTreeMap::new();
        for (file, seen) in &self.seen {
            for object in &seen.decoded.objects {
                for (_, path) in config::attached(&object.resource) {
                    let path = beside(file, path);
                    let read = read_bounded(&path);
                    attached.insert(path, read);
                }
            }
        }
        let changed = attached != self.attached;
        self.attached = attached;
        changed
    }

    /// The objects of a file with what they stand for; what cannot be read is an error.
    fn complete(&self, file: &Path, seen: &Seen, loaded: &mut Loaded) -> Vec<config::Object> {
        let mut objects = Vec::new();
        for object in &seen.decoded.objects {
            for (_, written) in config::attached(&object.resource) {
                let path = beside(file, written);
                if let Some(Err(why)) = self.attached.get(&path) {
                    let path = path.display().to_string();
                    let origin = object.origin.as_ref();
                    let error = ConfigError::of_attached(&path, why, (written, origin));
                    loaded.errors.push(error);
                }
            }
            let read = |path: &str| match self.attached.get(&beside(file, path)) {
                Some(Ok(text)) => Some(text.clone()),
                _ => None,
            };
            objects.push(config::attach(object.clone(), read));
        }
        objects
    }

    /// Makes the next look read every file, also those whose length and time are the same.
    fn distrust(&mut self) {
        for seen in self.seen.values_mut() {
            seen.is_settled = false;
        }
    }

    /// Reads a file if it may have changed; whether it did.
    fn look(&mut self, path: PathBuf) -> bool {
        let (length, modified) = match std::fs::metadata(&path) {
            Ok(metadata) => (metadata.len(), metadata.modified().ok()),
            Err(_) => (0, None),
        };
        let known = self.seen.get(&path);
        let is_same = known.is_some_and(|seen| (seen.length, seen.modified) == (length, modified));
        if is_same && known.is_some_and(|seen| seen.is_settled) {
            return false;
        }
        let content = read_bounded(&path);
        let hash = content.as_deref().ok().map(hash);
        if known.is_some_and(|seen| seen.hash.is_some() && seen.hash == hash) {
            let Some(seen) = self.seen.get_mut(&path) else {
                return false;
            };
            (seen.length, seen.modified) = (length, modified);
            seen.is_settled = is_settled(modified);
            return false;
        }
        let file = path.display().to_string();
        let decoded = match content {
            Ok(text) => yaml::decode(&file, &text),
            Err(why) => Decoded {
                errors: vec![ConfigError::of_file(&file, why)],
                ..Decoded::default()
            },
        };
        let changed = known.is_none_or(|seen| seen.hash.is_some() || seen.decoded != decoded);
        let is_settled = is_settled(modified);
        self.seen.insert(
            path,
            Seen {
                length,
                modified,
                hash,
                decoded,
                is_settled,
            },
        );
        changed
    }

    fn decode(&self, earlier: &Objects) -> Loaded {
        let mut loaded = Loaded::default();
        let mut objects = Vec::new();
        for (path, why) in &self.failures {
            loaded.errors.push(ConfigError::of_file(
                &path.display().to_string(),
                why.as_str(),
            ));
        }
        for (file, seen) in &self.seen {
            objects.extend(self.complete(file, seen, &mut loaded));
            loaded.errors.extend(seen.decoded.errors.iter().cloned());
            loaded
                .warnings
                .extend(seen.decoded.warnings.iter().cloned());
        }
        let (objects, duplicates) = Objects::assemble(earlier, objects);
        loaded.errors.extend(duplicates);
        loaded.objects = Arc::new(objects);
        loaded
    }
}

/// A path that is written in `file`.
fn beside(file: &Path, path: &str) -> PathBuf {
    file.parent().unwrap_or(Path::new("")).join(path)
}

fn hash(text: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    text.hash(&mut hasher);
    hasher.finish()
}

/// What `metadata` says of the length may be outdated, or nothing at all for what is no plain file.
fn read_bounded(path: &Path) -> Result<String, String> {
    let mut text = String::new();
    let most = yaml::FILE_BYTES as u64 + 1;
    let read = File::open(path).and_then(|file| file.take(most).read_to_string(&mut text));
    match read {
        Ok(length) if length > yaml::FILE_BYTES => Err(format!(
            "the file is larger than {} MiB",
            yaml::FILE_BYTES >> 20
        )),
        Ok(_) => Ok(text),
        Err(error) => Err(cannot("read", &error)),
    }
}

fn cannot(verb: &str, error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::NotFound => "no such file or directory".to_owned(),
        io::ErrorKind::InvalidData => "the file is no text in utf-8".to_owned(),
        _ => format!("cannot {verb}: {error}"),
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "compared with the file system's wall clock"
)]
fn is_settled(modified: Option<SystemTime>) -> bool {
    let age = modified.and_then(|modified| SystemTime::now().duration_since(modified).ok());
    age.is_some_and(|age| age > SETTLED)
}

/// What a search for files came upon.
#[derive(Default)]
struct Found {
    files: std::collections::BTreeSet<PathBuf>,
    failures: Vec<(PathBuf, String)>,
}

impl Found {
    /// An argument is taken whatever its name; in directories, only what looks like manifests.
    fn add(&mut self, path: &Path, depth: usize) {
        match std::fs::metadata(path) {
            Err(error) => self
                .failures
                .push((path.to_owned(), cannot("read", &error))),
            Ok(metadata) if metadata.is_dir() => self.search(path, depth),
            Ok(_) if self.files.len() < FILES => {
                self.files.insert(path.to_owned());
            }
            Ok(_) => {
                let why = format!("more than {FILES} files: give fewer or merge them");
                self.failures.push((path.to_owned(), why));
            }
        }
    }

    fn search(&mut self, directory: &Path, depth: usize) {
        if depth == DEPTH {
            let why = format!("directories are nested deeper than {DEPTH}");
            return self.failures.push((directory.to_owned(), why));
        }
        let entries = match std::fs::read_dir(directory) {
            Ok(entries) => entries,
            Err(error) => {
                return self
                    .failures
                    .push((directory.to_owned(), cannot("search", &error)));
            }
        };
        let mut paths: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
        paths.sort();
        for path in paths.into_iter().filter(|path| !is_hidden(path)) {
            if path.is_dir() || is_manifest(&path) {
                self.add(&path, depth + 1);
            }
        }
    }
}

/// Also what a mounted ConfigMap keeps beside its files (`..data`), and editors' swap files.
fn is_hidden(path: &Path) -> bool {
    path.file_name()
        .is_some_and(|name| name.as_encoded_bytes().starts_with(b"."))
}

fn is_manifest(path: &Path) -> bool {
    let extension = path.extension().and_then(|extension| extension.to_str());
    matches!(extension, Some("yaml" | "yml" | "json"))
}

#[cfg(test)]
mod tests;
