//! Scripts of real packages, as Alpine's own roots keep them.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::Read;

use sisforge::base::Sha256;
use sisforge::fleet::{ScriptName, SourceFiles};
use sisforge::image::recipe::{Parameters, Recipes};

use sisforge::apk::PackageContents;

use crate::apk::oracle::data;

/// Scripts of a root that apk would run at a fresh install: name and digest of the body.
fn scripts(root: &str) -> Option<Vec<(ScriptName, Sha256)>> {
    let mut root = tar::Archive::new(flate2::read::GzDecoder::new(File::open(data(root)?).unwrap()));
    let mut entries = root.entries().unwrap().map(Result::unwrap);
    let scripts = entries.find(|entry| entry.path().unwrap().ends_with("lib/apk/db/scripts.tar")).unwrap();
    let mut found = Vec::new();
    for entry in tar::Archive::new(scripts).entries().unwrap() {
        let mut entry = entry.unwrap();
        // NAME-VERSION-rN.CHECKSUM.KIND
        let path = entry.path().unwrap().to_str().unwrap().to_owned();
        let (rest, kind) = path.rsplit_once('.').unwrap();
        let (id, _) = rest.rsplit_once('.').unwrap();
        let name = id.rsplitn(3, '-').nth(2).unwrap();
        let mut body = Vec::new();
        entry.read_to_end(&mut body).unwrap();
        found.extend(format!("{name}.{kind}").parse().ok().map(|script| (script, Sha256::of(&body))));
    }
    Some(found)
}

#[test]
fn the_recipes_cover_the_scripts_of_alpines_own_roots() {
    let files = SourceFiles::new(env!("CARGO_MANIFEST_DIR"));
    let recipes = Recipes::load(&["openrc".parse().unwrap()], &Parameters::new(), &files).unwrap();
    let uncovered = |scripts: Vec<(ScriptName, Sha256)>| -> BTreeSet<String> {
        assert!(scripts.len() >= 4, "{scripts:?}");
        let uncovered = scripts.into_iter().filter(|(name, sha256)| recipes.reviewer(name, sha256).is_none());
        uncovered.map(|(name, _)| name.to_string()).collect()
    };
    if let Some(scripts) = scripts("alpine-minirootfs-3.20.3-x86_64.tar.gz") {
        assert_eq!(uncovered(scripts), BTreeSet::new());
    }
    // Its busybox has no list of its links, so that nothing does what its script would do.
    if let Some(scripts) = scripts("alpine-minirootfs-3.16.9-x86_64.tar.gz") {
        assert_eq!(uncovered(scripts), BTreeSet::from(["busybox.post-install".to_owned()]));
    }
}

/// What an image needs that boots to `sisforge: ready`.
#[test]
fn the_recipes_cover_the_scripts_of_genuine_packages() {
    let Some(packages) = data("alpine-3.19/iso/x86_64") else { return };
    let files = SourceFiles::new(env!("CARGO_MANIFEST_DIR"));
    let recipes = Recipes::load(&["rootless-podman".parse().unwrap()], &Parameters::new(), &files).unwrap();
    let mut covered = BTreeSet::new();
    for file in std::fs::read_dir(packages).unwrap().map(|entry| entry.unwrap().path()) {
        if file.extension().is_none_or(|extension| extension != "apk") {
            continue;
        }
        let package = PackageContents::inspect(std::fs::read(&file).unwrap().into()).unwrap();
        for (moment, sha256) in package.scripts_at_install() {
            let name = ScriptName { package: package.info.name.clone(), moment };
            let by = recipes.reviewer(&name, &sha256).map(|_| name.to_string());
            covered.extend(by);
        }
    }
    let needed = [
        "alpine-baselayout.post-install",
        "alpine-baselayout.pre-install",
        "busybox.post-install",
        "busybox.trigger",
        "openrc.post-install",
    ];
    assert_eq!(covered, needed.map(str::to_owned).into());
}
