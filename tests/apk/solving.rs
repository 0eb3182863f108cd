//! The genuine apk is asked the same.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use sisforge::apk::{Dependency, Index, KeyRing, Repository, Rules, solve, solve_by};

use super::oracle::{Apk, data};
use super::worlds::{Flavour, Names, small_world, testing, universe};
use crate::common::random::Random;

/// More worlds than a run of the tests takes, for one who looks for differences: `SISFORGE_TEST_WORLDS=50`
/// draws 50
/// times as many, beginning with `SISFORGE_TEST_SEED`.
fn rounds(usual: usize) -> usize {
    usual * number("SISFORGE_TEST_WORLDS").unwrap_or(1)
}

fn number(variable: &str) -> Option<usize> {
    std::env::var(variable).ok().map(|text| text.parse().unwrap())
}

fn random(usual: u64) -> Random {
    Random(number("SISFORGE_TEST_SEED").map_or(usual, |seed| usual ^ (seed as u64) << 8))
}

/// An index, and the tag of its repository.
type Tagged<'i> = (&'i Index, Option<&'i str>);

/// An empty root of the genuine apk, and its repositories.
struct Site {
    dir: tempfile::TempDir,
    arch: &'static str,
}

impl Site {
    fn new(arch: &'static str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        for sub in ["etc/apk/keys", "lib/apk/db", "var/cache/apk"] {
            std::fs::create_dir_all(dir.path().join("root").join(sub)).unwrap();
        }
        let site = Self { dir, arch };
        for (file, text) in [
            ("etc/apk/world", ""),
            ("lib/apk/db/installed", ""),
            ("lib/apk/db/triggers", ""),
            ("etc/apk/arch", arch),
        ] {
            site.write(file, text);
        }
        site
    }

    fn write(&self, file: &str, text: &str) {
        std::fs::write(self.dir.path().join("root").join(file), format!("{text}\n").trim_start()).unwrap();
    }

    /// A repository with this text for its index; apk is told not to ask for a signature.
    fn repository(&self, name: &str, text: &str) -> PathBuf {
        let repository = self.dir.path().join(name);
        let dir = repository.join(self.arch);
        std::fs::create_dir_all(&dir).unwrap();
        let file = std::fs::File::create(dir.join("APKINDEX.tar.gz")).unwrap();
        let mut tar = tar::Builder::new(flate2::write::GzEncoder::new(file, flate2::Compression::fast()));
        for (path, text) in [("DESCRIPTION", "test"), ("APKINDEX", text)] {
            let mut header = tar::Header::new_ustar();
            header.set_size(text.len() as u64);
            header.set_mode(0o644);
            header.set_uid(0);
            header.set_gid(0);
            header.set_mtime(0);
            header.set_entry_type(tar::EntryType::Regular);
            tar.append_data(&mut header, path, text.as_bytes()).unwrap();
        }
        tar.into_inner().unwrap().finish().unwrap().flush().unwrap();
        repository
    }

    /// The lines of `/etc/apk/repositories`.
    fn repositories(&self, list: &[(&Path, Option<&str>)]) {
        let line = |(path, tag): &(&Path, Option<&str>)| match tag {
            Some(tag) => format!("@{tag} {}\n", path.display()),
            None => format!("{}\n", path.display()),
        };
        self.write("etc/apk/repositories", &list.iter().map(line).collect::<String>());
    }

    /// What the genuine apk would install, as it prints it; `None` where it has no answer.
    fn ask(&self, apk: &Apk, world: &[String]) -> Option<Vec<String>> {
        self.ask_with(|args| apk.run(args), world)
    }

    fn ask_with(
        &self,
        run: impl Fn(Vec<String>) -> std::process::Output,
        world: &[String],
    ) -> Option<Vec<String>> {
        let root = self.dir.path().join("root");
        let fixed = ["--root", root.to_str().unwrap(), "--arch", self.arch, "--no-network", "--no-progress"];
        let add = ["--allow-untrusted", "--simulate", "add"];
        let args = fixed.iter().chain(&add).map(|arg| (*arg).to_owned()).chain(world.iter().cloned());
        let output = run(args.collect());
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(!errors.contains("WARNING: opening") && !errors.contains("Ignoring"), "{errors}");
        let text = String::from_utf8_lossy(&output.stdout);
        let lines = text.lines().filter(|line| line.contains(" Installing "));
        output.status.success().then(|| lines.map(str::to_owned).collect())
    }
}

