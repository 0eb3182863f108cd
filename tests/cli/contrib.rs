//! What comes beside the program for those who watch many hosts: alerts and a dashboard.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use crate::common::namespaces::{missing, skip};
use crate::common::sandbox::Run;

fn contrib(file: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("contrib").join(file)
}

fn promtool(args: &[&str], file: &Path) -> Run {
    Run::of(Command::new("promtool").args(args).arg(file))
}

/// What the dashboard asks Prometheus, with values in place of Grafana's variables.
fn queries() -> Vec<String> {
    let dashboard: Value =
        serde_json::from_slice(&fs::read(contrib("grafana/sisforge.json")).unwrap()).unwrap();
    let panels = dashboard["panels"].as_array().unwrap();
    let targets = panels.iter().flat_map(|panel| panel["targets"].as_array().unwrap());
    targets.map(|target| target["expr"].as_str().unwrap().replace("$__rate_interval", "5m")).collect()
}

#[test]
fn alerts_are_there_when_they_should_be() {
    if let Some(reason) = missing(&["promtool"]) {
        return skip("alerts_are_there_when_they_should_be", &reason);
    }
    promtool(&["check", "rules"], &contrib("prometheus/sisforge.rules.yml")).fails(0, &[]);
    promtool(&["test", "rules"], &contrib("prometheus/sisforge.test.yml")).fails(0, &[]);
}

#[test]
fn the_dashboard_asks_what_prometheus_understands() {
    if let Some(reason) = missing(&["promtool"]) {
        return skip("the_dashboard_asks_what_prometheus_understands", &reason);
    }
    let rules: Vec<_> = queries()
        .iter()
        .map(|query| serde_json::json!({ "record": "a:b", "expr": query, "labels": { "query": query } }))
        .collect();
    assert!(rules.len() > 10);
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("rules.yml");
    fs::write(&file, serde_json::json!({ "groups": [{ "name": "dashboard", "rules": rules }] }).to_string())
        .unwrap();
    promtool(&["check", "rules"], &file).fails(0, &[]);
}

/// Fails where alerts or the dashboard ask for a metric that is not in a text of them.
pub fn asks_only_for(metrics: &str) {
    let rules = fs::read_to_string(contrib("prometheus/sisforge.rules.yml")).unwrap();
    let asked: BTreeSet<String> =
        queries().iter().map(String::as_str).chain([rules.as_str()]).flat_map(names).collect();
    let told = names(metrics);
    // Where no cgroup controller counts them, nobody can tell them.
    let io = ["sisforge_guest_disk_read_bytes_total", "sisforge_guest_disk_written_bytes_total"];
    let missing: Vec<_> =
        asked.iter().filter(|name| !told.contains(*name) && !io.contains(&name.as_str())).collect();
    assert!(asked.len() > 10 && missing.is_empty(), "{missing:?} of {asked:?}");
}

/// The metrics of sisforge that a text names.
fn names(text: &str) -> BTreeSet<String> {
    let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    words.filter(|word| word.starts_with("sisforge_")).map(str::to_owned).collect()
}
