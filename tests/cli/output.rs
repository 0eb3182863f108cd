//! What `--json` prints is a contract: one document that fits its published schema, or lines of which each does.

use serde_json::Value;

use crate::common::namespaces::skip;
use crate::common::sandbox::{Run, Sandbox};
use crate::common::schema::violations;
use crate::needs_firecracker;

/// A sandbox, and the schemas that were asked for.
struct Contract(Sandbox);

impl Contract {
    fn of(letters: &str) -> Self {
        let sandbox = Sandbox::new();
        sandbox.fleet(letters);
        Self(sandbox)
    }

    fn schema(&self, name: &str) -> Value {
        serde_json::from_str(&self.0.done(&format!("schema {name}"))).unwrap()
    }

    /// Runs a command that prints one document.
    #[track_caller]
    fn document(&self, command: &str, schema: &str) -> Value {
        let (code, mut documents) = self.0.documents(command, schema);
        assert_eq!((code, documents.len()), (0, 1), "{command}");
        documents.remove(0)
    }

    /// The one document that a command printed.
    #[track_caller]
    fn one(&self, run: &Run, schema: &str) -> Value {
        assert_eq!((run.err.as_str(), run.out.lines().count()), ("", 1), "{run}");
        let document = serde_json::from_str(&run.out).unwrap();
        assert_eq!(violations(&document, &self.schema(schema)), [""; 0], "{run}");
        document
    }

    /// Runs a command that prints lines; gives the last.
    #[track_caller]
    fn lines(&self, command: &str) -> Value {
        let (code, mut lines) = self.0.documents(command, "event");
        assert_eq!(code, 0, "{command}");
        lines.pop().unwrap_or_else(|| panic!("{command}"))
    }
}

#[test]
fn every_schema_describes_itself_and_each_of_its_keys() {
    let contract = Contract::of("a");
    let help = contract.0.done("schema --help");
    let documents: Vec<_> = help.lines().filter_map(|line| line.trim().strip_prefix("- ")).collect();
    assert!(documents.len() > 26, "{help}");
    for name in documents.iter().map(|line| line.split(':').next().unwrap()) {
        let schema = contract.schema(name);
        assert!(schema["title"].is_string() && schema["$schema"].is_string(), "{name}: {schema}");
    }
}

#[test]
fn what_builds_prints_lines_and_looks_print_one_document() {
    let contract = Contract::of("a");
    contract.document("check", "check");
    assert_eq!(contract.document("policy show", "policy-show")[0]["network"], "n");
    let asked = contract.0.run(&format!("policy explain {} 198.51.100.1 --json", contract.0.guest('a')));
    assert_eq!((asked.code, &contract.one(&asked, "policy-explain")["passes"]), (3, &false.into()));
    let locked = contract.lines("lock");
    assert_eq!((&locked["event"], locked["packages"].as_u64()), (&"locked".into(), Some(1)));
    assert_eq!(contract.lines("build")["artifacts"].as_array().unwrap().len(), 3);
    assert_eq!(contract.lines("build --check")["event"], "compared");
    assert_eq!(contract.lines("fetch")["event"], "fetched");
    assert_eq!(contract.lines("vendor vendored")["event"], "vendored");
}

#[test]
fn an_error_is_one_document_too() {
    let contract = Contract::of("a");
    let words = contract.one(&contract.0.run("--json inspect nothing"), "error");
    assert!(words["hint"].is_string(), "{words}");
    contract.0.write("fleet.toml", "[fleet]\nnam = 1\n");
    let files = contract.one(&contract.0.run("--json check"), "error");
    assert_eq!(files["problems"][2]["line"], 2, "{files}");
}

/// What can be asked of a host on which nothing runs, and needs no VMM.
#[test]
fn a_host_is_looked_at_in_one_document() {
    if !rustix::process::geteuid().is_root() {
        return skip("a_host_is_looked_at_in_one_document", "looking at a host needs root");
    }
    let contract = Contract::of("ab");
    let status = contract.document("status", "status");
    assert!(status["in_step"].is_null(), "nothing is built: {status}");
    assert!(status["notes"][0].as_str().unwrap().contains("drift is not known"), "{status}");
    let tree = contract.document("tree --out t", "tree");
    assert_eq!(tree["jails"].as_object().unwrap().len(), 2, "it locks and builds, and prints one document");
    assert!(
        tree["notes"].as_array().unwrap().iter().any(|note| note.as_str().unwrap().contains("fleet.lock"))
    );
    let status = contract.document("status", "status");
    assert_eq!(status["in_step"], false, "{status}");
    assert_eq!(status["guests"][0]["drift"], "new", "{status}");
    let all = contract.document("ps --all", "ps");
    assert_eq!(all.as_array().unwrap().len(), 2);
    assert_eq!(contract.document("ps", "ps"), Value::Array(Vec::new()));
    assert_eq!(contract.document("disk ls", "disk-ls"), Value::Array(Vec::new()));
    assert_eq!(contract.document("snapshot ls", "snapshot-ls"), Value::Array(Vec::new()));
    contract.one(&contract.0.run("--json snapshot rm nothing --yes"), "error");
    assert_eq!(contract.lines("down")["event"], "summary");
}

#[test]
fn a_host_with_guests_is_looked_at_in_one_document() {
    needs_firecracker!();
    let contract = Contract::of("a");
    let a = &contract.0.guest('a');
    let plan = contract.document("plan", "plan");
    assert_eq!((&plan["empty"], &plan["start"][0]["why"]), (&false.into(), &"new".into()));
    assert_eq!(contract.lines("up")["summary"]["started"][0], a.as_str());
    let run = contract.0.run("ps --json");
    assert_eq!(run.out.matches("\"uid\":").count(), 1, "each key once: {run}");
    let guest = &contract.document("ps", "ps")[0];
    assert_eq!((&guest["state"], &guest["vmm"]), (&"ready".into(), &"firecracker".into()));
    assert_eq!(contract.document("status", "status")["in_step"], true);
    assert_eq!(contract.document("disk ls", "disk-ls")[0]["attached"], true);
    let frozen = contract.document(&format!("snapshot create {a} --name s --stop"), "snapshot-create");
    assert_eq!((&frozen["snapshot"], &frozen["stopped"]), (&"s".into(), &true.into()));
    let listed = contract.document("snapshot ls", "snapshot-ls");
    assert_eq!(listed[0]["manifest"]["guest"], a.as_str());
    let restored = contract.document("snapshot restore s", "snapshot-restore");
    assert_eq!(restored["summary"]["started"][0], a.as_str());
    assert_eq!(contract.document("ps", "ps")[0]["restored_from"], "s");
    assert_eq!(contract.document("snapshot ls --all", "snapshot-ls")[0]["state"], "consumed");
    assert_eq!(contract.document("snapshot rm s --yes", "snapshot-rm")["snapshot"], "s");
    assert_eq!(contract.lines("down")["summary"]["stopped"][0], a.as_str());
    assert_eq!(contract.document(&format!("disk rm {a} --yes"), "disk-rm")["disk"], a.as_str());
    assert_eq!(contract.lines("down --purge --yes")["event"], "purged");
}
