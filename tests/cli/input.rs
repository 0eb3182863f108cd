//! Mistakes in `fleet.toml`, recipes and arguments: status 2, one clear error, nothing changed.

use std::fs;

use crate::common::namespaces::skip;
use crate::common::sandbox::{Run, Sandbox};

/// Runs `check` on a fleet of which a part was replaced.
fn check(from: &str, to: &str) -> Run {
    let sandbox = Sandbox::new();
    let text = sandbox.fleet_text("ab", "");
    assert!(text.contains(from), "{from:?} is not in\n{text}");
    sandbox.write("fleet.toml", text.replacen(from, to, 1));
    let run = sandbox.run("check");
    assert!(!sandbox.path("fleet.lock").exists() && !sandbox.path("out").exists());
    run
}

#[test]
fn an_unknown_key_is_shown_with_the_nearest_one() {
    check("[kernel]", "[kernell]")
        .fails(2, &["unknown key `kernell`", "fleet.toml:4:2", "did you mean `kernel`?"]);
    check("memory =", "memry =").fails(2, &["unknown key `memry`", "did you mean `memory`?"]);
}

#[test]
fn a_name_that_nothing_has_is_shown_with_the_nearest_one() {
    check("image = \"i\"", "image = \"j\"").fails(2, &["error: ", "`j`", "fleet.toml:", "help: "]);
    let recipe = "packages = [\"tiny\"]\nrecipes = [\"opnrc\"]";
    let words = ["there is no recipes/opnrc/recipe.toml", "did you mean `openrc`?"];
    check("packages = [\"tiny\"]", recipe).fails(2, &words);
}

#[test]
fn files_that_are_not_there_are_named_where_they_are_mentioned() {
    let file = "packages = [\"tiny\"]\nfiles = { \"/etc/motd\" = { file = \"gone\" } }";
    check("packages = [\"tiny\"]", file).fails(2, &["there is no file ", "/gone", "fleet.toml:12:"]);
    check("tiny.elf", "gone.elf").fails(2, &["there is no file ", "/gone.elf", "fleet.toml:5:9"]);
}

#[test]
fn names_are_parts_of_host_names() {
    for name in ["sisforge--a", "a-"] {
        let run = check("[kernel]", &format!("[user.{name}]\n[kernel]"));
        run.fails(2, &["fleet.toml:", "single '-' between them, as in host names"]);
    }
    let run = check("[kernel]", "[pool.a-]\nreplicas = 1\n[kernel]");
    run.fails(2, &["fleet.toml:", "has a guest `a--0`, whose name must be of a-z and 0-9 with single '-'"]);
    let run = check("name = \"", "name = \"a--");
    run.fails(2, &["fleet.toml:", "the fleet's name `a--", "is no part of a host name"]);
}

#[test]
fn two_users_of_one_name_are_shown_both() {
    let sandbox = Sandbox::new();
    sandbox.fleet("aa");
    let twice = format!("table `{}` is declared twice", sandbox.guest('a'));
    sandbox.run("check").fails(2, &[&twice, "first", "again", "keep one of the two"]);
    let pool = format!("[pool.{}]\nreplicas = 1\n", sandbox.name);
    sandbox.fleet_with("", &format!("[user.{}-0]\n{pool}", sandbox.name));
    sandbox.run("check").fails(2, &["error: ", &format!("{}-0", sandbox.name)]);
}

#[test]
fn a_subnet_too_small_is_refused_with_both_numbers() {
    check("0/24", "0/30").fails(2, &["has room for 1 guests, but there are 2", "widen `subnet`"]);
}

