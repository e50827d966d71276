//! The last good objects on disk, for a proxy that starts while no controller answers.
//!
//! One file, replaced whole, readable by the proxy's user only: it holds keys. It belongs into a volume
//! in memory.

use crate::kube::Content;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use std::fs::{File, OpenOptions};
use std::io::{self, BufWriter, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;

const FILE: &str = "objects.json";
const NEW_FILE: &str = "objects.json.new";
/// Larger files are not read.
const MOST_BYTES: u64 = 1 << 30;

/// One object of the file.
#[derive(Serialize, Deserialize)]
pub(super) struct Kept {
    key: String,
    object: Box<RawValue>,
}

impl Kept {
    /// What was written last; `None` if there is nothing usable.
    pub(super) fn read(folder: &Path) -> Option<Vec<(String, Content)>> {
        let mut text = String::new();
        let file = File::open(folder.join(FILE)).ok()?;
        file.take(MOST_BYTES).read_to_string(&mut text).ok()?;
        match serde_json::from_str::<Vec<Kept>>(&text) {
            Ok(kept) => {
                let content = |one: Kept| {
                    (
                        one.key,
                        Content::new(one.object.get().to_owned().into_bytes()),
                    )
                };
                Some(kept.into_iter().map(content).collect())
            }
            Err(error) => {
                tracing::warn!(%error, "the objects of the last run cannot be read");
                None
            }
        }
    }

    pub(super) fn write(folder: &Path, objects: &[(String, Content)]) -> io::Result<()> {
        let kept = objects.iter().map(|(key, content)| {
            let text = String::from_utf8_lossy(&content.json).into_owned();
            let object = RawValue::from_string(text)?;
            Ok(Kept {
                key: key.clone(),
                object,
            })
        });
        let kept: Vec<Kept> = kept.collect::<Result<_, serde_json::Error>>()?;
        std::fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(folder)?;
        let new = folder.join(NEW_FILE);
        let file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&new)?;
        let mut writer = BufWriter::new(file);
        serde_json::to_writer(&mut writer, &kept)?;
        writer.flush()?;
        std::fs::rename(new, folder.join(FILE))
    }
}
