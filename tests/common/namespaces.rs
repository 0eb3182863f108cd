//! Tests that change a host, in namespaces of their own, so that nothing of the real one is touched.

use sisforge::sys::tool::{self, Tool};

/// Set in the copy of a test that runs inside its namespaces.
const INSIDE: &str = "SISFORGE_TEST_INSIDE";

/// Runs a test again in network and mount namespaces of its own; `true` in that copy, whose body is to be run.
pub fn inside_namespaces(test: &str, tools: &[&str]) -> bool {
    if is_inside() {
        return true;
    }
    if let Some(reason) = missing(tools) {
        skip(test, &reason);
        return false;
    }
    let call = Tool::new("unshare").args(["--net", "--mount", "--propagation", "private", "--"]);
    let call =
        call.arg(std::env::current_exe().unwrap()).args(["--exact", test, "--nocapture"]).env(INSIDE, "1");
    match call.text() {
        Ok(text) => assert!(text.contains("1 passed"), "no test is called {test}"),
        Err(error) => panic!("{error}"),
    }
    false
}

/// Whether this is the copy of a test that runs inside its namespaces.
pub fn is_inside() -> bool {
    std::env::var_os(INSIDE).is_some()
}

/// Why a test that needs root and these tools cannot run here.
pub fn missing(tools: &[&str]) -> Option<String> {
    if !rustix::process::geteuid().is_root() {
        return Some("needs root".to_owned());
    }
    tools.iter().find(|name| tool::find(name).is_none()).map(|name| format!("{name} is not installed"))
}

/// Says aloud that a test was not run; fails where the machine is meant to have all that tests need.
pub fn skip(test: &str, reason: &str) {
    let required = std::env::var_os("SISFORGE_REQUIRE_ORACLES").is_some_and(|value| value == "1");
    assert!(!required, "{test} could not run: {reason}");
    eprintln!("SKIPPED {test}: {reason}");
}
