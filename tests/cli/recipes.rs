//! Recipes beside `fleet.toml`: they win over those of the same name, and are told of like `fleet.toml` itself.

use std::fs;

use crate::common::sandbox::Sandbox;
use crate::common::scripts::with_script;

/// A sandbox with a recipe `mine`, and lines below its image.
fn sandbox(recipe: &str, lines: &str) -> Sandbox {
    let sandbox = Sandbox::new();
    sandbox.write("recipes/mine/recipe.toml", format!("description = \"mine\"\n{recipe}"));
    let lines = format!("[image.i]\nrecipes = [\"mine\"]\n{lines}\n");
    sandbox.write("fleet.toml", sandbox.fleet_text("a", "").replace("[image.i]\n", &lines));
    sandbox
}

const PORT: &str = "[parameters.port]\ndescription = \"port\"\ndefault = 22\nmin = 1\nmax = 65535\n\
    [[file]]\npath = \"/etc/port-{{ port }}\"\ncontent = \"x\"\n";

#[test]
fn parameters_are_set_for_an_image_and_are_inputs_of_it() {
    let sandbox = sandbox(PORT, "");
    let exists = |path: &str| {
        sandbox.done("build image i");
        let image = fs::read(sandbox.path("out/image/i/rootfs.ext4")).unwrap();
        ext4_view::Ext4::load(Box::new(image)).unwrap().exists(path).unwrap()
    };
    assert!(exists("/etc/port-22"));
    let text = sandbox.read("fleet.toml");
    sandbox.write("fleet.toml", text.replace("[\"mine\"]", "[\"mine\"]\nparameters = { port = 80 }"));
    assert!(exists("/etc/port-80"));
}

#[test]
fn a_parameter_that_no_recipe_has_is_shown_in_fleet_toml() {
    let words = ["no recipe of this image has a parameter `prt`", "fleet.toml:12:16", "did you mean `port`?"];
    sandbox(PORT, "parameters = { prt = 80 }").run("check").fails(2, &words);
    let words = ["parameter `port` is from 1 to 65535, and this is 0", "fleet.toml:12:23"];
    sandbox(PORT, "parameters = { port = 0 }").run("check").fails(2, &words);
}

#[test]
fn problems_of_fleet_and_of_recipes_are_told_together() {
    let recipe = format!("{PORT}[[file]]\npath = \"etc\"\ntemplate = \"gone\"\n[[user]]\nname = \"x\"\n");
    let sandbox = sandbox(&recipe, "parameters = { prt = 80 }");
    let words = [
        "fleet.toml:12:16",
        "recipes/mine/recipe.toml:11:8",
        "\"etc\" must be an absolute path",
        "there is no recipes/mine/gone",
        "recipes/mine/recipe.toml:13:1",
        "`uid` is missing",
        "`shell` is missing",
    ];
    sandbox.run("check").fails(2, &words);
    let json = sandbox.run("check --json");
    let document: serde_json::Value = serde_json::from_str(&json.out).unwrap();
    let files: Vec<_> =
        document["problems"].as_array().unwrap().iter().map(|problem| problem["file"].clone()).collect();
    assert_eq!(files[0], "fleet.toml");
    assert!(files[1..].iter().all(|file| file == "recipes/mine/recipe.toml"), "{json}");
}

#[test]
fn a_recipe_beside_the_fleet_wins_over_the_one_of_the_same_name() {
    let sandbox = sandbox("extends = [\"openrc\"]\n", "");
    sandbox.write("recipes/openrc/recipe.toml", "description = \"none\"\npackages = [\"tiny\"]\n");
    sandbox.done("build image i");
}

#[test]
fn an_option_that_a_recipe_needs_and_the_kernel_turns_off_is_named_with_the_recipe() {
    let sandbox = sandbox("[kernel]\nneeds = [\"CONFIG_TUN\", \"NET\"]\n", "");
    let kernel = "[kernel]\nsource = \"tiny.elf\"\nbase = \"microvm-6.1-x86_64\"\noptions = { TUN = false }";
    let text = sandbox.read("fleet.toml").replace("[kernel]\nimage = \"tiny.elf\"", kernel);
    sandbox.write("fleet.toml", text);
    let run = sandbox.run("check");
    run.fails(2, &["mine", "TUN", "fleet.toml"]);
    assert!(!run.err.contains("CONFIG_CONFIG_"), "{run}");
}

/// The script whose digest the example has.
const SCRIPT: &str = "#!/bin/sh\naddgroup -S lighttpd\nadduser -S -H -h /var/www -s /sbin/nologin -G lighttpd lighttpd\nexit 0\n";

#[test]
fn the_example_of_the_reference_builds() {
    let reference = include_str!("../../recipes/README.md");
    let example = reference.split("```toml\n").nth(1).unwrap().split("```").next().unwrap();
    let sandbox = sandbox("", "parameters = { port = 8080, log = \"all\" }");
    sandbox.write(
        "fleet.toml",
        sandbox.read("fleet.toml").replace("[\"mine\"]", "[\"web\"]").replace("\"tiny\"", ""),
    );
    sandbox.write("recipes/web/recipe.toml", example);
    sandbox.write("recipes/web/lighttpd.conf", "port {{ port }}, log {{ log }}\n");
    let openrc =
        "description = \"a small one\"\nservice = [{ name = \"sis-ready\", runlevel = \"default\" }]\n";
    sandbox.write("recipes/openrc/recipe.toml", openrc);
    sandbox.write("files/usr/sbin/lighttpd", "ELF");
    sandbox.done("apk pack files --name lighttpd --pkgver 1.4-r0 --to repository/x86_64 --arch x86_64");
    let path = sandbox.path("repository/x86_64/lighttpd-1.4-r0.apk");
    let apk = with_script(&fs::read(&path).unwrap(), "pre-install", SCRIPT);
    fs::write(path, apk).unwrap();
    sandbox.index();
    sandbox.done("build image i");
    let image = fs::read(sandbox.path("out/image/i/rootfs.ext4")).unwrap();
    let image = ext4_view::Ext4::load(Box::new(image)).unwrap();
    assert_eq!(image.read_to_string("/etc/lighttpd/lighttpd.conf").unwrap(), "port 8080, log all\n");
    assert!(image.exists("/etc/runlevels/default/web").unwrap());
    assert!(!image.exists("/etc/runlevels/default/sis-ready").unwrap());
    let owner = image.metadata("/srv/www").unwrap();
    assert_eq!((owner.uid(), owner.gid(), owner.is_dir()), (82, 0, true));
}

#[test]
fn the_schema_of_recipes_describes_every_key_of_the_project_s_own() {
    let sandbox = Sandbox::new();
    let schema: serde_json::Value = serde_json::from_str(&sandbox.done("schema recipe")).unwrap();
    assert_eq!(schema["title"], "recipe.toml");
    for recipe in ["openrc", "rootless-podman"] {
        let path = format!("{}/recipes/{recipe}/recipe.toml", env!("CARGO_MANIFEST_DIR"));
        let recipe: toml::Table = fs::read_to_string(path).unwrap().parse().unwrap();
        for (key, value) in &recipe {
            let part = &schema["properties"][key];
            assert!(part["description"].is_string(), "{key} is not in the schema");
            let Some(section) = part["items"]["$ref"].as_str() else { continue };
            let section = &schema["$defs"][section.strip_prefix("#/$defs/").unwrap()];
            let tables = value.as_array().unwrap().iter().filter_map(toml::Value::as_table);
            for inner in tables.flat_map(toml::Table::keys) {
                assert!(section["properties"][inner]["description"].is_string(), "{key}.{inner}");
            }
        }
    }
}
