//! Room for file descriptors, made before there are threads.
//!
//! Linux doubles a process's table of descriptors whenever it is full. In a process with several
//! threads, the one that opens a socket then waits until every processor has let go of the old table
//! (`fs/file.c`, `expand_fdtable`: `synchronize_rcu`): some 10 ms in which a worker serves none of
//! its streams, at the 64th, 128th, 256th descriptor and so on. With one thread nobody waits.

/// Numbers of descriptors that there is room for, the largest that the process may have; 8 bytes
/// of the kernel's memory each.
const ROOM: [i32; 4] = [65_536, 16_384, 4_096, 1_024];

/// Makes the table large at once. Where that cannot be, it grows as it is needed.
pub(super) fn make_room() {
    let stderr = std::io::stderr();
    // The copy is closed at once, and its place stays.
    let made = ROOM
        .iter()
        .find(|room| rustix::io::fcntl_dupfd_cloexec(&stderr, *room - 1).is_ok());
    tracing::debug!(descriptors = made, "room in the table of descriptors");
}
