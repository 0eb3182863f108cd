//! Exports: the call that keeps a fleet on its host, for engines that run one of it on each of many hosts. Git tells all of them
//! what, and the engine keeps them running. As under systemd, guests are none of what the engine starts: they have cgroups of
//! their own, and run on when it stops or replaces its task.

use minijinja::context;

use super::systemd::FleetUnit;

/// An image that has nsenter(1), and nothing else that is needed.
pub const NSENTER_IMAGE: &str = "docker.io/library/busybox:1.36";

impl FleetUnit {
    /// A system job of Nomad (<https://developer.hashicorp.com/nomad/docs/job-specification>): one task on each client.
    pub fn nomad(&self) -> String {
        let arguments: Vec<_> = self.arguments.iter().map(|word| hcl(word)).collect();
        let values = context! {
            name => hcl(&self.name),
            followed => one_line(&self.followed),
            program => hcl(&self.program.display().to_string()),
            cache => hcl(&self.cache.display().to_string()),
            arguments,
        };
        rendered(include_str!("export/nomad.hcl.jinja"), values)
    }

    /// A DaemonSet of Kubernetes (apps/v1): one pod on each node, of which nothing is used but that it enters the node's
    /// namespaces and becomes the program that is installed there. Kubernetes would replace `$(NAME)` in a command.
    pub fn kubernetes(&self, image: &str) -> String {
        let enter = ["nsenter", "--target=1", "--mount", "--uts", "--ipc", "--net", "--", "/usr/bin/env"];
        let called =
            [format!("SISFORGE_CACHE_DIR={}", self.cache.display()), self.program.display().to_string()];
        let words = enter.into_iter().map(str::to_owned).chain(called).chain(self.arguments.iter().cloned());
        let command: Vec<_> = words.map(|word| yaml(&word.replace("$(", "$$("))).collect();
        let values = context! {
            name => yaml(&dns_label(&self.name)),
            followed => one_line(&self.followed),
            image => yaml(image),
            command,
        };
        rendered(include_str!("export/kubernetes.yaml.jinja"), values)
    }
}

/// A template of this program with its values, which are quoted already.
fn rendered(template: &str, values: minijinja::Value) -> String {
    let mut environment = minijinja::Environment::new();
    environment.set_keep_trailing_newline(true);
    let text = environment.render_str(template, values);
    text.unwrap_or_else(|error| unreachable!("a template of this program is one that renders: {error}"))
}

/// For a comment.
fn one_line(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '?' } else { c }).collect()
}

/// A string of HCL (<https://github.com/hashicorp/hcl/blob/main/hclsyntax/spec.md>): that of JSON, in which templates begin with `${`
/// and `%{`.
fn hcl(text: &str) -> String {
    yaml(text).replace("${", "$${").replace("%{", "%%{")
}

/// A string of YAML: double-quoted ones are those of JSON.
fn yaml(text: &str) -> String {
    crate::base::text::json(&text)
}

/// What Kubernetes takes as a name (RFC 1123): small letters, digits and `-`, at most 63.
fn dns_label(name: &str) -> String {
    let label = |c: char| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '-' };
    let label: String = name.chars().map(label).take(63).collect();
    label.trim_matches('-').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_stand_for_themselves() {
        assert_eq!(hcl("${HOME} \"a\" %{x}"), r#""$${HOME} \"a\" %%{x}""#);
        assert_eq!(dns_label("Sis_forge-"), "sis-forge");
    }
}
