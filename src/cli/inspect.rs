//! `inspect`: what is in an image.

use std::process::ExitCode;

use crate::image::inspect::{Inspection, Privileged, Share};
use crate::image::read::Password;

use super::error::CliError;
use super::render::{self, bytes, plain};
use super::ui::Ui;

#[derive(clap::Args)]
pub struct Args {
    /// An image file, or the name of an image or data disk in out/, or its build key
    image: String,
    /// Depth of the directories whose sizes are shown
    #[arg(long, value_name = "N", default_value_t = 2)]
    depth: usize,
    /// How many packages and directories to list, the largest first; 0 lists all
    #[arg(long, value_name = "N", default_value_t = 15)]
    top: usize,
}

pub fn run(args: &Args, ui: &Ui) -> Result<ExitCode, CliError> {
    let image = ui.workspace().open_image(&args.image)?;
    let inspection = Inspection::of(&image, args.depth)?;
    if ui.settings.json {
        render::json(&inspection);
    } else {
        let parts = [head(&inspection), packages(&inspection, args.top), directories(&inspection, args.top)];
        let more = [privileged(&inspection.privileged), users(&inspection), services(&inspection)];
        let parts: Vec<_> = parts.into_iter().chain(more).filter(|part| !part.is_empty()).collect();
        render::text(&parts.join("\n"));
    }
    Ok(ExitCode::SUCCESS)
}

fn head(inspection: &Inspection) -> String {
    let (facts, counts) = (&inspection.facts, &inspection.counts);
    let system = [inspection.title.as_deref(), inspection.arch.as_deref()];
    let system = system.into_iter().flatten().map(plain).collect::<Vec<_>>().join(", ");
    let size =
        format!("{}, {} free, {} on disk", bytes(facts.size), bytes(facts.free), bytes(facts.allocated));
    let journal = match facts.journal {
        0 => "none".to_owned(),
        size => bytes(size),
    };
    let inodes = format!("{}, {} free", facts.inodes, facts.free_inodes);
    let files = format!(
        "{} with {}, {} more names, {} directories, {} symlinks, {} others",
        counts.files,
        bytes(counts.content),
        counts.hard_links,
        counts.directories,
        counts.symlinks,
        counts.others
    );
    let rows = [
        ("system", system),
        ("label", plain(&facts.label)),
        ("UUID", facts.uuid.clone()),
        ("size", size),
        ("journal", journal),
        ("inodes", inodes),
        ("files", files),
    ];
    let rows = rows.into_iter().filter(|(_, value)| !value.is_empty());
    render::table(&rows.map(|(name, value)| vec![name.to_owned(), value]).collect::<Vec<_>>())
}

/// A head line, rows of a table, and a line for what is not shown.
fn section(title: &str, rows: Vec<Vec<String>>, left_out: usize) -> String {
    let table = render::table(&rows);
    let table: String = table.lines().map(|line| format!("  {line}\n")).collect();
    let more = if left_out == 0 { String::new() } else { format!("  and {left_out} more\n") };
    format!("{title}\n{table}{more}")
}

/// The first of a list, and how many are left out.
fn first<T>(all: &[T], top: usize) -> (&[T], usize) {
    let shown = if top == 0 { all.len() } else { top.min(all.len()) };
    (&all[..shown], all.len() - shown)
}

fn sizes(share: &Share) -> [String; 2] {
    [format!("{:>10}", bytes(share.size)), format!("{:>6}", share.files)]
}

fn packages(inspection: &Inspection, top: usize) -> String {
    if inspection.packages.is_empty() {
        return String::new();
    }
    let (shown, left_out) = first(&inspection.packages, top);
    let mut rows =
        vec![["      SIZE", " FILES", "PACKAGE", "VERSION", "LICENSE"].map(str::to_owned).to_vec()];
    rows.extend(shown.iter().map(|package| {
        let [size, files] = sizes(&package.share);
        vec![size, files, package.name.clone(), package.version.clone(), plain(&package.license)]
    }));
    let [size, files] = sizes(&inspection.unpackaged);
    let mut text = section(&format!("packages: {}", inspection.packages.len()), rows, left_out);
    text += &format!("  {size}  {files}  in no package\n");
    text
}

fn directories(inspection: &Inspection, top: usize) -> String {
    let (shown, left_out) = first(&inspection.directories, top);
    let mut rows = vec![["      SIZE", " FILES", "DIRECTORY"].map(str::to_owned).to_vec()];
    rows.extend(shown.iter().map(|directory| {
        let [size, files] = sizes(&directory.share);
        vec![size, files, plain(&directory.path)]
    }));
    section("directories", rows, left_out)
}

/// What files give whoever runs them, one in each row.
pub fn privileged(files: &[Privileged]) -> String {
    if files.is_empty() {
        return "setuid, setgid and capabilities: none\n".to_owned();
    }
    let mut rows = vec![["MODE", "OWNER", "GIVES", "PATH"].map(str::to_owned).to_vec()];
    rows.extend(files.iter().map(|file| {
        let owner = format!("{}:{}", file.uid, file.gid);
        vec![file.mode.clone(), owner, gives(file), plain(&file.path)]
    }));
    section("setuid, setgid and capabilities", rows, 0)
}

/// Such as `setuid` or `cap_setuid=ep`.
pub fn gives(file: &Privileged) -> String {
    let words = [(file.setuid, "setuid"), (file.setgid, "setgid")];
    let words = words.into_iter().filter(|(has, _)| *has).map(|(_, word)| word);
    words.chain(file.capabilities.as_deref()).collect::<Vec<_>>().join(" ")
}

fn users(inspection: &Inspection) -> String {
    let mut text = String::new();
    if !inspection.users.is_empty() {
        let mut rows = vec![["USER", "UID", "GID", "PASSWORD", "HOME", "SHELL"].map(str::to_owned).to_vec()];
        rows.extend(inspection.users.iter().map(|user| {
            let password = match user.password {
                Password::Locked => "locked",
                Password::Empty => "EMPTY",
                Password::Set => "set",
            };
            let numbers = [user.uid.to_string(), user.gid.to_string(), password.to_owned()];
            let [uid, gid, password] = numbers;
            vec![plain(&user.name), uid, gid, password, plain(&user.home), plain(&user.shell)]
        }));
        text += &section("users", rows, 0);
    }
    if !inspection.groups.is_empty() {
        let mut rows = vec![["GROUP", "GID", "MEMBERS"].map(str::to_owned).to_vec()];
        rows.extend(
            inspection.groups.iter().map(|group| {
                vec![plain(&group.name), group.gid.to_string(), plain(&group.members.join(", "))]
            }),
        );
        text += "\n";
        text += &section("groups", rows, 0);
    }
    text
}

fn services(inspection: &Inspection) -> String {
    if inspection.services.is_empty() {
        return String::new();
    }
    let rows = inspection.services.iter().map(|(level, names)| vec![plain(level), plain(&names.join(" "))]);
    section("services by runlevel", rows.collect(), 0)
}
