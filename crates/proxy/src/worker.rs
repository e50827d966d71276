//! One worker per core: a current-thread runtime with everything a request needs on that thread.
//!
//! A worker owns one accept socket per bind, its idle upstream connections, its metrics and its
//! share of the access log. Connections never move between workers, so nothing here is locked.
//! A connection borrows the worker's read buffer ([`Scratch`]) between two awaits only; while it
//! waits it owns no buffer at all.

use crate::deadline;
use crate::listener::{self, Accepting};
use crate::live::Shared;
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

thread_local! {
    static LAST: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
    static SPARE: RefCell<Vec<Vec<u8>>> = const { RefCell::new(Vec::new()) };
    static HEADS: RefCell<Vec<Vec<u8>>> = const { RefCell::new(Vec::new()) };
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
            buffer = spare.unwrap_or_else(|| vec![0; SCRATCH_BYTES]);
        }
        Self(buffer)
    }
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
            }
        });
    }
}

/// An empty, growable buffer for heads and small writes; its memory is reused by the worker.
#[derive(Debug)]
pub(crate) struct OutBuffer(Vec<u8>);

impl OutBuffer {
    pub(crate) fn take() -> Self {
        Self(HEADS.with_borrow_mut(Vec::pop).unwrap_or_default())
    }

    /// No memory at all.
    pub(crate) fn empty() -> Self {
        Self(Vec::new())
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
        if buffer.capacity() == 0 || buffer.capacity() > 4 * SCRATCH_BYTES {
            return;
        }
        buffer.clear();
        HEADS.with_borrow_mut(|spare| {
            if spare.len() < SPARE_BUFFERS {
                spare.push(buffer);
            }
        });
    }
}

/// An empty response head, with memory of an earlier one.
pub(crate) fn take_response_head() -> ResponseHead {
    RESPONSE_HEADS.with_borrow_mut(Vec::pop).unwrap_or_default()
}

/// Keeps the memory of a head that was written.
pub(crate) fn keep_response_head(mut head: ResponseHead) {
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
                LocalSet::new().block_on(&runtime, run(index, shared, inbox));
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

async fn run(index: usize, shared: Arc<Shared>, mut inbox: mpsc::UnboundedReceiver<Command>) {
    let tasks = TaskTracker::new();
    let local = Rc::new_cyclic(|me| Local::new(index, &shared, me.clone()));
    // To the end: deadlines of connections that drain must pass too.
    let ticking = tokio::task::spawn_local(tick(local.clone()));
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
    ticking.abort();
    local.log.borrow_mut().flush();
}

/// What the requests of one worker share, besides the process-wide [`Shared`].
#[derive(Debug)]
pub(crate) struct Local {
    pub(crate) log: RefCell<crate::access_log::Lines>,
    pub(crate) metrics: crate::metrics::WorkerMetrics,
    pub(crate) idle: crate::upstream::idle::Idle,
    pub(crate) multiplexed: crate::upstream::h2::Connections,
    pub(crate) handshakes: crate::tls::server::Handshakes,
    pub(crate) live:
        RefCell<arc_swap::Cache<Arc<arc_swap::ArcSwap<crate::live::Live>>, Arc<crate::live::Live>>>,
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
    pub(crate) fn live(&self) -> Arc<crate::live::Live> {
        self.live.borrow_mut().load().clone()
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
async fn tick(local: Rc<Local>) {
    let mut every = tokio::time::interval(Duration::from_millis(100));
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
    }
}

/// Turns Nagle off: a token must not wait for the acknowledgement of the one before.
pub(crate) fn no_delay(stream: &TcpStream) {
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "cannot set TCP_NODELAY");
    }
}
