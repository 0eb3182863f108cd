//! `diff`: what differs between two images.

use std::process::ExitCode;

use crate::image::difference::{Aspect, Difference, FileChange, FileState, PackageChange};
use crate::image::inspect::Privileged;

use super::error::CliError;
use super::inspect::gives;
use super::render::{self, bytes, plain};
use super::ui::Ui;

#[derive(clap::Args)]
pub struct Args {
    /// An image file, or the name of an image or data disk in out/, or its build key
    one: String,
    /// The image that it is compared with
    two: String,
    /// Exit with status 1 if they differ
    #[arg(long)]
    exit_code: bool,
    /// Compare times too, and show files that differ only in them
    #[arg(long)]
    times: bool,
}

pub fn run(args: &Args, ui: &Ui) -> Result<ExitCode, CliError> {
    let workspace = ui.workspace();
    let (one, two) = (workspace.open_image(&args.one)?, workspace.open_image(&args.two)?);
    let threads = rayon::ThreadPoolBuilder::new().num_threads(ui.settings.run.jobs).build();
    let threads = threads.map_err(|error| CliError::failed(format!("cannot start threads: {error}")))?;
    let difference = threads.install(|| Difference::between(&one, &two, args.times))?;
    if ui.settings.json {
        render::json(&difference);
    } else {
        show(&difference, args.times, "they are the same", ui);
    }
    let differs = args.exit_code && !difference.is_empty();
    Ok(if differs { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

/// Shows what differs, or says that nothing does; with `times`, that is also what differs in them alone.
pub fn show(difference: &Difference, times: bool, nothing: &str, ui: &Ui) {
    if difference.is_empty() {
        ui.say(nothing);
    } else {
        render::text(&(packages(&difference.packages) + &files(&difference.files) + &privileged(difference)));
    }
    if !times && difference.times_alone > 0 {
        let files = match difference.times_alone {
            1 => "1 file differs".to_owned(),
            count => format!("{count} files differ"),
        };
        ui.note(&format!("{files} only in their times; --times shows those"));
    }
}

/// `+` what is in the second alone, `-` what is in the first alone, `~` what differs.
fn sign<T>(from: Option<&T>, to: Option<&T>) -> char {
    match (from, to) {
        (None, _) => '+',
        (_, None) => '-',
        _ => '~',
    }
}

fn packages(changes: &[PackageChange]) -> String {
    let line = |change: &PackageChange| {
        let sign = sign(change.from.as_ref(), change.to.as_ref());
        let versions = match (&change.from, &change.to) {
            (Some(from), Some(to)) if from == to => format!("{to}, rebuilt"),
            (Some(from), Some(to)) => format!("{from} -> {to}"),
            (from, to) => to.clone().or_else(|| from.clone()).unwrap_or_default(),
        };
        format!("  {sign} {} {versions}\n", change.name)
    };
    list("packages", changes.len(), changes.iter().map(line).collect())
}

fn list(title: &str, count: usize, lines: String) -> String {
    if count == 0 { String::new() } else { format!("{title}: {count}\n{lines}") }
}

fn files(changes: &[FileChange]) -> String {
    let line = |change: &FileChange| {
        let sign = sign(change.from.as_ref(), change.to.as_ref());
        let told = match (&change.from, &change.to) {
            (Some(from), Some(to)) => {
                let words = change.what.iter().map(|what| aspect(*what, from, to));
                words.collect::<Vec<_>>().join(", ")
            }
            (one, other) => one.as_ref().or(other.as_ref()).map(alone).unwrap_or_default(),
        };
        format!("  {sign} {}  {told}\n", plain(&change.path))
    };
    list("files", changes.len(), changes.iter().map(line).collect())
}

/// A file that is in one image alone.
fn alone(state: &FileState) -> String {
    let size = state.size.map(|size| format!(" of {}", bytes(size))).unwrap_or_default();
    let target = state.target.as_deref().map(|target| format!(" {}", plain(target))).unwrap_or_default();
    format!("{}{size}{target}, {} {}:{}", state.kind, state.mode, state.uid, state.gid)
}

fn aspect(what: Aspect, from: &FileState, to: &FileState) -> String {
    let change = |name: &str, from: String, to: String| format!("{name} {from} -> {to}");
    let size = |state: &FileState| bytes(state.size.unwrap_or_default());
    let target = |state: &FileState| plain(state.target.as_deref().unwrap_or_default());
    match what {
        Aspect::Kind => change("kind", from.kind.to_owned(), to.kind.to_owned()),
        Aspect::Content if from.size == to.size => format!("content, {} both", size(to)),
        Aspect::Content => change("content", size(from), size(to)),
        Aspect::Target => change("target", target(from), target(to)),
        Aspect::Device => change("device", target(from), target(to)),
        Aspect::Mode => change("mode", from.mode.clone(), to.mode.clone()),
        Aspect::Owner => {
            let owner = |state: &FileState| format!("{}:{}", state.uid, state.gid);
            change("owner", owner(from), owner(to))
        }
        Aspect::Attributes => "attributes".to_owned(),
        Aspect::Names => "other names".to_owned(),
        Aspect::Time => change("time", from.mtime.to_string(), to.mtime.to_string()),
    }
}

fn privileged(difference: &Difference) -> String {
    let state = |file: &Privileged| format!("{} ({} {}:{})", gives(file), file.mode, file.uid, file.gid);
    let lines = difference.privileged.iter().map(|change| {
        let sign = sign(change.from.as_ref(), change.to.as_ref());
        let states: Vec<_> = [&change.from, &change.to].into_iter().flatten().map(state).collect();
        format!("  {sign} {}  {}\n", plain(&change.path), states.join(" -> "))
    });
    list("setuid, setgid and capabilities", difference.privileged.len(), lines.collect())
}
