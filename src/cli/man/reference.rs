//! fleet.toml(5), from the file's JSON Schema.

use serde_json::Value;

/// Text that roff takes as it is.
pub fn escaped(text: &str) -> String {
    let text = text.replace('\\', "\\e").replace('-', "\\-");
    // A control character of roff at the beginning of a line.
    if text.starts_with(['.', '\'']) { format!("\\&{text}") } else { text }
}

/// The page.
pub fn page(schema: &Value) -> String {
    let mut page = String::from(
        ".TH fleet.toml 5\n.SH NAME\nfleet.toml \\- a fleet of hardened microVMs\n.SH DESCRIPTION\n",
    );
    page.push_str(
        "A TOML file. Unknown keys are refused. Sizes are strings with a binary unit (\"512MiB\"), durations \"30s\", rates \
         \"20Mbit/s\"; paths are relative to the file.\n",
    );
    for (name, section) in properties(schema) {
        let section_schema = resolved(schema, section);
        let named = section_schema.get("additionalProperties").filter(|inner| inner.is_object());
        let array = section_schema.get("items");
        let title = match (named, array) {
            (Some(_), _) => format!("[{name}.NAME]"),
            (None, Some(_)) => format!("[[{name}]]"),
            (None, None) => format!("[{name}]"),
        };
        let _ = std::fmt::Write::write_fmt(&mut page, format_args!(".SH \"{}\"\n", escaped(&title)));
        paragraph(&mut page, description(schema, section));
        keys(&mut page, schema, named.or(array).unwrap_or(section_schema), "", 0);
    }
    page.push_str(".SH \"SEE ALSO\"\n.BR sisforge (1)\n");
    page
}

fn properties(schema: &Value) -> impl Iterator<Item = (&String, &Value)> {
    schema["properties"].as_object().into_iter().flatten()
}

/// What a schema refers to, or itself.
fn resolved<'a>(root: &'a Value, schema: &'a Value) -> &'a Value {
    let name = schema["$ref"].as_str().and_then(|path| path.strip_prefix("#/$defs/"));
    name.map_or(schema, |name| &root["$defs"][name])
}

fn description<'a>(root: &'a Value, schema: &'a Value) -> &'a str {
    schema["description"]
        .as_str()
        .or_else(|| resolved(root, schema)["description"].as_str())
        .unwrap_or_default()
}

fn paragraph(page: &mut String, text: &str) {
    for line in text.lines().filter(|line| !line.trim().is_empty()) {
        page.push_str(&escaped(line));
        page.push('\n');
    }
}

/// How deep tables stand in tables.
const DEEPEST: usize = 4;

/// The keys of a table, and of the tables in it.
fn keys(page: &mut String, root: &Value, table: &Value, above: &str, depth: usize) {
    let table = resolved(root, table);
    let choices = ["oneOf", "anyOf"].iter().filter_map(|word| table[*word].as_array()).flatten();
    for table in std::iter::once(table).chain(choices) {
        let table = resolved(root, table);
        let required: Vec<&str> =
            table["required"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        for (name, key) in properties(table) {
            let key_name = format!("{above}{name}");
            let must = if required.contains(&name.as_str()) { " (required)" } else { "" };
            page.push_str(&format!(".TP\n.B {}\n", escaped(&key_name)));
            paragraph(page, &format!("{}{must}", description(root, key)));
            if let Some(values) = resolved(root, key)["enum"].as_array() {
                let values: Vec<_> = values.iter().map(ToString::to_string).collect();
                paragraph(page, &format!("One of {}.", values.join(", ")));
            }
            if depth < DEEPEST {
                let key = resolved(root, key);
                let inner = [&key["items"], &key["additionalProperties"], key];
                for inner in inner.into_iter().filter(|inner| inner.is_object()) {
                    keys(page, root, inner, &format!("{key_name}."), depth + 1);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_key_of_every_table_has_its_place_and_its_words() {
        let page = page(&crate::fleet::schema());
        for line in [
            ".SH \"[fleet]\"",
            ".SH \"[[repository]]\"",
            ".SH \"[network.NAME]\"",
            ".B vmm",
            ".B publish.from",
            ".B budget.dns\\-queries",
            "One of \"firecracker\", \"qemu\".",
        ] {
            assert!(page.lines().any(|one| one == line), "{line}\n{page}");
        }
        let lines: Vec<_> = page.lines().collect();
        for pair in lines.windows(2).filter(|pair| pair[0].starts_with(".B ")) {
            assert!(!pair[1].is_empty() && !pair[1].starts_with('.'), "{} says nothing", pair[0]);
        }
    }
}