#[test]
fn a_fleet_file_that_cannot_be_read_says_why_and_what_to_do() {
    let sandbox = Sandbox::new();
    sandbox.run("check").fails(2, &["cannot read fleet.toml", "No such file", "help: run `sisforge init`"]);
    fs::create_dir(sandbox.path("fleet.toml")).unwrap();
    sandbox.run("check").fails(2, &["Is a directory", "help: give the file itself"]);
    fs::remove_dir(sandbox.path("fleet.toml")).unwrap();
    sandbox.write("fleet.toml", b"[fleet]\nname = \"\xff\"\n");
    sandbox.run("check").fails(2, &["cannot read fleet.toml", "it is not UTF-8", "help: save it as UTF-8"]);
    sandbox.write("fleet.toml", "");
    sandbox.run("check").fails(2, &["`fleet` is missing", "`kernel` is missing", "[[repository]]"]);
    sandbox.write("fleet.toml", "[fleet\n");
    sandbox.run("check").fails(2, &["not valid TOML", "fleet.toml:1:"]);
}

#[test]
fn nothing_is_put_where_e2fsck_puts_what_it_recovers() {
    let sandbox = Sandbox::new();
    let with =
        |files: &str| sandbox.fleet_text("a", "").replace("[image.i]\n", &format!("[image.i]\n{files}\n"));
    for path in ["/lost+found/x", "/lost+found"] {
        sandbox.write("fleet.toml", with(&format!("files = {{ \"{path}\" = {{ content = \"x\" }} }}")));
        sandbox.run("check").fails(2, &["no file can be put into /lost+found", "fleet.toml:", "help: "]);
    }
    sandbox.write("fleet.toml", with("files = { \"/srv/lost+found/x\" = { content = \"x\" } }"));
    sandbox.done("check");
    sandbox.write("recipes/r/recipe.toml", "[[file]]\npath = \"/lost+found/x\"\ncontent = \"x\"\n");
    sandbox.write("fleet.toml", with("recipes = [\"r\"]"));
    sandbox.run("check").fails(2, &["no file can be put into /lost+found", "recipes/r/recipe.toml:2"]);

    let pack = "apk pack more --name m --pkgver 1.0-r0 --to packed --key me.rsa";
    sandbox.write("more/lost+found/x", "x");
    sandbox
        .run(pack)
        .fails(2, &["lost+found/x: the directory lost+found is the file system's own", "help: "]);
    fs::remove_file(sandbox.path("more/lost+found/x")).unwrap();
    sandbox.done(pack);
}

#[test]
fn a_kernel_that_no_vmm_starts_is_said_before_anything_is_built() {
    let sandbox = Sandbox::new();
    sandbox.fleet("a");
    let mut image = vec![0; 4096];
    image[0x202..0x206].copy_from_slice(b"HdrS");
    let is_vmlinux = "help: [kernel] image takes a vmlinux";
    for (kernel, reason) in
        [(&b"text"[..], "it is not an ELF file"), (b"", "not an ELF file"), (&image, "it is a bzImage")]
    {
        sandbox.write("tiny.elf", kernel);
        for command in ["check", "lock", "build"] {
            sandbox.run(command).fails(2, &["tiny.elf", "this is not a kernel", reason, is_vmlinux]);
        }
    }
    assert!(!sandbox.path("fleet.lock").exists());
    assert!(!sandbox.path("out/kernel").exists());
}

#[test]
fn a_mistake_in_a_recipe_is_shown_where_it_is() {
    let sandbox = Sandbox::new();
    let text = sandbox.fleet_text("a", "");
    sandbox.write("fleet.toml", text.replace("packages = [\"tiny\"]", "recipes = [\"mine\"]"));
    let recipe = "recipes/mine/recipe.toml";
    sandbox.write(recipe, "description = \"mine\"\npackagess = [\"tiny\"]\n");
    sandbox.run("check").fails(2, &["recipes/mine/recipe.toml:2:1", "unknown key `packagess`", "`packages`"]);
    sandbox.write(recipe, "description = \"mine\"\n[[file]]\npath = \"/etc/x\"\ntemplate = \"gone.txt\"\n");
    sandbox.run("check").fails(2, &["recipes/mine/recipe.toml:4:12", "there is no recipes/mine/gone.txt"]);
}

