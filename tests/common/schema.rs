//! Whether a JSON value is what a schema says: the part of JSON Schema (draft 2020-12) that the program's own schemas use, and
//! beyond it that no key is there which the schema does not know.

use std::cmp::Ordering;

use serde_json::{Map, Value};

/// Keywords that say nothing of a value here.
const WORDS: [&str; 6] = ["$schema", "$defs", "title", "description", "format", "default"];

/// Everything that is not as the schema says, each with the place in the value.
pub fn violations(value: &Value, schema: &Value) -> Vec<String> {
    let checker = Checker { root: schema };
    let mut found = Vec::new();
    let known = checker.check(value, schema, "", &mut found);
    checker.unknown_keys(value, &known, "", &mut found);
    found
}

struct Checker<'a> {
    root: &'a Value,
}

impl<'a> Checker<'a> {
    /// Checks one value; gives the keys that the schema knows of an object.
    fn check(&self, value: &Value, schema: &'a Value, at: &str, found: &mut Vec<String>) -> Vec<&'a str> {
        let Value::Object(keywords) = schema else {
            assert_eq!(schema, &Value::Bool(true), "{at}: what is this schema?");
            return Vec::new();
        };
        let mut known = Vec::new();
        for (keyword, rule) in keywords {
            match keyword.as_str() {
                "$ref" => known.extend(self.check(value, self.definition(rule), at, found)),
                "type" if !has_type(value, rule) => {
                    found.push(format!("{at}: {value} is not of type {rule}"))
                }
                "const" if value != rule => found.push(format!("{at}: {value} is not {rule}")),
                "enum" if !rule.as_array().unwrap().contains(value) => {
                    found.push(format!("{at}: {value} is none of {rule}"));
                }
                "minimum" if compare(value, rule) == Some(Ordering::Less) => {
                    found.push(format!("{at}: {value} is too small"));
                }
                "maximum" if compare(value, rule) == Some(Ordering::Greater) => {
                    found.push(format!("{at}: {value} is too large"));
                }
                "oneOf" | "anyOf" => known.extend(self.one_of(value, rule, at, found)),
                "required" => self.required(value, rule, at, found),
                "properties" => known.extend(self.properties(value, rule.as_object().unwrap(), at, found)),
                // Keys that the schema does not know are found below.
                "additionalProperties" if rule == &Value::Bool(false) => {}
                "additionalProperties" => self.values(value, rule, keywords, at, found),
                "minItems" if items(value).len() < count(rule) => found.push(format!("{at}: too few items")),
                "maxItems" if items(value).len() > count(rule) => found.push(format!("{at}: too many items")),
                "prefixItems" => {
                    for (item, rule) in items(value).iter().zip(rule.as_array().unwrap()) {
                        self.check(item, rule, at, found);
                    }
                }
                "items" => {
                    for (index, item) in value.as_array().into_iter().flatten().enumerate() {
                        let at = format!("{at}/{index}");
                        let known = self.check(item, rule, &at, found);
                        self.unknown_keys(item, &known, &at, found);
                    }
                }
                "type" | "const" | "enum" | "minimum" | "maximum" | "minItems" | "maxItems" => {}
                word => assert!(WORDS.contains(&word), "{at}: the keyword {word} is not checked"),
            }
        }
        known
    }

    fn definition(&self, reference: &Value) -> &'a Value {
        let pointer = reference.as_str().unwrap().strip_prefix('#').unwrap();
        self.root.pointer(pointer).unwrap_or_else(|| panic!("no {pointer}"))
    }

