//! The runner: floor, Penstock and peers in one run, pair by pair, so that whatever else the machine does
//! hits both sides of every ratio alike.
//!
//! Backend and load share one core, the proxy under test has another to itself. `cpu` measures CPU time,
//! `footprint` memory and start, `instructions` counts under callgrind, `report` prints.

mod cpu;
mod footprint;
mod instructions;
mod report;

use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context as _, bail};
use clap::{Args, ValueEnum};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt as _, BufReader, Lines};
use tokio::process::ChildStdout;

use self::report::{Report, Row};
use crate::child::{self, Child, CommandLine};
use crate::peers::{Place, Proxy};
use crate::wire::Text;

/// Penstock chooses among this many endpoints.
const BACKENDS: usize = 4;
/// Open files: two for each idle stream, and some.
const FILES: u32 = 16_384;

#[derive(Args)]
pub(crate) struct RunArgs {
    /// The Penstock binary [default: `penstock` beside this program]
    #[arg(long)]
    penstock: Option<PathBuf>,
    /// Measure peers alone
    #[arg(long)]
    without_penstock: bool,
    /// Measured beside Penstock where installed; `floor` is the null test; an empty value is none
    #[arg(long, value_delimiter = ',', default_value = "nginx,haproxy")]
    peers: Vec<String>,
    /// Only these measures
    #[arg(long, value_enum, value_delimiter = ',')]
    only: Vec<Measure>,
    #[arg(long, default_value_t = 10)]
    pairs: u32,
    /// Pairs for paced streams, whose figures scatter more
    #[arg(long, default_value_t = 20)]
    paced_pairs: u32,
    #[arg(long, default_value_t = 2000)]
    idle_streams: usize,
    /// What the prompts are made of
    #[arg(long, value_enum, default_value_t = Text::Plain)]
    text: Text,
    /// Requests carry the 17 headers of the usual Python client
    #[arg(long)]
    python_headers: bool,
    /// Only instruction counts of Penstock against the floor; exit code 1 when above the baseline
    #[arg(long)]
    instructions: bool,
    /// With --instructions: what to compare with
    #[arg(long, default_value = "bench/baseline.json")]
    baseline: PathBuf,
    /// With --instructions: write the baseline in place of comparing with it
    #[arg(long, requires = "instructions")]
    update_baseline: bool,
    /// Penstock's counter of requests, which must agree with the requests sent
    #[arg(long, default_value = "penstock_requests_total")]
    counter: String,
    #[arg(long, default_value_t = 0)]
    load_core: u32,
    #[arg(long, default_value_t = 1)]
    proxy_core: u32,
    #[arg(long, value_enum, default_value_t = Output::Text)]
    output: Output,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Output {
    Text,
    Json,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Measure {
    /// CPU per request, 1 KiB bodies
    #[value(name = "1k")]
    Small,
    /// CPU per request, 32 KiB bodies
    #[value(name = "32k")]
    Large,
    /// CPU per SSE chunk, as fast as the backend can
    NoDelay,
    /// CPU per SSE chunk, one every 10 ms
    Paced,
    /// Resident memory per idle stream
    Idle,
    /// Start to first answer, memory at start
    Start,
    /// Instructions per request and per chunk
    Instructions,
}

/// Everything that a measure needs.
#[derive(Debug)]
struct Bench {
    place: Place,
    pairs: u32,
    paced_pairs: u32,
    idle_streams: usize,
    text: Text,
    python_headers: bool,
    /// What is compared with the floor.
    proxies: Vec<Proxy>,
    // Held so that they end with the run.
    _backend: Child,
    _backend_says: Lines<BufReader<ChildStdout>>,
    _dir: TempDir,
}

/// Measures what was asked for and prints it.
pub(crate) async fn run(args: RunArgs) -> anyhow::Result<ExitCode> {
    let bench = Bench::set_up(&args).await?;
    let mut rows = Vec::new();
    for measure in Measure::value_variants() {
        let wanted = match args.instructions {
            true => *measure == Measure::Instructions,
            false => args.only.is_empty() || args.only.contains(measure),
        };
        if wanted {
            let name = measure
                .to_possible_value()
                .map(|value| value.get_name().to_owned());
            eprintln!("measuring {} ...", name.unwrap_or_default());
            rows.extend(bench.measure(*measure).await?);
        }
    }
    let report = Report::new(rows);
    let text = match args.output {
        Output::Text => report.text(),
        Output::Json => serde_json::to_string_pretty(&report)? + "\n",
    };
    std::io::stdout().lock().write_all(text.as_bytes())?;
    if args.instructions && !args.without_penstock {
        return instructions::judge(&report, &args.baseline, args.update_baseline);
    }
    Ok(ExitCode::SUCCESS)
}

impl Bench {
    async fn set_up(args: &RunArgs) -> anyhow::Result<Self> {
        let penstock = match &args.penstock {
            Some(path) => path.clone(),
            None => std::env::current_exe()?.with_file_name("penstock"),
        };
        let proxies = proxies(args, &penstock)?;
        child::settle_self(args.load_core, FILES).await?;
        let dir = tempfile::Builder::new()
            .prefix("penstock-bench-")
            .tempdir()?;
        let mut line = CommandLine::new(std::env::current_exe()?).arg("backend");
        for _ in 0..BACKENDS {
            line = line.arg("--listen").arg("127.0.0.1:0");
        }
        let mut backend = Child::start(line, args.load_core, dir.path().join("backend.err"))?;
        let mut says = BufReader::new(backend.stdout()?).lines();
        let mut backends = Vec::new();
        while backends.len() < BACKENDS {
            let said = says
                .next_line()
                .await?
                .context("the backend ended at once")?;
            let address = said
                .strip_prefix("listening ")
                .context("the backend says no address")?;
            backends.push(address.parse()?);
        }
        let place = Place {
            backends,
            dir: dir.path().to_owned(),
            penstock,
            counter: args.counter.clone(),
            proxy_core: args.proxy_core,
        };
        Ok(Self {
            place,
            pairs: args.pairs,
            paced_pairs: args.paced_pairs,
            idle_streams: args.idle_streams,
            text: args.text,
            python_headers: args.python_headers,
            proxies,
            _backend: backend,
            _backend_says: says,
            _dir: dir,
        })
    }

    async fn measure(&self, measure: Measure) -> anyhow::Result<Vec<Row>> {
        match measure {
            Measure::Small => cpu::compare(self, &cpu::SMALL).await,
            Measure::Large => cpu::compare(self, &cpu::LARGE).await,
            Measure::NoDelay => cpu::compare(self, &cpu::NO_DELAY).await,
            Measure::Paced => cpu::compare(self, &cpu::PACED).await,
            Measure::Idle => footprint::idle_streams(self).await,
            Measure::Start => footprint::start(self).await,
            Measure::Instructions => instructions::compare(self).await,
        }
    }
}

/// Penstock and those of the peers that are there. A missing peer is said and left out.
fn proxies(args: &RunArgs, penstock: &std::path::Path) -> anyhow::Result<Vec<Proxy>> {
    let mut proxies = Vec::new();
    if !args.without_penstock {
        if let Some(why) = Proxy::Penstock.missing(penstock) {
            bail!("{why}; or leave it out with --without-penstock");
        }
        proxies.push(Proxy::Penstock);
    }
    for name in args.peers.iter().filter(|name| !name.is_empty()) {
        let peer = Proxy::from_str(name, true).map_err(|why| anyhow::anyhow!("--peers: {why}"))?;
        match peer.missing(penstock) {
            Some(why) => eprintln!("left out: {why}"),
            // The instruction check is about Penstock alone.
            None if args.instructions && !args.without_penstock => {}
            None => proxies.push(peer),
        }
    }
    if proxies.is_empty() {
        bail!("nothing to measure");
    }
    Ok(proxies)
}
