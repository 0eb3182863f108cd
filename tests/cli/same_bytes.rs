//! The same inputs give the same bytes, whoever builds them, where, and in what surroundings.

use std::collections::BTreeMap;
use std::fs;
use std::process::Command;

use serde_json::Value;

use super::tree::as_nobody;
use crate::common::sandbox::{Run, SISFORGE, Sandbox};

/// Digest of each artifact by kind and name.
fn built(run: &Run) -> BTreeMap<String, String> {
    assert_eq!(run.code, 0, "{run}");
    let last: Value = serde_json::from_str(run.out.lines().last().unwrap()).unwrap();
    let of = |artifact: &Value| {
        assert_eq!(artifact["cached"], false, "{artifact} was not built");
        let text = |field: &str| artifact[field].as_str().unwrap().to_owned();
        (format!("{} {}", text("kind"), text("name")), text("digest"))
    };
    last["artifacts"].as_array().unwrap().iter().map(of).collect()
}

/// A locked project with an image of recipes, packages and files, and a disk.
fn sandbox() -> Sandbox {
    let sandbox = Sandbox::new();
    for number in 0..40 {
        sandbox.write(&format!("files/usr/share/tiny/{number}"), "x".repeat(number * 1000));
    }
    sandbox.pack("larger", "1.0-r0");
    sandbox.index();
    sandbox.write("given", "given\n");
    sandbox.write(
        "recipes/plain/recipe.toml",
        "description = \"\"\n[[file]]\npath = \"/etc/plain\"\ncontent = \"plain\\n\"\n",
    );
    sandbox.fleet("ab");
    let more =
        "packages = [\"larger\"]\nrecipes = [\"plain\"]\nfiles = { \"/etc/given\" = { file = \"given\" } }";
    let text = sandbox.read("fleet.toml").replace("packages = [\"tiny\"]", more);
    sandbox.write("fleet.toml", text);
    sandbox.done("lock");
    sandbox
}

#[test]
fn surroundings_play_no_part() {
    let sandbox = sandbox();
    let build = ["--json", "build", "--locked"];
    let again = |command: &mut Command| {
        for left in ["out", "cache"] {
            let _ = fs::remove_dir_all(sandbox.path(left));
        }
        built(&Run::of(command.args(build)))
    };
    let reference = again(&mut sandbox.command());
    assert_eq!(reference.keys().collect::<Vec<_>>(), ["disk home", "image i", "kernel ready"]);
    for jobs in ["1", "2", "7"] {
        assert_eq!(again(sandbox.command().env("SISFORGE_JOBS", jobs)), reference, "--jobs {jobs}");
    }
    for (name, value) in [
        ("TZ", "Asia/Kolkata"),
        ("TZ", "America/St_Johns"),
        ("LC_ALL", "tr_TR.UTF-8"),
        ("LANG", "C"),
        ("SOURCE_DATE_EPOCH", "1"),
        ("HOME", "/nonexistent"),
    ] {
        assert_eq!(again(sandbox.command().env(name, value)), reference, "{name}={value}");
    }
    for umask in ["000", "077", "027"] {
        let mut shell = Command::new("sh");
        shell.args(["-c", &format!("umask {umask}; exec \"$0\" \"$@\""), SISFORGE]);
        sandbox.surround(&mut shell);
        assert_eq!(again(&mut shell), reference, "umask {umask}");
    }

    // Another directory, another name of it, files of other times and, at last, of another owner.
    let elsewhere = tempfile::tempdir().unwrap();
    let copy = elsewhere.path().join("another place, fürs Bauen");
    for left in ["out", "cache"] {
        let _ = fs::remove_dir_all(sandbox.path(left));
    }
    Run::of(Command::new("cp").arg("-r").arg(sandbox.path("")).arg(&copy)).fails(0, &[]);
    let mut command = sandbox.command();
    command.current_dir(&copy).env("SISFORGE_CACHE_DIR", copy.join("cache"));
    assert_eq!(built(&Run::of(command.args(build))), reference, "another directory");

    if let Some(mut command) = as_nobody(&sandbox) {
        assert_eq!(again(&mut command), reference, "another user");
    }
}

#[test]
fn an_artifact_with_one_bit_changed_is_not_up_to_date() {
    use std::os::unix::fs::FileExt;
    let sandbox = Sandbox::new();
    sandbox.fleet("a");
    let first = sandbox.done("build image i");
    let path = sandbox.path("out/image/i/rootfs.ext4");
    let whole = std::fs::read(&path).unwrap();
    assert!(sandbox.done("build image i").contains("up to date"));
    let file = std::fs::File::options().write(true).open(&path).unwrap();
    file.write_at(&[whole[5000] ^ 1], 5000).unwrap();
    drop(file);
    let again = sandbox.done("build image i");
    assert!(!again.contains("up to date"), "{again}");
    assert_eq!(first, again);
    assert_eq!(whole, std::fs::read(&path).unwrap());
}
