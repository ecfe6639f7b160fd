//! `monofs-admin`: the operator's command line. What it does is in the crate
//! `monofs-admin-commands`; here is only the process around it.

use std::process::ExitCode;

use monofs_admin_commands::{Args, NAME, run};

fn main() -> ExitCode {
    monofs_launch::tool::<Args, _, _>(NAME, |args, context| run(args, context.shutdown))
}
