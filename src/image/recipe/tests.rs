use std::fs;

use toml::Spanned;

use crate::base::Label;
use crate::fleet::{ParameterValue, SourceFiles, render};

use super::*;

/// Recipes in a directory of their own: `(name, file, text)`.
fn load(files: &[(&str, &str, &str)], names: &[&str], given: &Parameters) -> Result<Recipes, RecipeError> {
    let dir = tempfile::tempdir().unwrap();
    for (recipe, file, text) in files {
        let folder = dir.path().join("recipes").join(recipe);
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join(file), text).unwrap();
    }
    let names: Vec<Label> = names.iter().map(|name| name.parse().unwrap()).collect();
    Recipes::load(&names, given, &SourceFiles::new(dir.path()))
}

fn recipe(body: &str) -> String {
    format!("description = \"for a test\"\n{body}")
}

/// Recipes `a`, `b` and so on, of which the first alone is named.
fn composed(bodies: &[&str], given: &Parameters) -> Result<Recipes, RecipeError> {
    let bodies: Vec<String> = bodies.iter().map(|body| recipe(body)).collect();
    let names = ["a", "b", "c", "d"];
    let files: Vec<_> =
        names.iter().zip(&bodies).map(|(name, body)| (*name, "recipe.toml", body.as_str())).collect();
    load(&files, &["a"], given)
}

/// What is wrong with them: `file:line: message`.
fn refused(bodies: &[&str]) -> String {
    composed(bodies, &Parameters::new()).map(drop).unwrap_err().to_string()
}

fn given(parameters: &[(&str, ParameterValue)]) -> Parameters {
    let placed =
        |value: &ParameterValue| GivenParameter { place: 0..0, value: Spanned::new(0..0, value.clone()) };
    parameters.iter().map(|(name, value)| ((*name).to_owned(), placed(value))).collect()
}

fn text(value: &str) -> ParameterValue {
    ParameterValue::Text(value.into())
}

fn content_of(recipes: &Recipes, path: &str) -> String {
    match &recipes.paths[&path.parse().unwrap()].value {
        PathItem::File(file) => String::from_utf8(file.content.clone()).unwrap(),
        other => panic!("{path} is {other:?}"),
    }
}

const HELLO: &str = "parameters.user = { description = \"who\", default = \"ann\" }\n\
    file = [{ path = \"/home/{{ user }}/hello\", template = \"hello\" }]\n";

#[test]
fn templates_and_texts_take_parameters() {
    let recipe = recipe(HELLO);
    let files = [("a", "recipe.toml", recipe.as_str()), ("a", "hello", "<{{ user }}>\n")];
    let recipes = load(&files, &["a"], &Parameters::new()).unwrap();
    assert_eq!(content_of(&recipes, "/home/ann/hello"), "<ann>\n");
    let recipes = load(&files, &["a"], &given(&[("user", text("bob"))])).unwrap();
    assert_eq!(content_of(&recipes, "/home/bob/hello"), "<bob>\n");
}

#[test]
fn parameters_of_every_type_are_seen_by_templates() {
    let body = "[parameters]\nport = { description = '', default = 22 }\nroot = { description = '', default = false }\n\
        names = { description = '', default = ['a', 'b'] }\n[[file]]\npath = '/f'\ntemplate = 't'\n";
    let template = "{{ port + 1 }} {% if root %}yes{% else %}no{% endif %}{% for name in names %} {{ name \
      }}{% endfor %}";
    let body = recipe(body);
    let recipes =
        load(&[("a", "recipe.toml", &body), ("a", "t", template)], &["a"], &Parameters::new()).unwrap();
    assert_eq!(content_of(&recipes, "/f"), "23 no a b");
}

#[test]
fn a_name_that_is_no_parameter_is_told_where_it_stands() {
    let recipe = recipe(HELLO);
    let files = [("a", "recipe.toml", recipe.as_str()), ("a", "hello", "one\n{{ usr }}\n")];
    let RecipeError::Invalid { files, .. } = load(&files, &["a"], &Parameters::new()).unwrap_err() else {
        panic!("it is invalid");
    };
    let shown = render(&files[0], false);
    assert_eq!(files.len(), 1);
    assert!(shown.contains("`usr` is not a parameter of this recipe"), "{shown}");
    assert!(shown.contains("recipes/a/hello:2:4") && shown.contains("did you mean `user`?"), "{shown}");
}

