//! Which locked versions stay where an image is solved anew: all that can. What moves besides is told with its reason.

use crate::apk::{Dependency, PackageInfo};

/// Name, version and checksum of a package.
pub(super) type Identity = (String, String, String);

/// The identity of a package that an index lists.
pub(super) fn identity(info: &PackageInfo) -> Identity {
    (info.name.clone(), info.version.to_string(), info.checksum.to_string())
}

/// A smallest part of `all` with which `works` holds, where it holds with all of them and more never harm: none of the part can
/// be left out. Those in front are preferred. QuickXplain (U. Junker, 2004): few calls where few are needed.
pub(super) fn least<T: Clone>(all: &[T], works: &mut impl FnMut(&[T]) -> bool) -> Vec<T> {
    if all.is_empty() || works(&[]) { Vec::new() } else { least_beside(&[], false, all, works) }
}

/// A smallest part of `open` with which `works` holds beside `taken`; `is_new`: `taken` has grown since it was last tried.
fn least_beside<T: Clone>(
    taken: &[T],
    is_new: bool,
    open: &[T],
    works: &mut impl FnMut(&[T]) -> bool,
) -> Vec<T> {
    if is_new && works(taken) {
        return Vec::new();
    }
    if open.len() == 1 {
        return open.to_vec();
    }
    let (front, back) = open.split_at(open.len() / 2);
    let mut of_back = least_beside(&[taken, front].concat(), true, back, works);
    let mut all = least_beside(&[taken, &of_back].concat(), !of_back.is_empty(), front, works);
    all.append(&mut of_back);
    all
}

/// Why a package could not stay among those that were chosen: which dependency of whom its old version does not meet.
pub(super) fn why_moved(old: &PackageInfo, world: &[Dependency], chosen: &[&PackageInfo]) -> String {
    let new = chosen.iter().find(|info| info.name == old.name);
    let is_reason = |dependency: &&Dependency| {
        new.is_none_or(|new| agrees(new, dependency)) && concerns(old, dependency) && !agrees(old, dependency)
    };
    if let Some(dependency) = world.iter().find(is_reason) {
        return format!("the image needs {dependency}");
    }
    for other in chosen.iter().filter(|other| other.name != old.name) {
        if let Some(dependency) = other.depends.iter().find(is_reason) {
            return format!("{} needs {dependency}", other.id());
        }
    }
    let unmet = |dependency: &&Dependency| match dependency.conflict {
        true => chosen.iter().any(|info| !agrees(info, dependency)),
        false => !chosen.iter().any(|info| agrees(info, dependency)),
    };
    match old.depends.iter().find(unmet) {
        Some(dependency) => format!("{} needs {dependency}", old.id()),
        None => "what it stands beside moved".to_owned(),
    }
}

/// Whether a dependency asks for a name that this package has.
fn concerns(info: &PackageInfo, dependency: &Dependency) -> bool {
    info.name == dependency.name.as_str()
        || info.provides.iter().any(|provided| provided.name == dependency.name)
}

/// Whether a package meets a dependency, or does not stand against it.
fn agrees(info: &PackageInfo, dependency: &Dependency) -> bool {
    let own = (info.name == dependency.name.as_str()).then_some(Some(&info.version));
    let provided = info.provides.iter().filter(|provided| provided.name == dependency.name);
    let mut met = own.into_iter().chain(provided.map(Dependency::provided_version));
    let mut is_met = met.by_ref().map(|version| dependency.is_met_by(version, &info.checksum));
    if dependency.conflict { is_met.all(|met| met) } else { is_met.any(|met| met) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_least_part_that_works_is_found_with_few_calls() {
        let all: Vec<usize> = (0..100).collect();
        for needed in [vec![], vec![7], vec![0, 99], vec![3, 4, 50]] {
            let mut calls = 0;
            let found = least(&all, &mut |part: &[usize]| {
                calls += 1;
                needed.iter().all(|one| part.contains(one))
            });
            assert_eq!(found, needed);
            assert!(calls <= 1 + 16 * needed.len(), "{calls} calls for {needed:?}");
        }
        // One of several would do.
        assert_eq!(least(&all, &mut |part: &[usize]| part.iter().any(|one| one % 10 == 5)).len(), 1);
    }

    #[test]
    fn the_reason_is_the_dependency_that_the_old_version_does_not_meet() {
        let info = |text: &str| {
            let (name, version) = text.split_once('-').unwrap();
            PackageInfo::new(name, version.parse().unwrap(), "noarch").unwrap()
        };
        let with = |text: &str, depends: &str| PackageInfo {
            depends: Dependency::parse_list(depends).unwrap(),
            ..info(text)
        };
        let why = |old: &PackageInfo, world: &str, chosen: &[PackageInfo]| {
            let world = Dependency::parse_list(world).unwrap();
            why_moved(old, &world, &chosen.iter().collect::<Vec<_>>())
        };
        let (lib_1, lib_2) = (info("lib-1"), info("lib-2"));
        assert_eq!(why(&lib_1, "app lib>1", std::slice::from_ref(&lib_2)), "the image needs lib>1");
        assert_eq!(why(&lib_1, "", &[with("app-2", "lib>1"), lib_2.clone()]), "app-2 needs lib>1");
        assert_eq!(why(&lib_1, "", &[with("app-2", "lib !lib<2"), lib_2.clone()]), "app-2 needs !lib<2");
        assert_eq!(why(&with("b-1", "lib=1"), "", &[info("b-2"), lib_2]), "b-1 needs lib=1");
    }
}
