//! The host's own tools, used for real: as root, in namespaces of their own, so that nothing of the host is touched.

use std::fs::{self, File};
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::thread;
use std::time::{Duration, Instant};

use sisforge::sys::netns::{self, Netns, Presence};
use sisforge::sys::tool::Tool;
use sisforge::sys::{ip, mount, nft};

use crate::common::namespaces::{inside_namespaces, missing, skip};
use crate::common::nft as counted;

mod processes;
mod remote;

fn null() -> File {
    File::options().read(true).write(true).open("/dev/null").unwrap()
}

fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let end = Instant::now() + Duration::from_secs(10);
    while !holds() {
        assert!(Instant::now() < end, "{what}");
        thread::sleep(Duration::from_millis(10));
    }
}

/// Ends with its test, also where that fails.
struct Sleeper(Child);

impl Sleeper {
    fn start() -> Self {
        Self(Command::new("sleep").arg("60").spawn().unwrap())
    }
}

impl Drop for Sleeper {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

const ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 107, 0, 1);

#[test]
fn a_tap_is_made_repaired_and_removed() {
    if !inside_namespaces("sys::a_tap_is_made_repaired_and_removed", &["unshare", "ip"]) {
        return;
    }
    if !Path::new("/dev/net/tun").exists() {
        return skip("a_tap_is_made_repaired_and_removed", "/dev/net/tun is missing");
    }
    let wanted = ip::Tap {
        name: "sis-a".to_owned(),
        owner: Some(200_001),
        group: None,
        address: Some((ADDRESS, 30)),
        up: true,
        alias: Some("ours".to_owned()),
    };
    ip::create_tap("sis-a", 200_001, ADDRESS, 30, "ours").unwrap();
    assert_eq!(ip::taps().unwrap(), std::slice::from_ref(&wanted));
    let addresses = Tool::new("ip").args(["-o", "addr", "show", "dev", "sis-a"]).text().unwrap();
    assert!(addresses.contains(&format!("inet {ADDRESS}/30 ")), "{addresses}");
    let rp_filter = ip::get_sysctl("net.ipv4.conf.sis-a.rp_filter").unwrap();
    assert_eq!(rp_filter.as_deref(), Some("1"));
    let no_ipv6 = ip::get_sysctl("net.ipv6.conf.sis-a.disable_ipv6").unwrap();
    assert!(no_ipv6.is_none_or(|value| value == "1"));

    // Right already: the very device stays.
    let index = || {
        let line = Tool::new("ip").args(["-o", "link", "show", "dev", "sis-a"]).text().unwrap();
        line.split(':').next().map(str::to_owned)
    };
    let before = index();
    ip::create_tap("sis-a", 200_001, ADDRESS, 30, "ours").unwrap();
    assert_eq!(index(), before);

    // Of another owner, of anyone, or with another address: made right.
    for args in ["sis-a mode tap user 200002", "sis-a mode tap", "sis-a mode tap user 200001 group 0"] {
        ip::delete_link("sis-a").unwrap();
        Tool::new("ip").args(["tuntap", "add", "dev"]).args(args.split(' ')).run().unwrap();
        ip::create_tap("sis-a", 200_001, ADDRESS, 30, "ours").unwrap();
        assert_eq!(ip::taps().unwrap(), std::slice::from_ref(&wanted), "{args}");
    }
    ip::create_tap("sis-a", 200_001, Ipv4Addr::new(10, 107, 0, 5), 30, "ours").unwrap();
    assert_eq!(ip::taps().unwrap()[0].address, Some((Ipv4Addr::new(10, 107, 0, 5), 30)));
    let error = ip::create_tap("sis-a", 200_001, ADDRESS, 30, "theirs").unwrap_err();
    assert_eq!(error.to_string(), "cannot create the TAP sis-a: it already exists and belongs to ours");

    ip::delete_link("sis-a").unwrap();
    ip::delete_link("sis-a").unwrap();
    assert!(ip::index("sis-a").unwrap().is_none());
}

