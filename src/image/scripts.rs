//! Package scripts: none ever runs. What one would do at a fresh install is either covered by a recipe's reviewed rule,
//! or the image does without it, which `fleet.toml` says with `accept-scripts`. Anything else is a problem.
//!
//! Scripts for upgrades and removals stay in apk's database, where the guest's own apk finds them, and need no rule: an
//! image is made anew, so that nothing is upgraded or removed while it is made.

use std::collections::{BTreeMap, BTreeSet};

use crate::apk::PackageContents;
use crate::base::Sha256;
use crate::fleet::{AcceptedScript, ImageSpec, Problem, ScriptMoment, ScriptName, suggest};
use crate::lock::model::LockedPackage;

use super::recipe::Recipes;

/// The scripts that apk would run when it installs one package.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PackageScripts {
    pub name: String,
    pub version: String,
    /// Digests of their bodies.
    pub scripts: BTreeMap<ScriptMoment, Sha256>,
    /// Whether the package was looked into. A lock made by an earlier version lists no scripts.
    pub known: bool,
}

impl PackageScripts {
    /// Those of a package.
    pub fn of(package: &PackageContents) -> Self {
        Self {
            name: package.info.name.clone(),
            version: package.info.version.to_string(),
            scripts: package.scripts_at_install(),
            known: true,
        }
    }

    /// Those that a lock lists.
    pub fn locked(package: &LockedPackage) -> Self {
        Self {
            name: package.name.clone(),
            version: package.version.clone(),
            scripts: package.scripts.clone(),
            known: !package.scripts.is_empty(),
        }
    }

    fn names(&self) -> impl Iterator<Item = (ScriptName, Sha256)> {
        let name = |moment: &ScriptMoment| ScriptName { package: self.name.clone(), moment: *moment };
        self.scripts.iter().map(move |(moment, sha256)| (name(moment), *sha256))
    }
}

/// What is wrong with the scripts of an image: those that nothing covers, and acceptances of what is not there. The places
/// are in `fleet.toml`.
pub fn problems(image: &ImageSpec, recipes: &Recipes, packages: &[PackageScripts]) -> Vec<Problem> {
    let mut problems: Vec<Problem> =
        image.accepted.iter().flat_map(|accepted| idle(accepted, packages)).collect();
    let uncovered = uncovered(image, recipes, packages);
    if !uncovered.is_empty() {
        let message = format!(
            "no rule covers {} of this image, and sisforge runs none:{}",
            if uncovered.len() == 1 { "a package script" } else { "package scripts" },
            uncovered.iter().map(|(name, script)| script.line(name)).collect::<String>()
        );
        let accepted = acceptances(image, recipes, packages);
        problems.push(
            Problem::new(image.place.clone(), message)
                .label("the image that they are of")
                .hint(acceptance(&accepted)),
        );
    }
    problems
}

/// A script that no rule of a recipe covers and that `fleet.toml` does not accept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UncoveredScript {
    /// Name and version of its package.
    pub package: String,
    pub sha256: Sha256,
}

impl UncoveredScript {
    fn line(&self, name: &ScriptName) -> String {
        format!("\n  {}: {} sha256:{}", self.package, name.moment, self.sha256)
    }
}

/// The scripts of an image that nothing covers.
pub fn uncovered(
    image: &ImageSpec,
    recipes: &Recipes,
    packages: &[PackageScripts],
) -> Vec<(ScriptName, UncoveredScript)> {
    let mut found = Vec::new();
    for package in packages {
        for (name, sha256) in package.names() {
            if !image.accepts(&name, &sha256) && recipes.reviewer(&name, &sha256).is_none() {
                let package = format!("{}-{}", package.name, package.version);
                found.push((name, UncoveredScript { package, sha256 }));
            }
        }
    }
    found
}

/// What an image would have to accept for nothing to be wrong with its scripts: what it accepts of what is there, and what is
/// not covered.
pub fn acceptances(
    image: &ImageSpec,
    recipes: &Recipes,
    packages: &[PackageScripts],
) -> BTreeMap<ScriptName, BTreeSet<Sha256>> {
    let mut accepted: BTreeMap<ScriptName, BTreeSet<Sha256>> = BTreeMap::new();
    let there = packages.iter().flat_map(PackageScripts::names);
    for (name, sha256) in there.filter(|(name, sha256)| image.accepts(name, sha256)) {
        accepted.entry(name).or_default().insert(sha256);
    }
    for (name, script) in uncovered(image, recipes, packages) {
        accepted.entry(name).or_default().insert(script.sha256);
    }
    accepted
}

/// How to accept scripts: the line for `fleet.toml`.
fn acceptance(scripts: &BTreeMap<ScriptName, BTreeSet<Sha256>>) -> String {
    let digests = |digests: &BTreeSet<Sha256>| {
        let digests: Vec<String> = digests.iter().map(|sha256| format!("\"sha256:{sha256}\"")).collect();
        if let [one] = digests.as_slice() { one.clone() } else { format!("[{}]", digests.join(", ")) }
    };
    let entries = scripts.iter().map(|(name, sha256)| format!("\"{name}\" = {}", digests(sha256)));
    format!(
        "read each (`sisforge lock` shows them); let a recipe do what the image needs of it, in files, users and services; \
         then run `sisforge lock --accept-scripts`, or put this below the image:\naccept-scripts = {{ {} }}",
        entries.collect::<Vec<_>>().join(", ")
    )
}

