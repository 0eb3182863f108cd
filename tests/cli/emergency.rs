//! What acts on what is there works by the fleet's name and store alone, whatever else is wrong in `fleet.toml`.

use crate::common::sandbox::Sandbox;
use crate::needs_firecracker;

#[test]
fn a_broken_file_stands_in_nobodys_way_who_looks_at_guests_or_takes_them_down() {
    needs_firecracker!();
    let sandbox = Sandbox::running("ab");
    let (a, b) = (&sandbox.guest('a'), &sandbox.guest('b'));
    let pid = sandbox.pid(a);
    let good = sandbox.read("fleet.toml");
    let broken = [
        good.replace("memory = \"64MiB\"", "memroy = \"64MiB\""),
        good.replace("size = \"16MiB\"", "size = \"16MiB\"\nimages = [\"oci-archive:absent.tar\"]"),
        good.clone() + "[user.\n",
        good.replace("default = \"deny\"", "default = \"deny\"\ndeny = [{ list = \"absent.txt\" }]"),
    ];
    for broken in broken {
        sandbox.write("fleet.toml", &broken);
        assert_eq!(sandbox.pid(a), pid);
        assert_eq!(sandbox.done("ps").lines().count(), 3);
        assert_eq!(sandbox.done(&format!("logs {a}")), "sisforge: ready\n");
        sandbox.run(&format!("exec {a} true")).fails(1, &["has no sshd"]);
        sandbox.run(&format!("exec {a}x true")).fails(2, &["there is no guest", "help: did you mean"]);
        sandbox.run(&format!("quarantine {a}")).fails(0, &[]);
        sandbox.run(&format!("release {a}")).fails(0, &[]);
        assert_ne!(sandbox.run("up").code, 0, "but no guest is started by it");
    }
    // A mistake in what tells where the fleet is ends it, with all mistakes.
    sandbox.write("fleet.toml", good.replace(&format!("name = \"{}\"", sandbox.name), "name = \"A B\""));
    sandbox.run("ps").fails(2, &["fleet.toml:2"]);
    sandbox.write("fleet.toml", good.clone() + "[user.\n");
    sandbox.run(&format!("down {b}")).fails(0, &["1 stopped"]);
    sandbox.run("down").fails(0, &["1 stopped"]);
    assert_eq!(sandbox.traces(), [""; 0]);
    sandbox.write("fleet.toml", good);
}
