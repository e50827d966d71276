//! One worker per core: a current-thread runtime with everything a request needs on that thread.
//!
//! A worker owns one accept socket per bind, its idle upstream connections, its metrics and its
//! share of the access log. Connections never move between workers, so nothing here is locked.
//! A connection borrows the worker's read buffer ([`Scratch`]) between two awaits only; while it
//! waits it owns no buffer at all.

use crate::deadline;
use crate::listener::{self, Accepting};
use crate::live::{Live, Shared};
use crate::memory::{ACCOUNT, SHORT_HEAD_BYTES, Use};
use arc_swap::ArcSwap;
use http1::ResponseHead;
use std::cell::{Cell, RefCell};
use std::ops::{Deref, DerefMut};
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::task::LocalSet;
use tokio_util::task::TaskTracker;

/// Size of the read buffer of a worker, and the most that one read takes.
pub(crate) const SCRATCH_BYTES: usize = 64 << 10;
/// Spare buffers that a worker keeps; more than this are freed. Enough that some dozens of large
/// requests at a time do not allocate and clear a buffer each.
const SPARE_BUFFERS: usize = 96;
/// Spare growable buffers are not larger than this, but for a few, and not more than
/// [`MOST_SPARE_BYTES`] together: a bound on their number alone lets memory rise for as long as one
/// after the other is used for something large.
const SMALL_BYTES: usize = 16 << 10;
const MOST_SPARE_BYTES: usize = 512 << 10;
/// Spare growable buffers up to [`LARGE_BYTES`].
const SPARE_LARGE: usize = 2;
const LARGE_BYTES: usize = 4 * SCRATCH_BYTES;
/// A growable buffer moves to pages of its own when it would become larger than this.
const OWN_PAGES_FROM: usize = 1 << 20;
/// Allocations of this size are pages of their own for as long as they live, whatever was
/// allocated before (the C library's threshold rises with use, up to 32 MiB): their memory is free
/// at once when they are dropped. Pages that are not touched cost nothing.
const PAGES_OF_THEIR_OWN: usize = 33 << 20;
/// What the kernel may give where one byte is touched.
const HUGE_PAGE: usize = 2 << 20;

/// How often a worker looks at deadlines and hands over lines of the access log.
pub const TICK: Duration = Duration::from_millis(100);

thread_local! {
    static LAST: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
    static SPARE: RefCell<Vec<Vec<u8>>> = const { RefCell::new(Vec::new()) };
    static HEADS: RefCell<Spares> = const { RefCell::new(Spares::none()) };
    static LARGE: RefCell<Vec<Vec<u8>>> = const { RefCell::new(Vec::new()) };
    static RESPONSE_HEADS: RefCell<Vec<ResponseHead>> = const { RefCell::new(Vec::new()) };
}

/// A read buffer of [`SCRATCH_BYTES`], initialised, that goes back to the worker when dropped.
#[derive(Debug)]
pub(crate) struct Scratch(Vec<u8>);

impl Scratch {
    pub(crate) fn take() -> Self {
        // Mostly the one that was put back last, without a look at the stack of spare ones.
        let mut buffer = LAST.take();
        if buffer.is_empty() {
            let spare = SPARE.with_borrow_mut(Vec::pop);
            buffer = spare.unwrap_or_else(new_scratch);
        }
        Self(buffer)
    }
}

#[cold]
fn new_scratch() -> Vec<u8> {
    ACCOUNT.add(Use::ReadBuffers, SCRATCH_BYTES);
    vec![0; SCRATCH_BYTES]
}

/// Frees the spare buffers of this worker.
fn free_spares() {
    let spares = SPARE.take();
    ACCOUNT.give_back(Use::ReadBuffers, spares.len() * SCRATCH_BYTES);
    LARGE.take();
}

impl Deref for Scratch {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        &self.0
    }
}

impl DerefMut for Scratch {
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.0
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let before = LAST.replace(std::mem::take(&mut self.0));
        if before.is_empty() {
            return;
        }
        SPARE.with_borrow_mut(|spare| {
            if spare.len() < SPARE_BUFFERS {
                spare.push(before);
            } else {
                ACCOUNT.give_back(Use::ReadBuffers, SCRATCH_BYTES);
            }
        });
    }
}

/// What a growable buffer of so many bytes costs.
pub(crate) fn cost_of(bytes: usize) -> usize {
    if bytes > OWN_PAGES_FROM {
        bytes.next_multiple_of(HUGE_PAGE)
    } else {
        bytes
    }
}

/// Empty growable buffers, and the memory that they have.
#[derive(Debug)]
struct Spares {
    buffers: Vec<Vec<u8>>,
    bytes: usize,
}

