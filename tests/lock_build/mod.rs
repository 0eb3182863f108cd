//! From `fleet.toml` to artifacts, with small repositories made on the spot.

mod one_pass;
mod site;

use std::collections::BTreeSet;
use std::fs;

use sisforge::base::Diagnostic;
use sisforge::build::artifacts::OutDir;
use sisforge::build::{Builder, Selection};
use sisforge::lock::changes;
use sisforge::lock::model::Lock;
use sisforge::lock::request::Update;
use sisforge::sys::e2fsck::FsckOutcome;
use sisforge::sys::report::Silent;
use sisforge::sys::tool::Tool;

use crate::common::namespaces::{inside_namespaces, skip};
use crate::image::reading::is_what_the_kernel_sees;

use site::{Site, chain, serve};

fn image() -> Selection {
    Selection::Image("small".parse().unwrap())
}

fn versions(lock: &Lock, name: &str) -> Vec<String> {
    lock.package
        .iter()
        .filter(|package| package.name == name)
        .map(|package| package.version.clone())
        .collect()
}

/// What a lock file has gained and lost, line by line.
fn diff(old: &Lock, new: &Lock) -> Vec<String> {
    let (old, new) = (old.to_text().unwrap(), new.to_text().unwrap());
    let old_lines: BTreeSet<&str> = old.lines().collect();
    new.lines().filter(|line| !old_lines.contains(line)).map(str::to_owned).collect()
}

#[test]
fn a_fleet_is_locked_and_built_once() {
    let site = Site::new();
    let lock = site.lock(None);
    site.write("fleet.lock", lock.to_text().unwrap().as_bytes());
    assert_eq!(Lock::read(&site.path("fleet.lock")).unwrap().as_ref(), Some(&lock));
    assert!(!lock.to_text().unwrap().contains(site.dir.path().to_str().unwrap()), "a lock names no place");
    assert_eq!(lock.image[&"small".parse().unwrap()].packages, ["base-1.0-r0", "hello-1.0-r0"]);

    let first = site.build(&lock).unwrap();
    let names: Vec<_> =
        first.iter().map(|built| format!("{}/{}", built.artifact.kind.folder(), built.name)).collect();
    assert_eq!(names, ["kernel/ready", "image/small", "disk/home"]);
    for name in names {
        assert!(fs::read_link(site.path("out").join(&name)).is_ok(), "{name} is no link");
    }
    // Nothing is opened again, so that it is found even where packages are gone.
    fs::remove_dir_all(site.path("repo")).unwrap();
    fs::create_dir(site.path("repo")).unwrap();
    let second = site.build(&lock).unwrap();
    assert!(
        first.iter().all(|built| !built.artifact.cached) && second.iter().all(|built| built.artifact.cached)
    );
    let digests =
        |built: &[sisforge::build::Built]| built.iter().map(|b| b.artifact.digest).collect::<Vec<_>>();
    assert_eq!(digests(&first), digests(&second));
}

#[test]
fn an_image_holds_packages_recipes_and_files() {
    let site = Site::new();
    let built = site.build_one(&image());
    let image = ext4_view::Ext4::load(Box::new(fs::read(&built.artifact.path).unwrap())).unwrap();
    for (path, text) in [
        ("/usr/bin/hello", "hello 1.0"),
        ("/etc/base", "base"),
        ("/etc/plain", "plain\n"),
        ("/etc/motd", "welcome\n"),
        ("/etc/apk/world", "base\nhello\n"),
    ] {
        assert_eq!(image.read_to_string(path).unwrap(), text, "{path}");
    }
}

#[test]
fn what_is_built_is_what_was_laid_out() {
    const TEST: &str = "what_is_built_is_what_was_laid_out";
    let site = Site::new();
    let lock = site.lock(None);
    let scratch = tempfile::tempdir().unwrap();
    let checked = site
        .with_builder(&lock, |builder| builder.check_reproducible(&Selection::All, scratch.path()))
        .unwrap();
    for comparison in &checked {
        let name = &comparison.built.name;
        assert!(comparison.is_good(), "{comparison:?}");
        let Some(check) = &comparison.file_system else { continue };
        assert!(check.read_back.paths > 0, "{name}");
        match &check.e2fsck {
            FsckOutcome::NotInstalled => skip(TEST, "e2fsck is not installed"),
            verdict => assert_eq!(*verdict, FsckOutcome::Clean, "{name}"),
        }
        is_what_the_kernel_sees(TEST, &comparison.built.artifact.path);
    }
    let looked_into = checked.iter().filter(|one| one.file_system.is_some()).count();
    assert_eq!(looked_into, 2, "an image and a disk");
}

