//! What holds for every command: JSON alone with `--json`, silence with `-q`, variables for flags; and what is
//! generated from the definitions of the commands.

use std::fs;
use std::process::Command;

use crate::common::sandbox::{Run, Sandbox};

#[test]
fn init_writes_what_the_program_understands_and_replaces_nothing() {
    let sandbox = Sandbox::new();
    sandbox.done("init");
    let text = sandbox.read("fleet.toml");
    assert_eq!(sandbox.done("init --print"), text);
    sandbox.run("init").fails(2, &["fleet.toml already exists", "help: "]);
    let check = sandbox.run("check");
    check.fails(2, &["there are no keys in "]);
    assert_eq!(
        check.err.matches("error: ").count(),
        2,
        "the keys of two repositories and nothing else\n{check}"
    );
    fs::rename(sandbox.path("keys"), sandbox.path("alpine")).unwrap();
    fs::create_dir(sandbox.path("keys")).unwrap();
    fs::rename(sandbox.path("alpine"), sandbox.path("keys/alpine")).unwrap();
    sandbox.run("check").fails(0, &["fleet.toml is valid"]);
}

#[test]
fn the_schema_names_every_section_of_the_template() {
    let sandbox = Sandbox::new();
    let schema: serde_json::Value = serde_json::from_str(&sandbox.done("schema")).unwrap();
    let template: toml::Table = sandbox.done("init --print").parse().unwrap();
    for section in template.keys() {
        assert!(schema["properties"][section].is_object(), "{section} is not in the schema");
    }
}

#[test]
fn completions_and_man_pages_cover_every_command() {
    let sandbox = Sandbox::new();
    for shell in ["bash", "zsh", "fish"] {
        let script = sandbox.done(&format!("completions {shell}"));
        assert!(script.contains("sisforge") && script.contains("watch"), "{shell}");
        sandbox.write(&format!("completions.{shell}"), script);
    }
    Run::of(Command::new("bash").arg("-n").arg(sandbox.path("completions.bash"))).fails(0, &[]);

    sandbox.done("man --dir man");
    let help = sandbox.done("--help");
    let commands = help.split("Commands:").nth(1).unwrap().split("Options:").next().unwrap();
    // A command stands two columns in; what continues its text stands further.
    let commands: Vec<_> = commands
        .lines()
        .filter(|line| line.starts_with("  ") && !line.starts_with("   "))
        .filter_map(|line| line.split_whitespace().next())
        .filter(|command| *command != "help")
        .collect();
    assert!(commands.len() >= 18, "{commands:?}");
    for command in commands {
        let page = sandbox.read(&format!("man/sisforge-{command}.1"));
        assert!(page.contains(".SH NAME"), "{command}");
    }
    assert!(sandbox.done("man").contains(".SH SUBCOMMANDS"));
}

/// Asserts that every line is a JSON value, and that nothing else was said.
#[track_caller]
fn is_json(run: &Run, code: i32) {
    assert_eq!((run.code, run.err.as_str()), (code, ""), "{run}");
    assert!(!run.out.is_empty(), "{run}");
    for line in run.out.lines() {
        assert!(serde_json::from_str::<serde_json::Value>(line).is_ok(), "no JSON: {line}\n{run}");
    }
}

#[test]
fn with_json_nothing_but_json_is_printed() {
    let sandbox = Sandbox::new();
    is_json(&sandbox.run("check --json"), 2);
    is_json(&sandbox.run("apk key other.rsa --json"), 0);
    is_json(&sandbox.run("apk index repository/x86_64 --key me.rsa --json"), 0);
    is_json(&sandbox.run("init --json"), 0);
    sandbox.fleet("a");
    for command in ["check", "lock", "build", "build --check", "build kernel"] {
        is_json(&sandbox.run(&format!("{command} --json")), 0);
    }
    for command in ["inspect i", "diff i i", "sbom i", "sbom i --format cyclonedx"] {
        is_json(&sandbox.run(&format!("{command} --json")), 0);
    }
    is_json(&sandbox.run("inspect j --json"), 2);
    is_json(&sandbox.run("build image j --json"), 2);
    sandbox.write("fleet.toml", "[fleet]\nnam = 1\n");
    is_json(&sandbox.run("check --json"), 2);
    is_json(&sandbox.run("tree --json"), 2);
}

#[test]
fn with_json_nothing_but_json_is_printed_of_a_host() {
    crate::needs_firecracker!();
    let sandbox = Sandbox::new();
    sandbox.fleet("a");
    let (a, run) = (sandbox.guest('a'), |args: &str| sandbox.run(&format!("--json {args}")));
    for command in ["ps", "down", "up"] {
        is_json(&run(command), 0);
    }
    for command in ["plan", "up", "ps", "ps --all", "status", "watch --once"] {
        is_json(&run(command), 0);
    }
    is_json(&run(&format!("exec {a}x true")), 2);
    is_json(&run("tree --out t"), 0);
    sandbox.kernel("no\n", sisforge::sys::tiny_guest::Then::Reset);
    is_json(&run("up"), 1);
    is_json(&run("down --purge"), 2);
    is_json(&run("down --purge --yes"), 0);
}

#[test]
fn quiet_commands_print_results_and_errors_alone() {
    crate::needs_firecracker!();
    let sandbox = Sandbox::new();
    sandbox.fleet("a");
    for command in ["check", "up", "up", "watch --once", "down", "down"] {
        let run = sandbox.run(&format!("{command} -q"));
        assert_eq!((run.code, run.out.as_str(), run.err.as_str()), (0, "", ""), "{command}\n{run}");
    }
    assert_eq!(sandbox.run("tree --out t -q").out.lines().count(), 1, "the jail is the result");
    sandbox.run("tree --out t -q").fails(2, &["error: t already exists"]);
}

#[test]
fn every_global_flag_has_a_variable() {
    let sandbox = Sandbox::new();
    sandbox.fleet("a");
    fs::create_dir(sandbox.path("elsewhere")).unwrap();
    let set = |name: &str, value: &str, args: &[&str]| {
        let mut command = sandbox.command();
        Run::of(command.current_dir(sandbox.path("elsewhere")).env(name, value).args(args))
    };
    set("SISFORGE_FILE", "../fleet.toml", &["check"]).fails(0, &["../fleet.toml is valid"]);
    let file = ["--file", "../fleet.toml"];
    is_json(&set("SISFORGE_JSON", "true", &[&["check"], &file[..]].concat()), 0);
    let quiet = set("SISFORGE_QUIET", "true", &[&["check"], &file[..]].concat());
    assert_eq!((quiet.code, quiet.err.as_str()), (0, ""));
    set("SISFORGE_OUT_DIR", "here", &[&["build"], &file[..]].concat()).fails(0, &[]);
    assert!(sandbox.path("elsewhere/here/image/i").exists() && !sandbox.path("out").exists());
    assert!(sandbox.path("fleet.lock").exists(), "the lock is beside its fleet");
    set("SISFORGE_JOBS", "none", &["check"]).fails(2, &["--jobs"]);
    let colour = set("SISFORGE_COLOR", "always", &["check"]);
    assert!(colour.err.contains("\x1b[1;31merror"), "{colour}");
    assert!(!set("SISFORGE_COLOR", "never", &["check"]).err.contains('\x1b'));
}
