//! The JSON Schema and the reader know the same keys.

use std::collections::BTreeSet;

use serde_json::Value as Json;

use super::{FULL, schema};

/// Follows a document through the schema and notes each property on the way as `Section.key`.
fn follow(value: &toml::Value, part: &Json, section: &str, root: &Json, used: &mut BTreeSet<String>) {
    if let Some(reference) = part["$ref"].as_str() {
        let name = reference.strip_prefix("#/$defs/").unwrap();
        return follow(value, &root["$defs"][name], name, root, used);
    }
    if let (Some(choices), true) = (part["anyOf"].as_array(), value.is_table()) {
        return choices.iter().for_each(|choice| follow(value, choice, section, root, used));
    }
    match value {
        toml::Value::Array(items) => {
            items.iter().for_each(|item| follow(item, &part["items"], section, root, used));
        }
        toml::Value::Table(table) if part["properties"].is_object() => {
            for (key, value) in table {
                assert!(part["properties"][key].is_object(), "{section}.{key} is not in the schema");
                used.insert(format!("{section}.{key}"));
                follow(value, &part["properties"][key], section, root, used);
            }
        }
        toml::Value::Table(table) => {
            table
                .values()
                .for_each(|value| follow(value, &part["additionalProperties"], section, root, used));
        }
        _ => {}
    }
}

#[test]
fn the_full_example_uses_every_key_of_the_schema_and_no_other() {
    let root = schema();
    let mut used = BTreeSet::new();
    follow(&toml::Value::Table(FULL.parse().unwrap()), &root, "FleetFile", &root, &mut used);

    let mut known = BTreeSet::new();
    let sections = root["$defs"].as_object().unwrap().iter().map(|(name, section)| (name.as_str(), section));
    for (name, section) in sections.chain([("FleetFile", &root)]) {
        assert_eq!(section["additionalProperties"], false, "{name} allows unknown keys");
        for (key, property) in section["properties"].as_object().unwrap() {
            assert!(!property["description"].as_str().unwrap().is_empty(), "{name}.{key} has no description");
            known.insert(format!("{name}.{key}"));
        }
    }
    // A kernel is either built or ready, and its digest said or vouched for; the example builds one, and says it.
    assert_eq!(known.difference(&used).collect::<Vec<_>>(), ["KernelSection.image", "KernelSection.keyring"]);
}

#[test]
fn the_schema_is_of_draft_2020_12_and_names_what_is_required() {
    let schema = schema();
    assert_eq!(schema["$schema"], "https://json-schema.org/draft/2020-12/schema");
    assert_eq!(schema["required"], serde_json::json!(["fleet", "kernel"]));
    assert_eq!(schema["$defs"]["DiskSection"]["required"], serde_json::json!(["size"]));
}
