use std::fs;

use crate::fleet::{Label, SourceFiles};

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
    let given = Parameters::from([("user".into(), ParameterValue::Text("bob".into()))]);
    let recipes = load(&files, &["a"], &given).unwrap();
    assert_eq!(content_of(&recipes, "/home/bob/hello"), "<bob>\n");
}

#[test]
fn a_name_that_is_no_parameter_is_an_error() {
    let recipe = recipe(HELLO);
    let files = [("a", "recipe.toml", recipe.as_str()), ("a", "hello", "one\n{{ usr }}\n")];
    let error = load(&files, &["a"], &Parameters::new()).unwrap_err();
    assert_eq!(error.to_string(), "recipes/a/hello cannot be rendered");
    let source = std::error::Error::source(&error).unwrap().to_string();
    assert!(source.contains("recipes/a/hello:2"), "{source}");

    let files = [("a", "recipe.toml", recipe.as_str()), ("a", "hello", "")];
    let given = Parameters::from([("usr".into(), ParameterValue::Text("bob".into()))]);
    let error = load(&files, &["a"], &given).unwrap_err().to_string();
    assert_eq!(error, "no recipe has a parameter \"usr\"; did you mean `user`?");
    let given = Parameters::from([("user".into(), ParameterValue::Number(1))]);
    let error = load(&files, &["a"], &given).unwrap_err().to_string();
    assert_eq!(error, "parameter \"user\" must be a text, as its default is");
}

#[test]
fn an_unknown_key_is_an_error_with_its_line() {
    let recipe = recipe("\n[[file]]\npath = \"/a\"\ncontents = \"x\"\n");
    let error = load(&[("a", "recipe.toml", &recipe)], &["a"], &Parameters::new()).unwrap_err();
    assert_eq!(error.to_string(), "recipes/a/recipe.toml is no recipe");
    let source = std::error::Error::source(&error).unwrap().to_string();
    assert!(source.contains("line 5") && source.contains("contents"), "{source}");
}

#[test]
fn recipes_that_want_different_things_are_both_named() {
    let conflict = |first: &str, second: &str| {
        let (first, second) = (recipe(first), recipe(second));
        load(&[("a", "recipe.toml", &first), ("b", "recipe.toml", &second)], &["a", "b"], &Parameters::new())
            .map(drop)
            .map_err(|error| error.to_string())
    };
    let file = |text: &str| format!("file = [{{ path = \"/f\", content = \"{text}\" }}]");
    assert_eq!(conflict(&file("x"), &file("x")), Ok(()));
    let of = |what: &str| Err(format!("recipes a and b want different things of {what}"));
    assert_eq!(conflict(&file("x"), &file("y")), of("/f"));
    assert_eq!(conflict(&file("x"), "directory = [{ path = \"/f\" }]"), of("/f"));
    let group = |gid: u32| format!("group = [{{ name = \"g\", gid = {gid} }}]");
    assert_eq!(conflict(&group(1), &group(2)), of("group g"));
    let attribute = |mode: u32| format!("attribute = [{{ path = \"/f\", mode = {mode} }}]");
    assert_eq!(conflict(&attribute(1), &attribute(2)), of("the attributes of /f"));
}

#[test]
fn an_extended_recipe_comes_with_it_and_a_circle_is_an_error() {
    let (a, b) = (recipe("extends = [\"b\"]\npackages = [\"x\"]"), recipe("packages = [\"y\"]"));
    let recipes =
        load(&[("a", "recipe.toml", &a), ("b", "recipe.toml", &b)], &["a"], &Parameters::new()).unwrap();
    assert_eq!(recipes.world().collect::<Vec<_>>(), ["x", "y"]);
    let b = recipe("extends = [\"a\"]");
    let error =
        load(&[("a", "recipe.toml", &a), ("b", "recipe.toml", &b)], &["a"], &Parameters::new()).unwrap_err();
    assert_eq!(error.to_string(), "recipes extend each other in a circle: a -> b -> a");
}

#[test]
fn a_template_is_part_of_the_digest() {
    let digest = |text: &str| {
        let recipe = recipe(HELLO);
        let files = [("a", "recipe.toml", recipe.as_str()), ("a", "hello", text)];
        let recipes = load(&files, &["a"], &Parameters::new()).unwrap();
        recipes.digests()[&"a".parse().unwrap()]
    };
    assert_eq!(digest("x"), digest("x"));
    assert_ne!(digest("x"), digest("y"));
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
}