impl Spares {
    const fn none() -> Self {
        Self {
            buffers: Vec::new(),
            bytes: 0,
        }
    }

    fn pop(&mut self) -> Option<Vec<u8>> {
        let buffer = self.buffers.pop()?;
        self.bytes -= buffer.capacity();
        Some(buffer)
    }

    fn push(&mut self, buffer: Vec<u8>) {
        let bytes = self.bytes + buffer.capacity();
        if bytes <= MOST_SPARE_BYTES {
            self.bytes = bytes;
            self.buffers.push(buffer);
        }
    }
}

/// An empty, growable buffer for heads and small writes; its memory is reused by the worker.
#[derive(Debug)]
pub(crate) struct OutBuffer(Vec<u8>);

impl OutBuffer {
    pub(crate) fn take() -> Self {
        Self(HEADS.with_borrow_mut(Spares::pop).unwrap_or_default())
    }

    /// No memory at all.
    pub(crate) fn empty() -> Self {
        Self(Vec::new())
    }

    /// Has memory from here on, if it had none.
    pub(crate) fn have(&mut self) {
        if self.0.capacity() == 0 {
            *self = Self::take();
        }
    }

    /// Makes room for `more` bytes. A buffer that becomes large moves to pages of its own, with
    /// room for `most` bytes, so that it never moves again.
    pub(crate) fn make_room(&mut self, more: usize, most: usize) {
        let wanted = self.0.len() + more;
        if wanted <= self.0.capacity() {
            return;
        }
        if wanted <= OWN_PAGES_FROM {
            if (SMALL_BYTES..LARGE_BYTES).contains(&wanted)
                && let Some(mut spare) = LARGE.with_borrow_mut(Vec::pop)
            {
                spare.extend_from_slice(&self.0);
                *self = Self(spare);
            }
            return;
        }
        let mut large = Vec::new();
        // Where the system does not promise pages that may never be touched, it grows as it must.
        if large
            .try_reserve_exact(most.max(PAGES_OF_THEIR_OWN))
            .is_ok()
        {
            large.extend_from_slice(&self.0);
            *self = Self(large);
        }
    }
}

impl Deref for OutBuffer {
    type Target = Vec<u8>;
    fn deref(&self) -> &Vec<u8> {
        &self.0
    }
}

impl DerefMut for OutBuffer {
    fn deref_mut(&mut self) -> &mut Vec<u8> {
        &mut self.0
    }
}

impl Drop for OutBuffer {
    fn drop(&mut self) {
        let mut buffer = std::mem::take(&mut self.0);
        if buffer.capacity() == 0 {
            return;
        }
        buffer.clear();
        if buffer.capacity() > SMALL_BYTES {
            return keep_large(buffer);
        }
        HEADS.with_borrow_mut(|spares| spares.push(buffer));
    }
}

#[cold]
fn keep_large(buffer: Vec<u8>) {
    LARGE.with_borrow_mut(|spare| {
        if spare.len() < SPARE_LARGE && buffer.capacity() <= LARGE_BYTES {
            spare.push(buffer);
        }
    });
}

/// An empty response head, with memory of an earlier one.
pub(crate) fn take_response_head() -> ResponseHead {
    RESPONSE_HEADS.with_borrow_mut(Vec::pop).unwrap_or_default()
}

/// Keeps the memory of a head that was written, if it was a short one.
pub(crate) fn keep_response_head(mut head: ResponseHead) {
    if head.held_bytes() > SHORT_HEAD_BYTES {
        return;
    }
    head.clear();
    RESPONSE_HEADS.with_borrow_mut(|spare| {
        if spare.len() < SPARE_BUFFERS {
            spare.push(head);
        }
    });
}

/// What a worker is told from outside.
#[derive(Debug)]
pub(crate) enum Command {
    /// Accept on this socket until its token is cancelled.
    Accept(Accepting),
}

/// A running worker, seen from outside.
#[derive(Debug)]
pub(crate) struct Worker {
    pub(crate) commands: mpsc::UnboundedSender<Command>,
    thread: Option<JoinHandle<()>>,
}

impl Worker {
    /// Starts the thread. It ends when `shared.stop` is cancelled and its connections have ended.
    pub(crate) fn start(index: usize, shared: Arc<Shared>) -> std::io::Result<Self> {
        let (commands, inbox) = mpsc::unbounded_channel();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let thread = std::thread::Builder::new()
            .name(format!("worker-{index}"))
            .spawn(move || {
                // A task among the others: what `block_on` is given itself is polled whenever one
                // of them is.
                let tasks = LocalSet::new();
                let running = tasks.spawn_local(run(index, shared, inbox));
                if let Err(error) = tasks.block_on(&runtime, running)
                    && error.is_panic()
                {
                    std::panic::resume_unwind(error.into_panic());
                }
            })?;
        Ok(Self {
            commands,
            thread: Some(thread),
        })
    }

