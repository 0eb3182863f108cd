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
        assert!(script.contains("sisforge"), "{shell}");
    }

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
    let page = sandbox.read("man/sisforge-up.1");
    for section in ["EXAMPLES", "\"EXIT STATUS\"", "ENVIRONMENT", "FILES"] {
        assert!(page.contains(&format!(".SH {section}\n")), "{section}\n{page}");
    }
    assert!(sandbox.read("man/fleet.toml.5").contains(".SH \"[network.NAME]\""));
}

/// What bash offers for the last of these words.
fn completed(sandbox: &Sandbox, words: &[&str]) -> Vec<String> {
    let script =
        "source <(sisforge completions bash); COMP_WORDS=(\"$@\"); COMP_CWORD=$(($# - 1)); COMP_TYPE=9
        _clap_complete_sisforge sisforge \"${COMP_WORDS[COMP_CWORD]}\"; printf '%s\\n' \"${COMPREPLY[@]}\"";
    let program = sandbox.command().get_program().to_owned();
    let dir = std::path::Path::new(&program).parent().unwrap().to_owned();
    let path = std::env::join_paths([dir, "/usr/bin".into(), "/bin".into()]).unwrap();
    let mut bash = Command::new("bash");
    let run = Run::of(
        bash.current_dir(sandbox.path("")).env("PATH", path).args(["-c", script, "bash"]).args(words),
    );
    run.fails(0, &[]);
    run.out.split_whitespace().map(str::to_owned).collect()
}

#[test]
fn a_shell_completes_commands_flags_and_names_of_guests() {
    let sandbox = Sandbox::new();
    sandbox.fleet("ab");
    assert!(completed(&sandbox, &["sisforge", "wat"]).contains(&"watch".to_owned()));
    assert!(completed(&sandbox, &["sisforge", "up", "--str"]).contains(&"--strategy".to_owned()));
    let guests = ['a', 'b'].map(|letter| sandbox.guest(letter).to_string());
    for words in [&["sisforge", "exec", ""][..], &["sisforge", "snapshot", "create", ""]] {
        let found = completed(&sandbox, words);
        assert!(guests.iter().all(|guest| found.contains(guest)), "{words:?}: {found:?}");
    }
    // Nothing is said where there is no fleet.
    fs::remove_file(sandbox.path("fleet.toml")).unwrap();
    let found = completed(&sandbox, &["sisforge", "exec", ""]);
    assert!(!found.contains(&guests[0]), "{found:?}");
}

#[test]
fn alpines_keys_are_written_beside_the_fleet_and_no_other_key_is_written_over() {
    let sandbox = Sandbox::new();
    let document = sandbox.document("keys alpine", "keys");
    assert_eq!(document["keys"].as_array().map(Vec::len), Some(3));
    let name = "keys/alpine/alpine-devel@lists.alpinelinux.org-6165ee59.rsa.pub";
    assert!(sandbox.read(name).starts_with("-----BEGIN PUBLIC KEY-----"));
    // Again it changes nothing.
    sandbox.run("keys alpine").fails(0, &["sha256 207e4696"]);
    sandbox.write(name, "another\n");
    fs::remove_file(sandbox.path("keys/alpine/alpine-devel@lists.alpinelinux.org-4a6a0840.rsa.pub")).unwrap();
    sandbox.run("keys alpine").fails(2, &["is another key", "help: "]);
    assert_eq!(sandbox.read(name), "another\n");
    assert_eq!(fs::read_dir(sandbox.path("keys/alpine")).unwrap().count(), 2, "nothing was written");
    sandbox.run("keys alpine --arch aarch64 other").fails(0, &["616ae350"]);
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
    sandbox.kernel("no\n", sisforge::sys::tiny_guest::AfterText::Reset);
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
fn wrong_usage_is_told_with_json_as_every_error_is() {
    let sandbox = Sandbox::new();
    for (wrong, words) in [
        ("frob", "unrecognized subcommand 'frob'"),
        ("up --frob", "unexpected argument '--frob' found"),
        ("exec", "the following required arguments were not provided"),
        ("policy", "subcommand"),
        ("up --jobs none", "invalid value 'none' for '--jobs <N>'"),
        ("up --quiet --verbose", "cannot be used with"),
    ] {
        let plain = sandbox.run(wrong);
        assert_eq!((plain.code, plain.out.as_str()), (2, ""), "{plain}");
        let (code, documents) = sandbox.documents(wrong, "error");
        let [document] = &documents[..] else { panic!("{wrong}: {documents:?}") };
        assert!(code == 2 && document["error"].as_str().unwrap().contains(words), "{document}");
        assert!(document["hint"].as_str().unwrap().contains("--help"), "{document}");
        let mut by_variable = sandbox.command();
        is_json(&Run::of(by_variable.env("SISFORGE_JSON", "yes").args(wrong.split(' '))), 2);
    }
    let run = Run::of(sandbox.command().args(["exec", "--frob", "--", "--json"]));
    assert_eq!((run.code, run.out.as_str()), (2, ""), "a command's own words\n{run}");
    sandbox.run("up --help --json").fails(0, &[]);
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
    is_json(&set("SISFORGE_JSON", "1", &[&["check"], &file[..]].concat()), 0);
    let quiet = set("SISFORGE_QUIET", "yes", &[&["check"], &file[..]].concat());
    assert_eq!((quiet.code, quiet.err.as_str()), (0, ""));
    set("SISFORGE_OUT_DIR", "here", &[&["build"], &file[..]].concat()).fails(0, &[]);
    assert!(sandbox.path("elsewhere/here/image/i").exists() && !sandbox.path("out").exists());
    assert!(sandbox.path("fleet.lock").exists(), "the lock is beside its fleet");
    set("SISFORGE_JOBS", "none", &["check"]).fails(2, &["invalid value 'none' for 'SISFORGE_JOBS'"]);
    set("SISFORGE_JOBS", "2", &["check", "--jobs", "none"]).fails(2, &["for '--jobs <N>'"]);
    set("SISFORGE_VERBOSE", "maybe", &["check"]).fails(2, &["'SISFORGE_VERBOSE'"]);
    for name in ["QUIET", "JOBS", "OUT_DIR", "COLOR"] {
        let run = set(&format!("SISFORGE_{name}"), "", &[&["check"], &file[..]].concat());
        run.fails(0, &["../fleet.toml is valid"]);
    }
    let colour = set("SISFORGE_COLOR", "always", &["check"]);
    assert!(colour.err.contains("\x1b[1;31merror"), "{colour}");
    assert!(!set("SISFORGE_COLOR", "never", &["check"]).err.contains('\x1b'));
}

#[test]
fn output_that_nobody_takes_is_an_error_with_its_cause() {
    let sandbox = Sandbox::new();
    sandbox.fleet("a");
    for command in ["schema", "ps --all", "export nomad"] {
        let mut full = sandbox.command();
        full.args(command.split(' ')).stdout(fs::File::create("/dev/full").unwrap());
        let run =
            Run::from(full.stderr(std::process::Stdio::piped()).spawn().unwrap().wait_with_output().unwrap());
        run.fails(1, &["error: cannot write to stdout: No space left"]);
    }
}
