//! nftables through `nft`: whole rulesets in one transaction, tables and counters read back.

mod change;
mod table;

use std::io;

use crate::base::{Class, Diagnosis, Diagnostic};

use super::fs::io_diagnosis;
use super::tool::{Tool, ToolError};

pub use change::ElementBatch;
pub use table::{
    SetDigests, TableContent, flat_digest, generation, interfaces_in, read as read_table, read_beside, tables,
};

/// Why a ruleset is not loaded or cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum NftError {
    #[error("cannot {action}{}", hint(.source))]
    Tool { action: String, source: ToolError },
    /// `nft` answered something else than it should.
    #[error("cannot parse the output of nft for `{action}`")]
    Output { action: String, source: serde_json::Error },
    /// The kernel did not answer.
    #[error("cannot {action}{}", if .source.kind() == io::ErrorKind::PermissionDenied {
        " (this needs root, and CAP_NET_ADMIN in a container)"
    } else { "" })]
    Kernel { action: String, source: io::Error },
}

impl Diagnostic for NftError {
    fn diagnosis(&self) -> Diagnosis {
        match self {
            Self::Tool { source, .. } => source.diagnosis(),
            Self::Output { .. } => Class::Failed.hint("install a newer nftables"),
            Self::Kernel { source, .. } => io_diagnosis(source).of(Class::Failed),
        }
    }
}

fn hint(source: &ToolError) -> &'static str {
    let stderr = source.stderr();
    if stderr.contains("Operation not permitted") {
        " (this needs root, and CAP_NET_ADMIN in a container)"
    } else if stderr.contains("Operation not supported") || stderr.contains("Protocol not supported") {
        " (this kernel may lack nf_tables: CONFIG_NF_TABLES and CONFIG_NF_TABLES_INET)"
    } else {
        ""
    }
}

/// A table names nothing that is not there: nft says the same for a missing table and for a missing family.
fn is_absence(error: &ToolError) -> bool {
    error.stderr().contains("No such file or directory")
}

fn failed(action: impl Into<String>) -> impl FnOnce(ToolError) -> NftError {
    let action = action.into();
    move |source| NftError::Tool { action, source }
}

/// Loads a ruleset: all of it, or nothing where one line is wrong.
pub fn load(ruleset: &str) -> Result<(), NftError> {
    Tool::new("nft").args(["-f", "-"]).stdin(ruleset).run().map_err(failed("load the nft ruleset"))?;
    Ok(())
}

/// Whether this host's nft and kernel would take the ruleset; nothing is changed.
pub fn check(ruleset: &str) -> Result<(), NftError> {
    Tool::new("nft").args(["-c", "-f", "-"]).stdin(ruleset).run().map_err(failed("check the nft ruleset"))?;
    Ok(())
}

/// A table as nft prints it, without counters and other state, and without what packets add to sets; `None` where it is absent.
pub fn list_table(family: &str, name: &str) -> Result<Option<String>, NftError> {
    match Tool::new("nft").args(["-s", "list", "table", family, name]).text() {
        Ok(text) => Ok(Some(without_dynamic_elements(&text))),
        Err(error) if is_absence(&error) => Ok(None),
        Err(error) => Err(failed(format!("list the nft table {family} {name}"))(error)),
    }
}

/// The same text without the elements of dynamic sets: nft lists them behind a set's flags, over one line or several.
fn without_dynamic_elements(text: &str) -> String {
    let (mut is_dynamic, mut is_element) = (false, false);
    let mut kept = String::with_capacity(text.len());
    for line in text.lines() {
        let words = line.trim();
        if words.starts_with("set ") {
            is_dynamic = false;
        }
        is_dynamic |= words.starts_with("flags ") && words.contains("dynamic");
        is_element |= is_dynamic && words.starts_with("elements = {");
        if is_element {
            is_element = !words.ends_with('}');
        } else {
            kept.push_str(line);
            kept.push('\n');
        }
    }
    kept
}

/// Every table of this network namespace as nft's JSON, with counters and without the elements of sets: lists of addresses are long.
pub fn ruleset_json() -> Result<String, NftError> {
    Tool::new("nft").args(["-j", "-t", "list", "ruleset"]).text().map_err(failed("list the nft ruleset"))
}

