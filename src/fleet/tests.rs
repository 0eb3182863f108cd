//! Rules of `fleet.toml`: most tests change one thing of a small fleet that is valid.

mod guests;
mod machines;
mod mirrors;
mod policies;
mod schema;

use std::path::{Path, PathBuf};
use std::time::Duration;

use insta::assert_snapshot;

use super::*;
use crate::base::{ByteSize, GuestName};

const SMALL: &str = r#"[fleet]
name = "sis"
[kernel]
source = "linux.tar.xz"
base = "microvm"
[[repository]]
url = "https://example.org/main"
[image.surf]
[disk.home]
size = "64MiB"
backing = "file"
[network.surf]
[defaults]
image = "surf"
network = "surf"
disk = "home"
[user.alice]
"#;

/// Every key that there is, after the example of the documentation.
const FULL: &str = include_str!("tests/full.toml");

fn at(text: &str) -> Result<Fleet, InvalidFile> {
    parse(Path::new("/f/fleet.toml"), text)
}

fn shown(text: &str) -> String {
    render(&at(text).unwrap_err(), false)
}

/// The messages of a small fleet in which `from` is `to`; where `from` is empty, `to` comes at the end.
fn messages(from: &str, to: &str) -> Vec<String> {
    let text = if from.is_empty() { format!("{SMALL}{to}") } else { SMALL.replacen(from, to, 1) };
    assert_ne!(text, SMALL, "{from:?} is not in the small fleet");
    at(&text).map_or_else(|invalid| invalid.problems.into_iter().map(|p| p.message).collect(), |_| Vec::new())
}

/// Checks that each change is answered with exactly one problem, whose message holds the given words.
fn refused(changes: &[(&str, &str, &str)]) {
    for (from, to, words) in changes {
        match messages(from, to).as_slice() {
            [message] => assert!(message.contains(words), "{to}: {message:?} does not say {words:?}"),
            other => panic!("{to}: not one problem, but {other:#?}"),
        }
    }
}

fn guest(name: &str) -> GuestName {
    name.parse().unwrap()
}

#[test]
fn the_example_loads_beside_a_key() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("fleet.toml");
    std::fs::write(&path, EXAMPLE).unwrap();
    crate::sys::fs::write(&dir.path().join("keys/alpine/any.rsa.pub"), b"key", 0o644).unwrap();
    let fleet = load(&path).unwrap_or_else(|error| match error {
        LoadError::Invalid(invalid) => panic!("{}", render(&invalid, false)),
        LoadError::Read(error) => panic!("{error}"),
    });
    let names: Vec<&str> = fleet.guests.keys().map(GuestName::as_str).collect();
    assert_eq!(names, ["alice", "bob", "kiosk-0", "kiosk-1", "kiosk-2", "kiosk-3"]);
}

#[test]
fn the_fleet_of_the_readme_is_valid() {
    let readme = include_str!("../../README.md");
    let text = readme.split("```toml\n").nth(1).unwrap().split("```").next().unwrap();
    let fleet = at(text).unwrap_or_else(|invalid| panic!("{}", render(&invalid, false)));
    assert_eq!(fleet.guests.len(), 2);
}

#[test]
fn the_demo_is_valid() {
    let text = include_str!("../../demo/fleet.toml");
    let fleet =
        parse(Path::new("/demo/fleet.toml"), text).unwrap_or_else(|i| panic!("{}", render(&i, false)));
    assert_eq!(fleet.repositories[0].location, Source::Path("/demo/build/repo".into()));
    let hello = ContainerImage::OciArchive { path: "/demo/build/hello.tar".into(), reference: None };
    assert_eq!(fleet.guests[&guest("alice")].disk.images, [hello]);
}

