//! How much memory the process may hold: what `--memory-limit` says, else 70 % of what its control
//! group allows, else of the machine's.

use std::path::{Path, PathBuf};

/// Part of what there is that is taken unless somebody says otherwise, in percent. The rest is for
/// the kernel's own buffers of our sockets, which count too, and for other programs.
const PERCENT: usize = 70;

/// Most bytes to hold; `None`: no limit is wanted or none is known.
pub(super) fn limit(wanted: Option<MemoryLimit>) -> Option<usize> {
    match wanted {
        Some(MemoryLimit::None) => None,
        Some(MemoryLimit::Bytes(bytes)) => Some(bytes),
        None => {
            let there_is = group_limit().into_iter().chain(machine()).min()?;
            Some(there_is / 100 * PERCENT)
        }
    }
}

/// The value of `--memory-limit`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum MemoryLimit {
    None,
    Bytes(usize),
}

/// Reads `512MiB`, `512Mi`, `2GiB`, `1G`, plain bytes, or `none`.
pub(crate) fn parse(text: &str) -> Result<MemoryLimit, String> {
    if text == "none" {
        return Ok(MemoryLimit::None);
    }
    match bytes(text) {
        Some(bytes) if bytes >= LEAST => Ok(MemoryLimit::Bytes(bytes)),
        Some(bytes) if bytes > 0 => Err(format!("at least {} MiB are needed", LEAST >> 20)),
        _ => Err("write a size such as 512MiB or 2G, or `none`".to_owned()),
    }
}

/// Reads the size of the largest request body, written in the same way.
pub(crate) fn body(text: &str) -> Result<usize, String> {
    match bytes(text) {
        Some(bytes) if bytes > LARGEST_BODY => {
            Err(format!("at most {} MiB can be read", LARGEST_BODY >> 20))
        }
        Some(bytes) if bytes > 0 => Ok(bytes),
        _ => Err("write a size such as 64MiB or 1G".to_owned()),
    }
}

fn bytes(text: &str) -> Option<usize> {
    let end = text.find(|c: char| !c.is_ascii_digit());
    let (number, unit) = text.split_at(end.unwrap_or(text.len()));
    let factor: usize = match unit.strip_suffix('B').unwrap_or(unit) {
        "" => 1,
        "k" | "K" => 1000,
        "M" => 1000 * 1000,
        "G" => 1000 * 1000 * 1000,
        "Ki" => 1 << 10,
        "Mi" => 1 << 20,
        "Gi" => 1 << 30,
        _ => 0,
    };
    number.parse::<usize>().ok()?.checked_mul(factor)
}

/// Positions in a body are numbers of 32 bits.
const LARGEST_BODY: usize = 1 << 30;

/// Less than this would refuse everything.
const LEAST: usize = 32 << 20;

/// The least limit of the groups that this process is in, of version 2 or 1.
fn group_limit() -> Option<usize> {
    let groups = std::fs::read_to_string("/proc/self/cgroup").ok()?;
    groups
        .lines()
        .filter_map(|line| {
            let mut parts = line.splitn(3, ':');
            let (_, controllers, path) = (parts.next()?, parts.next()?, parts.next()?);
            match controllers {
                "" => least(Path::new("/sys/fs/cgroup"), path, "memory.max"),
                "memory" => least(
                    Path::new("/sys/fs/cgroup/memory"),
                    path,
                    "memory.limit_in_bytes",
                ),
                _ => None,
            }
        })
        .min()
}

/// The least number in `file` of the group at `path` and of those above it. Inside a container the
/// path may be the machine's, while the container's own group is mounted as the root.
fn least(root: &Path, path: &str, file: &str) -> Option<usize> {
    let group = root.join(path.trim_start_matches('/'));
    let above = group.ancestors().take_while(|one| one.starts_with(root));
    above
        .map(|one| one.join(file))
        .chain([PathBuf::from(root).join(file)])
        .filter_map(|file| std::fs::read_to_string(file).ok()?.trim().parse().ok())
        // What version 1 says where there is no limit is larger than any machine.
        .min()
}

fn machine() -> Option<usize> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let rest = text
        .lines()
        .find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kib: usize = rest.trim().strip_suffix(" kB")?.parse().ok()?;
    Some(kib << 10)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_as_people_write_them() {
        for (text, bytes) in [
            ("67108864", 64 << 20),
            ("512MiB", 512 << 20),
            ("512Mi", 512 << 20),
            ("2G", 2_000_000_000),
            ("2GB", 2_000_000_000),
            ("1GiB", 1 << 30),
        ] {
            assert_eq!(parse(text), Ok(MemoryLimit::Bytes(bytes)), "{text}");
        }
        assert_eq!(parse("none"), Ok(MemoryLimit::None));
        for text in [
            "",
            "0",
            "-1",
            "12",
            "1MiB",
            "1.5G",
            "5TiB x",
            "99999999999999999999G",
        ] {
            assert!(parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn the_largest_body_has_bounds_itself() {
        for (text, bytes) in [("1", 1), ("1MiB", 1 << 20), ("1GiB", 1 << 30)] {
            assert_eq!(body(text), Ok(bytes), "{text}");
        }
        for text in ["", "0", "none", "2G", "1.5M"] {
            assert!(body(text).is_err(), "{text}");
        }
    }

    #[test]
    fn the_least_limit_of_the_groups_above_counts() {
        let folder = tempfile::tempdir().unwrap();
        let inner = folder.path().join("kubepods/pod");
        std::fs::create_dir_all(&inner).unwrap();
        std::fs::write(inner.join("memory.max"), "max\n").unwrap();
        let limit = || least(folder.path(), "/kubepods/pod", "memory.max");
        assert_eq!(limit(), None);
        std::fs::write(folder.path().join("kubepods/memory.max"), "1000\n").unwrap();
        assert_eq!(limit(), Some(1000));
        std::fs::write(inner.join("memory.max"), "500\n").unwrap();
        assert_eq!(limit(), Some(500));
        // A path of another name space: the root that is mounted counts.
        std::fs::write(folder.path().join("memory.max"), "700\n").unwrap();
        assert_eq!(
            least(folder.path(), "/elsewhere/x", "memory.max"),
            Some(700)
        );
    }
}
