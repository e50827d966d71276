//! Arguments: every command with its options, and examples in its help.

mod kubernetes;

pub(crate) use kubernetes::{ControllerArgs, ProxyArgs};

use crate::run::memory::MemoryLimit;
use clap::{Args, CommandFactory, Parser, Subcommand, ValueEnum};
use std::io::Write;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

const DEFAULT_LISTEN: &str = "127.0.0.1:4000";
const DEFAULT_ADMIN: &str = "127.0.0.1:4001";

/// One address in front of your model servers.
///
/// Penstock sends each request to the server where its tokens will arrive soonest.
#[derive(Debug, Parser)]
#[command(version, arg_required_else_help = true, after_help = EXAMPLES)]
pub(crate) struct Cli {
    /// What to log on standard error, such as `info` or `proxy=debug`; never what clients and servers say to each other.
    #[arg(
        long,
        global = true,
        env = "PENSTOCK_LOG",
        default_value = "warn",
        value_name = "FILTER"
    )]
    pub(crate) log: String,
    #[command(subcommand)]
    pub(crate) command: Command,
}

const EXAMPLES: &str = "\
Examples:
  penstock run                                  find local model servers, else simulate two
  penstock run --endpoint http://10.0.0.1:8000 --endpoint http://10.0.0.2:8000
  penstock run gateway.yaml                     plain YAML or Kubernetes manifests
  penstock why last                             why the last request went where it went";

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Serve: data plane and picker, from manifests, plain YAML or a list of endpoints.
    #[command(after_help = RUN_EXAMPLES)]
    Run(RunArgs),
    /// Kubernetes control plane: reads objects, writes statuses, runs and feeds proxies.
    #[command(after_help = kubernetes::CONTROLLER_EXAMPLES)]
    Controller(ControllerArgs),
    /// The data plane of one Gateway, fed by a controller.
    #[command(after_help = kubernetes::PROXY_EXAMPLES)]
    Proxy(ProxyArgs),
    /// A simulated vLLM-compatible model server, with faults on demand.
    #[command(after_help = mock_help())]
    Mock(MockArgs),
    /// Validate configuration: print statuses and errors; exit code 2 when something is refused.
    #[command(
        after_help = "Examples:\n  penstock check gateway.yaml\n  penstock check manifests/ --output json"
    )]
    Check(CheckArgs),
    /// Print the Kubernetes manifests that a configuration stands for.
    #[command(
        after_help = "Examples:\n  penstock export gateway.yaml > manifests.yaml\n  penstock export --endpoint http://10.0.0.1:8000"
    )]
    Export(ExportArgs),
    /// Explain a decision: every candidate, each cost in seconds, winner and runner-up.
    #[command(after_help = WHY_EXAMPLES)]
    Why(WhyArgs),
    /// Send a real request down every route of a running gateway; says which hop failed.
    #[command(after_help = DOCTOR_EXAMPLES)]
    Doctor(DoctorArgs),
    /// Print a completion script for a shell.
    #[command(
        after_help = "Example:\n  penstock completions bash > /etc/bash_completion.d/penstock"
    )]
    Completions {
        /// The shell to print for.
        shell: clap_complete::Shell,
    },
}

const RUN_EXAMPLES: &str = "\
Examples:
  penstock run
  penstock run --endpoint http://127.0.0.1:8000 --endpoint http://127.0.0.1:8001
  penstock run gateway.yaml
  penstock run manifests/ --watch-interval 200ms

Then:
  curl http://127.0.0.1:4000/v1/models

Signals: SIGHUP reads the files again at once; SIGTERM and SIGINT let requests under way end.";