/// Whether a table is there.
pub fn has_table(family: &str, name: &str) -> Result<bool, NftError> {
    Ok(tables(family)?.iter().any(|table| table == name))
}

/// Chains at the hook `forward` that drop whatever they do not let through, as family, table and name, but for tables whose
/// name begins so, and for chains that let interfaces of this name (`sis-*`) pass in both directions.
pub fn forward_drops(but: &str, interfaces: &str) -> Result<Vec<String>, NftError> {
    let action = "list the nft chains";
    let text = Tool::new("nft").args(["-j", "list", "ruleset"]).text().map_err(failed(action))?;
    parse_forward_drops(&text, but, interfaces)
        .map_err(|source| NftError::Output { action: action.to_owned(), source })
}

/// Reads the JSON of `nft -j list ruleset` for [`forward_drops`]: chains with the policy `drop`, and rules without any
/// condition that drop or reject. Only what is routed counts: no chain of a bridge or of a device meets it.
pub fn parse_forward_drops(
    text: &str,
    but: &str,
    interfaces: &str,
) -> Result<Vec<String>, serde_json::Error> {
    let all: serde_json::Value = serde_json::from_str(text)?;
    let items = all["nftables"].as_array().map(Vec::as_slice).unwrap_or_default();
    let word = |item: &serde_json::Value, key: &str| item[key].as_str().unwrap_or_default().to_owned();
    let place =
        |item: &serde_json::Value, name: &str| (word(item, "family"), word(item, "table"), word(item, name));
    let chains = items.iter().map(|item| &item["chain"]).filter(|chain| chain["hook"] == "forward");
    let routes = |chain: &&serde_json::Value| ["ip", "inet"].contains(&word(chain, "family").as_str());
    let chains = chains.filter(|chain| !word(chain, "table").starts_with(but)).filter(routes);
    let forward: Vec<_> = chains.map(|chain| (place(chain, "name"), chain["policy"] == "drop")).collect();
    let without_condition = |rule: &serde_json::Value| {
        let parts = rule["expr"].as_array().map(Vec::as_slice).unwrap_or_default();
        let is = |part: &serde_json::Value, words: &[&str]| words.iter().any(|word| part.get(word).is_some());
        parts.iter().all(|part| is(part, &["counter", "log", "drop", "reject"]))
            && parts.last().is_some_and(|part| is(part, &["drop", "reject"]))
    };
    let rules = items.iter().map(|item| &item["rule"]).filter(|rule| without_condition(rule));
    let dropping: Vec<_> = rules.map(|rule| place(rule, "chain")).collect();
    let let_pass = |chain: &(String, String, String)| {
        ["iifname", "oifname"].iter().all(|side| accepts(items, chain, side, interfaces))
    };
    let drops = forward.into_iter().filter(|(chain, policy)| *policy || dropping.contains(chain));
    let drops = drops.filter(|(chain, _)| !let_pass(chain));
    Ok(drops.map(|((family, table, name), _)| format!("{family} {table} {name}")).collect())
}

/// Whether a chain of `nft -j list ruleset`, or one that it jumps to without a condition, accepts every packet of these
/// interfaces on one side, `iifname` or `oifname`, before anything else without a condition ends its way.
fn accepts(
    items: &[serde_json::Value],
    (family, table, name): &(String, String, String),
    side: &str,
    interfaces: &str,
) -> bool {
    use serde_json::json;
    let of_chain = |rule: &&serde_json::Value| {
        rule["family"] == **family && rule["table"] == **table && rule["chain"] == **name
    };
    let is_match = |part: &serde_json::Value| {
        part["match"]["left"] == json!({ "meta": { "key": side } })
            && part["match"]["op"] == "=="
            && part["match"]["right"] == interfaces
    };
    for rule in items.iter().map(|item| &item["rule"]).filter(of_chain) {
        let parts: Vec<_> = rule["expr"].as_array().into_iter().flatten().collect();
        let parts: Vec<_> = parts.into_iter().filter(|part| part.get("counter").is_none()).collect();
        match parts.as_slice() {
            [part, verdict] if is_match(part) && verdict.get("accept").is_some() => return true,
            [verdict] if verdict.get("drop").is_some() || verdict.get("reject").is_some() => return false,
            [jump] => {
                let target = jump["jump"]["target"].as_str().filter(|target| target != name);
                let target = target.map(|target| (family.clone(), table.clone(), target.to_owned()));
                if target.is_some_and(|target| accepts(items, &target, side, interfaces)) {
                    return true;
                }
            }
            _ => {}
        }
    }
    false
}

