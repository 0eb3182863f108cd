//! Examples of commands, which stand in `--help` and in the man pages.

use clap::Command;

/// Commands and what one writes; each line is a command line that this program takes.
const EXAMPLES: &[(&str, &[&str])] = &[
    ("init", &["sisforge init", "sisforge init --print"]),
    ("lock", &["sisforge lock", "sisforge lock --update", "sisforge lock --update podman"]),
    ("vendor", &["sisforge vendor vendor", "sisforge build --offline"]),
    ("build", &["sisforge build", "sisforge build image surf", "sisforge build --locked --check"]),
    ("push", &["sisforge push oci://registry.example.org/team/fleet:main", "sisforge push"]),
    ("pull", &["sisforge pull", "sisforge pull oci://registry.example.org/team/fleet --verify keys/signers"]),
    ("sign", &["sisforge sign --key ~/.ssh/id_ed25519"]),
    ("provenance", &["sisforge provenance"]),
    ("verify", &["sisforge verify", "sisforge verify --json"]),
    ("tree", &["sisforge tree alice --out /tmp/tree"]),
    ("plan", &["sisforge plan", "sisforge plan alice", "sisforge plan --out next.plan"]),
    (
        "up",
        &[
            "sisforge up",
            "sisforge up alice bob",
            "sisforge up --strategy rolling --max-unavailable 2",
            "sisforge up --no-build --verify keys/signers",
        ],
    ),
    ("down", &["sisforge down", "sisforge down alice", "sisforge down --purge"]),
    ("restart", &["sisforge restart alice"]),
    ("ps", &["sisforge ps", "sisforge ps --watch", "sisforge ps --containers", "sisforge ps --json"]),
    ("top", &["sisforge top", "sisforge top --sort network", "sisforge top --once --json"]),
    (
        "logs",
        &[
            "sisforge logs alice --follow --timestamps",
            "sisforge logs --tail 20",
            "sisforge logs alice --vmm --since 10m",
        ],
    ),
    ("events", &["sisforge events --follow"]),
    ("exec", &["sisforge exec alice -- podman ps", "sisforge exec alice -- sh -c 'cat *.txt'"]),
    ("ssh", &["sisforge ssh alice", "sisforge ssh alice 'cd work; ls'"]),
    ("cp", &["sisforge cp notes.txt alice:", "sisforge cp alice:work/report.pdf ."]),
    (
        "forensics",
        &[
            "sisforge forensics alice --out alice.tar.zst",
            "sisforge forensics verify alice.tar.zst --signers signers",
            "sisforge forensics files alice.tar.zst",
            "sisforge forensics cat alice.tar.zst timeline.html",
        ],
    ),
    ("quarantine", &["sisforge quarantine alice", "sisforge release alice"]),
    (
        "session start",
        &["sisforge session start kiosk", "sisforge session start kiosk --for mrs-jones --ttl 2h --json"],
    ),
    ("session end", &["sisforge session ls", "sisforge session end kiosk-0"]),
    ("disk export", &["sisforge disk export alice alice.ext4"]),
    ("disk import", &["sisforge disk import alice alice.ext4 --replace"]),
    ("snapshot create", &["sisforge snapshot create alice --stop"]),
    (
        "snapshot inspect",
        &["sisforge snapshot inspect alice-1", "sisforge snapshot inspect alice-1 --verify"],
    ),
    ("snapshot restore", &["sisforge snapshot ls", "sisforge snapshot restore alice-1"]),
    (
        "snapshot export",
        &[
            "sisforge snapshot export alice-1 --to age1zvkyg2lqzraa2lnjvqej32nkuu0ues2s82hzrye869xeexvn73equnujwj",
            "sisforge snapshot import alice-1.snapshot.age",
        ],
    ),
    ("snapshot ledger", &["sisforge snapshot ledger", "sisforge snapshot ledger --accept"]),
    (
        "policy explain",
        &[
            "sisforge policy explain alice 198.51.100.1:443",
            "sisforge policy explain alice 198.51.100.1:53/udp --prove",
        ],
    ),
    ("watch", &["sisforge watch", "sisforge watch --repo https://git.example.org/fleet.git --interval 30s"]),
    ("export nomad", &["sisforge export nomad --repo https://git.example.org/fleet.git"]),
    ("export kubernetes", &["sisforge export kubernetes --repo https://git.example.org/fleet.git"]),
    (
        "systemd",
        &["sisforge systemd", "sisforge systemd --install", "sisforge systemd --sessions portal --install"],
    ),
    ("doctor", &["sisforge doctor", "sisforge doctor --fix"]),
    ("gc", &["sisforge gc --dry-run", "sisforge gc --yes"]),
    ("inspect", &["sisforge inspect surf"]),
    ("diff", &["sisforge diff surf other.ext4"]),
    ("sbom", &["sisforge sbom surf --format cyclonedx"]),
    ("keys alpine", &["sisforge keys alpine"]),
    ("kernel why", &["sisforge kernel why TUN"]),
    (
        "apk solve",
        &["sisforge apk solve -X https://dl-cdn.alpinelinux.org/alpine/v3.22/main --keys keys/alpine podman"],
    ),
    ("apk pack", &["sisforge apk pack --name tool --pkgver 1.0-r0 --to repository/x86_64 --key me.rsa tool"]),
    ("apk index", &["sisforge apk key me.rsa", "sisforge apk index repository/x86_64 --key me.rsa"]),
    ("completions", &["sisforge completions bash"]),
    ("man", &["sisforge man --dir /usr/local/share/man/man1"]),
];

