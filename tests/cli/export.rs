//! What keeps a fleet on many hosts; validators that others made judge it.

use std::process::Command;

use serde_json::Value;

use crate::common::namespaces::{missing, skip};
use crate::common::sandbox::{Run, Sandbox};
use crate::image::sbom::validators;

const REPOSITORY: &str = "--repo https://git.example.org/100%{x}/$(HOME)/${fleets}.git";

/// Prints HCL as JSON, strings as they are written.
const HCL: &str = "\
import hcl2, json, sys
print(json.dumps(hcl2.load(open(sys.argv[1]))))
";

#[test]
fn kubernetes_takes_the_set() {
    const TEST: &str = "kubernetes_takes_the_set";
    let Some(validators) = validators(TEST) else { return };
    let sandbox = Sandbox::new();
    let set = sandbox
        .done(&format!("export kubernetes {REPOSITORY} --name Sis_1 --image registry.example.org/busybox:1"));
    sandbox.write("set.yaml", &set);
    let validate = |file: &str| {
        Run::of(Command::new(validators.join("kubernetes-validate")).arg("--strict").arg(sandbox.path(file)))
    };
    let taken = validate("set.yaml");
    assert_eq!(taken.code, 0, "{taken}");
    assert!(taken.out.contains("daemonset/sis-1"), "{taken}");
    sandbox.write("wrong.yaml", set.replace("hostPID:", "hostPIDs:"));
    assert_ne!(validate("wrong.yaml").code, 0, "the validator looks");
    assert!(set.contains("image: \"registry.example.org/busybox:1\""), "{set}");
    assert!(set.contains("$$(HOME)/${fleets}.git\""), "what Kubernetes would replace\n{set}");
}

#[test]
fn a_pod_becomes_the_program_of_its_node() {
    if let Some(reason) = missing(&["busybox"]) {
        return skip("a_pod_becomes_the_program_of_its_node", &reason);
    }
    let sandbox = Sandbox::new();
    sandbox.fleet("a");
    let set = sandbox.done("export kubernetes --program /bin/echo");
    let command = set.split("command:\n").nth(1).unwrap().split("          securityContext").next().unwrap();
    let words = command.lines().map(|line| line.trim().strip_prefix("- ").unwrap());
    let words: Vec<String> = words.map(|word| serde_json::from_str(word).unwrap()).collect();
    // Another process than the node's first one has its namespaces here.
    let here = format!("--target={}", std::process::id());
    let words = words.iter().map(|word| if word == "--target=1" { &here } else { word });
    let file = sandbox.path("fleet.toml").canonicalize().unwrap();
    let started = Run::of(Command::new("busybox").args(words));
    assert!(started.out.starts_with(&format!("--file {} --out-dir ", file.display())), "{started}");
    assert!(started.out.ends_with(" watch --interval=30000ms\n"), "{started}");
}

#[test]
fn nomad_takes_the_job() {
    let Some(validators) = validators("nomad_takes_the_job") else { return };
    let sandbox = Sandbox::new();
    sandbox.write("job.hcl", sandbox.done(&format!("export nomad {REPOSITORY} --interval 1m")));
    let parsed =
        Run::of(Command::new(validators.join("python")).args(["-c", HCL]).arg(sandbox.path("job.hcl")));
    parsed.fails(0, &[]);
    let document: Value = serde_json::from_str(&parsed.out).unwrap();
    let job = &document["job"][0]["\"sisforge-fleets\""];
    assert_eq!(job["type"], "\"system\"", "{document}");
    let task = &job["group"][0]["\"watch\""]["task"][0]["\"watch\""];
    assert_eq!(task["driver"], "\"raw_exec\"", "{document}");
    assert_eq!(task["config"][0]["command"], "\"/usr/bin/sisforge\"", "{document}");
    let arguments = task["config"][0]["args"].as_array().unwrap();
    let repository = "\"--repo=https://git.example.org/100%%{x}/$(HOME)/$${fleets}.git\"";
    assert!(arguments.iter().any(|word| word == repository), "{document}");
    assert!(arguments.iter().any(|word| word == "\"--interval=60000ms\""), "{document}");
}

#[test]
fn what_is_no_call_is_refused() {
    let sandbox = Sandbox::new();
    sandbox.run("export nomad").fails(2, &["fleet.toml"]);
    sandbox.fleet("a");
    sandbox.run("export nomad --program sisforge").fails(2, &["--program sisforge is not absolute"]);
    sandbox.run("export kubernetes --name a.b").fails(2, &["--name"]);
    for (repository, word) in [
        ("fleets", "--repo fleets is neither a URL, nor HOST:PATH, nor a path that is there"),
        ("", "it is empty"),
        ("-u=x", "it begins with `-`"),
        ("ext::sh", "remote helpers"),
        ("https://", "the URL names no repository"),
        ("https://a\u{1b}[2J", "control characters"),
    ] {
        for call in ["export nomad", "export kubernetes", "systemd"] {
            sandbox.run(&format!("{call} --repo={repository}")).fails(2, &[word]);
        }
    }
    sandbox.done("export nomad --repo=git@git.example.org:fleets.git");
    sandbox.done("export nomad --repo=/srv/fleets.git");
    sandbox.run("export").fails(2, &["nomad", "kubernetes"]);
}
