//! systemd, by its own tools (systemd.unit(5), systemctl(1)).

use std::path::Path;

use super::tool::{Tool, ToolError};

/// Where an administrator's units stand.
pub const UNITS: &str = "/etc/systemd/system";

/// Whether systemd runs this host (sd_booted(3)).
pub fn is_running() -> bool {
    Path::new("/run/systemd/system").is_dir()
}

/// Whether systemd takes this host down, be it to start it again.
pub fn is_stopping() -> Result<bool, ToolError> {
    // Its status tells whether all is well; the word is on its output in any case.
    let output = Tool::new("systemctl").arg("is-system-running").output()?;
    Ok(String::from_utf8_lossy(&output.stdout).trim() == "stopping")
}

/// Has systemd read its units anew, and start one at each boot from now on.
pub fn enable(unit: &str) -> Result<(), ToolError> {
    Tool::new("systemctl").arg("daemon-reload").run()?;
    Tool::new("systemctl").args(["enable", "--quiet", unit]).run().map(drop)
}

/// A word of a command line in a unit. What systemd would replace (`%`, `$`) stands for itself.
pub fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:=@,+".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        return word.to_owned();
    }
    let mut text = String::from("\"");
    for c in word.chars() {
        match c {
            '"' | '\\' => text.extend(['\\', c]),
            '%' | '$' => text.extend([c, c]),
            '\n' => text.push_str("\\n"),
            c => text.push(c),
        }
    }
    text + "\""
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_stand_for_themselves() {
        assert_eq!(quoted("/srv/fleet.toml"), "/srv/fleet.toml");
        assert_eq!(quoted("a b"), "\"a b\"");
        assert_eq!(quoted(r#"50% of "$HOME" \"#), r#""50%% of \"$$HOME\" \\""#);
        assert_eq!(quoted(""), "\"\"");
    }
}
