//! Which packages meet a world: apk's own solver, so that an image holds what `apk add` would install.
//!
//! It is greedy and never goes back: constraints spread from the world; whenever nothing is left to spread, one name is given
//! to one package. Follows `src/solver.c` of apk-tools; the world is that of a new root, where nothing is installed.

mod candidates;
mod explain;
mod links;
mod propagate;
mod reason;
mod select;
mod state;
#[cfg(test)]
mod tests;
mod universe;

use super::dependency::Dependency;
use super::index::Index;
use super::info::PackageInfo;
use super::rules::Rules;
use propagate::Solver;
use universe::Universe;

pub use explain::{SolveError, SolverProblem};

/// A repository, in the order in which they are preferred.
#[derive(Clone, Copy, Debug)]
pub struct Repository<'a> {
    pub index: &'a Index,
    /// Packages of a tagged repository are taken only for requirements with this `@tag`, and for what those need.
    pub tag: Option<&'a str>,
}

/// One package of a solution.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Chosen<'a> {
    pub info: &'a PackageInfo,
    /// Position of the first repository that has it.
    pub repository: usize,
    /// The tag by which it is taken from a tagged repository, because no untagged one has it.
    pub tag: Option<&'a str>,
}

impl Chosen<'_> {
    /// As apk names what it installs: `name (version)`, or `name@tag (version)`.
    pub fn label(&self) -> String {
        let tag = self.tag.map(|tag| format!("@{tag}")).unwrap_or_default();
        format!("{}{tag} ({})", self.info.name, self.info.version)
    }
}

/// Stack of the thread that solves. Names refer to each other as deep as an index makes them; pages that are not touched
/// cost nothing.
const STACK: usize = 1 << 30;

/// Most repositories that can be told apart.
const MAX_REPOSITORIES: usize = 64;

/// Finds the packages that meet `world` for machines of `arch`, in the order in which the apk of the repositories would install
/// them.
pub fn solve<'a>(
    world: &[Dependency],
    repositories: &[Repository<'a>],
    arch: &str,
) -> Result<Vec<Chosen<'a>>, SolveError> {
    let packages = repositories.iter().flat_map(|repository| &repository.index.packages);
    solve_by(Rules::of(packages), world, repositories, arch)
}

/// The same by the rules of one apk, whichever the repositories have.
pub fn solve_by<'a>(
    rules: Rules,
    world: &[Dependency],
    repositories: &[Repository<'a>],
    arch: &str,
) -> Result<Vec<Chosen<'a>>, SolveError> {
    if repositories.len() > MAX_REPOSITORIES {
        return Err(SolveError::too_many(repositories.len()));
    }
    let mut world = world.to_vec();
    world.sort_by(|a, b| {
        let folded = |need: &Dependency| need.name.to_ascii_lowercase();
        folded(a).cmp(&folded(b)).then_with(|| a.name.cmp(&b.name))
    });
    world.dedup();
    let run = || {
        let universe = Universe::new(&world, repositories, arch, rules);
        let mut solver = Solver::new(&universe);
        solver.run();
        let order = solver.install_order();
        match solver.problems() {
            problems if problems.is_empty() => Ok(order),
            problems => Err(SolveError::new(problems)),
        }
    };
    std::thread::scope(|scope| {
        let solving = std::thread::Builder::new().stack_size(STACK).spawn_scoped(scope, run);
        match solving.map(std::thread::ScopedJoinHandle::join) {
            Ok(Ok(solved)) => solved,
            Ok(Err(panic)) => std::panic::resume_unwind(panic),
            Err(error) => Err(SolveError::no_thread(&error)),
        }
    })
}
