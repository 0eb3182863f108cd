//! Many sessions: what each leaves behind, and whether of many at once two get one guest. `SISFORGE_TEST_SESSIONS` is how many begin
//! and end one after the other, `SISFORGE_TEST_SESSIONS_AT_ONCE` how many begin at the same time.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use super::hostile_vmm::Site;
use crate::common::namespaces::missing as missing_programs;
use crate::common::sandbox::{Run, Sandbox, missing};

fn number(variable: &str, default: usize) -> usize {
    std::env::var(variable).map_or(default, |text| text.parse().expect(variable))
}

/// Guests of Firecracker where it is, else of what stands in for QEMU.
fn site() -> Option<(&'static str, Site)> {
    match (missing(), missing_programs(&["perl"])) {
        (None, _) => Some(("firecracker", Site::real())),
        (Some(_), None) => Some(("qemu", Site::new())),
        (Some(reason), Some(_)) => {
            eprintln!("SKIPPED: {reason}");
            None
        }
    }
}

/// A fleet of one pool, up, and the pool's name.
fn pool(vmm: &str, site: &Site, keys: &str) -> String {
    let name = site.sandbox.guest('k');
    let text = site.sandbox.fleet_text("", &format!("[pool.{name}]\n{keys}\n"));
    let text = text.replace("[kernel]", &format!("vmm = \"{vmm}\"\n[kernel]"));
    site.sandbox.write("fleet.toml", text);
    site.run("build").fails(0, &[]);
    site.run("up").fails(0, &[]);
    name
}

/// How many lines a program prints.
fn lines(program: &str, args: &[&str]) -> usize {
    let run = Run::of(Command::new(program).args(args));
    assert_eq!(run.code, 0, "{program} {args:?}\n{run}");
    run.out.lines().count()
}

/// Files below a directory, by where they are, with their sizes where what is in them may not grow.
fn files(dir: &Path, found: &mut BTreeMap<String, u64>, root: &Path) {
    for entry in fs::read_dir(dir).unwrap().flatten() {
        let (path, Ok(meta)) = (entry.path(), entry.metadata()) else { continue };
        let name = path.strip_prefix(root).unwrap().to_str().unwrap().to_owned();
        // Logs and their indexes are bounded, by another test.
        let is_log = name.contains(".log") || name.ends_with(".index");
        // Jails count their attempts, and pipes and sockets have no size.
        let size = if meta.is_file() && !is_log && !name.contains("/jails/") { meta.len() } else { 0 };
        if meta.is_dir() {
            files(&path, found, root);
        }
        found.insert(name, size);
    }
}

/// All that a fleet has of its host, in numbers.
#[derive(Debug, PartialEq, Eq)]
struct Footprint {
    files: usize,
    traces: usize,
    interfaces: usize,
    rules: usize,
    cgroups: usize,
    conntrack: usize,
}

fn footprint(sandbox: &Sandbox) -> (Footprint, BTreeMap<String, u64>) {
    let store = sandbox.path("store");
    let mut found = BTreeMap::new();
    files(&store, &mut found, &store);
    let netns = sandbox.netns();
    let counts = Footprint {
        files: found.len(),
        traces: sandbox.traces().len(),
        interfaces: lines("ip", &["-n", &netns, "-o", "link"]),
        rules: lines("ip", &["netns", "exec", &netns, "nft", "list", "ruleset"]),
        cgroups: sandbox.cgroups("").iter().map(|dir| fs::read_dir(dir).unwrap().count()).sum(),
        conntrack: fs::read_to_string(format!("/run/sisforge/{}.ending", sandbox.name))
            .map_or(0, |text| text.lines().count()),
    };
    (counts, found)
}

#[test]
fn sessions_one_after_the_other_leave_nothing_and_grow_nothing() {
    let Some((vmm, site)) = site() else { return };
    let rounds = number("SISFORGE_TEST_SESSIONS", 6);
    let pool = pool(vmm, &site, "spare = 2\nmax = 3\nsession = { disk = \"16MiB\", ttl = \"8h\" }");
    let mut before = None;
    let mut longest = Duration::ZERO;
    for round in 0..rounds + 2 {
        let begun = Instant::now();
        let run = site.run(&format!("session start {pool} --disk jo --for round-{} --quiet", round % 10));
        longest = longest.max(begun.elapsed());
        assert_eq!(run.code, 0, "round {round}\n{run}");
        let guest = run.out.trim();
        site.run(&format!("session end {guest}")).fails(0, &[]);
        site.run("up").fails(0, &[]);
        // Two rounds, so that each guest of the pool was there once.
        if round == 1 {
            before = Some(footprint(&site.sandbox));
        }
    }
    let (before, after) = (before.unwrap(), footprint(&site.sandbox));
    assert_eq!(before.0, after.0, "{rounds} rounds");
    // Numbers in a record may be longer by some digits: of processes, and of times since the boot.
    let grown =
        after.1.iter().filter(|(file, size)| before.1.get(*file).is_none_or(|before| **size > before + 16));
    assert_eq!(grown.collect::<Vec<_>>(), []);
    let log = fs::metadata(site.sandbox.path(&format!("store/{}/events.log", site.sandbox.name))).unwrap();
    assert!(log.len() <= 16 << 20, "{}", log.len());
    eprintln!("{rounds} sessions on {vmm}: the longest start took {} ms", longest.as_millis());
    site.run("down --timeout 0").fails(0, &[]);
    assert_eq!(site.sandbox.traces(), [""; 0]);
}

#[test]
fn of_many_sessions_at_once_none_gets_anothers_guest() {
    let Some((vmm, site)) = site() else { return };
    let count = number("SISFORGE_TEST_SESSIONS_AT_ONCE", 6);
    let pool = pool(vmm, &site, &format!("spare = {count}\nmax = {count}\nsession = {{ disk = \"16MiB\" }}"));
    let runs: Vec<Run> = thread::scope(|scope| {
        let ask =
            |user: usize| site.run(&format!("session start {pool} --quiet --disk user-{user} --wait 20s"));
        let asking: Vec<_> = (0..count).map(|user| scope.spawn(move || ask(user))).collect();
        asking.into_iter().map(|one| one.join().unwrap()).collect()
    });
    let mut given = BTreeSet::new();
    for run in &runs {
        assert_eq!(run.code, 0, "{run}");
        assert!(given.insert(run.out.trim().to_owned()), "given twice: {run}");
    }
    assert_eq!(given.len(), count);
    let disks = site.document("disk ls", "disk-ls");
    let holders: BTreeSet<_> = disks
        .as_array()
        .unwrap()
        .iter()
        .filter_map(|disk| Some((disk["session"].as_str()?, disk["guest"].as_str()?)))
        .collect();
    assert_eq!(holders.len(), count, "{disks}");
    assert_eq!(holders.iter().map(|(_, guest)| guest).collect::<BTreeSet<_>>().len(), count, "{disks}");
    site.run(&format!("session start {pool}")).fails(1, &["is spare"]);
    // One after the other, as whoever ends a session holds the host; the rest goes with the fleet.
    given.iter().take(3).for_each(|guest| {
        site.run(&format!("session end {guest}")).fails(0, &[]);
    });
    site.run("down --timeout 0").fails(0, &[]);
    assert_eq!(site.sandbox.traces(), [""; 0]);
}