/// Options of `penstock run`.
#[derive(Debug, Args)]
pub(crate) struct RunArgs {
    /// Files or directories with manifests or plain YAML; watched for changes.
    #[arg(value_name = "FILE or DIR")]
    pub(crate) paths: Vec<PathBuf>,
    /// A model server to put behind the address; repeat for more.
    #[arg(long = "endpoint", value_name = "URL", conflicts_with = "paths")]
    pub(crate) endpoints: Vec<String>,
    /// Ports of this machine that are asked for model servers when neither files nor endpoints are
    /// given; none that answers: two simulated servers are started.
    #[arg(
        long,
        env = "PENSTOCK_DISCOVER",
        value_delimiter = ',',
        default_values_t = crate::discover::PORTS.map(|(port, _)| port),
        value_name = "PORT"
    )]
    pub(crate) discover: Vec<u16>,
    /// Where clients connect. Files name their own listeners; then this is not used.
    #[arg(long, env = "PENSTOCK_LISTEN", default_value = DEFAULT_LISTEN, value_name = "ADDRESS")]
    pub(crate) listen: SocketAddr,
    /// Where health, metrics and explanations are served. Keep it private.
    #[arg(long, env = "PENSTOCK_ADMIN", default_value = DEFAULT_ADMIN, value_name = "ADDRESS")]
    pub(crate) admin: SocketAddr,
    /// Threads that serve requests [default: one per core].
    #[arg(long, env = "PENSTOCK_WORKERS", value_name = "N")]
    pub(crate) workers: Option<usize>,
    /// Where access-log lines go: `-` is standard output, `off` is nowhere.
    #[arg(
        long,
        env = "PENSTOCK_ACCESS_LOG",
        default_value = "-",
        value_name = "FILE"
    )]
    pub(crate) access_log: String,
    /// Do not tell in responses which endpoint served and why.
    #[arg(long)]
    pub(crate) no_explain_headers: bool,
    /// Let a client's inference headers raise its priority (only behind a trusted proxy). In files this is
    /// `trustInferenceHeaders`.
    #[arg(long, conflicts_with = "paths")]
    pub(crate) trust_inference_headers: bool,
    /// How often files are looked at for changes.
    #[arg(long, default_value = "1s", value_parser = duration, value_name = "TIME")]
    pub(crate) watch_interval: Duration,
    /// A name server that is asked for names of endpoints instead of the system's resolver, such as
    /// 10.0.0.2 or 127.0.0.1:8600; repeat for more, the first that knows a name is believed.
    #[arg(
        long = "name-server",
        env = "PENSTOCK_NAME_SERVERS",
        value_delimiter = ',',
        value_parser = crate::run::dns::name_server,
        value_name = "ADDRESS"
    )]
    pub(crate) name_servers: Vec<SocketAddr>,
    /// How long requests under way may take to end after SIGTERM or SIGINT.
    #[arg(long, env = "PENSTOCK_DRAIN_TIMEOUT", default_value = "60s", value_parser = duration, value_name = "TIME")]
    pub(crate) drain_timeout: Duration,
    /// Most memory to hold, such as 512MiB or 2G, or `none`; above it, requests get 503 [default: 70 % of the control
    /// group's limit, else of the machine's memory].
    #[arg(long, env = "PENSTOCK_MEMORY_LIMIT", value_parser = crate::run::memory::parse, value_name = "SIZE")]
    pub(crate) memory_limit: Option<MemoryLimit>,
    #[command(flatten)]
    pub(crate) limits: LimitArgs,
}

/// Times and sizes that the data plane keeps to.
#[derive(Debug, Args)]
pub(crate) struct LimitArgs {
    /// The largest request body that is taken, such as 64MiB or 1G; larger ones get 413.
    #[arg(long, env = "PENSTOCK_MAX_BODY", default_value = "64MiB", value_parser = crate::run::memory::body, value_name = "SIZE")]
    max_body: usize,
    /// A limit of time, as docs/http.md lists them: heartbeat=15s, stream-idle=10m and more; repeat for
    /// more.
    #[arg(
        long = "limit",
        env = "PENSTOCK_LIMITS",
        value_delimiter = ',',
        value_parser = limit,
        value_name = "NAME=TIME"
    )]
    pub(crate) set: Vec<(proxy::NamedLimit, Duration)>,
}

