//! Check: everything that is wrong with a fleet, without building and without the network.

use std::collections::BTreeMap;
use std::path::PathBuf;

use ipnet::{IpNet, Ipv4Net};

use crate::base::Diagnostic;
use crate::base::problem::Problem;
use crate::build::containers::{AbsentImage, absent_images};
use crate::build::needs::NeedDoubt;
use crate::build::vmlinux;
use crate::build::{Project, ProjectError};
use crate::fleet::{Fleet, NetworkPolicy, SourceText};
use crate::host::policy::{Clause, Lists, clauses, idle, lists_v4};
use crate::host::resolver::{needed, servers};
use crate::lock::model::Lock;
use crate::sys::tool;

use super::{RunError, Workspace, facts};

const ADD_IMAGE: &str = "add the image to `images` of the guest's disk, or use an image that is there";

/// A fleet that nothing is wrong with.
#[derive(Debug)]
pub struct Checked {
    pub project: Project,
    /// What is worth knowing, one sentence each.
    pub notes: Vec<String>,
    /// Why `fleet.lock` does not fit, one sentence each; none where it fits or there is none.
    pub lock_differs: Vec<String>,
}

/// Looks at everything that a fleet mentions.
pub fn check(workspace: &Workspace<'_>) -> Result<Checked, RunError> {
    let fleet = workspace.fleet()?;
    let lists = facts::address_lists(fleet.networks.values())?;
    let (mut problems, mut notes) = without_effect(&fleet, &lists);
    problems.extend(vmlinux::problem(&fleet).map_err(ProjectError::from)?);
    let (to_pull, absent) = images_to_pull(&fleet)?;
    problems.extend(absent);
    let source = fleet.source.clone();
    let project = beside(problems, &source, workspace.project(fleet))?;
    facts::name_lists(project.fleet.networks.values())?;
    facts::machine_files(&project.fleet)?;
    let doubts = project.need_doubts();
    let (wrong, doubts): (Vec<_>, Vec<_>) =
        doubts.into_iter().partition(|doubt| matches!(doubt, NeedDoubt::TurnedOff { .. }));
    if !wrong.is_empty() {
        return Err(RunError::TurnedOff(wrong));
    }
    let doubts = doubts.iter().map(|doubt| format!("{doubt}; the build checks the final configuration"));
    notes.extend(doubts.chain(project.series_notes()).chain(to_pull));
    notes.extend(missing_programs(&project));
    let lock = Lock::read(&workspace.lock_path())?;
    let lock_differs = lock.as_ref().map_or_else(Vec::new, |lock| project.stale(lock));
    // Of packages that are no longer those of the fleet nothing need be said.
    if let Some(lock) = lock.filter(|_| lock_differs.is_empty()) {
        project.check_scripts(&lock)?;
    }
    Ok(Checked { project, notes, lock_differs })
}

/// Lines of policies that do nothing. An `allow` that others shadow is an error: whoever wrote it believes that something is open.
/// What holds all the same, because another line says it too, is worth a note and no more.
fn without_effect(fleet: &Fleet, lists: &BTreeMap<PathBuf, Vec<IpNet>>) -> (Vec<Problem>, Vec<String>) {
    let known = lists_v4(lists);
    let (mut problems, mut notes) = (Vec::new(), Vec::new());
    for (label, policy) in &fleet.networks {
        problems.extend(without_server(policy, lists, fleet.host.subnet));
        let clauses = clauses(policy, lists, fleet.host.subnet);
        let empty = clauses.iter().filter(|clause| is_empty(clause, lists, &known) && !clause.private_alone);
        problems.extend(empty.filter_map(|clause| {
            Some(
                Problem::new(clause.place.clone()?, "the list has no address, so this rule does nothing")
                    .hint("put IPv4 addresses or prefixes into it, or remove the rule"),
            )
        }));
        for idle in idle(&clauses, &known) {
            let clause = &clauses[idle.clause];
            let Some((place, winner)) = clause.place.clone().zip(idle.winner.map(|index| &clauses[index]))
            else {
                continue;
            };
            if idle.holds {
                let line = fleet.source.line_column(place.start).0;
                notes.push(format!(
                    "network {label}, line {line}: `{clause}` decides nothing, since this wins: {winner}"
                ));
                continue;
            }
            let problem = Problem::new(place.clone(), format!("this rule does nothing: `{clause}`"))
                .hint(format!("this wins over all of it: {winner}"));
            let other = winner.place.clone().filter(|other| *other != place);
            problems.push(other.map_or(problem.clone(), |other| problem.also(other, "wins")));
        }
    }
    (problems, notes)
}

/// A policy that names name servers, and denies each of them: guests would get no answer, whatever they ask.
fn without_server(
    policy: &NetworkPolicy,
    lists: &BTreeMap<PathBuf, Vec<IpNet>>,
    subnet: Ipv4Net,
) -> Option<Problem> {
    let place = policy.places.dns.clone().filter(|_| servers(policy, lists, subnet).is_empty())?;
    let problem = Problem::new(place, "this policy denies every name server that it names");
    Some(problem.hint("name another, or take its address out of what is denied: `deny` wins over `dns`"))
}

/// Whether a rule has a list, and nothing that guests could reach is in it.
fn is_empty(clause: &Clause, lists: &BTreeMap<PathBuf, Vec<IpNet>>, known: &Lists) -> bool {
    let read = clause.list.as_ref().is_some_and(|path| lists.contains_key(path));
    read && clause.destinations(known).next().is_none()
}

/// What hosts need for names and this machine, which may be none of them, does not have; a sentence each.
fn missing_programs(project: &Project) -> Vec<String> {
    let missing = needed(project.fleet.networks.values()).into_iter().filter(|it| tool::find(it).is_none());
    let sentence = |program: &str| {
        let package = tool::package_of(program).unwrap_or(program);
        format!("`names` need {program}, and this machine has none: on Debian, `apt-get install {package}`")
    };
    missing.map(sentence).collect()
}

/// Images of containers that guests have to pull, a sentence each; and those that no registry has.
fn images_to_pull(fleet: &Fleet) -> Result<(Vec<String>, Vec<Problem>), RunError> {
    let (to_pull, absent): (Vec<_>, Vec<_>) =
        absent_images(fleet)?.into_iter().partition(|absent| absent.can_be_pulled);
    let problem =
        |absent: &AbsentImage| Problem::new(absent.place.clone(), absent.to_string()).hint(ADD_IMAGE);
    let note =
        |absent: &AbsentImage| format!("line {}: {absent}", fleet.source.line_column(absent.place.start).0);
    Ok((to_pull.iter().map(note).collect(), absent.iter().map(problem).collect()))
}

/// A project, where there are no problems in its `fleet.toml` beside those of itself: all are told together.
fn beside(
    problems: Vec<Problem>,
    source: &SourceText,
    project: Result<Project, ProjectError>,
) -> Result<Project, ProjectError> {
    if problems.is_empty() {
        return project;
    }
    let more = project.err();
    let mut files = more.iter().flat_map(|error| error.problems().to_vec()).collect::<Vec<_>>();
    match files.iter_mut().find(|file| file.path == source.path) {
        Some(file) => *file = source.refuse(file.problems.iter().cloned().chain(problems).collect()),
        None => files.insert(0, source.refuse(problems)),
    }
    Err(ProjectError::Invalid(files))
}