#[test]
fn guests_that_begin_alike_share_a_disk() {
    let site = Site::new();
    let pool = "[pool.kiosk]\nreplicas = 2\ndisk = { size = \"32MiB\", backing = \"tmpfs\" }\n\n[host]";
    site.edit("fleet.toml", "[host]", pool);
    let lock = site.lock(None);
    let artifacts = site.with_builder(&lock, |builder| builder.artifacts()).unwrap();
    let digest = |guest: &str| artifacts.disks[&guest.parse().unwrap()].digest;
    assert_eq!(artifacts.disks.len(), 4);
    assert_eq!(digest("alice"), digest("bob"));
    assert_eq!(digest("kiosk-0"), digest("kiosk-1"));
    assert_ne!(digest("alice"), digest("kiosk-0"));
    assert!(
        site.path("out/disk/home/disk.ext4").exists() && site.path("out/disk/pool.kiosk/disk.ext4").exists()
    );
}

#[test]
fn the_same_inputs_give_the_same_bytes_anywhere() {
    let (one, two) = (Site::new(), Site::new());
    let lock = one.lock(None);
    assert_eq!(lock, two.lock(None));
    let digests =
        |site: &Site| site.build(&lock).unwrap().into_iter().map(|b| b.artifact.digest).collect::<Vec<_>>();
    assert_eq!(digests(&one), digests(&two));
    let scratch = tempfile::tempdir().unwrap();
    let compared =
        one.with_builder(&lock, |builder| builder.check_reproducible(&Selection::All, scratch.path()));
    assert_eq!(compared.unwrap().iter().map(|c| c.first_difference).collect::<Vec<_>>(), [None; 3]);
    assert_eq!(fs::read_dir(scratch.path()).unwrap().count(), 0);
}

#[test]
fn bytes_that_cannot_be_made_again_are_told() {
    let site = Site::new();
    let built = site.build_one(&image());
    let mut bytes = fs::read(&built.artifact.path).unwrap();
    bytes[5000] ^= 1;
    fs::write(&built.artifact.path, bytes).unwrap();
    let (lock, scratch) = (site.lock(None), tempfile::tempdir().unwrap());
    let compared =
        site.with_builder(&lock, |builder| builder.check_reproducible(&image(), scratch.path())).unwrap();
    assert_eq!(compared[0].first_difference, Some(5000));
}

/// An input, and how to change it.
type Change<'a> = (&'a str, &'a dyn Fn(&Site));

