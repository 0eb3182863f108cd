//! Package scripts: none runs, and one that nobody has read stops the build.

use std::fs;

use crate::common::sandbox::Sandbox;
use crate::common::scripts::with_script;

/// The line that accepts all scripts of a package.
fn hint(text: &str) -> String {
    let at = text.find("accept-scripts = ").expect("the hint has the line");
    text[at..].lines().next().unwrap().to_owned()
}

/// A sandbox whose package `tiny` has scripts.
fn sandbox(scripts: &[(&str, &str)]) -> Sandbox {
    let sandbox = Sandbox::new();
    put(&sandbox, scripts);
    sandbox.fleet("a");
    sandbox
}

fn put(sandbox: &Sandbox, scripts: &[(&str, &str)]) {
    let to = "--to repository/x86_64 --arch x86_64";
    sandbox.done(&format!("apk pack files --name tiny --pkgver 1.0-r0 {to}"));
    let path = sandbox.path("repository/x86_64/tiny-1.0-r0.apk");
    let mut apk = fs::read(&path).unwrap();
    for (kind, body) in scripts {
        apk = with_script(&apk, kind, body);
    }
    fs::write(path, apk).unwrap();
    sandbox.index();
}

/// Puts a line below `[image.i]`.
fn accept(sandbox: &Sandbox, line: &str) {
    let text = sandbox.fleet_text("a", "").replace("[image.i]\n", &format!("[image.i]\n{line}\n"));
    sandbox.write("fleet.toml", text);
}

const TOUCH: &str = "#!/bin/sh\ntouch /was-run\n";

#[test]
fn a_script_that_no_rule_covers_is_refused_with_the_line_that_accepts_it() {
    let sandbox = sandbox(&[("post-install", TOUCH), ("post-upgrade", "#!/bin/sh\n")]);
    let words = [
        "no rule covers a package script of this image",
        "tiny-1.0-r0: post-install sha256:",
        "fleet.toml:10:1",
        "accept-scripts = { \"tiny.post-install\" = \"sha256:",
    ];
    for command in ["lock", "build image i"] {
        let run = sandbox.run(command);
        run.fails(2, &words);
        assert!(!run.err.contains("upgrade"), "an image is made anew\n{run}");
    }
    assert!(!sandbox.path("fleet.lock").exists());
    let line = hint(&sandbox.run("lock").err);
    accept(&sandbox, &line);
    sandbox.done("lock");
    let lock = sandbox.read("fleet.lock");
    assert_eq!(lock.matches("post-install = ").count(), 1, "{lock}");
    assert!(!lock.contains("upgrade"), "{lock}");
    sandbox.done("check");
    sandbox.done("build --locked image i");
    let image = ext4_view::Ext4::load(Box::new(fs::read(sandbox.path("out/image/i/rootfs.ext4")).unwrap()));
    let image = image.unwrap();
    assert!(!image.exists("/was-run").unwrap());
    let scripts = image.read("/lib/apk/db/scripts.tar.gz").unwrap();
    assert!(String::from_utf8_lossy(&scripts).contains("touch /was-run"), "the guest's apk keeps them");
}

#[test]
fn an_acceptance_that_accepts_nothing_is_refused_where_it_stands() {
    let sandbox = sandbox(&[]);
    let digest = "0".repeat(64);
    accept(&sandbox, &format!("accept-scripts = {{ \"tinny.trigger\" = \"{digest}\" }}"));
    sandbox.run("lock").fails(2, &["no package `tinny`", "fleet.toml:11:20", "did you mean `tiny`?"]);
    accept(&sandbox, &format!("accept-scripts = {{ \"tiny.post-upgrade\" = \"{digest}\" }}"));
    sandbox.run("check").fails(2, &["fleet.toml:11:20", "needs no acceptance"]);
    accept(&sandbox, "accept-scripts = { \"tiny.trigger\" = \"0\" }");
    sandbox.run("check").fails(2, &["fleet.toml:11:37", "must be a SHA-256 digest"]);
}

