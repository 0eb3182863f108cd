//! nftables through `nft`: whole rulesets in one transaction, tables and counters read back.

use crate::base::{Class, Diagnosis, Diagnostic};

use super::tool::{Tool, ToolError};

/// Why a ruleset is not loaded or cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum NftError {
    #[error("cannot {action}{}", hint(.source))]
    Tool { action: String, source: ToolError },
    /// `nft` answered something else than it should.
    #[error("cannot understand what nft printed for `{action}`")]
    Output { action: String, source: serde_json::Error },
}

impl Diagnostic for NftError {
    fn diagnosis(&self) -> Diagnosis {
        match self {
            Self::Tool { source, .. } => source.diagnosis(),
            Self::Output { .. } => Class::Failed.hint("install a newer nftables"),
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

/// A table as nft prints it, without counters and other state; `None` where it is absent.
pub fn list_table(family: &str, name: &str) -> Result<Option<String>, NftError> {
    match Tool::new("nft").args(["-s", "list", "table", family, name]).text() {
        Ok(text) => Ok(Some(text)),
        Err(error) if is_absence(&error) => Ok(None),
        Err(error) => Err(failed(format!("list the nft table {family} {name}"))(error)),
    }
}

/// Chains at the hook `forward` that drop whatever they do not let through, as family, table and name, but for tables whose
/// name begins so.
pub fn forward_drops(but: &str) -> Result<Vec<String>, NftError> {
    let action = "list the nft chains";
    let text = Tool::new("nft").args(["-j", "list", "ruleset"]).text().map_err(failed(action))?;
    parse_forward_drops(&text, but).map_err(|source| NftError::Output { action: action.to_owned(), source })
}

/// Reads the JSON of `nft -j list ruleset` for [`forward_drops`]: chains with the policy `drop`, and rules without any
/// condition that drop or reject.
pub fn parse_forward_drops(text: &str, but: &str) -> Result<Vec<String>, serde_json::Error> {
    let all: serde_json::Value = serde_json::from_str(text)?;
    let items = all["nftables"].as_array().map(Vec::as_slice).unwrap_or_default();
    let word = |item: &serde_json::Value, key: &str| item[key].as_str().unwrap_or_default().to_owned();
    let place =
        |item: &serde_json::Value, name: &str| (word(item, "family"), word(item, "table"), word(item, name));
    let chains = items.iter().map(|item| &item["chain"]).filter(|chain| chain["hook"] == "forward");
    let chains = chains.filter(|chain| !word(chain, "table").starts_with(but));
    let forward: Vec<_> = chains.map(|chain| (place(chain, "name"), chain["policy"] == "drop")).collect();
    let without_condition = |rule: &serde_json::Value| {
        let parts = rule["expr"].as_array().map(Vec::as_slice).unwrap_or_default();
        let is = |part: &serde_json::Value, words: &[&str]| words.iter().any(|word| part.get(word).is_some());
        parts.iter().all(|part| is(part, &["counter", "log", "drop", "reject"]))
            && parts.last().is_some_and(|part| is(part, &["drop", "reject"]))
    };
    let rules = items.iter().map(|item| &item["rule"]).filter(|rule| without_condition(rule));
    let dropping: Vec<_> = rules.map(|rule| place(rule, "chain")).collect();
    let drops = forward.into_iter().filter(|(chain, policy)| *policy || dropping.contains(chain));
    Ok(drops.map(|((family, table, name), _)| format!("{family} {table} {name}")).collect())
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
    fn what_drops_forwarded_packets_is_named() {
        let text = r#"{"nftables": [{"metainfo": {"version": "1.0.6"}},
            {"chain": {"family": "ip", "table": "filter", "name": "FORWARD", "hook": "forward", "policy": "drop"}},
            {"chain": {"family": "inet", "table": "fw", "name": "fwd", "hook": "forward", "policy": "accept"}},
            {"rule": {"family": "inet", "table": "fw", "chain": "fwd", "expr": [{"counter": {}}, {"reject": null}]}},
            {"chain": {"family": "inet", "table": "mild", "name": "fwd", "hook": "forward", "policy": "accept"}},
            {"rule": {"family": "inet", "table": "mild", "chain": "fwd", "expr": [{"match": {}}, {"drop": null}]}},
            {"chain": {"family": "inet", "table": "in", "name": "in", "hook": "input", "policy": "drop"}},
            {"chain": {"family": "inet", "table": "sisforge-a", "name": "x", "hook": "forward", "policy": "drop"}}]}"#;
        let found = parse_forward_drops(text, "sisforge-").unwrap();
        assert_eq!(found, ["ip filter FORWARD", "inet fw fwd"]);
    }
}
