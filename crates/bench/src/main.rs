//! `penstock-bench`: what Penstock's speed is measured with.
//!
//! `run` is the runner behind `just floor` and `just bench`; the other commands are its parts, usable
//! alone. Every figure is a ratio to the bare floor (`floor`), taken in the same run. Start with `run`.

mod backend;
mod child;
mod floor;
mod head;
mod idle;
mod load;
mod peers;
mod process;
mod run;
mod wire;

use std::io::Write as _;
use std::net::SocketAddr;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};
use tokio::signal::unix::{SignalKind, signal};

use crate::wire::{Shape, Stream, Text};

#[derive(Parser)]
#[command(
    name = "penstock-bench",
    about = "Measures Penstock against the bare floor and its peers"
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// The bare floor: a minimal reverse proxy on hyper
    Floor {
        #[arg(long)]
        listen: SocketAddr,
        #[arg(long)]
        upstream: SocketAddr,
    },
    /// A model server that costs next to nothing; prints `listening ADDRESS` for each address
    Backend {
        #[arg(long, default_value = "127.0.0.1:0")]
        listen: Vec<SocketAddr>,
    },
    /// Closed-loop load on a proxy in front of `backend`; exit code 1 when a response was bad
    Load(LoadArgs),
    /// Opens streams that stay idle and prints the proxy's resident KiB per stream
    Idle {
        #[arg(long)]
        target: SocketAddr,
        /// The proxy's process id
        #[arg(long)]
        pid: u32,
        #[arg(long, default_value_t = 2000)]
        streams: usize,
    },
    /// Measures the floor, Penstock and peers in one run
    Run(run::RunArgs),
}

#[derive(Args)]
struct LoadArgs {
    #[arg(long)]
    target: SocketAddr,
    #[arg(long, default_value_t = 64)]
    connections: usize,
    #[arg(long, default_value_t = 20_000)]
    requests: u64,
    #[arg(long, default_value_t = 1024, value_parser = clap::value_parser!(u32).range(256..))]
    body_bytes: u32,
    /// SSE events per answer; 0 asks for a plain answer
    #[arg(long, default_value_t = 0)]
    chunks: u32,
    /// Microseconds between two SSE events
    #[arg(long, default_value_t = 0)]
    pace_us: u64,
    #[arg(long, value_enum, default_value_t = Text::Plain)]
    text: Text,
    /// Send the 17 headers of the usual Python client
    #[arg(long)]
    python_headers: bool,
}

fn main() -> anyhow::Result<ExitCode> {
    match Cli::parse().command {
        Command::Floor { listen, upstream } => {
            floor::run(listen, upstream)?;
            Ok(ExitCode::SUCCESS)
        }
        Command::Backend { listen } => block_on(async {
            backend::serve(listen).await?;
            Ok(ExitCode::SUCCESS)
        }),
        Command::Load(args) => block_on(put_load(&args)),
        Command::Idle {
            target,
            pid,
            streams,
        } => block_on(async {
            let kib = idle::kib_per_stream(target, pid, streams).await?;
            say(&format!("{kib:.2} KiB per idle stream ({streams} streams)"))?;
            Ok(ExitCode::SUCCESS)
        }),
        Command::Run(args) => block_on(run::run(args)),
    }
}

/// Runs `work` on one thread until it is done or a signal ends it; what it had started then ends with it.
fn block_on(work: impl Future<Output = anyhow::Result<ExitCode>>) -> anyhow::Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let mut end = signal(SignalKind::terminate())?;
        tokio::select! {
            code = work => code,
            _ = tokio::signal::ctrl_c() => Ok(ExitCode::from(130)),
            _ = end.recv() => Ok(ExitCode::from(143)),
        }
    })
}

async fn put_load(args: &LoadArgs) -> anyhow::Result<ExitCode> {
    let pace = Duration::from_micros(args.pace_us);
    let shape = Shape {
        body_bytes: args.body_bytes as usize,
        stream: (args.chunks > 0).then_some(Stream {
            chunks: args.chunks,
            pace,
        }),
        text: args.text,
        python_headers: args.python_headers,
    };
    let mut clients = load::Clients::open(args.target, args.connections).await?;
    let tally = clients.run(&shape, args.requests).await?;
    say(&tally.summary())?;
    Ok(if tally.bad == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// One line on standard output.
fn say(line: &str) -> anyhow::Result<()> {
    Ok(writeln!(std::io::stdout().lock(), "{line}")?)
}
