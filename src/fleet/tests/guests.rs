//! Users, pools, and what runs in their guests.

use super::*;

#[test]
fn a_member_of_a_pool_cannot_be_called_like_a_user() {
    assert_snapshot!(shown(&format!("{SMALL}[user.kiosk-1]\n[pool.kiosk]\nreplicas = 2\n")), @r#"
    error: there are two guests `kiosk-1`
      --> /f/fleet.toml:19:7
       |
    18 | [user.kiosk-1]
       |       ------- `kiosk-1` is declared here
    19 | [pool.kiosk]
       |       ^^^^^ this pool has a `kiosk-1`
       |
       = help: rename one of the two
    "#);
}

#[test]
fn members_of_pools_have_names_of_guests() {
    let text = format!("{SMALL}[pool.workplace]\nreplicas = 11\n");
    assert_snapshot!(shown(&text), @r#"
    error: pool `workplace` has a guest `workplace-10`, whose name must be 1 to 11 of a-z, 0-9 and '-', beginning with a letter or digit
      --> /f/fleet.toml:18:7
       |
    18 | [pool.workplace]
       |       ^^^^^^^^^
       |
       = help: shorten the name of the pool
    "#);
    assert_eq!(messages("", "[pool.workplace]\nreplicas = 10\n"), [""; 0]);
}

#[test]
fn more_guests_than_numbers_are_refused_with_both_numbers() {
    let host = "[host]\nsubnet = \"10.0.0.0/29\"\nuids = \"2000-2002\"\n";
    let text = format!("{SMALL}[pool.kiosk]\nreplicas = 3\n{host}");
    assert_snapshot!(shown(&text), @r#"
    error: 10.0.0.0/29 has room for 2 guests, but there are 4
      --> /f/fleet.toml:21:10
       |
    21 | subnet = "10.0.0.0/29"
       |          ^^^^^^^^^^^^^ a /30 for each guest
       |
       = help: widen `subnet`, or lower the `replicas` of a pool

    error: 2000-2002 are 3 user ids, but there are 4 guests
      --> /f/fleet.toml:22:8
       |
    22 | uids = "2000-2002"
       |        ^^^^^^^^^^^ one for each guest
       |
       = help: widen `uids`, or lower the `replicas` of a pool
    "#);
    assert_eq!(messages("", &format!("[user.bob]\n{host}")), [""; 0]);
}

#[test]
fn numbers_of_guests_have_bounds() {
    refused(&[
        ("", "vcpus = 0", "0 is not from 1 to 32"),
        ("", "vcpus = 33", "33 is not from 1 to 32"),
        ("", "memory = \"63MiB\"", "63MiB is too small: a guest needs at least 64MiB"),
        ("", "memory = \"65537KiB\"", "not a whole number of MiB"),
        ("", "disk = { size = \"15MiB\", backing = \"file\" }", "a disk needs at least 16MiB"),
        ("", "[user.twelve-chars]", "must be 1 to 11"),
        ("", "[pool.x]\nreplicas = -1", "-1 is not from 0 to 65536"),
        ("", "[pool.x]\nspare = 2", "pool `x` has `spare`, but no `max`"),
        ("", "[pool.x]\nmax = 2", "pool `x` has `max`, but no `spare`"),
        ("", "[pool.x]\nspare = 3\nmax = 2", "pool `x` has 3 spare guests, but 2 guests at the most"),
        ("", "[pool.x]\nreplicas = 1\nspare = 0\nmax = 2", "pool `x` has `replicas` beside `spare` or `max`"),
        ("", "[pool.x]\nreplicas = 1\npaused = true", "pool `x` has `replicas` and `paused`"),
        ("", "[pool.x]\nreplicas = 1\nsession = { ttl = \"8h\" }", "pool `x` has `replicas` and `session`"),
        ("", "[pool.x]\nspare = 1\nmax = 2\nsession = { ttl = \"8\" }", "must be a duration"),
        (
            "",
            "[pool.x]\nspare = 1\nmax = 2\nsession = { disk = \"17TiB\" }",
            "17TiB is too large: the disk of a session has at most",
        ),
        (
            "",
            "[pool.x]\nspare = 1\nmax = 2\nsession = { disk = \"15MiB\" }",
            "the disk of a session needs at least 16MiB",
        ),
        (
            "",
            "[pool.x]\nspare = 1\nmax = 2\nsession = { disk = \"16MiB\" }\ncontainers = [{ name = \"b\", image = \"y\", volumes = [\"./kept/d:/d\"] }]",
            "mounts `./kept/d`, a part of the disk that sessions bring",
        ),
        (
            "",
            "[pool.x]\nspare = 1\nmax = 2\nsession = { ends-with = \"b\" }",
            "the sessions of pool `x` end with a container `b`, which it does not have",
        ),
        (
            "",
            "[pool.x]\nspare = 1\nmax = 2\nsession = { ends-with = \"b\" }\ncontainers = [{ name = \"b\", image = \"y\", restart = \"always\" }]",
            "end with `b`, which never ends",
        ),
        ("", "containers = [{ name = \"a\", image = \"x\" }, { name = \"a\", image = \"y\" }]", "twice"),
    ]);
}

#[test]
fn containers_are_what_podman_can_run_and_in_nobodys_way() {
    let with = |keys: &str| format!("containers = [{{ name = \"a\", image = \"x\", {keys} }}]");
    let both = |a: &str, b: &str| {
        format!(
            "containers = [{{ name = \"a\", image = \"x\", {a} }}, {{ name = \"b\", image = \"x\", {b} }}]"
        )
    };
    let huge = with(&format!("env = {{ A = \"{}\" }}", "'".repeat(20_000)));
    let secret = "secrets = [{ name = \"s\", file = \"f\"";
    let cases = [
        ("containers = [{ name = \"a\" }]".to_owned(), "`image` is missing"),
        ("containers = [{ name = \"-a\", image = \"x\" }]".to_owned(), "must be 1 to 64"),
        (
            "containers = [{ name = \"a\", image = \"--privileged\" }]".to_owned(),
            "must be the name of a container",
        ),
        (with("kube = \"pod.yaml\""), "a container has an image or a `kube` file"),
        (
            "containers = [{ name = \"a\", kube = \"p\", env = { A = 1 } }]".to_owned(),
            "`env` cannot go with `kube`",
        ),
        (with("command = [\"a\\u0000b\"]"), "zero byte"),
        (with("env = { \"A=B\" = \"\" }"), "must name a variable"),
        (with("env = { \"-e\" = \"\" }"), "must name a variable"),
        (with("env = { A = 1.5 }"), "expected a string"),
        (huge, "at most 65536"),
        (with("ports = [0]"), "must be a port"),
        (with("ports = [\"127.0.0.1:80:80\"]"), "must be a port"),
        (with("ports = [22]"), "that of its sshd"),
        (with("ports = [80, \"80:81\"]"), "port 80/tcp of the guest is given twice"),
        (both("ports = [80]", "ports = [\"80:8080\"]"), "port 80/tcp of the guest is given twice"),
        (with("volumes = [\"/etc:/etc\"]"), "nothing outside of the home"),
        (with("volumes = [\"./../x:/x\"]"), "leads out of the guest's home"),
        (with("volumes = [\"a:/x\"], tmpfs = [\"/x:size=1m\"]"), "/x is mounted twice"),
        (with("tmpfs = [\"/x:dev,bind\"]"), "has the option"),
        (with("memory = \"1MiB\""), "a container needs at least 4MiB"),
        (with("cpus = 0"), "0 is not from 0.01 to 32"),
        (with("cpus = nan"), "is not from 0.01 to 32"),
        (with("user = \"-1\""), "must be a user"),
        (with("restart = \"unless-stopped\""), "is not one of no, on-failure"),
        (with("health = { command = [] }"), "there is no program to run"),
        (with("health = { command = [\"x\"], interval = \"500ms\" }"), "whole seconds"),
        (with("health = { command = [\"x\"], timeout = \"2h\" }"), "more than an hour"),
        (with("health = { command = [\"x\"], retries = 0 }"), "0 is not from 1"),
        (with(&format!("{secret}, env = \"A\", target = \"b\" }}]")), "a secret is a variable or a file"),
        (with(&format!("env = {{ A = 1 }}, {secret}, env = \"A\" }}]")), "the variable A is given twice"),
        (with(&format!("{secret}, target = \"a,mode=0777\" }}]")), "without ','"),
        (
            both(&format!("{secret} }}]"), "secrets = [{ name = \"s\", file = \"g\" }]"),
            "secret `s` is of two files",
        ),
        (with(&format!("{secret} }}, {{ name = \"s\", file = \"f\" }}]")), "/run/secrets/s is mounted twice"),
        (
            with(&format!("{secret} }}, {{ name = \"t\", file = \"g\", target = \"/run/secrets/s\" }}]")),
            "/run/secrets/s is mounted twice",
        ),
        (with(&format!("tmpfs = [\"/x\"], {secret}, target = \"/x\" }}]")), "/x is mounted twice"),
        (
            with(&format!("{secret}, env = \"A\" }}, {{ name = \"t\", file = \"g\", env = \"A\" }}]")),
            "the variable A is given twice",
        ),
        (with("memory = \"1GiB\""), "container `a` may take more than user `alice` has: 512MiB"),
        (with("cpus = 1.5"), "container `a` may take more than user `alice` has: 1 vcpu"),
    ];
    for (text, message) in &cases {
        refused(&[("", text, message)]);
    }
    let fits = with(
        "memory = \"512MiB\", cpus = 1, secrets = [{ name = \"s\", file = \"f\" }, { name = \"s\", file = \"f\", env = \"A\" }]",
    );
    at(&(SMALL.to_owned() + &fits)).unwrap_or_else(|invalid| panic!("{}", render(&invalid, false)));
    // What a process can be given, it is given.
    let fine =
        with("command = [\"--\", \"-v\", \"\", \"a\\nb\"], env = { A = \"\\n$(id)'\\\"\", B = true, C = 7 }");
    let fleet =
        at(&(SMALL.to_owned() + &fine)).unwrap_or_else(|invalid| panic!("{}", render(&invalid, false)));
    let container = &fleet.guests.values().next().unwrap().containers[0];
    assert_eq!(container.command, ["--", "-v", "", "a\nb"]);
    assert_eq!(container.env.values().collect::<Vec<_>>(), ["\n$(id)'\"", "true", "7"]);
}

#[test]
fn software_emulation_runs_one_processor_a_guest() {
    let text = SMALL.replace("[fleet]\n", "[fleet]\nvmm = \"qemu\"\n") + "vcpus = 2\n";
    let problems = at(&text).unwrap_err().problems;
    assert!(problems[0].message.ends_with("only one virtual processor"), "{problems:?}");
    assert_eq!(text[problems[0].span.clone()], *"2", "the place of the guest's own word");
    let by_default = text.replace("vcpus = 2\n", "") + "[defaults]\nvcpus = 3\n[user.carl]\nvcpus = 4\n";
    let by_default = by_default.replacen("[defaults]\n[", "[", 1);
    let places: Vec<_> = match at(&by_default) {
        Err(invalid) => invalid.problems.iter().map(|it| by_default[it.span.clone()].to_owned()).collect(),
        Ok(_) => Vec::new(),
    };
    assert!(places.contains(&"3".to_owned()) && places.contains(&"4".to_owned()), "{places:?}");
    assert!(at(&text.replace("vcpus = 2", "vcpus = 1")).is_ok());
}

#[test]
fn what_podman_would_not_play_is_told_before_a_guest_starts() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("fleet.toml");
    std::fs::write(&path, SMALL.to_owned() + "containers = [{ name = \"a\", kube = \"pod.yaml\" }]\n")
        .unwrap();
    let told = |content: &[u8]| {
        std::fs::write(dir.path().join("pod.yaml"), content).unwrap();
        let Err(LoadError::Invalid(invalid)) = load(&path) else { panic!("no keys are there") };
        invalid.problems.iter().map(|problem| problem.message.clone() + "\n").collect::<String>()
    };
    let too_large = "kind: Pod\n".repeat(1 << 17);
    for (content, message) in [
        (&b""[..], "nothing in it has a `kind`"),
        (b"replicas: 3\n", "nothing in it has a `kind`"),
        (b"kind: \xff\n", "cannot read"),
        (too_large.as_bytes(), "has more than 1048576 bytes"),
    ] {
        let told = told(content);
        assert!(told.contains("pod.yaml") && told.contains(message), "{message}: {told}");
    }
    assert!(!told(b"apiVersion: v1\nkind: Pod\n").contains("pod.yaml"));
}
