//! What a fleet is made of lies in its project: no link leads out, and where others commit, no path does either.

use std::fs;
use std::os::unix::fs::symlink;
use std::process::Command;

use crate::common::sandbox::{Run, Sandbox};

/// A project, a file outside of it, and `leak`, a link in the project that leads there.
fn project() -> (Sandbox, tempfile::TempDir) {
    let (sandbox, outside) = (Sandbox::new(), tempfile::tempdir().unwrap());
    fs::write(outside.path().join("secret"), "hunter2\n").unwrap();
    link(&outside, &sandbox, "leak");
    sandbox.fleet("a");
    (sandbox, outside)
}

fn link(outside: &tempfile::TempDir, sandbox: &Sandbox, path: &str) {
    let path = sandbox.path(path);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    symlink(outside.path().join("secret"), path).unwrap();
}

/// `fleet.toml` with a part of it replaced.
fn replaced(sandbox: &Sandbox, from: &str, to: &str) -> String {
    let text = sandbox.fleet_text("a", "");
    assert!(text.contains(from));
    text.replace(from, to)
}

const IMAGE: &str = "packages = [\"tiny\"]\n";

#[test]
fn a_link_that_leads_out_of_the_project_is_refused_where_fleet_toml_names_it() {
    let (sandbox, outside) = project();
    link(&outside, &sandbox, "layout/blobs/sha256/leak");
    link(&outside, &sandbox, "mine/leak.rsa.pub");
    link(&outside, &sandbox, "kernel-configs/fragments/leak.config");
    link(&outside, &sandbox, "packages/x86_64/leak.apk");
    fs::create_dir_all(sandbox.path("recipes")).unwrap();
    symlink(outside.path(), sandbox.path("recipes/out")).unwrap();
    fs::write(outside.path().join("recipe.toml"), "description = \"out\"\n").unwrap();
    let (keys, disk) = ("url = \"repository\"\n", "size = \"16MiB\"\n");
    let built = |more: &str| format!("source = \"files\"\nbase = \"microvm-6.1-x86_64\"\n{more}");
    for (from, to, named) in [
        (IMAGE, format!("{IMAGE}files = {{ \"/x\" = {{ file = \"leak\" }} }}\n"), "leak"),
        (IMAGE, format!("{IMAGE}files = {{ \"/x\" = {{ file = \"files/../leak\" }} }}\n"), "leak"),
        (IMAGE, format!("{IMAGE}recipes = [\"out\"]\n"), "recipes/out"),
        (disk, format!("{disk}images = [\"oci-archive:leak\"]\n"), "leak"),
        (disk, format!("{disk}images = [\"docker-archive:leak\"]\n"), "leak"),
        (disk, format!("{disk}images = [\"oci:layout\"]\n"), "layout/blobs/sha256/leak"),
        ("default = \"deny\"\n", "allow = [{ list = \"leak\" }]\n".to_owned(), "leak"),
        (keys, format!("{keys}keys = \"mine\"\n"), "mine/leak.rsa.pub"),
        (keys, "url = \"packages\"\n".to_owned(), "packages/x86_64/leak.apk"),
        ("image = \"tiny.elf\"", "image = \"leak\"".to_owned(), "leak"),
        ("image = \"tiny.elf\"", built("patches = [\"leak\"]"), "leak"),
        ("image = \"tiny.elf\"", built("fragments = [\"leak\"]"), "kernel-configs/fragments/leak.config"),
    ] {
        sandbox.write("fleet.toml", replaced(&sandbox, from, &to));
        let run = sandbox.run("check");
        run.fails(2, &[&format!("/{named} is a link to "), "which is outside of", "--> fleet.toml:"]);
        assert!(!run.err.contains("hunter2"), "{run}");
    }
}

#[test]
fn a_recipe_reads_no_file_that_a_link_leads_to_outside() {
    let (sandbox, outside) = project();
    let recipe = "description = \"r\"\n[[file]]\npath = \"/etc/x\"\ntemplate = \"leak\"\n";
    sandbox.write("recipes/mine/recipe.toml", recipe);
    link(&outside, &sandbox, "recipes/mine/leak");
    sandbox.write("fleet.toml", replaced(&sandbox, IMAGE, &format!("{IMAGE}recipes = [\"mine\"]\n")));
    sandbox.run("check").fails(2, &["recipes/mine/leak is a link to "]);
}