#[test]
fn what_is_no_longer_accepted_is_not_built_even_if_it_was() {
    let sandbox = sandbox(&[("trigger", TOUCH)]);
    accept(&sandbox, &hint(&sandbox.run("lock").err));
    sandbox.done("build image i");
    sandbox.fleet("a");
    sandbox.run("check").fails(2, &["no rule covers"]);
    sandbox.run("build --locked image i").fails(2, &["no rule covers"]);
    // A lock of an earlier version lists no scripts: then the package itself is asked.
    let lock = sandbox.read("fleet.lock");
    let (without, _) = lock.split_once("[package.scripts]").expect("they are listed last");
    sandbox.write("fleet.lock", without);
    sandbox.done("check");
    sandbox.run("build --locked image i").fails(2, &["no rule covers", "tiny-1.0-r0: trigger sha256:"]);
}

#[test]
fn a_script_that_changed_is_not_the_one_that_was_accepted() {
    let sandbox = sandbox(&[("pre-install", TOUCH)]);
    accept(&sandbox, &hint(&sandbox.run("lock").err));
    sandbox.done("lock");
    put(&sandbox, &[("pre-install", "#!/bin/sh\nrm -rf /\n")]);
    let words = ["no rule covers", "no pre-install script of `tiny` in this image has this digest"];
    let run = sandbox.run("lock --update");
    run.fails(2, &words);
    let json = sandbox.run("lock --update --json");
    let problems: serde_json::Value = serde_json::from_str(json.out.lines().last().unwrap()).unwrap();
    assert_eq!(problems["problems"].as_array().unwrap().len(), 2, "{json}");
    accept(&sandbox, &hint(&run.err));
    sandbox.done("lock --update");
}

#[test]
fn a_reviewed_rule_of_a_recipe_covers_a_script() {
    let sandbox = sandbox(&[("post-install", TOUCH)]);
    let line = hint(&sandbox.run("lock").err);
    let digest = line.split("sha256:").nth(1).unwrap().split('"').next().unwrap();
    let rule = format!(
        "description = \"mine\"\n[[script]]\npackage = \"tiny\"\nkind = \"post-install\"\nsha256 = \"{digest}\"\n\
         because = \"a test needs no /was-run\"\n"
    );
    sandbox.write("recipes/mine/recipe.toml", rule);
    accept(&sandbox, "recipes = [\"mine\"]");
    sandbox.done("build image i");
}

#[test]
fn a_script_is_shown_with_where_it_comes_from_and_accepted_for_whoever_says_so() {
    let sandbox = sandbox(&[("post-install", "#!/bin/sh\ntouch /was-run\n\u{1b}[2Jecho done\n")]);
    let text = sandbox.read("fleet.toml");
    let words = [
        "post-install of tiny-1.0-r0 from repository (index signed by me.rsa.pub), sha256:",
        "| touch /was-run",
    ];
    let run = sandbox.run("lock");
    run.fails(2, &words);
    assert!(run.err.contains("| \\u{1b}[2Jecho done"), "{run}");
    // There is no terminal to ask on.
    sandbox.run("lock --accept-scripts").fails(2, &["no terminal to ask", "--yes"]);
    assert_eq!(sandbox.read("fleet.toml"), text);
    assert!(!sandbox.path("fleet.lock").exists());
    let run = sandbox.run("lock --accept-scripts --yes");
    run.fails(0, &words);
    let added = sandbox.read("fleet.toml");
    assert_eq!(added.lines().count(), text.lines().count() + 1, "{added}");
    assert!(added.contains("accept-scripts = { \"tiny.post-install\" = \"sha256:"), "{added}");
    sandbox.done("check");
    sandbox.run("lock --yes").fails(2, &["--accept-scripts"]);

    put(&sandbox, &[("post-install", "#!/bin/sh\ntouch /was-run\nrm -rf /\n")]);
    let run = sandbox.run("lock --update");
    run.fails(2, &["what changed since tiny-1.0-r0, which is accepted:", "| +rm -rf /", "| -"]);
    sandbox.done("lock --update --accept-scripts --yes");
    let changed = sandbox.read("fleet.toml");
    assert_eq!(changed.lines().count(), added.lines().count(), "{changed}");
    assert_ne!(changed, added);
    assert_eq!(changed.matches("sha256:").count(), 1, "what is no longer there is not accepted any more");
}