impl LimitArgs {
    pub(crate) fn limits(&self) -> proxy::Limits {
        let mut limits = proxy::Limits::default();
        limits.body_bytes = self.max_body;
        for (limit, time) in &self.set {
            limits.set(*limit, *time);
        }
        limits
    }
}

fn limit(text: &str) -> Result<(proxy::NamedLimit, Duration), String> {
    let (name, time) = text.split_once('=').ok_or("write it as NAME=TIME")?;
    let known = proxy::NAMED_LIMITS.iter().find(|limit| limit.name == name);
    let Some(known) = known else {
        let names = proxy::NAMED_LIMITS.iter().map(|limit| limit.name);
        let names: Vec<&str> = names.collect();
        return Err(format!(
            "no limit has this name: use one of {}",
            names.join(", ")
        ));
    };
    Ok((*known, duration(time)?))
}

/// Reads `500ms`, `2s`, `1m30s`.
fn duration(text: &str) -> Result<Duration, String> {
    let value = config::ApiDuration::parse(text).map(|duration| duration.value());
    let value = value.filter(|value| !value.is_zero());
    value.ok_or_else(|| "write a time above zero such as 500ms, 2s or 1m".to_owned())
}

const MOCK_EXAMPLES: &str = "\
Examples:
  penstock mock
  penstock mock --listen 127.0.0.1:8001 --model llama --adapter sql-lora
  penstock mock --fault 500:count=3 --fault reset:after=5,p=0.1
  curl -X POST http://127.0.0.1:8000/mock/faults -d '{\"fault\":\"hang\"}'

Faults, written name[:option=value,...]; each takes count (the first N requests) and p (probability):
";

/// Examples, then every fault with its own options.
fn mock_help() -> String {
    let line = |fault: &mock::FaultEntry| {
        let options = fault.options.join(", ");
        let name = match options.as_str() {
            "" => fault.name.to_owned(),
            options => format!("{} ({options})", fault.name),
        };
        format!("  {name:20} {}\n", fault.what)
    };
    let faults: String = mock::FAULTS.iter().map(line).collect();
    format!("{MOCK_EXAMPLES}{}", faults.trim_end())
}

/// Options of `penstock mock`.
#[derive(Debug, Args)]
pub(crate) struct MockArgs {
    /// Where to listen; port 0 takes a free one and prints it.
    #[arg(long, default_value = "127.0.0.1:8000", value_name = "ADDRESS")]
    pub(crate) listen: SocketAddr,
    /// A model to serve; repeat for more [default: sim-8b].
    #[arg(long = "model", value_name = "NAME")]
    pub(crate) models: Vec<String>,
    /// A LoRA adapter to serve; repeat for more.
    #[arg(
        long = "adapter",
        alias = "lora",
        value_name = "NAME",
        value_delimiter = ','
    )]
    pub(crate) adapters: Vec<String>,
    /// Timing of the simulated engine.
    #[arg(long, default_value = "8b-h100", value_name = "PROFILE")]
    pub(crate) profile: String,
    /// A fault from the start; repeat for more.
    #[arg(long = "fault", value_name = "FAULT")]
    pub(crate) faults: Vec<String>,
    /// Seed of the generated text.
    #[arg(long, default_value_t = 1)]
    pub(crate) seed: u64,
    #[command(flatten)]
    pub(crate) engine: EngineFlags,
}

/// Flags of vLLM and of other simulators of it, so that their manifests start this one: the first
/// three mean something here, the others are taken and change nothing.
#[derive(Debug, Args)]
#[command(next_help_heading = "As vLLM has them")]
pub(crate) struct EngineFlags {
    /// Listen on this port of every address.
    #[arg(long, conflicts_with = "listen", value_name = "PORT")]
    pub(crate) port: Option<u16>,
    /// Adapters to serve, as NAME, NAME=PATH or JSON with `name`.
    #[arg(long, num_args = 1.., value_name = "ADAPTER")]
    pub(crate) lora_modules: Vec<String>,
    /// Longest prompt plus output, in tokens.
    #[arg(long, value_name = "TOKENS")]
    pub(crate) max_model_len: Option<u32>,
    #[arg(long, hide = true)]
    enable_lora: bool,
    #[arg(long, hide = true)]
    max_loras: Option<u32>,
    #[arg(long, hide = true)]
    max_cpu_loras: Option<u32>,
    #[arg(long, hide = true)]
    max_lora_rank: Option<u32>,
    #[arg(long, hide = true, alias = "max-num-seq")]
    max_num_seqs: Option<u32>,
    #[arg(long, hide = true)]
    tensor_parallel_size: Option<u32>,
}

