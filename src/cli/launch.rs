//! `launch`: what `up` starts in place of a VMM, so that the VMM is in its cgroup and in its fleet's network from its
//! first instruction on.

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;

use crate::sys::launch::{self, InMemory, LaunchRequest};

use super::error::CliError;

#[derive(clap::Args)]
pub struct Args {
    /// A file of a cgroup to write 0 to, to join it
    #[arg(long = "cgroup", value_name = "FILE")]
    cgroups: Vec<PathBuf>,
    /// The network namespace to enter
    #[arg(long, value_name = "FILE")]
    netns: Option<PathBuf>,
    /// Bytes that no file may grow beyond
    #[arg(long, value_name = "BYTES")]
    file_size: Option<u64>,
    /// The process that starts this, and without which nothing is to be started
    #[arg(long, value_name = "PID")]
    starter: Option<u32>,
    /// A file to copy into a tmpfs, which is mounted for the program alone, and where to
    #[arg(long, num_args = 2, value_names = ["FROM", "TO"], requires_all = ["in_memory_size", "in_memory_uid"])]
    in_memory: Vec<PathBuf>,
    /// Bytes of the tmpfs
    #[arg(long, value_name = "BYTES")]
    in_memory_size: Option<u64>,
    /// Whose the copy is
    #[arg(long, value_name = "UID")]
    in_memory_uid: Option<u32>,
    /// The program and its arguments
    #[arg(last = true, required = true)]
    argv: Vec<OsString>,
}

pub fn run(args: &Args) -> Result<ExitCode, CliError> {
    Err(launch::exec_in_cgroup(&request(args)).into())
}

/// What [`LaunchRequest::command`] was asked for.
fn request(args: &Args) -> LaunchRequest<'_> {
    let in_memory = match (args.in_memory.as_slice(), args.in_memory_size, args.in_memory_uid) {
        ([from, to], Some(size), Some(uid)) => Some(InMemory { from, to, size, uid }),
        _ => None,
    };
    LaunchRequest {
        cgroups: &args.cgroups,
        netns: args.netns.as_deref(),
        file_size: args.file_size,
        starter: args.starter,
        in_memory,
        argv: &args.argv,
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use clap::{Args as _, Command, FromArgMatches};

    use super::*;

    #[test]
    fn what_is_asked_for_is_what_is_read() {
        let cgroups = ["/a/cgroup.procs".into(), "/b c/cgroup.procs".into()];
        let argv = ["vmm".into(), "--starter".into(), "7".into(), "--".into()];
        let (from, to) = (Path::new("/from"), Path::new("/jail/to"));
        let plain = LaunchRequest { argv: &argv, ..LaunchRequest::default() };
        let whole = LaunchRequest {
            cgroups: &cgroups,
            netns: Some(Path::new("/run/netns/sisforge-a")),
            file_size: Some(u64::MAX),
            starter: Some(42),
            in_memory: Some(InMemory { from, to, size: 1 << 33, uid: 70_000 }),
            argv: &argv,
        };
        for asked in [plain, whole] {
            let call = asked.command(Path::new("/usr/bin/sisforge"));
            let mut words = call.argv();
            assert_eq!(words.next().unwrap(), "/usr/bin/sisforge");
            let matches = Args::augment_args(Command::new("launch")).get_matches_from(words);
            assert_eq!(request(&Args::from_arg_matches(&matches).unwrap()), asked);
        }
    }
}
