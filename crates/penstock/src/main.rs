//! The `penstock` command: data plane, picker, practice servers and tools in one binary.
//!
//! Only this crate reads arguments and the environment, installs logging and ends the process.
//! Exit codes: 0 done, 1 failed, 2 wrong usage or configuration.

mod admin;
mod check;
mod cli;
mod controller;
mod discover;
mod doctor;
mod export;
mod logging;
mod mock;
mod proxy_command;
mod run;
mod why;

use clap::Parser;
use std::process::ExitCode;

fn main() -> ExitCode {
    let cli = cli::Cli::parse();
    logging::begin(&cli.log);
    let done = match cli.command {
        cli::Command::Run(args) => run::run(args),
        cli::Command::Controller(args) => controller::run(args),
        cli::Command::Proxy(args) => proxy_command::run(args),
        cli::Command::Mock(args) => mock::run(args),
        cli::Command::Check(args) => check::run(&args),
        cli::Command::Export(args) => export::run(&args),
        cli::Command::Doctor(args) => doctor::run(&args),
        cli::Command::Why(args) => why::run(&args),
        cli::Command::Completions { shell } => cli::completions(shell),
    };
    match done {
        Ok(code) => code,
        Err(error) => {
            eprintln!("penstock: {error:#}");
            ExitCode::FAILURE
        }
    }
}