#[test]
fn interfaces_that_go_together_are_those_alone_and_absence_is_fine() {
    let test = "sys::interfaces_that_go_together_are_those_alone_and_absence_is_fine";
    if !inside_namespaces(test, &["unshare", "ip"]) {
        return;
    }
    if !Path::new("/dev/net/tun").exists() {
        return skip(test, "/dev/net/tun is missing");
    }
    let make = || {
        [("sis-a", 1), ("sis-b", 2), ("sis-c", 3), ("sis-d", 4)].map(|(name, network)| {
            ip::create_tap(name, 0, Ipv4Addr::new(10, 1, network, 1), 30, "ours").unwrap();
            ip::index(name).unwrap().unwrap()
        })
    };
    let [a, b, c, d] = make();
    ip::delete_together(&[a, b]).unwrap();
    assert!(ip::index("sis-a").unwrap().is_none() && ip::index("sis-b").unwrap().is_none());
    // One is gone already, and so is the whole of the second call.
    ip::delete_together(&[b, c]).unwrap();
    ip::delete_together(&[b, c]).unwrap();
    assert!(ip::index("sis-c").unwrap().is_none() && ip::index("sis-d").unwrap().is_some());
    // The loopback interface cannot go, which is told, and what it was named with stays.
    let lo = ip::index("lo").unwrap().unwrap();
    assert!(ip::delete_together(&[lo, d]).is_err());
    assert!(ip::index("sis-d").unwrap().is_some() && ip::index("lo").unwrap().is_some());
}

#[test]
fn a_link_of_another_kind_is_not_replaced() {
    if !inside_namespaces("sys::a_link_of_another_kind_is_not_replaced", &["unshare", "ip"]) {
        return;
    }
    let error = ip::create_tap("lo", 200_001, ADDRESS, 30, "ours").unwrap_err();
    assert_eq!(
        error.to_string(),
        "cannot create the interface lo: a loopback link of that name already exists"
    );
    Tool::new("ip").args(["tuntap", "add", "dev", "tun-a", "mode", "tun"]).run().unwrap();
    ip::create_tap("tun-a", 200_001, ADDRESS, 30, "ours").unwrap_err();
    assert!(ip::index("tun-a").unwrap().is_some());
    assert_eq!(ip::taps().unwrap(), []);
}

#[test]
fn the_uplink_is_the_default_route_of_least_metric() {
    if !inside_namespaces("sys::the_uplink_is_the_default_route_of_least_metric", &["unshare", "ip"]) {
        return;
    }
    assert_eq!(ip::default_uplink(&ip::routes().unwrap()).unwrap(), None);
    for (name, network, metric) in [("far", 1, "200"), ("near", 2, "100")] {
        ip::create_tap(name, 0, Ipv4Addr::new(10, 1, network, 1), 30, "ours").unwrap();
        let gateway = format!("10.1.{network}.2");
        let route = ["route", "add", "default", "via", &gateway, "dev", name, "metric", metric];
        Tool::new("ip").args(route).run().unwrap();
    }
    assert_eq!(ip::default_uplink(&ip::routes().unwrap()).unwrap().as_deref(), Some("near"));
}

#[test]
fn a_sysctl_is_set_and_an_unknown_one_is_told_from_it() {
    if !inside_namespaces("sys::a_sysctl_is_set_and_an_unknown_one_is_told_from_it", &["unshare"]) {
        return;
    }
    ip::set_sysctl("net.ipv4.ip_forward", "0").unwrap();
    ip::set_sysctl("net.ipv4.ip_forward", "1").unwrap();
    assert_eq!(ip::get_sysctl("net.ipv4.ip_forward").unwrap().as_deref(), Some("1"));
    assert_eq!(ip::get_sysctl("net.ipv4.no_such_key").unwrap(), None);
    assert!(ip::set_sysctl("net.ipv4.no_such_key", "1").unwrap_err().to_string().contains("no_such_key"));
}