#[test]
fn a_kernel_that_is_none_is_shown_where_it_is_named_beside_all_else() {
    let sandbox = Sandbox::new();
    let text = sandbox.fleet_text("a", "").replace("packages = [\"tiny\"]", "recipes = [\"mine\"]");
    sandbox.write("fleet.toml", &text);
    sandbox.write("tiny.elf", "text");
    sandbox.write("recipes/mine/recipe.toml", "description = \"mine\"\npackagess = [\"tiny\"]\n");
    let line = text.lines().position(|line| line.starts_with("image = \"tiny")).unwrap() + 1;
    let place = format!("fleet.toml:{line}:9");
    sandbox.run("check").fails(2, &[&place, "it is not an ELF file", "help: ", "unknown key `packagess`"]);
    sandbox.write("fleet.toml", text.replace("[fleet]", "[flet]"));
    sandbox.run("forensics a").fails(2, &["fleet.toml:", "unknown key `flet`"]);
}

#[test]
fn a_file_is_written_into_a_directory_that_is_there() {
    let sandbox = Sandbox::new();
    sandbox.fleet("a");
    for command in [
        "metrics --to absent/file",
        "--file absent/fleet.toml init",
        "kernel compact tiny.elf --to absent/elf",
    ] {
        let run = sandbox.run(command);
        assert_ne!(run.code, 0, "{command}: {run}");
        assert!(!sandbox.path("absent").exists(), "{command} made a directory");
    }
}

#[test]
fn arguments_that_are_not_known_are_shown_with_the_nearest_ones() {
    let sandbox = Sandbox::new();
    sandbox.fleet("a");
    sandbox.run("chekc").fails(2, &["unrecognized subcommand 'chekc'", "'check'"]);
    sandbox.run("check --fiel").fails(2, &["unexpected argument '--fiel'", "'--file'"]);
    sandbox.run("check --jobs 0").fails(2, &["invalid value '0' for '--jobs <N>'"]);
    sandbox.run("build image j").fails(2, &["error: there is no image j; there is i"]);
    sandbox.run("watch --interval soon").fails(2, &["'--interval <INTERVAL>'", "such as 30s"]);
    sandbox.run("logs -n abc").fails(2, &["it must be a whole number, such as 100"]);
    sandbox.run("up --max-unavailable 0").fails(2, &["it must be a number of guests, at least 1"]);
    sandbox.run("up --strategy recreate --max-unavailable 2").fails(2, &["--max-unavailable has no effect"]);
}

#[test]
fn guests_that_are_not_known_are_shown_with_the_nearest_ones() {
    if !rustix::process::geteuid().is_root() {
        return skip(
            "guests_that_are_not_known_are_shown_with_the_nearest_ones",
            "what looks into a host needs root",
        );
    }
    let sandbox = Sandbox::new();
    sandbox.fleet("a");
    let a = sandbox.guest('a');
    let (there_is_none, nearest) = (format!("there is no guest \"{a}x\""), format!("did you mean `{a}`?"));
    for command in ["up", "logs", "console", "tree"] {
        sandbox.run(&format!("{command} {a}x")).fails(2, &[&there_is_none, &nearest]);
    }
    sandbox.run(&format!("exec {a}x true")).fails(2, &[&there_is_none, &nearest]);
    sandbox.run(&format!("exec {a} true")).fails(1, &["is not running", &format!("`sisforge up {a}`")]);
    sandbox.run(&format!("logs {a}")).fails(1, &["was never started on this host"]);
    for command in ["quarantine", "release"] {
        let run = sandbox.run(&format!("{command} {a}"));
        run.fails(1, &[&format!("{a} was never started on this host"), &format!("`sisforge up {a}`")]);
        sandbox.run(&format!("{command} {a}x")).fails(2, &[&there_is_none]);
    }
}