#[test]
fn what_is_not_said_has_its_default() {
    let fleet = at(SMALL).unwrap();
    assert_eq!((fleet.vmm, fleet.host.uplink), (VmmKind::Firecracker, None));
    assert_eq!((fleet.host.uids, fleet.host.subnet.to_string()), (200_000..=265_535, "10.107.0.0/16".into()));
    assert_eq!(fleet.repositories[0].keys, [PathBuf::from("/f/keys")]);
    let alice = &fleet.guests[&guest("alice")];
    assert_eq!((alice.vcpus, alice.memory), (1, ByteSize::from_mib(512)));
    assert!(!fleet.networks[&"surf".parse().unwrap()].default_allow);
}

#[test]
fn every_key_is_read() {
    let fleet = at(FULL).unwrap_or_else(|invalid| panic!("{}", render(&invalid, false)));
    let KernelSpec::Build(kernel) = &fleet.kernel else { panic!("not a kernel to build") };
    assert_eq!(kernel.options[&"NR_CPUS".parse().unwrap()], OptionValue::Number(8));
    assert_eq!(kernel.options[&"KALLSYMS".parse().unwrap()], OptionValue::No);
    assert_eq!(kernel.patches, [PathBuf::from("/f/patches/one.patch")]);
    let image = &fleet.images[&"surf".parse().unwrap()];
    assert_eq!(image.packages, ["ca-certificates", "podman@edge~5", "so:libc.musl-x86_64.so.1"]);
    assert_eq!(image.files[&"/etc/motd".parse().unwrap()].mode, 0o640);
    let network = &fleet.networks[&"surf".parse().unwrap()];
    assert_eq!(network.allow[0].tcp, [80..=80, 8000..=8100]);
    assert_eq!(network.allow[0].to[1].to_string(), "2001:db8::1/128");
    let budget = network.budget;
    let times = (budget.new_connections.times(), budget.dns_queries.times());
    assert_eq!((budget.connections, times), (2048, (200, 20)));
    let kiosk = &fleet.guests[&guest("kiosk-19")];
    assert_eq!((kiosk.disk_name.as_ref(), kiosk.disk.backing), (None, Backing::Tmpfs));
    assert_eq!((kiosk.cpu_weight, kiosk.io.read, kiosk.io.write), (50, Some(10_000_000), None));
    let desk = fleet.guests[&guest("desk-39")].warm.as_ref().unwrap();
    assert_eq!(
        (desk.spare, desk.max, desk.paused, desk.ttl),
        (4, 40, true, Some(Duration::from_secs(8 * 3600)))
    );
    let (alice, bob) = (&fleet.guests[&guest("alice")], &fleet.guests[&guest("bob")]);
    assert_eq!((alice.cpu_weight, alice.io), (100, IoSpec::default()));
    assert_eq!((bob.cpu_weight, bob.io.write_operations), (300, Some(500)));
    assert_eq!((kiosk.pool.as_ref().unwrap().pool.as_str(), kiosk.containers.len()), ("kiosk", 1));
    assert_eq!((alice.on_exit, bob.on_exit), (OnExit::Leave, OnExit::Restart));
    let bob = &fleet.guests[&guest("bob")];
    assert_eq!((bob.vcpus, bob.memory.to_string(), bob.containers.len()), (2, "1GiB".into(), 0));
}