#[test]
fn parameters_given_are_checked_like_all_else() {
    let body = "[parameters]\nuser = { description = '', default = 'ann', choices = ['ann', 'bob'] }\n\
        port = { description = '', type = 'integer', min = 1, max = 65535 }\n";
    let told = |parameters: &[(&str, ParameterValue)]| {
        let error = composed(&[body], &given(parameters)).map(drop).unwrap_err();
        let RecipeError::Invalid { files, given } = &error else { panic!("{error}") };
        assert!(files.is_empty() || given.is_empty(), "{error}");
        error.to_string()
    };
    let port = ("port", ParameterValue::Integer(22));
    assert!(composed(&[body], &given(&[port.clone(), ("user", text("bob"))])).is_ok());
    assert_eq!(told(&[]), "recipes/a/recipe.toml:4: parameter `port` has no value");
    assert_eq!(told(&[port.clone(), ("usr", text("x"))]), "no recipe of this image has a parameter `usr`");
    assert_eq!(
        told(&[port.clone(), ("user", ParameterValue::Integer(1))]),
        "parameter `user` must be a string, and this is an integer"
    );
    assert_eq!(told(&[port, ("user", text("eve"))]), "parameter `user` cannot be \"eve\"");
    assert_eq!(
        told(&[("port", ParameterValue::Integer(0))]),
        "parameter `port` is from 1 to 65535, and this is 0"
    );
}

#[test]
fn an_extender_sets_parameters_and_the_fleet_wins() {
    let above = "extends = ['b']\nset = { user = 'bob' }";
    let below =
        "parameters.user = { description = '', default = 'ann' }\nfile = [{ path = '/f', template = 't' }]";
    let (above, below) = (recipe(above), recipe(below));
    let files =
        [("a", "recipe.toml", above.as_str()), ("b", "recipe.toml", &below), ("b", "t", "{{ user }}")];
    let content = |given: &Parameters| content_of(&load(&files, &["a"], given).unwrap(), "/f");
    assert_eq!(content(&Parameters::new()), "bob");
    assert_eq!(content(&given(&[("user", text("eve"))])), "eve");
}

#[test]
fn what_an_extender_sets_must_be_a_parameter_below_it_and_two_must_agree() {
    let below = "parameters.user = { description = '', default = 'ann' }";
    assert_eq!(
        refused(&["extends = ['b']\nset = { usr = 'bob' }", below]),
        "recipes/a/recipe.toml:3: no recipe that this one extends has a parameter `usr`"
    );
    assert_eq!(
        refused(&["extends = ['b']\nset = { user = 1 }", below]),
        "recipes/a/recipe.toml:3: parameter `user` must be a string, and this is an integer"
    );
    let setter = |name: &str| format!("extends = ['d']\nset = {{ user = '{name}' }}");
    assert_eq!(
        refused(&["extends = ['b', 'c']", &setter("x"), &setter("y"), below]),
        "recipes/c/recipe.toml:3: recipes b and c set the parameter `user` differently"
    );
    assert_eq!(
        refused(&["extends = ['b']\nparameters.user = { description = '', default = 1 }", below]),
        "recipes/a/recipe.toml:3: recipes b and a declare the parameter `user` differently"
    );
}

#[test]
fn a_declaration_that_makes_no_sense_is_refused() {
    for (declaration, words) in [
        ("", "has no type"),
        (", default = 5, max = 4", "is at most 4, and this is 5"),
        (", default = 'x', min = 1", "`min` and `max` are for integers"),
        (", default = 1, choices = ['1']", "`choices` are for strings and lists"),
        (", type = 'text'", "\"text\" is not one of string, integer, boolean, list"),
        (", type = 'list', default = 'x'", "must be a list of strings"),
    ] {
        let told = refused(&[&format!("parameters.p = {{ description = ''{declaration} }}")]);
        assert!(told.contains(words) && told.lines().count() == 1, "{declaration}: {told}");
    }
}

