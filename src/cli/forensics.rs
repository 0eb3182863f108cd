//! `forensics`: evidence of a guest in one signed archive, and what is in such archives.

use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

use crate::run::forensics::{self, EvidenceRequest};

use super::diff;
use super::error::CliError;
use super::output::{EvidenceFilesJson, EvidenceJson};
use super::render;
use super::ui::Ui;

const HELP: &str = "\
The guest is cut off from every network (`sisforge release` brings it back), stands still while its memory is written and its disk is \
copied, and goes on. The archive is a tar file compressed by zstd: memory, VMM state, data disk and the disk that it was made from; logs, \
records, flows and drops; what conntrack, cgroup, nftables and the VMM's process showed; bill of materials, fleet.toml, fleet.lock; a \
time line as JSON lines and as a page of HTML; a manifest with the SHA-256 of each, signed by an SSH key. What could not be had is named \
in it, and the exit status is then 1; so is that of `forensics files` where something of the disk cannot be read.

The disk is never mounted, and nothing that the guest wrote is made sense of before `forensics files` and `cat` are asked, as an ordinary \
user if need be. Memory is for other tools: of QEMU it is an ELF core (memory.elf), as crash and Volatility take it; of Firecracker it is \
raw, and the manifest maps it.

A guest that is called `verify`, `files` or `cat` is named behind `--`.";

#[derive(clap::Args)]
#[command(after_long_help = HELP, args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
pub struct Args {
    #[command(subcommand)]
    command: Option<Command>,
    /// The guest
    #[arg(required = true)]
    guest: Option<String>,
    /// The archive to write, which must not exist yet [default: GUEST-DATE-TIME.evidence.tar.zst]
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// A private SSH key to sign with [default: the one of the fleet on this host]
    #[arg(long, value_name = "FILE")]
    key: Option<PathBuf>,
}

#[derive(clap::Subcommand)]
enum Command {
    /// Read an archive to its end, and hold it against its manifest and its signature
    Verify(VerifyArgs),
    /// List what the guest changed on its data disk
    Files(FilesArgs),
    /// Write a file of an archive to standard output
    Cat(CatArgs),
}

#[derive(clap::Args)]
struct VerifyArgs {
    /// The archive
    #[arg(value_name = "FILE")]
    archive: PathBuf,
    /// A file of SSH keys (ssh-keygen(1), ALLOWED SIGNERS): fail unless one of them signed it
    #[arg(long, value_name = "ALLOWED_SIGNERS")]
    signers: Option<PathBuf>,
}

#[derive(clap::Args)]
struct FilesArgs {
    /// The archive
    #[arg(value_name = "FILE")]
    archive: PathBuf,
    /// Compare times too, and show files that differ only in them
    #[arg(long)]
    times: bool,
}

#[derive(clap::Args)]
struct CatArgs {
    /// The archive
    #[arg(value_name = "FILE")]
    archive: PathBuf,
    /// A path on the data disk, such as /.profile, or a member, such as timeline.html
    path: String,
}

pub fn run(args: &Args, ui: &Ui) -> Result<ExitCode, CliError> {
    match &args.command {
        None => take(args, ui),
        Some(Command::Verify(args)) => verify(args, ui),
        Some(Command::Files(args)) => files(args, ui),
        Some(Command::Cat(args)) => {
            let mut output = std::io::stdout().lock();
            forensics::print(&args.archive, &args.path, &mut output)?;
            output
                .flush()
                .map_err(|error| CliError::failed(format!("cannot write to standard output: {error}")))?;
            Ok(ExitCode::SUCCESS)
        }
    }
}

fn take(args: &Args, ui: &Ui) -> Result<ExitCode, CliError> {
    let notes = ui.notes();
    let workspace = ui.workspace_with(&notes);
    let guest = args.guest.as_deref().unwrap_or_default();
    let request = EvidenceRequest { guest, out: args.out.as_deref(), key: args.key.as_deref() };
    let taken = forensics::take(&workspace, request)?;
    drop(workspace);
    let manifest = &taken.manifest;
    let (path, size) = (taken.path.display(), render::bytes(taken.size));
    ui.say(&format!("wrote {path}, {size}: SHA-256 of its manifest {}", taken.sha256));
    for missing in &manifest.missing {
        ui.say(&format!("not in it: {}: {}", render::plain(&missing.what), render::plain(&missing.why)));
    }
    let guest = &manifest.guest;
    ui.say(&format!("{guest} is cut off until `sisforge release {guest}`"));
    if ui.settings.json {
        render::json(&EvidenceJson::taken(&taken, notes.into_list()));
    }
    Ok(if manifest.missing.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn verify(args: &VerifyArgs, ui: &Ui) -> Result<ExitCode, CliError> {
    let archive = forensics::verify(&args.archive)?;
    let who = args.signers.as_deref().map(|signers| archive.verify(&args.archive, signers)).transpose()?;
    if ui.settings.json {
        render::json(&EvidenceJson::verified(&args.archive, &archive, who));
        return Ok(ExitCode::SUCCESS);
    }
    let manifest = &archive.manifest;
    let by = who.map_or_else(
        || format!("{}: whose it is, --signers tells", archive.signed_by.join(", ")),
        |who| format!("{} ({})", render::plain(&who), archive.signed_by.join(", ")),
    );
    let rows = [
        ("guest", format!("{} of the fleet {}", manifest.guest, manifest.fleet)),
        ("captured", format!("{} on {}", render::plain(&manifest.captured), render::plain(&manifest.host))),
        ("manifest", format!("SHA-256 {}", archive.sha256)),
        ("signed by", by),
    ];
    let rows = rows.map(|(name, value)| vec![name.to_owned(), value]);
    let members = manifest.members.iter().map(|(name, member)| {
        vec![member.sha256.to_string(), format!("{:>12}", member.size), render::plain(name)]
    });
    let missing = manifest.missing.iter().map(|missing| {
        format!("not in it: {}: {}\n", render::plain(&missing.what), render::plain(&missing.why))
    });
    let tables = [render::table(&rows), render::table(&members.collect::<Vec<_>>()), missing.collect()];
    render::text(&tables.join("\n"));
    Ok(ExitCode::SUCCESS)
}

fn files(args: &FilesArgs, ui: &Ui) -> Result<ExitCode, CliError> {
    let changed = forensics::changed_files(&args.archive, args.times)?;
    let is_whole = changed.unreadable.is_empty();
    for unreadable in &changed.unreadable {
        ui.say(&format!("cannot be read: {}", render::plain(unreadable)));
    }
    if ui.settings.json {
        let unreadable = changed.unreadable;
        render::json(&EvidenceFilesJson { difference: changed.difference, unreadable });
    } else {
        let nothing = match is_whole {
            true => "the guest changed nothing on its data disk",
            false => "nothing differs of what can be read of the data disk",
        };
        diff::show(&changed.difference, args.times, nothing, ui);
    }
    Ok(if is_whole { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
