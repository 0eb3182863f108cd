//! What nft has counted, as `nft -j` prints it (libnftables-json(5)).

use std::collections::BTreeMap;

use serde_json::Value;
use sisforge::sys::tool::Tool;

/// What a named counter has seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Counter {
    pub packets: u64,
    pub bytes: u64,
}

fn list(arguments: &[&str]) -> Vec<Value> {
    let text = Tool::new("nft").args(["-j", "list"]).args(arguments).text().unwrap();
    let document: Value = serde_json::from_str(&text).unwrap();
    document["nftables"].as_array().unwrap().clone()
}

/// All tables of this network namespace, as family and name.
pub fn tables() -> Vec<(String, String)> {
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let tables = list(&["tables"]).into_iter().filter_map(|item| item.get("table").cloned());
    tables.map(|table| (text(&table["family"]), text(&table["name"]))).collect()
}

/// The named counters of a table.
pub fn counters(family: &str, table: &str) -> BTreeMap<String, Counter> {
    let items = list(&["counters", "table", family, table]).into_iter();
    let number = |value: &Value| value.as_u64().unwrap();
    let seen =
        |counter: &Value| Counter { packets: number(&counter["packets"]), bytes: number(&counter["bytes"]) };
    let counters = items.filter_map(|item| item.get("counter").cloned());
    counters.map(|counter| (counter["name"].as_str().unwrap().to_owned(), seen(&counter))).collect()
}