/// Adds to each command its examples.
pub fn added(command: Command) -> Command {
    EXAMPLES.iter().fold(command, |command, (path, lines)| {
        let text =
            format!("Examples:\n{}", lines.iter().map(|line| format!("  {line}\n")).collect::<String>());
        let words: Vec<_> = path.split(' ').collect();
        at(command, &words, text)
    })
}

fn at(command: Command, path: &[&str], text: String) -> Command {
    match path {
        [] => command.after_help(text.trim_end().to_owned()),
        [first, rest @ ..] => command.mut_subcommand(*first, |command| at(command, rest, text)),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::{Path, PathBuf};

    use super::*;

    fn is_command_line(line: &str) {
        // One pair of quotes is what examples have.
        let mut words = Vec::new();
        for (at, part) in line.split('\'').enumerate() {
            match at % 2 {
                0 => words.extend(part.split_whitespace()),
                _ => words.push(part),
            }
        }
        if let Err(error) = crate::cli::command_line().try_get_matches_from(&words) {
            panic!("{line}: {error}");
        }
    }

    #[test]
    fn every_example_is_a_command_line() {
        EXAMPLES.iter().flat_map(|(_, lines)| *lines).for_each(|line| is_command_line(line));
    }

    /// The README and the pages of `docs/`.
    fn pages() -> Vec<PathBuf> {
        let project = Path::new(env!("CARGO_MANIFEST_DIR"));
        let of = |dir: &str| {
            let entries = fs::read_dir(project.join(dir)).expect("pages");
            entries.map(|entry| entry.expect("a page").path()).filter(|path| path.is_file())
        };
        of("docs/src").chain(of("docs/src/how-to")).chain([project.join("README.md")]).collect()
    }

    #[test]
    fn what_pages_show_are_command_lines() {
        let mut count = 0;
        for page in pages() {
            let text = fs::read_to_string(&page).expect("a page");
            for line in text.lines().filter(|line| line.starts_with("    sisforge ")) {
                // What stands behind is the shell's, or for the reader.
                let ends = [" #", "  ", " >", " |"].iter().filter_map(|end| line.trim_start().find(end));
                let line = line.trim_start();
                is_command_line(&line[..ends.min().unwrap_or(line.len())]);
                count += 1;
            }
        }
        assert!(count > 60, "{count}");
    }
}