/// Removes a table with all that is in it; absence is fine.
pub fn delete_table(family: &str, name: &str) -> Result<(), NftError> {
    match Tool::new("nft").args(["delete", "table", family, name]).run() {
        Err(error) if !is_absence(&error) => {
            Err(failed(format!("delete the nft table {family} {name}"))(error))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_packets_add_to_a_set_is_not_listed() {
        let set = |name: &str, flags: &str, elements: &str| {
            format!("\tset {name} {{\n\t\ttype ifname\n\t\tflags {flags}\n{elements}\t}}\n")
        };
        let elements =
            "\t\telements = { \"a\" limit rate over 5/second burst 5 packets,\n\t\t\t     \"b\" }\n";
        let listed = format!(
            "table inet t {{\n{}{}}}\n",
            set("open", "dynamic", elements),
            set("taps", "interval", elements)
        );
        let kept = format!(
            "table inet t {{\n{}{}}}\n",
            set("open", "dynamic", ""),
            set("taps", "interval", elements)
        );
        assert_eq!(without_dynamic_elements(&listed), kept);
    }

    #[test]
    fn what_drops_forwarded_packets_is_named() {
        let text = r#"{"nftables": [{"metainfo": {"version": "1.0.6"}},
            {"chain": {"family": "ip", "table": "filter", "name": "FORWARD", "hook": "forward", "policy": "drop"}},
            {"chain": {"family": "inet", "table": "fw", "name": "fwd", "hook": "forward", "policy": "accept"}},
            {"rule": {"family": "inet", "table": "fw", "chain": "fwd", "expr": [{"counter": {}}, {"reject": null}]}},
            {"chain": {"family": "inet", "table": "mild", "name": "fwd", "hook": "forward", "policy": "accept"}},
            {"rule": {"family": "inet", "table": "mild", "chain": "fwd", "expr": [{"match": {}}, {"drop": null}]}},
            {"chain": {"family": "inet", "table": "in", "name": "in", "hook": "input", "policy": "drop"}},
            {"chain": {"family": "inet", "table": "sisforge-a", "name": "x", "hook": "forward", "policy": "drop"}}]}"#;
        let found = parse_forward_drops(text, "sisforge-", "sis-*").unwrap();
        assert_eq!(found, ["ip filter FORWARD", "inet fw fwd"]);
    }

    #[test]
    fn a_bridge_routes_nothing_and_what_lets_the_taps_pass_drops_nothing_of_theirs() {
        let accept = |side: &str| {
            format!(
                r#"{{"rule": {{"family": "ip", "table": "filter", "chain": "DOCKER-USER", "expr": [
                {{"match": {{"op": "==", "left": {{"meta": {{"key": "{side}"}}}}, "right": "sis-*"}}}}, {{"accept": null}}]}}}},"#
            )
        };
        let found = |rules: &str| {
            let text = format!(
                r#"{{"nftables": [
                {{"chain": {{"family": "bridge", "table": "b", "name": "f", "hook": "forward", "policy": "drop"}}}},
                {{"chain": {{"family": "ip", "table": "filter", "name": "FORWARD", "hook": "forward", "policy": "drop"}}}},
                {rules}
                {{"rule": {{"family": "ip", "table": "filter", "chain": "FORWARD", "expr": [{{"jump": {{"target": "DOCKER-USER"}}}}]}}}}]}}"#
            );
            parse_forward_drops(&text, "sisforge-", "sis-*").unwrap()
        };
        assert_eq!(found(""), ["ip filter FORWARD"]);
        assert_eq!(found(&accept("iifname")), ["ip filter FORWARD"], "one direction is not enough");
        assert_eq!(found(&(accept("iifname") + &accept("oifname"))), [""; 0]);
    }
}