#[test]
fn all_problems_of_all_recipes_are_told_together_with_their_lines() {
    let told = refused(&[
        "extends = ['b', 'none']\n[[file]]\npath = '/a'\ncontents = 'x'\n[[directory]]\npath = 'etc'\nmode = 755\n\
         [[file]]\npath = '/f'\ntemplate = 'none'\n",
        "[[group]]\nname = 'G'\ngid = '{{ nothing }}'\n[[attribute]]\npath = '/f'\nowner = '1x'\n\
         capabilities = 'cap_no=ep'\nxattrs = { 'system.x' = '', 'user.x' = '0x0' }\n",
    ]);
    let lines: Vec<&str> = told.lines().collect();
    for part in [
        "recipes/a/recipe.toml:2: there is no recipes/none/recipe.toml",
        "recipes/a/recipe.toml:5: unknown key `contents`",
        "recipes/a/recipe.toml:8: 755 is not an octal file mode",
        "recipes/a/recipe.toml:11: there is no recipes/a/none",
        "recipes/b/recipe.toml:3: \"G\" cannot be the name of a user or group",
        "recipes/b/recipe.toml:7: \"1x\" cannot be the name of a user or group",
        "recipes/b/recipe.toml:8: \"cap_no=ep\": there is no capability",
        "recipes/b/recipe.toml:9: \"system.x\" must begin with",
        "recipes/b/recipe.toml:9: \"0x0\" is not a hexadecimal value",
    ] {
        assert!(lines.iter().any(|line| line.starts_with(part)), "{part:?} is not in:\n{told}");
    }
}

#[test]
fn recipes_that_want_different_things_are_both_named() {
    let conflict = |first: &str, second: &str| {
        let bodies = [&format!("extends = ['b']\n{second}"), first];
        composed(&[bodies[0], bodies[1]], &Parameters::new()).map(drop).map_err(|error| {
            let told = error.to_string();
            told.split_once(": ").unwrap().1.to_owned()
        })
    };
    let file = |text: &str| format!("file = [{{ path = \"/f\", content = \"{text}\" }}]");
    assert_eq!(conflict(&file("x"), &file("x")), Ok(()));
    let of = |what: &str| Err(format!("recipes b and a contradict each other about {what}"));
    assert_eq!(conflict(&file("x"), &file("y")), of("/f"));
    assert_eq!(conflict(&file("x"), "directory = [{ path = \"/f\" }]"), of("/f"));
    let group = |gid: u32| format!("group = [{{ name = \"g\", gid = {gid} }}]");
    assert_eq!(conflict(&group(1), &group(2)), of("group g"));
    let attribute = |what: &str| format!("attribute = [{{ path = \"/f\", {what} }}]");
    assert_eq!(conflict(&attribute("mode = 0o1"), &attribute("mode = 0o2")), of("the attributes of /f"));
    assert_eq!(conflict(&attribute("mode = 0o1"), &attribute("owner = 'x'")), Ok(()));
    let service = |runlevel: &str| format!("service = [{{ name = \"s\", runlevel = \"boot\"{runlevel} }}]");
    assert_eq!(conflict(&service(""), &service("")), Ok(()));
    assert_eq!(
        refused(&[&format!("{}\n{}", file("x"), "symlink = [{ path = '/f', target = 'g' }]")]),
        "recipes/a/recipe.toml:3: recipe a sets /f twice"
    );
}

#[test]
fn an_extender_turns_a_service_off_and_another_recipe_does_not() {
    let (on, off) = (
        "service = [{ name = 's', runlevel = 'boot' }]",
        "service = [{ name = 's', runlevel = 'boot', enabled = false }]",
    );
    let recipes = composed(&[&format!("extends = ['b']\n{off}"), on], &Parameters::new()).unwrap();
    let service = &recipes.services[&("boot".to_owned(), "s".to_owned())];
    assert_eq!((service.value, service.recipe.as_str()), (Service::OffAgain, "a"));
    assert_eq!(
        refused(&["extends = ['b', 'c']", on, off]),
        "recipes/c/recipe.toml:2: recipes b and c contradict each other about service s in runlevel boot"
    );
}

#[test]
fn an_extended_recipe_comes_once_and_a_circle_is_an_error() {
    let diamond =
        ["extends = ['b', 'c']\npackages = ['x']", "extends = ['d']", "extends = ['d']", "packages = ['y']"];
    let recipes = composed(&diamond, &Parameters::new()).unwrap();
    assert_eq!(recipes.world().collect::<Vec<_>>(), ["x", "y"]);
    assert_eq!(recipes.digests().len(), 4);
    assert_eq!(
        refused(&["extends = ['b']", "extends = ['a']"]),
        "recipes/b/recipe.toml:2: recipes extend each other in a circle: a -> b -> a"
    );
}

