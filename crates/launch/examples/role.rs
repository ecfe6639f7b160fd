//! The smallest server: what `launch::run` does for it is what the process tests look at.

use std::process::ExitCode;

use clap::{Parser, ValueEnum};
use monofs_launch::args;
use monofs_rpc::context;

/// A role that does as it is told
#[derive(Debug, Parser)]
struct Args {
    /// Where it would listen
    #[arg(long, default_value = ":9000")]
    addr: args::Listen,
    /// Which of several it is
    #[arg(long, default_value = "", hide_default_value = true)]
    role_id: String,
    /// What it does once it runs
    #[arg(long, value_enum, default_value_t = Deed::Wait)]
    deed: Deed,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Deed {
    /// Waits for a signal and drains
    Wait,
    /// Works for one request when it starts and for one when it drains
    Ask,
    /// Ignores the first signal
    Hang,
    Refuse,
    Unreachable,
    Panic,
}

fn main() -> ExitCode {
    monofs_launch::run::<Args, _, _>("role", |args, ctx| async move {
        tracing::info!(addr = %args.addr, id = args.role_id, "ready");
        tracing::debug!("talkative");
        match args.deed {
            Deed::Wait => {
                ctx.shutdown.cancelled().await;
                tracing::info!("drained");
                Ok(())
            }
            Deed::Ask => {
                context::begin("start", async {
                    tracing::info!(target: "monofs_role", "started")
                })
                .await;
                ctx.shutdown.cancelled().await;
                context::begin("drain", async { tracing::info!("drained") }).await;
                Ok(())
            }
            Deed::Hang => std::future::pending().await,
            Deed::Refuse => Err(monofs_model::Error::refused("the path is taken").into()),
            Deed::Unreachable => Err(monofs_model::Error::unavailable(
                "router localhost:1: connection refused",
            )
            .into()),
            Deed::Panic => panic!("a defect"),
        }
    })
}