#[test]
fn every_input_of_an_image_changes_its_key_and_no_other_does() {
    let changes: [Change; 13] = [
        ("a file's content", &|site| site.edit("fleet.toml", "welcome", "good day")),
        ("a file's mode", &|site| {
            site.edit("fleet.toml", r#"content = "welcome\n""#, r#"content = "welcome\n", mode = 0o600"#)
        }),
        ("a file's owner", &|site| {
            site.edit("fleet.toml", r#"content = "welcome\n""#, r#"content = "welcome\n", owner = "guest""#)
        }),
        ("a file's group", &|site| {
            site.edit("fleet.toml", r#"content = "welcome\n""#, r#"content = "welcome\n", group = "guest""#)
        }),
        ("a file's path", &|site| site.edit("fleet.toml", "/etc/motd", "/etc/issue")),
        ("a file of the project", &|site| site.write("given", b"given too")),
        ("another recipe", &|site| {
            site.write("recipes/more/recipe.toml", b"description = \"\"\n[[directory]]\npath = \"/more\"\n");
            site.edit("fleet.toml", "recipes = [\"plain\"]", "recipes = [\"plain\", \"more\"]");
        }),
        ("the tag of a repository", &|site| {
            site.edit("fleet.toml", "url = \"repo\"", "url = \"repo\"\ntag = \"mine\"");
            site.edit("fleet.toml", "packages = [\"hello\"]", "packages = [\"hello@mine\", \"base@mine\"]");
        }),
        ("the size", &|site| {
            site.edit("fleet.toml", "recipes = [\"plain\"]", "recipes = [\"plain\"]\nsize = \"32MiB\"")
        }),
        ("the world", &|site| {
            site.edit("fleet.toml", r#"packages = ["hello"]"#, r#"packages = ["hello", "base>0"]"#)
        }),
        ("a recipe", &|site| site.edit("recipes/plain/recipe.toml", "plain\\n", "simple\\n")),
        ("a package", &|site| {
            site.package("hello", "1.0-r0", &[("usr/bin/hello", "hello, again")], &["base"]);
            site.index();
        }),
        ("the keys", &|site| {
            let name = fs::read_dir(site.path("keys")).unwrap().next().unwrap().unwrap().path();
            site.write("keys/other.rsa.pub", &fs::read(name).unwrap());
        }),
    ];
    let site = || {
        let site = Site::new();
        site.write("given", b"given");
        let files = "files = { \"/etc/given\" = { file = \"given\" }, ";
        site.edit("fleet.toml", "files = { ", files);
        let accounts = "[[group]]\nname = \"guest\"\ngid = 9\n[[user]]\nname = \"guest\"\nuid = 9\ngroup = \"guest\"\n\
                        home = \"/var/guest\"\nshell = \"/bin/sh\"\n[[file]]\n";
        site.edit("recipes/plain/recipe.toml", "[[file]]\n", accounts);
        site
    };
    let reference = site().build_one(&image()).artifact;
    for (what, change) in changes {
        let site = site();
        change(&site);
        let changed = site.build_one(&image()).artifact;
        assert_ne!(changed.key, reference.key, "{what} plays no part");
        assert_ne!(changed.digest, reference.digest, "{what} does not reach the image");
    }
    let site = site();
    site.edit("fleet.toml", "16MiB", "17MiB");
    site.edit("fleet.toml", "[user.bob]", "[user.carol]");
    assert_eq!(site.build_one(&image()).artifact.key, reference.key);
}

#[test]
fn an_update_changes_the_lines_of_its_package_alone() {
    let site = Site::new();
    let old = site.lock(None);
    site.package("hello", "1.1-r0", &[("usr/bin/hello", "hello 1.1")], &["base"]);
    fs::remove_file(site.path("repo/x86_64/hello-1.0-r0.apk")).unwrap();
    site.index();
    assert_eq!(site.lock(Some(&old)), old, "what fits stays");
    let new = site.update(Some(&old), &Update::All).unwrap();
    assert_eq!(changes(Some(&old), &new), ["update hello 1.0-r0 -> 1.1-r0"]);
    let lines = diff(&old, &new);
    assert!(lines.len() <= 5 && lines.iter().all(|line| !line.contains("base")), "{lines:#?}");
}

#[test]
fn an_image_that_is_solved_anew_keeps_versions_that_are_still_there() {
    let site = Site::new();
    let old = site.lock(None);
    site.package("hello", "1.1-r0", &[("usr/bin/hello", "hello 1.1")], &["base"]);
    site.package("more", "1.0-r0", &[("usr/bin/more", "more")], &[]);
    site.package("base", "1.1-r0", &[("etc/base", "base 1.1")], &[]);
    site.index();
    site.edit("fleet.toml", r#"packages = ["hello"]"#, r#"packages = ["hello", "more"]"#);
    let more = site.lock(Some(&old));
    assert_eq!(changes(Some(&old), &more), ["add more 1.0-r0"]);

    let hello = Update::Packages(BTreeSet::from(["hello".to_owned()]));
    let updated = site.update(Some(&more), &hello).unwrap();
    assert_eq!(changes(Some(&more), &updated), ["update hello 1.0-r0 -> 1.1-r0"]);
    let unknown = Update::Packages(BTreeSet::from(["helo".to_owned()]));
    let error = site.update(Some(&more), &unknown).unwrap_err().to_string();
    assert_eq!(error, "no image has the package helo; did you mean hello?");

    site.edit("fleet.toml", r#""more""#, r#""more", "hello>=1.1""#);
    assert_eq!(
        versions(&site.lock(Some(&more)), "hello"),
        ["1.1-r0"],
        "a version that no longer fits is given up"
    );
}

#[test]
fn an_index_by_an_unknown_key_is_refused() {
    let site = Site::new();
    fs::rename(site.path("keys/maker.rsa.pub"), site.path("keys/other.rsa.pub")).unwrap();
    let error = chain(&site.update(None, &Update::None).unwrap_err());
    assert!(error.starts_with("the repository repo is refused: "), "{error}");
    assert!(
        error.contains("signed by maker.rsa.pub, which is not among the trusted keys (other.rsa.pub)"),
        "{error}"
    );
}

#[test]
fn a_package_with_one_byte_changed_is_refused_and_named() {
    let site = Site::new();
    let lock = site.lock(None);
    let path = site.path("repo/x86_64/hello-1.0-r0.apk");
    let mut bytes = fs::read(&path).unwrap();
    let last = bytes.len() - 20;
    bytes[last] ^= 1;
    fs::write(&path, bytes).unwrap();
    let error = chain(&site.build(&lock).unwrap_err());
    let words = "a package of the repository repo is refused: package hello-1.0-r0: its SHA-256 is ";
    assert!(error.starts_with(words), "{error}");
    let error = chain(&site.update(None, &Update::None).unwrap_err());
    assert!(error.contains("a package of the repository repo is refused: package hello-1.0-r0: "), "{error}");
}

#[test]
fn packages_that_do_not_go_together_are_told_for_their_image() {
    let site = Site::new();
    site.edit("fleet.toml", r#"packages = ["hello"]"#, r#"packages = ["hello>2"]"#);
    let error = chain(&site.update(None, &Update::None).unwrap_err());
    assert!(
        error.starts_with("the packages of the image small cannot be installed together: hello>2"),
        "{error}"
    );
}

#[test]
fn locked_says_everything_that_differs() {
    let site = Site::new();
    let lock = site.lock(None);
    assert_eq!(site.project().stale(&lock), [""; 0]);
    site.edit("fleet.toml", r#"packages = ["hello"]"#, r#"packages = ["bye"]"#);
    site.edit("fleet.toml", "[user.bob]", "[user.carol]");
    site.edit(
        "fleet.toml",
        "[[repository]]",
        "[[repository]]\nurl = \"https://example.org/alpine\"\n\n[[repository]]",
    );
    site.edit("recipes/plain/recipe.toml", "plain\\n", "simple\\n");
    site.edit("vmlinux", "ELF", "ELG");
    let project = site.project();
    let reasons = project.stale(&lock);
    let (now, then) = (project.wanted.kernel.sha256.unwrap().short(), lock.kernel.sha256.short());
    let plain = "plain".parse().unwrap();
    let (recipe, locked) = (project.wanted.recipes[&plain].short(), lock.recipe[&plain].short());
    assert_eq!(
        reasons,
        [
            &*format!("the kernel vmlinux has the SHA-256 {now}..., {then}... in fleet.lock"),
            "the repository https://example.org/alpine is not in fleet.lock",
            "the image small now needs the package bye",
            "the image small no longer needs the package hello",
            &*format!("the recipe plain changed: it has the SHA-256 {recipe}..., {locked}... in fleet.lock"),
            "the guest carol is not in fleet.lock",
            "the guest bob is no longer in fleet.toml",
        ]
    );
    let error = site.build(&lock).unwrap_err().to_string();
    assert!(error.starts_with("fleet.lock does not fit fleet.toml: the kernel vmlinux has"), "{error}");
}

#[test]
fn the_order_of_repositories_is_locked() {
    let site = Site::new();
    for file in ["APKINDEX.tar.gz", "base-1.0-r0.apk", "hello-1.0-r0.apk"] {
        site.write(&format!("copy/x86_64/{file}"), &fs::read(site.path("repo/x86_64").join(file)).unwrap());
    }
    let copy = "[[repository]]\nurl = \"copy\"\n\n";
    site.edit("fleet.toml", "[image.small]", &format!("{copy}[image.small]"));
    let lock = site.lock(None);
    site.edit("fleet.toml", copy, "");
    site.edit("fleet.toml", "[[repository]]", &format!("{copy}[[repository]]"));
    assert_eq!(
        site.project().stale(&lock),
        [
            "the repositories are in a different order, which decides between equal packages: copy, repo in fleet.toml, \
          repo, copy in fleet.lock"
        ]
    );
}

#[test]
fn a_key_that_is_no_longer_trusted_makes_a_lock_stale() {
    let site = Site::new();
    let lock = site.lock(None);
    fs::rename(site.path("keys/maker.rsa.pub"), site.path("keys/other.rsa.pub")).unwrap();
    assert_eq!(
        site.project().stale(&lock),
        ["packages of repo were chosen by the key maker.rsa.pub, which is no longer trusted for it"]
    );
    assert!(
        site.update(Some(&lock), &Update::None).is_err(),
        "packages stay that nobody trusted vouches for"
    );
}

#[test]
fn a_guest_that_stays_keeps_its_numbers_and_packages() {
    let site = Site::new();
    let old = site.lock(None);
    site.edit("fleet.toml", "[user.alice]", "[user.aaron]");
    // No index is needed for it.
    fs::remove_file(site.path("repo/x86_64/APKINDEX.tar.gz")).unwrap();
    let new = site.lock(Some(&old));
    let bob = "bob".parse().unwrap();
    assert_eq!(new.guest[&bob], old.guest[&bob]);
    assert_eq!(new.package, old.package);
    assert_eq!(changes(Some(&old), &new), ["add guest aaron", "remove guest alice"]);
}

#[test]
fn a_ready_kernel_must_be_one_and_be_the_pinned_one() {
    let site = Site::new();
    let pinned = format!("image = \"vmlinux\"\nsha256 = \"{}\"", "0".repeat(64));
    site.edit("fleet.toml", "image = \"vmlinux\"", &pinned);
    let error = site.try_project().unwrap_err().to_string();
    assert!(error.contains("vmlinux has the SHA-256 ") && error.contains("[kernel] sha256"), "{error}");

    let site = Site::new();
    site.write("vmlinux", b"hello");
    let error = site.update(None, &Update::None).unwrap_err();
    let problem = &error.problems()[0].problems[0].message;
    assert_eq!(problem, "this is not a kernel that a VMM can boot: it is not an ELF file");
}

#[test]
fn what_was_fetched_builds_offline() {
    let (site, server) = (Site::new(), Site::new());
    site.edit("fleet.toml", "url = \"repo\"", &format!("url = \"{}/repo\"", serve(server.dir.path())));
    let lock = site.lock(None);
    let (project, out) = (site.project(), OutDir::open(&site.path("out")).unwrap());
    // Locking leaves packages in the cache, which another machine does not have.
    let cache = sisforge::sys::fetch::Cache::new(site.path("other-cache"));
    let mut builder = Builder {
        project: &project,
        lock: &lock,
        out: &out,
        cache: &cache,
        jobs: 2,
        offline: true,
        missing: sisforge::build::MissingArtifact::Build,
        registry: None,
        report: &Silent,
    };
    let error = chain(&builder.build(&image()).unwrap_err());
    assert!(error.contains("-1.0-r0 from the repository http://127.0.0.1:"), "{error}");
    assert!(error.contains("this run is offline"), "{error}");
    builder.offline = false;
    builder.fetch().unwrap();
    builder.offline = true;
    builder.build(&image()).unwrap();
    let error = project.choose(None, &Update::None, &cache, true, &Silent).unwrap_err().to_string();
    assert!(error.ends_with("is not in the cache, and this run is offline"), "{error}");
}

#[test]
fn a_wrong_name_is_answered_with_the_right_ones() {
    let site = Site::new();
    let lock = site.lock(None);
    let error =
        |what: Selection| site.with_builder(&lock, |builder| builder.build(&what)).unwrap_err().to_string();
    assert_eq!(error(Selection::Image("smal".parse().unwrap())), "there is no image smal; there is small");
    assert_eq!(
        error(Selection::Disk("root".parse().unwrap())),
        "there is no data disk of a guest root; there is home"
    );
}

#[test]
fn a_directory_that_cannot_be_written_is_named() {
    let site = Site::new();
    let lock = site.lock(None);
    site.write("out/image", b"in the way");
    let error = chain(&site.build(&lock).unwrap_err());
    assert!(error.contains("out/image"), "{error}");
}

#[test]
fn a_full_disk_leaves_nothing_half_made() {
    if !inside_namespaces("lock_build::a_full_disk_leaves_nothing_half_made", &["unshare", "mount"]) {
        return;
    }
    let site = Site::new();
    site.package("large", "1.0-r0", &[("usr/large", &"0123456789abcdef".repeat(1 << 18))], &[]);
    site.index();
    site.edit("fleet.toml", r#"packages = ["hello"]"#, r#"packages = ["hello", "large"]"#);
    let lock = site.lock(None);
    fs::create_dir(site.path("out")).unwrap();
    Tool::new("mount").args(["-t", "tmpfs", "-o", "size=2m", "tmpfs"]).arg(site.path("out")).run().unwrap();
    let error = chain(&site.with_builder(&lock, |builder| builder.build(&image())).unwrap_err());
    assert!(error.starts_with("the image small cannot be written: cannot write "), "{error}");
    assert!(error.ends_with("No space left on device (os error 28)"), "{error}");
    let left = walk(&site.path("out"));
    assert!(left.iter().all(|path| path.ends_with(".lock")), "{left:?}");
    Tool::new("umount").arg(site.path("out")).run().unwrap();
}

/// The files below a directory.
fn walk(dir: &std::path::Path) -> Vec<String> {
    let entries = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    entries
        .flat_map(|path| if path.is_dir() { walk(&path) } else { vec![path.display().to_string()] })
        .collect()
}