type Answer = Result<Vec<String>, String>;

/// The same by sisforge, by the rules of the apk that the repositories have.
fn answer(repositories: &[Tagged<'_>], arch: &str, world: &[Dependency]) -> Answer {
    answer_by(None, repositories, arch, world)
}

fn answer_by(rules: Option<Rules>, repositories: &[Tagged<'_>], arch: &str, world: &[Dependency]) -> Answer {
    let repositories: Vec<_> =
        repositories.iter().map(|(index, tag)| Repository { index, tag: *tag }).collect();
    let solved = match rules {
        Some(rules) => solve_by(rules, world, &repositories, arch),
        None => solve(world, &repositories, arch),
    };
    let chosen = solved.map_err(|error| error.to_string())?;
    let count = chosen.len();
    let line = |(at, label): (usize, String)| format!("({}/{count}) Installing {label}", at + 1);
    Ok(chosen.iter().map(|one| one.label()).enumerate().map(line).collect())
}

fn words(world: &[Dependency]) -> Vec<String> {
    world.iter().map(Dependency::to_string).collect()
}

/// A world, and where the answers begin to differ.
fn difference(world: &[String], theirs: &Option<Vec<String>>, ours: &Answer) -> Option<String> {
    let begin = match (theirs, ours) {
        (None, Err(_)) => return None,
        (Some(theirs), Ok(ours)) if theirs == ours => return None,
        (None, Ok(_)) => "apk has no answer".to_owned(),
        (Some(_), Err(error)) => format!("sisforge has no answer: {error}"),
        (Some(theirs), Ok(ours)) => {
            let at = theirs.iter().zip(ours).take_while(|(a, b)| a == b).count();
            format!("apk {:?}, sisforge {:?}", theirs.get(at), ours.get(at))
        }
    };
    Some(format!("{}: {begin}", world.join(" ")))
}

/// Asks both for random worlds over these repositories, which must agree in all of them.
fn agree(site: &Site, repositories: &[Tagged<'_>], rounds: usize, random: &mut Random) {
    let Some(apk) = Apk::find() else { return };
    let indexes: Vec<&Index> = repositories.iter().map(|(index, _)| *index).collect();
    let tags: Vec<&str> = repositories.iter().filter_map(|(_, tag)| *tag).collect();
    let names = Names::of(&indexes, &tags);
    let (mut answered, mut different) = (0, Vec::new());
    for _ in 0..rounds {
        let world = names.world(random);
        let theirs = site.ask(&apk, &words(&world));
        answered += usize::from(theirs.is_some());
        let ours = answer(repositories, site.arch, &world);
        different.extend(difference(&words(&world), &theirs, &ours));
    }
    assert!(different.is_empty(), "{} of {rounds} differ:\n{}", different.len(), different.join("\n"));
    assert!(answered * 4 > rounds, "only {answered} of {rounds} worlds have an answer");
}

fn real(repository: &str, keys: &str, arch: &str) -> Option<(PathBuf, Index)> {
    let (repository, keys) = (data(repository)?, data(keys)?);
    let bytes = std::fs::read(repository.join(arch).join("APKINDEX.tar.gz")).unwrap();
    Some((repository, Index::verify(&bytes, &KeyRing::read(&[keys]).unwrap()).unwrap()))
}

#[test]
fn random_worlds_of_alpine_3_16_are_solved_as_apk_solves_them() {
    let Some((path, index)) = real("alpine-3.16-main", "keys/alpine-x86_64", "x86_64") else { return };
    let site = Site::new("x86_64");
    site.repositories(&[(&path, None)]);
    agree(&site, &[(&index, None)], rounds(100), &mut random(1));
}

#[test]
fn random_worlds_of_alpine_3_17_are_solved_as_apk_solves_them() {
    let Some((path, index)) = real("alpine-3.17-main", "keys/alpine-aarch64", "aarch64") else { return };
    let site = Site::new("aarch64");
    site.repositories(&[(&path, None)]);
    agree(&site, &[(&index, None)], rounds(100), &mut random(2));
}

/// Beside the release, a repository of other versions of some of its packages: one time tagged, one time not.
#[test]
fn random_worlds_of_several_repositories_are_solved_as_apk_solves_them() {
    let Some((path, index)) = real("alpine-3.16-main", "keys/alpine-x86_64", "x86_64") else { return };
    let site = Site::new("x86_64");
    let mut random = random(3);
    let (one, two) = (testing(&mut random, &index), testing(&mut random, &index));
    let (one_path, two_path) =
        (site.repository("one", &one.to_text()), site.repository("two", &two.to_text()));
    site.repositories(&[(&one_path, None), (&path, None), (&two_path, Some("testing"))]);
    let all = [(&one, None), (&index, None), (&two, Some("testing"))];
    agree(&site, &all, rounds(40), &mut random);
    site.repositories(&[(&path, None), (&one_path, Some("edge")), (&two_path, Some("testing"))]);
    let all = [(&index, None), (&one, Some("edge")), (&two, Some("testing"))];
    agree(&site, &all, rounds(60), &mut random);
}

/// Genuine apks of other versions, by their paths.
fn other_apks() -> Vec<PathBuf> {
    std::env::var_os("SISFORGE_TEST_APKS").iter().flat_map(std::env::split_paths).collect()
}

const FLAVOURS: [Flavour; 4] = [
    Flavour { names: 5, versions: 3, priority: 4, install_if: 5, replaces: 4, conflicts: 8 },
    Flavour { names: 8, versions: 2, priority: 2, install_if: 3, replaces: 4, conflicts: 16 },
    Flavour { names: 12, versions: 2, priority: 8, install_if: 8, replaces: 4, conflicts: 20 },
    Flavour { names: 4, versions: 4, priority: 3, install_if: 100, replaces: 4, conflicts: 4 },
];

/// Whose rules a genuine apk has, by what it says of itself.
fn rules_of(path: &Path) -> Rules {
    let said = Command::new(path).arg("--version").output().unwrap();
    let text = String::from_utf8(said.stdout).unwrap();
    if text.starts_with("apk-tools 2.") { Rules::Apk2 } else { Rules::Apk3 }
}

/// Universes made to be hard, in which versions of apk differ from each other. apk 2.14.4, which the tests have, decides names in
/// an order that 2.14.5 gave up, so that one or two of a hundred come out otherwise. Each apk of
/// `SISFORGE_TEST_APKS=PATH[:PATH..]`, such as a 2.14.10 and a 3.0.6, must answer as its rules do, but for one in two hundred.
#[test]
fn hard_small_universes_are_solved_as_apk_solves_them() {
    let Some(apk) = Apk::find() else { return };
    let others: Vec<(PathBuf, Rules)> =
        other_apks().into_iter().map(|path| (path.clone(), rules_of(&path))).collect();
    let mut random = random(3);
    let rounds = rounds(200);
    let site = Site::new("x86_64");
    let mut answered = 0;
    let mut different = vec![Vec::new(); 1 + others.len()];
    for round in 0..rounds {
        let flavour = FLAVOURS[round % FLAVOURS.len()];
        let text = universe(&mut random, flavour);
        let index = Index::parse(&text);
        assert_eq!(index.rejected, []);
        let world = small_world(&mut random, flavour);
        site.repositories(&[(&site.repository("repository", &text), None)]);
        let wishes: Vec<Dependency> = world.iter().map(|wish| wish.parse().unwrap()).collect();
        let ours = |rules| answer_by(Some(rules), &[(&index, None)], "x86_64", &wishes);
        answered += usize::from(ours(Rules::Apk2).is_ok());
        let genuine = std::iter::once((site.ask(&apk, &world), Rules::Apk2)).chain(others.iter().map(
            |(path, rules)| {
                (site.ask_with(|args| Command::new(path).args(args).output().unwrap(), &world), *rules)
            },
        ));
        for ((theirs, rules), different) in genuine.zip(&mut different) {
            let difference = difference(&world, &theirs, &ours(rules));
            different.extend(difference.map(|words| format!("{words}\n{text}")));
        }
    }
    let counts: Vec<usize> = different.iter().map(Vec::len).collect();
    let worst = different.iter().flatten().take(3).cloned().collect::<Vec<_>>().join("\n");
    assert!(counts[0] <= rounds / 50, "{counts:?} of {rounds} differ:\n{worst}");
    assert!(
        counts[1..].iter().all(|count| *count <= rounds / 200),
        "{counts:?} of {rounds} differ:\n{worst}"
    );
    assert!(answered * 6 > rounds, "only {answered} of {rounds} worlds have an answer");
}

/// A released image is the closure of its own world.
#[test]
fn the_world_of_alpines_own_root_gives_its_packages() {
    let Some((_, index)) = real("alpine-3.16-main", "keys/alpine-x86_64", "x86_64") else { return };
    let world =
        ["alpine-baselayout", "alpine-keys", "apk-tools", "busybox", "libc-utils"].map(Dependency::any);
    let chosen = solve(&world, &[Repository { index: &index, tag: None }], "x86_64").unwrap();
    let mut names: Vec<&str> = chosen.iter().map(|chosen| chosen.info.name.as_str()).collect();
    names.sort_unstable();
    assert_eq!(
        names,
        [
            "alpine-baselayout",
            "alpine-baselayout-data",
            "alpine-keys",
            "apk-tools",
            "busybox",
            "ca-certificates-bundle",
            "libc-utils",
            "libcrypto1.1",
            "libssl1.1",
            "musl",
            "musl-utils",
            "scanelf",
            "ssl_client",
            "zlib",
        ]
    );
}

#[test]
fn worlds_of_alpine_without_an_answer_are_explained() {
    let Some((_, index)) = real("alpine-3.16-main", "keys/alpine-x86_64", "x86_64") else { return };
    for (world, expected) in [
        ("busyboxx", "busyboxx: no such package; did you mean busybox?"),
        ("nslookup", "nslookup: no such package; the command nslookup is in bind-tools"),
        ("so:libssl.so.3.1", "so:libssl.so.3.1: no package provides it; did you mean so:libssl.so.1.1?"),
        ("busybox>2", "busybox>2: the repositories have busybox 1.35.0-r17"),
        ("perl !musl", "!musl: but musl-1.2.3-r2 is needed by perl-5.34.1-r0"),
        ("openssh !libcrypto1.1", "!libcrypto1.1: but libcrypto1.1-1.1.1s-r0 is needed by openssh-9.0_p1-r2"),
        (
            "mariadb",
            "/bin/sh: no package has this name; it is provided by busybox; add it to the world \
             (needed by mariadb-10.6.10-r0)",
        ),
        (
            "alpine-base@edge",
            "alpine-base@edge: no repository has the tag edge; give the repository that it should come from \
             the tag edge",
        ),
    ] {
        let wishes = Dependency::parse_list(world).unwrap();
        assert_eq!(answer(&[(&index, None)], "x86_64", &wishes), Err(expected.to_owned()), "{world}");
    }
}