/// Problems of an acceptance that accepts nothing which is there.
fn idle(accepted: &AcceptedScript, packages: &[PackageScripts]) -> Vec<Problem> {
    let name = accepted.name.get_ref();
    let problem = |message: String| Problem::new(accepted.name.span(), message);
    let of_name: Vec<_> = packages.iter().filter(|package| package.name == name.package).collect();
    if of_name.is_empty() {
        let known: BTreeSet<&str> = packages.iter().map(|package| package.name.as_str()).collect();
        let hint = suggest("packages of this image", &name.package, known);
        return vec![problem(format!("the image has no package `{}`", name.package)).hint(hint)];
    }
    if of_name.iter().any(|package| !package.known) {
        return Vec::new();
    }
    let there: BTreeSet<Sha256> =
        of_name.iter().filter_map(|package| package.scripts.get(&name.moment).copied()).collect();
    if there.is_empty() {
        let kinds = of_name.iter().flat_map(|package| package.scripts.keys()).map(|kind| kind.as_str());
        let kinds: BTreeSet<&str> = kinds.collect();
        let message = format!("the package `{}` has no {} script", name.package, name.moment);
        return vec![problem(message).hint(suggest("scripts that it has", name.moment.as_str(), kinds))];
    }
    let others = accepted.sha256.iter().filter(|sha256| !there.contains(sha256.get_ref()));
    others
        .map(|sha256| {
            let message =
                format!("no {} script of `{}` in this image has this digest", name.moment, name.package);
            let there: Vec<_> = there.iter().map(|sha256| format!("sha256:{sha256}")).collect();
            Problem::new(sha256.span(), message).hint(format!("what is there has {}", there.join(", ")))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fleet::{SourceFiles, parse};
    use crate::image::recipe::Parameters;

    const FLEET: &str = "fleet.name = 'f'\nkernel.image = 'k'\nrepository = [{ url = 'https://e.org/r' }]\n\
        disk.d.size = '16MiB'\nnetwork.n = {}\ndefaults = { image = 'i', network = 'n', disk = 'd' }\n[image.i]\n";

    fn digest(body: &str) -> Sha256 {
        Sha256::of(body)
    }

    fn package(name: &str, scripts: &[(ScriptMoment, &str)]) -> PackageScripts {
        PackageScripts {
            name: name.into(),
            version: "1-r0".into(),
            scripts: scripts.iter().map(|(moment, body)| (*moment, digest(body))).collect(),
            known: true,
        }
    }

    fn recipes() -> Recipes {
        let dir = tempfile::tempdir().unwrap();
        let rule = format!(
            "description = ''\n[[script]]\npackage = 'busybox'\nkind = 'trigger'\nsha256 = '{}'\nbecause = 'links'\n",
            digest("known")
        );
        crate::sys::fs::write(&dir.path().join("recipes/r/recipe.toml"), rule.as_bytes(), 0o644).unwrap();
        Recipes::load(&["r".parse().unwrap()], &Parameters::new(), &SourceFiles::new(dir.path())).unwrap()
    }

    /// Messages and hints of an image with these keys.
    fn said(keys: &str, packages: &[PackageScripts]) -> Vec<(String, String)> {
        let fleet = parse(std::path::Path::new("/f/fleet.toml"), &format!("{FLEET}{keys}\n")).unwrap();
        let image = fleet.images.values().next().unwrap();
        let problems = problems(image, &recipes(), packages).into_iter();
        problems.map(|problem| (problem.message, problem.hint.unwrap())).collect()
    }

    use ScriptMoment::{PostInstall, Trigger};

    #[test]
    fn a_script_that_no_rule_covers_is_told_with_the_line_that_accepts_it() {
        let packages = [package("busybox", &[(Trigger, "known"), (PostInstall, "new")])];
        let told = said("", &packages);
        let [(message, hint)] = told.as_slice() else { panic!("{told:?}") };
        let line = format!("busybox-1-r0: post-install sha256:{}", digest("new"));
        assert!(message.ends_with(&line), "{message}");
        let line = hint.lines().last().unwrap();
        assert_eq!(said(line, &packages), [], "the line that the hint gives accepts it");
        let changed = [package("busybox", &[(Trigger, "known"), (PostInstall, "newer")])];
        let messages: Vec<String> = said(line, &changed).into_iter().map(|(message, _)| message).collect();
        assert_eq!(
            messages.len(),
            2,
            "the old digest accepts nothing, the new one is not covered: {messages:?}"
        );
    }

    #[test]
    fn what_accepts_nothing_is_refused_with_what_there_is() {
        let packages = [package("busybox", &[(Trigger, "known")]), package("openrc", &[])];
        let accept = |name: &str| {
            let mut said = said(&format!("accept-scripts = {{ '{name}' = '{}' }}", digest("x")), &packages);
            assert_eq!(said.len(), 1, "{said:?}");
            said.remove(0)
        };
        let pair = |message: &str, hint: &str| (message.to_owned(), hint.to_owned());
        assert_eq!(
            accept("busibox.trigger"),
            pair("the image has no package `busibox`", "did you mean `busybox`?")
        );
        assert_eq!(
            accept("openrc.post-install"),
            pair("the package `openrc` has no post-install script", "there are no scripts that it has")
        );
        let (message, hint) = accept("busybox.trigger");
        assert_eq!(message, "no trigger script of `busybox` in this image has this digest");
        assert!(hint.contains(&digest("known").to_string()), "{hint}");
    }

    #[test]
    fn a_lock_that_lists_no_scripts_says_nothing_of_them() {
        let unknown = PackageScripts { known: false, ..package("busybox", &[]) };
        let keys = format!("accept-scripts = {{ 'busybox.trigger' = '{}' }}", digest("x"));
        assert_eq!(said(&keys, &[unknown]), []);
    }
}