/// A network of the test's own, whose namespaces have their names in a tmpfs of its own.
fn has_own_names(test: &str) -> bool {
    let inside = inside_namespaces(&format!("sys::{test}"), &["unshare", "ip", "mount"]);
    if inside {
        Tool::new("mount").args(["-t", "tmpfs", "none", "/run"]).run().unwrap();
    }
    inside
}

#[test]
fn a_network_namespace_is_made_entered_repaired_and_removed() {
    if !has_own_names("a_network_namespace_is_made_entered_repaired_and_removed") {
        return;
    }
    let netns = Netns::named("sisforge-test");
    netns::remove(&netns).unwrap();
    let error = netns::within(&netns, || ()).unwrap_err().to_string();
    assert_eq!(error, "cannot enter the network namespace /run/netns/sisforge-test");
    // What `ip netns add` leaves that was killed.
    fs::create_dir_all("/run/netns").unwrap();
    fs::write(netns.path(), "").unwrap();
    assert_eq!(netns::presence(&netns).unwrap(), Presence::Broken);
    let error = netns::within(&netns, || ()).unwrap_err().to_string();
    assert!(error.ends_with("(it is not a namespace, but a file left over from one)"), "{error}");

    netns::create(&netns).unwrap();
    netns::create(&netns).unwrap();
    assert_eq!(netns::presence(&netns).unwrap(), Presence::There);
    assert!(Tool::new("ip").args(["netns", "list"]).text().unwrap().contains("sisforge-test"));

    // Addresses, settings and programs are the namespace's, and nobody else is moved.
    let forwards = "net.ipv4.ip_forward";
    ip::set_sysctl(forwards, "0").unwrap();
    let (links, own) = netns::within(&netns, || {
        ip::set_sysctl(forwards, "1").unwrap();
        let links = Tool::new("ip").args(["-br", "link"]).text().unwrap();
        (links, fs::read_link("/proc/thread-self/ns/net").unwrap())
    })
    .unwrap();
    assert!(links.starts_with("lo") && links.contains(",UP,") && links.lines().count() == 1, "{links}");
    assert_ne!(own, fs::read_link("/proc/self/ns/net").unwrap());
    assert_eq!(ip::get_sysctl(forwards).unwrap().as_deref(), Some("0"));

    netns::remove(&netns).unwrap();
    assert_eq!(netns::presence(&netns).unwrap(), Presence::Absent);
}

#[test]
fn a_neighbour_that_is_asked_learns_where_the_host_is_now_though_neither_had_a_doubt() {
    if !has_own_names("a_neighbour_that_is_asked_learns_where_the_host_is_now_though_neither_had_a_doubt") {
        return;
    }
    let (host, guest) = (Ipv4Addr::new(192, 0, 2, 1), Ipv4Addr::new(192, 0, 2, 2));
    let mac = [2, 0, 0, 0, 0, 2];
    let batch = |lines: &str| Tool::new("ip").arg("-batch").arg("-").stdin(lines).run().unwrap();
    let netns = Netns::named("sisforge-guest");
    netns::create(&netns).unwrap();
    // Where the host was is what its guest knows, and the host knows where the guest is.
    batch(
        "link add name tap0 address 02:00:00:00:00:01 type veth peer name eth0 address 02:00:00:00:00:02\nlink set eth0 netns sisforge-guest\n\
         address add 192.0.2.1/24 dev tap0\nlink set tap0 up\n",
    );
    let knows = || Tool::new("ip").args(["neigh", "show", "dev", "eth0"]).text().unwrap();
    netns::within(&netns, || {
        batch("address add 192.0.2.2/24 dev eth0\nlink set eth0 up\nneigh replace 192.0.2.1 lladdr 02:00:00:00:00:99 dev eth0 nud reachable\n");
    })
    .unwrap();
    batch("neigh replace 192.0.2.2 lladdr 02:00:00:00:00:02 dev tap0 nud reachable\n");
    ip::probe_neighbour("tap0", guest, mac).unwrap();
    eventually("it knows", || netns::within(&netns, knows).unwrap().contains("02:00:00:00:00:01"));
    let said = netns::within(&netns, knows).unwrap();
    assert!(said.starts_with(&host.to_string()) && !said.contains(":99"), "{said}");
    let error = ip::probe_neighbour("none", guest, mac).unwrap_err();
    assert!(error.to_string().contains("none"), "{error}");
    netns::remove(&netns).unwrap();
}

