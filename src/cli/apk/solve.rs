//! `apk solve`: what apk would install for a world, in its order and words.

use std::mem::ManuallyDrop;
use std::path::PathBuf;
use std::process::ExitCode;
use std::str::FromStr;

use rayon::prelude::*;

use super::{CliError, Ui, render};
use crate::apk::{
    Arch, Chosen, Dependency, INDEX_FILE, Index, KeyRing, Repository, Rules, SolveError, solve, solve_by,
};
use crate::base::text::counted;
use crate::cli::output::{ChosenJson, SolvedJson};
use crate::fleet::Source;
use crate::lock::indexes::{Indexes, place};
use crate::lock::model::ARCH;

#[derive(clap::Args)]
pub struct Args {
    /// URL or directory that has ARCH/APKINDEX.tar.gz, the preferred one first; "@TAG URL" for packages NAME@TAG only
    #[arg(long = "repository", short = 'X', required = true, value_name = "URL|DIR")]
    repositories: Vec<Tagged>,
    /// Architecture of the machine
    #[arg(long, default_value = ARCH)]
    arch: Arch,
    /// Directory of trusted keys, *.rsa.pub
    #[arg(long, required = true, value_name = "DIR")]
    keys: Vec<PathBuf>,
    /// Whose rules decide; without it, those of the apk-tools that the repositories have
    #[arg(long, value_enum)]
    rules: Option<RulesOf>,
    /// What to install, such as podman, podman~5, podman>=5.0, '!docker' or podman@TAG
    #[arg(required = true)]
    world: Vec<Dependency>,
}

/// The two apks whose rules differ.
#[derive(Clone, Copy, clap::ValueEnum)]
enum RulesOf {
    /// apk-tools 2.14, of Alpine up to 3.22
    Apk2,
    /// apk-tools 3, of Alpine from 3.23 on
    Apk3,
}

impl From<RulesOf> for Rules {
    fn from(rules: RulesOf) -> Self {
        match rules {
            RulesOf::Apk2 => Self::Apk2,
            RulesOf::Apk3 => Self::Apk3,
        }
    }
}

/// `[@TAG ]URL|DIR`, as in apk's own list of repositories.
#[derive(Clone)]
struct Tagged {
    spelled: String,
    location: Source,
    tag: Option<String>,
}

impl FromStr for Tagged {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (tag, location) = match text.strip_prefix('@').map(|text| text.split_once(' ')) {
            Some(Some((tag, location))) => (Some(tag.to_owned()), location.trim()),
            Some(None) => return Err(format!("after {text} a URL or a directory is missing")),
            None => (None, text),
        };
        let parsed = location.parse().map_err(|error| format!("{error}"))?;
        Ok(Self { spelled: location.to_owned(), location: parsed, tag })
    }
}

pub fn run(args: &Args, ui: &Ui) -> Result<ExitCode, CliError> {
    // Giving back a hundred thousand small pieces of memory, just before the end, would take as long as solving.
    let indexes = ManuallyDrop::new(indexes(args, ui)?);
    let named = args.repositories.iter().zip(&*indexes);
    let repositories: Vec<_> =
        named.map(|(one, index)| Repository { index, tag: one.tag.as_deref() }).collect();
    let (world, arch) = (args.world.as_slice(), args.arch.as_str());
    let solved = match args.rules {
        Some(rules) => solve_by(rules.into(), world, &repositories, arch),
        None => solve(world, &repositories, arch),
    };
    show(solved, args, ui)
}

fn indexes(args: &Args, ui: &Ui) -> Result<Vec<Index>, CliError> {
    let keys = KeyRing::read(&args.keys)?;
    let cache = ui.workspace().cache()?;
    let indexes = Indexes { cache: &cache, offline: ui.settings.run.offline, report: &*ui.report };
    let read = |one: &Tagged| {
        let place = place(&one.location, &[], args.arch.as_str(), INDEX_FILE);
        indexes.newest(&one.spelled, &place, &keys).map(|found| found.index)
    };
    Ok(args.repositories.par_iter().map(read).collect::<Result<_, _>>()?)
}

fn show(solved: Result<Vec<Chosen<'_>>, SolveError>, args: &Args, ui: &Ui) -> Result<ExitCode, CliError> {
    match solved {
        Err(error) if ui.settings.json => {
            let told = CliError::unsolvable(&error);
            render::json(&SolvedJson::unsolvable(told.message().to_owned(), &error));
            Err(CliError::said(told.status()))
        }
        Err(error) => Err(CliError::unsolvable(&error)),
        Ok(chosen) if ui.settings.json => {
            let repository = |one: &Chosen<'_>| &args.repositories[one.repository].spelled;
            let packages = chosen.iter().map(|one| ChosenJson::new(one, repository(one)));
            render::json(&SolvedJson::Solved { packages: packages.collect() });
            Ok(ExitCode::SUCCESS)
        }
        Ok(chosen) => {
            let line = |(at, one): (usize, &Chosen<'_>)| {
                format!("({}/{}) Installing {}\n", at + 1, chosen.len(), one.label())
            };
            render::text(&chosen.iter().enumerate().map(line).collect::<String>());
            let bytes = |size: fn(&Chosen<'_>) -> u64| chosen.iter().map(size).sum::<u64>() as f64 / 1e6;
            let (loads, fills) = (bytes(|one| one.info.size), bytes(|one| one.info.installed_size));
            ui.say(&format!("{}, {loads:.1} MB, installed {fills:.1} MB", counted(chosen.len(), "package")));
            Ok(ExitCode::SUCCESS)
        }
    }
}