#[test]
fn all_problems_are_told_at_once() {
    let text = SMALL.replace("\"surf\"", "\"sruf\"").replace("64MiB", "64MB").replace("backing", "baking")
        + "memry = \"1GiB\"\nvcpus = \"two\"\n";
    assert_snapshot!(shown(&text), @r#"
    error: "64MB" must be a whole number with a binary unit, such as "512MiB" or "4GiB"
      --> /f/fleet.toml:10:8
       |
    10 | size = "64MB"
       |        ^^^^^^

    error: unknown key `baking`
      --> /f/fleet.toml:11:1
       |
    11 | baking = "file"
       | ^^^^^^ not a key of this table
       |
       = help: did you mean `backing`?

    error: image `sruf` is not declared
      --> /f/fleet.toml:14:9
       |
    14 | image = "sruf"
       |         ^^^^^^ there is no [image.sruf]
       |
       = help: did you mean `surf`?

    error: network `sruf` is not declared
      --> /f/fleet.toml:15:11
       |
    15 | network = "sruf"
       |           ^^^^^^ there is no [network.sruf]
       |
       = help: did you mean `surf`?

    error: unknown key `memry`
      --> /f/fleet.toml:18:1
       |
    18 | memry = "1GiB"
       | ^^^^^ not a key of this table
       |
       = help: did you mean `memory`?

    error: expected an integer from 1 to 32, found a string
      --> /f/fleet.toml:19:9
       |
    19 | vcpus = "two"
       |         ^^^^^
    "#);
}

#[test]
fn a_table_that_stands_twice_is_shown_with_both_places() {
    let text = format!("{SMALL}vcpus = 2\n[user.bob]\n[user.alice]\nmemory = \"1MiB\"\n");
    assert_snapshot!(shown(&text), @r#"
    error: table `alice` is declared twice
      --> /f/fleet.toml:20:7
       |
    17 | [user.alice]
       | ------------ first
    ...
    20 | [user.alice]
       |       ^^^^^ again
       |
       = help: keep one of the two tables

    error: 1MiB is too small: a guest needs at least 64MiB
      --> /f/fleet.toml:21:10
       |
    21 | memory = "1MiB"
       |          ^^^^^^
    "#);
}

#[test]
fn a_key_that_stands_twice_is_shown_with_both_places() {
    let text = SMALL.replace("name = \"sis\"\n", "name = \"sis\"\nname = \"other\"\n");
    assert_snapshot!(shown(&text), @r#"
    error: key `name` is declared twice
     --> /f/fleet.toml:3:1
      |
    2 | name = "sis"
      | ---- first
    3 | name = "other"
      | ^^^^ again
      |
      = help: keep one of the two keys
    "#);
}

#[test]
fn text_that_is_not_toml_is_shown() {
    let text = SMALL.replace("\"home\"", "home").replace("[network.surf]", "[network.surf");
    assert_snapshot!(shown(&text), @r#"
    error: unclosed table, expected `]`
      --> /f/fleet.toml:12:14
       |
    12 | [network.surf
       |              ^ not valid TOML

    error: string values must be quoted, expected literal string
      --> /f/fleet.toml:16:8
       |
    16 | disk = home
       |        ^^^^ not valid TOML
    "#);
}

#[test]
fn a_kernel_is_ready_or_built() {
    let text = SMALL.replace("base = \"microvm\"", "image = \"vmlinux\"\noptions = {}");
    assert_snapshot!(shown(&text), @r#"
    error: a kernel is either prebuilt or built from source: `image` conflicts with `source`, `options`
     --> /f/fleet.toml:5:9
      |
    4 | source = "linux.tar.xz"
      |          -------------- a kernel that is built from source
    5 | image = "vmlinux"
      |         ^^^^^^^^^ a prebuilt kernel
      |
      = help: keep `image`, or remove it and keep `source`, `options`
    "#);
    let ready = "[kernel]\nimage = \"vmlinux\"\n";
    assert_eq!(messages("[kernel]\nsource = \"linux.tar.xz\"\nbase = \"microvm\"\n", ready), [""; 0]);
    refused(&[
        ("source = \"linux.tar.xz\"\nbase = \"microvm\"", "", "neither `source` nor `image`"),
        ("base = \"microvm\"", "", "`base` is missing"),
    ]);
}

#[test]
fn kernel_options_are_yes_no_numbers_or_text() {
    let option = |text: &str| format!("base = \"x\"\noptions = {{ {text} }}");
    refused(&[
        ("base = \"microvm\"", &option("NET = \"m\""), "guests do not load modules"),
        ("base = \"microvm\"", &option("NET = \"y\""), "\"y\" is a string here"),
        ("base = \"microvm\"", &option("NET = 1.5"), "found a fraction"),
        ("base = \"microvm\"", &option("\"NET-X\" = true"), "must be a kernel option"),
        ("base = \"microvm\"", &option("NET = true, CONFIG_NET = false"), "NET is set twice"),
    ]);
}

#[test]
fn a_mistake_is_told_once() {
    refused(&[
        // Guests name the image, whose own body is wrong.
        ("[image.surf]", "[image.surf]\nsize = 5", "expected a size"),
        ("64MiB", "1MiB", "too small"),
        ("64MiB", "16TiB", "16TiB is too large: a disk has at most 16777215MiB"),
        ("[image.surf]", "[image.surf]\nsize = \"100000TiB\"", "an image has at most"),
        ("[user.alice]", "[user]\nalice = 3", "expected a table"),
        ("[network.surf]", "[network.surf]\ndefault = \"dney\"", "\"dney\" is not one of allow, deny"),
        ("image = \"surf\"\n", "image = \"sruf\"\n", "image `sruf` is not declared"),
    ]);
}

#[test]
fn a_mistake_in_a_list_hides_none_behind_it() {
    let dns = "[network.surf]\ndns = [\"x\", \"10.107.0.9\"]";
    assert_eq!(
        messages("[network.surf]", dns),
        ["\"x\" must be an IPv4 address", "10.107.0.9 is in 10.107.0.0/16, the guests' own subnet"]
    );
    let rules = "[network.surf]\ndeny = [{ icmp = 1 }, { tcp = [1] }]";
    assert_eq!(messages("[network.surf]", rules).len(), 3);
}

#[test]
fn sections_and_keys_that_must_be_there_are_missed() {
    refused(&[
        ("[fleet]\nname = \"sis\"\n", "", "`fleet` is missing"),
        ("name = \"sis\"\n", "", "`name` is missing"),
        ("[[repository]]\nurl = \"https://example.org/main\"\n", "", "there is no [[repository]]"),
        ("disk = \"home\"\n", "", "user `alice` has no `disk`"),
        ("size = \"64MiB\"\n", "", "`size` is missing"),
        ("[user.alice]", "[pool.kiosk]", "pool `kiosk` does not say how many guests it has"),
    ]);
}

#[test]
fn what_is_kept_of_snapshots_is_said_and_is_something() {
    let keep = |keys: &str| format!("[snapshots]\nkeep = {{ {keys} }}");
    refused(&[
        ("", &keep(""), "`keep` does not say which snapshots are kept"),
        ("", &keep("age = \"1ms\""), "no snapshot would be kept for a minute"),
        ("", &keep("count = 3, age = \"59s\""), "no snapshot would be kept for a minute"),
        ("", &keep("count = 0"), "0 is not from 1 to 10000"),
    ]);
    for fine in ["age = \"1m\"", "count = 1", "size = \"1GiB\""] {
        at(&(SMALL.to_owned() + &keep(fine))).unwrap_or_else(|invalid| panic!("{}", render(&invalid, false)));
    }
}

#[test]
fn images_name_packages_and_files_exactly() {
    let image = |line: &str| format!("[image.surf]\n{line}");
    refused(&[
        ("[image.surf]", &image("packages = [\"podman 5\"]"), "must be a package"),
        ("[image.surf]", &image("packages = [\"podman~\"]"), "must be a package"),
        ("[image.surf]", &image("packages = [\"podman@edge\"]"), "no repository has the tag `edge`"),
        ("[image.surf]", &image("files = { \"etc/motd\" = { content = \"\" } }"), "must be an absolute path"),
        ("[image.surf]", &image("files = { \"/etc/motd\" = {} }"), "neither `content` nor `file`"),
        (
            "[image.surf]",
            &image("files = { \"/m\" = { content = \"\", file = \"m\" } }"),
            "both `content` and",
        ),
        (
            "[image.surf]",
            &image("files = { \"/m\" = { content = \"\", mode = 644 } }"),
            "not an octal file mode",
        ),
        ("[image.surf]", &image("files = { \"/m\" = { content = \"\", mode = 0o10000 } }"), "0o7777"),
        (
            "backing = \"file\"",
            "backing = \"file\"\nimages = [\"docker://alpine\"]",
            "must name its registry",
        ),
        (
            "backing = \"file\"",
            "backing = \"file\"\nimages = [\"docker-daemon:a:1\"]",
            "transport `docker-daemon`",
        ),
    ]);
}

#[test]
fn sources_are_http_urls_or_paths() {
    refused(&[
        ("https://example.org/main", "ftp://example.org/main", "http:// or https://"),
        ("https://example.org/main", "https:///main", "a URL with a host"),
        ("https://example.org/main", "https://user:secret@example.org/", "user name or password"),
        ("https://example.org/main", "file:/srv/repo", "must be a path, not a URL"),
        ("linux.tar.xz\"", "linux.tar.xz\"\nsha256 = \"12ab\"", "64 hexadecimal digits"),
    ]);
    let fleet = at(&SMALL.replace("linux.tar.xz", "./src/linux/")).unwrap();
    let KernelSpec::Build(kernel) = fleet.kernel else { panic!("not a kernel to build") };
    assert_eq!(kernel.source, Source::Path("/f/src/linux".into()));
}

#[test]
fn what_a_fleet_mentions_is_looked_up() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("fleet.toml");
    let text = SMALL
        .replace("base = \"microvm\"", "base = \"microvm-6.1-x86_46\"\nfragments = [\"nftable\"]")
        .replace("[image.surf]", "[image.surf]\nrecipes = [\"openrc\", \"rootles-podman\"]")
        .replace("[network.surf]", "[network.surf]\ndeny = [{ list = \"unsafe.txt\" }]");
    std::fs::write(&path, text).unwrap();
    let Err(LoadError::Invalid(invalid)) = load(&path) else { panic!("it was accepted") };
    let told = invalid
        .problems
        .iter()
        .map(|problem| format!("{} ({})\n", problem.message, problem.hint.as_deref().unwrap_or("no hint")));
    let told = told.collect::<String>().replace(&*dir.path().to_string_lossy(), "/f");
    assert_snapshot!(told, @r#"
    there is no file or directory /f/linux.tar.xz (no hint)
    there is no kernel-configs/microvm-6.1-x86_46.config (did you mean `microvm-6.1-x86_64`?)
    there is no kernel-configs/fragments/nftable.config (did you mean `nftables`?)
    there are no keys in /f/keys (put the trusted *.rsa.pub there, or name their directory: `sisforge keys alpine` writes Alpine's to keys/alpine, for `keys = "keys/alpine"` of the repository)
    there is no recipes/rootles-podman/recipe.toml (did you mean `rootless-podman`?)
    there is no file /f/unsafe.txt (no hint)
    "#);
}

#[test]
fn problems_are_available_as_json() {
    let invalid = at(&SMALL.replace("image =", "imge =")).unwrap_err();
    let json = serde_json::to_string(&invalid).unwrap();
    assert_snapshot!(json, @r#"
    {"file":"/f/fleet.toml","problems":[{"line":14,"column":1,"message":"unknown key `imge`","label":"not a key of this table","hint":"did you mean `image`?"}]}
    "#);
}

#[test]
fn no_text_makes_the_reader_panic() {
    for end in (0..FULL.len()).step_by(5) {
        if let Err(invalid) = at(&FULL[..end]) {
            assert!(!invalid.problems.is_empty());
            assert!(!render(&invalid, true).is_empty());
        }
        // A few bytes are missing in the middle.
        let _ = at(&format!("{}{}", &FULL[..end], FULL.get(end + 3..).unwrap_or_default()));
    }
}