#[test]
fn a_link_that_stays_in_the_project_and_an_operators_own_paths_are_followed() {
    let (sandbox, outside) = project();
    symlink("files/etc/tiny", sandbox.path("stays")).unwrap();
    let above = outside.path().join("secret");
    let name = sandbox.path("").file_name().unwrap().to_str().unwrap().to_owned();
    for path in ["stays", above.to_str().unwrap(), &format!("../{name}/files/etc/tiny")] {
        let files = format!("{IMAGE}files = {{ \"/x\" = {{ file = \"{path}\" }} }}\n");
        sandbox.write("fleet.toml", replaced(&sandbox, IMAGE, &files));
        sandbox.done("check");
    }
}

#[test]
fn a_pipe_is_refused_and_not_waited_for() {
    let (sandbox, _outside) = project();
    sisforge::sys::fs::make_pipe(&sandbox.path("pipe")).unwrap();
    sandbox.write("linux/Kconfig", "");
    sisforge::sys::fs::make_pipe(&sandbox.path("linux/pipe")).unwrap();
    let files = format!("{IMAGE}files = {{ \"/x\" = {{ file = \"pipe\" }} }}\n");
    sandbox.write("fleet.toml", replaced(&sandbox, IMAGE, &files));
    sandbox.run("check").fails(2, &["/pipe is neither a regular file nor a directory", "--> fleet.toml:"]);
    let kernel = "source = \"linux\"\nbase = \"microvm-6.1-x86_64\"";
    sandbox.write("fleet.toml", replaced(&sandbox, "image = \"tiny.elf\"", kernel));
    sandbox.run("check").fails(2, &["linux/pipe", "it is not a regular file"]);
}

#[test]
fn a_secret_that_is_a_directory_is_called_one() {
    let (sandbox, _outside) = project();
    let container = "containers = [{ name = \"c\", image = \"localhost/c\", secrets = [{ name = \"s\", file = \"files\", env = \"S\" }] }]";
    sandbox.fleet_with("", &format!("[pool.k]\nreplicas = 1\n{container}\n"));
    sandbox.run("check").fails(2, &["files is a directory, and a secret is a file"]);
}

fn git(sandbox: &Sandbox, args: &[&str]) {
    let names = ["user.name=t", "user.email=t@example.org"].iter().flat_map(|name| ["-c", name]);
    let mut git = Command::new("git");
    Run::of(git.args(names).args(args).current_dir(sandbox.path(""))).fails(0, &[]);
}

#[test]
fn whoever_commits_names_no_file_of_the_host_that_follows() {
    let (sandbox, outside) = project();
    sandbox.write(".gitignore", "out\nstore\ncache\n*.rsa\n");
    git(&sandbox, &["init", "--quiet", "--initial-branch", "main"]);
    let commit = || {
        git(&sandbox, &["add", "--all"]);
        git(&sandbox, &["commit", "--quiet", "--message", "change"]);
    };
    let secret = outside.path().join("secret");
    for path in [secret.to_str().unwrap(), "../repository/HEAD", "../../../tiny.elf"] {
        let files = format!("{IMAGE}files = {{ \"/x\" = {{ file = \"{path}\" }} }}\n");
        sandbox.write("fleet.toml", replaced(&sandbox, IMAGE, &files));
        commit();
        let run = sandbox.run("watch --repo . --once");
        run.fails(2, &["is outside of", "fleet.toml:", "commit the file and name it by a relative path"]);
    }
    let files = format!("{IMAGE}files = {{ \"/x\" = {{ file = \"{}\" }} }}\n", secret.display());
    sandbox.write("fleet.toml", replaced(&sandbox, IMAGE, &files));
    commit();
    sandbox.run("watch --repo . --once --allow /usr/src").fails(2, &["is outside of"]);
    // What stands against it then is that it has no lock yet.
    let allowed = sandbox.run(&format!("watch --repo . --once --allow {}", outside.path().display()));
    allowed.fails(2, &["there is no ", "fleet.lock"]);
    for name in ["fleet.lock", "fleet.toml"] {
        sandbox.fleet("a");
        let _ = fs::remove_file(sandbox.path(name));
        link(&outside, &sandbox, name);
        commit();
        let run = sandbox.run("watch --repo . --once");
        run.fails(2, &[&format!("/{name} is a link to "), "which is outside of"]);
        assert!(!run.err.contains("hunter2"), "{run}");
        fs::remove_file(sandbox.path(name)).unwrap();
    }
}