    /// The first of several schemas that fits.
    fn one_of(&self, value: &Value, all: &'a Value, at: &str, found: &mut Vec<String>) -> Vec<&'a str> {
        let mut why = Vec::new();
        for schema in all.as_array().unwrap() {
            let mut wrong = Vec::new();
            let known = self.check(value, schema, at, &mut wrong);
            if wrong.is_empty() {
                return known;
            }
            why.extend(wrong);
        }
        found.push(format!("{at}: nothing fits: {}", why.join("; ")));
        Vec::new()
    }

    fn required(&self, value: &Value, names: &Value, at: &str, found: &mut Vec<String>) {
        let Value::Object(object) = value else { return };
        let names = names.as_array().unwrap().iter().map(|name| name.as_str().unwrap());
        found.extend(names.filter(|name| !object.contains_key(*name)).map(|name| format!("{at}: no {name}")));
    }

    fn properties(
        &self,
        value: &Value,
        properties: &'a Map<String, Value>,
        at: &str,
        found: &mut Vec<String>,
    ) -> Vec<&'a str> {
        for (name, schema) in properties {
            if let Some(value) = value.get(name) {
                let at = format!("{at}/{name}");
                let known = self.check(value, schema, &at, found);
                self.unknown_keys(value, &known, &at, found);
            }
        }
        properties.keys().map(String::as_str).collect()
    }

    /// Values of the keys of a map, which may have any names.
    fn values(
        &self,
        value: &Value,
        schema: &'a Value,
        beside: &Map<String, Value>,
        at: &str,
        found: &mut Vec<String>,
    ) {
        assert!(!beside.contains_key("properties"), "{at}: either a map or an object");
        for (name, value) in value.as_object().into_iter().flatten() {
            self.check(value, schema, &format!("{at}/{name}"), found);
        }
    }

    fn unknown_keys(&self, value: &Value, known: &[&str], at: &str, found: &mut Vec<String>) {
        // A map, and a value of which nothing is said, know no keys.
        if known.is_empty() {
            return;
        }
        let keys = value.as_object().into_iter().flat_map(Map::keys);
        let unknown = keys.filter(|key| !known.contains(&key.as_str()));
        found.extend(unknown.map(|key| format!("{at}: the schema does not know the key {key}")));
    }
}

fn items(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

fn count(rule: &Value) -> usize {
    rule.as_u64().unwrap().try_into().unwrap()
}

/// `None` for what is no number: no bound is on it.
fn compare(value: &Value, bound: &Value) -> Option<Ordering> {
    value.as_f64()?.partial_cmp(&bound.as_f64()?)
}

fn has_type(value: &Value, rule: &Value) -> bool {
    let is = |name: &str| match name {
        "null" => value.is_null(),
        "boolean" => value.is_boolean(),
        "string" => value.is_string(),
        "integer" => value.is_u64() || value.is_i64(),
        "number" => value.is_number(),
        "array" => value.is_array(),
        "object" => value.is_object(),
        other => panic!("no type {other}"),
    };
    match rule {
        Value::String(name) => is(name),
        names => names.as_array().unwrap().iter().any(|name| is(name.as_str().unwrap())),
    }
}

#[test]
fn what_is_not_as_a_schema_says_is_found() {
    let schema = serde_json::json!({
        "type": "object",
        "properties": { "a": { "$ref": "#/$defs/Size" }, "c": { "type": ["number", "null"], "maximum": 9 }, "b": { "anyOf": [{ "const": "x" }, { "type": "null" }] } },
        "required": ["a"],
        "$defs": { "Size": { "type": "integer", "minimum": 0 } },
    });
    let found = |value| violations(&value, &schema).len();
    assert_eq!(found(serde_json::json!({ "a": 1, "b": null, "c": null })), 0);
    assert_eq!(found(serde_json::json!({ "b": "x" })), 1, "a key that is required");
    assert_eq!(found(serde_json::json!({ "a": -1 })), 1, "a number that is too small");
    assert_eq!(found(serde_json::json!({ "a": "1" })), 1, "a text in place of a number");
    assert_eq!(found(serde_json::json!({ "a": 1, "b": "y" })), 1, "none of several");
    assert_eq!(found(serde_json::json!({ "a": 1, "d": 1 })), 1, "a key that is unknown");
}