const RULESET: &str = "\
table inet sis-test
delete table inet sis-test
table inet sis-test {
    counter denied { packets 3 bytes 252; }
    chain forward {
        type filter hook forward priority filter; policy accept;
        counter name denied drop
    }
}
";

#[test]
fn a_ruleset_is_loaded_whole_or_not_at_all() {
    if !inside_namespaces("sys::a_ruleset_is_loaded_whole_or_not_at_all", &["unshare", "nft"]) {
        return;
    }
    assert_eq!(nft::list_table("inet", "sis-test").unwrap(), None);
    nft::check(RULESET).unwrap();
    assert_eq!(counted::tables(), []);

    nft::load(RULESET).unwrap();
    nft::load(RULESET).unwrap();
    assert_eq!(counted::tables(), [("inet".to_owned(), "sis-test".to_owned())]);
    let listed = nft::list_table("inet", "sis-test").unwrap().unwrap();
    assert!(listed.contains("counter name \"denied\" drop") && !listed.contains("252"), "{listed}");
    let denied = counted::counters("inet", "sis-test")["denied"];
    assert_eq!(denied, counted::Counter { packets: 3, bytes: 252 });

    let error =
        nft::load("table inet other { }\ntable inet sis-test { chain forward { nonsense } }\n").unwrap_err();
    assert!(std::error::Error::source(&error).unwrap().to_string().contains("nonsense"), "{error}");
    assert_eq!(counted::tables().len(), 1);
    nft::check("table inet x { chain y { nonsense } }").unwrap_err();

    nft::delete_table("inet", "sis-test").unwrap();
    nft::delete_table("inet", "sis-test").unwrap();
    assert_eq!(counted::tables(), []);
}

#[test]
fn a_tmpfs_is_bounded_owned_and_removed() {
    if !inside_namespaces("sys::a_tmpfs_is_bounded_owned_and_removed", &["unshare"]) {
        return;
    }
    use std::os::unix::fs::MetadataExt;
    let dir = tempfile::tempdir().unwrap();
    let disk = dir.path().join("a jail/disk");
    mount::tmpfs(&disk, 1 << 20, 200_001, 200_001, 0o700).unwrap();
    let meta = fs::metadata(&disk).unwrap();
    assert_eq!((meta.uid(), meta.gid(), meta.mode() & 0o7777), (200_001, 200_001, 0o700));
    fs::write(disk.join("kept"), "x").unwrap();
    mount::tmpfs(&disk, 1 << 20, 200_001, 200_001, 0o700).unwrap();
    assert_eq!(fs::read_to_string(disk.join("kept")).unwrap(), "x");
    let error = fs::write(disk.join("large"), vec![1; 2 << 20]).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::StorageFull);

    mount::tmpfs(&disk.join("inner"), 1 << 16, 0, 0, 0o700).unwrap();
    assert_eq!(mount::mounts_below(dir.path()).unwrap(), [disk.join("inner"), disk.clone()]);
    let open = File::open(disk.join("inner")).unwrap();
    assert!(mount::unmount(&disk.join("inner")).unwrap_err().to_string().contains("still uses it"));
    drop(open);
    for place in mount::mounts_below(dir.path()).unwrap() {
        mount::unmount(&place).unwrap();
    }
    assert_eq!(mount::mounts_below(dir.path()).unwrap(), Vec::<PathBuf>::new());
    assert!(!disk.join("kept").exists());
}