    /// Waits for the thread; call after `shared.stop` was cancelled.
    pub(crate) fn join(&mut self) {
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("a worker thread panicked");
        }
    }
}

async fn run(index: usize, shared: Arc<Shared>, inbox: mpsc::UnboundedReceiver<Command>) {
    let local = Rc::new_cyclic(|me| Local::new(index, &shared, me.clone()));
    // Deadlines pass, and lines are handed over, until the last connection has ended.
    tokio::select! {
        () = serve(&local, &shared, inbox) => {}
        () = tick(&local) => {}
    }
    local.log.borrow_mut().flush();
}

/// Accepts what it is told to, until told to stop and the last connection has ended.
async fn serve(
    local: &Rc<Local>,
    shared: &Arc<Shared>,
    mut inbox: mpsc::UnboundedReceiver<Command>,
) {
    let tasks = TaskTracker::new();
    loop {
        let command = tokio::select! {
            command = inbox.recv() => command,
            () = shared.stop.cancelled() => None,
        };
        let Some(Command::Accept(accepting)) = command else {
            break;
        };
        tasks.spawn_local(listener::accept(
            local.clone(),
            shared.clone(),
            accepting,
            tasks.clone(),
        ));
    }
    tasks.close();
    tasks.wait().await;
    local.mirrors.close();
    local.mirrors.wait().await;
}

/// What the requests of one worker share, besides the process-wide [`Shared`].
#[derive(Debug)]
pub(crate) struct Local {
    pub(crate) log: RefCell<crate::access_log::Lines>,
    pub(crate) metrics: crate::metrics::WorkerMetrics,
    pub(crate) idle: crate::upstream::idle::Idle,
    pub(crate) multiplexed: crate::upstream::h2::Connections,
    pub(crate) handshakes: crate::tls::server::Handshakes,
    pub(crate) live: RefCell<arc_swap::Cache<Arc<ArcSwap<Live>>, Arc<Live>>>,
    pub(crate) draws: Cell<u64>,
    /// For what outlives the request that began it.
    pub(crate) me: Weak<Local>,
    /// Copies of requests under way, and the bytes that they hold.
    pub(crate) mirrors: TaskTracker,
    pub(crate) mirrored: Cell<usize>,
}

impl Local {
    fn new(index: usize, shared: &Arc<Shared>, me: Weak<Self>) -> Self {
        Self {
            me,
            mirrors: TaskTracker::new(),
            mirrored: Cell::new(0),
            log: RefCell::new(shared.log.lines()),
            metrics: shared.metrics.worker(index),
            idle: crate::upstream::idle::Idle::default(),
            multiplexed: crate::upstream::h2::Connections::default(),
            handshakes: crate::tls::server::Handshakes::default(),
            live: RefCell::new(arc_swap::Cache::new(shared.live.clone())),
            draws: Cell::new(shared.seed ^ (index as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15)),
        }
    }

    /// The current configuration, without touching a shared counter when it has not changed.
    pub(crate) fn live(&self) -> Arc<Live> {
        self.live.borrow_mut().load().clone()
    }

    /// Looks at the current configuration without holding it; `look` may not ask for it again.
    pub(crate) fn with_live<T>(&self, look: impl FnOnce(&Live) -> T) -> T {
        look(self.live.borrow_mut().load())
    }

    /// The next pseudo-random draw of this worker (SplitMix64): for weights and identifiers.
    pub(crate) fn draw(&self) -> u64 {
        let state = self.draws.get().wrapping_add(0x9E37_79B9_7F4A_7C15);
        self.draws.set(state);
        let mixed = (state ^ (state >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }
}

/// Ten times a second: deadlines that passed, log lines that wait, idle connections that are old.
async fn tick(local: &Local) {
    let mut every = tokio::time::interval(TICK);
    every.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        every.tick().await;
        let now = crate::clock::now();
        deadline::fire(now);
        // An idle worker must not hold a configuration that has been replaced.
        let _ = local.live();
        local.log.borrow_mut().flush();
        local.idle.expire(now);
        local.multiplexed.expire(now);
        if ACCOUNT.is_over() {
            free_spares();
        }
    }
}

/// Turns Nagle off: a token must not wait for the acknowledgement of the one before.
pub(crate) fn no_delay(stream: &TcpStream) {
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "cannot set TCP_NODELAY");
    }
}