/// How a reading command prints.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Output {
    /// For people.
    Text,
    /// For programs.
    Json,
}

/// Options of `penstock check`.
#[derive(Debug, Args)]
pub(crate) struct CheckArgs {
    /// Files or directories to validate.
    #[arg(required = true, value_name = "FILE or DIR")]
    pub(crate) paths: Vec<PathBuf>,
    /// How to print.
    #[arg(long, value_enum, default_value_t = Output::Text)]
    pub(crate) output: Output,
}

/// Options of `penstock export`.
#[derive(Debug, Args)]
pub(crate) struct ExportArgs {
    /// Files or directories in the plain form, or manifests.
    #[arg(value_name = "FILE or DIR", required_unless_present = "endpoints")]
    pub(crate) paths: Vec<PathBuf>,
    /// A model server, as for `penstock run`.
    #[arg(long = "endpoint", value_name = "URL", conflicts_with = "paths")]
    pub(crate) endpoints: Vec<String>,
    /// The address of the listener that goes with `--endpoint`.
    #[arg(long, default_value = DEFAULT_LISTEN, value_name = "ADDRESS")]
    pub(crate) listen: SocketAddr,
}

const WHY_EXAMPLES: &str = "\
Examples:
  penstock why last
  penstock why 42                      the number in x-penstock-decision
  penstock why 7f3a...                 the x-request-id
  penstock why --save decisions.jsonl
  penstock why --replay decisions.jsonl";

/// Options of `penstock why`.
#[derive(Debug, Args)]
pub(crate) struct WhyArgs {
    /// `last`, a decision's number, or a request id.
    #[arg(default_value = "last", value_name = "last|ID")]
    pub(crate) which: String,
    /// The gateway's admin address.
    #[arg(
        long,
        env = "PENSTOCK_ADMIN_URL",
        default_value = "http://127.0.0.1:4001",
        value_name = "URL"
    )]
    pub(crate) admin: String,
    /// Write all recorded decisions to a file, one JSON object a line.
    #[arg(long, value_name = "FILE", conflicts_with = "replay")]
    pub(crate) save: Option<PathBuf>,
    /// Decide again from a saved file; exit code 1 names the first decision that differs.
    #[arg(long, value_name = "FILE")]
    pub(crate) replay: Option<PathBuf>,
    /// How to print.
    #[arg(long, value_enum, default_value_t = Output::Text)]
    pub(crate) output: Output,
}

const DOCTOR_EXAMPLES: &str = "\
Examples:
  penstock doctor
  penstock doctor --admin http://10.0.0.5:4001 --output json

The hops are listener, route, pool, endpoint and model. Exit code 1 when one failed.";

/// Options of `penstock doctor`.
#[derive(Debug, Args)]
pub(crate) struct DoctorArgs {
    /// The gateway's admin address.
    #[arg(
        long,
        env = "PENSTOCK_ADMIN_URL",
        default_value = "http://127.0.0.1:4001",
        value_name = "URL"
    )]
    pub(crate) admin: String,
    /// How long one answer may take.
    #[arg(long, default_value = "30s", value_parser = duration, value_name = "TIME")]
    pub(crate) timeout: Duration,
    /// How to print.
    #[arg(long, value_enum, default_value_t = Output::Text)]
    pub(crate) output: Output,
}

/// Prints the completion script.
pub(crate) fn completions(shell: clap_complete::Shell) -> anyhow::Result<ExitCode> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "penstock", &mut script);
    std::io::stdout().write_all(&script)?;
    Ok(ExitCode::SUCCESS)
}