#[test]
fn the_user_of_the_data_disk_is_the_one_that_the_host_knows() {
    let user = |name: &str| {
        format!(
            "group = [{{ name = 'u', gid = 5 }}]\n[[user]]\nname = '{name}'\nuid = 5\ngroup = 'u'\nhome = '/h'\n\
             shell = '/bin/sh'\nsubids = {{ start = 100000, count = 65536 }}\n"
        )
    };
    let recipes = composed(&[&user("user")], &Parameters::new()).unwrap();
    assert_eq!(recipes.owner().unwrap().uid, 5);
    assert!(refused(&[&user("ann")]).ends_with("the user with subids is called ann"));
    assert!(
        refused(&[&user("user").replace("100000", "4294967295")]).ends_with("the subids end above 2^32 - 1")
    );
}

#[test]
fn a_rule_for_a_script_needs_a_reason() {
    let rule = |because: &str| {
        let digest = "0".repeat(64);
        format!(
            "[[script]]\npackage = 'p'\nkind = 'trigger'\nsha256 = ['sha256:{digest}']\nbecause = \
             '{because}'\n"
        )
    };
    let recipes = composed(&[&rule("not needed")], &Parameters::new()).unwrap();
    let script = "p.trigger".parse().unwrap();
    assert_eq!(recipes.reviewer(&script, &Sha256([0; 32])).map(Label::as_str), Some("a"));
    assert_eq!(recipes.reviewer(&script, &Sha256([1; 32])), None);
    assert!(refused(&[&rule(" ")]).ends_with("`because` must say why the script need not run"));
}

#[test]
fn templates_and_copies_are_part_of_the_digest() {
    let digest = |body: &str, text: &str| {
        let recipe = recipe(body);
        let files = [("a", "recipe.toml", recipe.as_str()), ("a", "hello", text)];
        let recipes = load(&files, &["a"], &Parameters::new()).unwrap();
        recipes.digests()[&"a".parse().unwrap()]
    };
    for body in [HELLO, "file = [{ path = '/f', copy = 'hello' }]"] {
        assert_eq!(digest(body, "x"), digest(body, "x"));
        assert_ne!(digest(body, "x"), digest(body, "y"));
    }
}

#[test]
fn the_recipes_of_the_project_compose() {
    let files = SourceFiles::new(env!("CARGO_MANIFEST_DIR"));
    let recipes = Recipes::load(&["rootless-podman".parse().unwrap()], &Parameters::new(), &files).unwrap();
    assert!(recipes.digests().contains_key(&"openrc".parse().unwrap()));
    assert!(recipes.world().any(|name| name == "podman"));
    assert!(
        recipes
            .kernel_needs()
            .iter()
            .any(|(recipe, option)| { (recipe.as_str(), option.as_str()) == ("rootless-podman", "TUN") })
    );
    let owner = recipes.owner().unwrap();
    assert_eq!((owner.uid, owner.gid, owner.subuids.start), (1000, 1000, 100_000));
    let given = given(&[("uid", ParameterValue::Integer(1234))]);
    let recipes = Recipes::load(&["rootless-podman".parse().unwrap()], &given, &files).unwrap();
    assert_eq!(recipes.owner().map(|owner| (owner.uid, owner.gid)), Some((1234, 1234)));
}

#[test]
fn podman_runs_before_a_guest_is_ready_unless_that_is_switched_off() {
    let service = |given: &Parameters| {
        let recipes = load(&[], &["rootless-podman"], given).unwrap();
        content_of(&recipes, "/etc/init.d/sis-podman")
    };
    let on = service(&Parameters::new());
    // The user's files may have Podman stop, and never end.
    assert!(on.contains("timeout -s KILL 60 ") && on.contains("podman run "), "{on}");
    // What they have it run comes after every service of root's.
    assert!(on.contains("\tafter *\n\tbefore sis-ready\n"), "{on}");
    let off = service(&given(&[("warm_up", ParameterValue::Boolean(false))]));
    assert!(off.contains("start() {\n\treturn 0\n}") && !off.contains("podman run "), "{off}");
}
