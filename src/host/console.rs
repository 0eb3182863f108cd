//! What a guest says on its serial console.

/// The line by which a guest says that all its services stand; behind it may come its ssh host key.
const READY: &str = "sisforge: ready";

/// The host key that the first readiness line tells, `ssh-ed25519 AAAA...`; empty where it tells none. `None` where
/// the guest has not said that it is ready. The first line counts: later ones may be a user's.
pub fn ready_key(serial: &str) -> Option<String> {
    // A line that is still being written is not yet the whole key.
    let whole = &serial[..serial.rfind('\n')? + 1];
    let line = whole.lines().find_map(|line| line.split_once(READY))?.1;
    let words: Vec<_> = line.split_whitespace().take(2).collect();
    Some(words.join(" "))
}

/// The line by which a guest says that some of its services do not stand.
const FAILED: &str = "sisforge: failed:";

/// The services that a guest says do not stand; `None` where it has not said so.
pub fn failed_services(serial: &str) -> Option<String> {
    let whole = &serial[..serial.rfind('\n')? + 1];
    Some(whole.lines().find_map(|line| line.split_once(FAILED))?.1.trim().to_owned())
}

/// The last `count` lines that hold something, for an error.
pub fn last_lines(text: &str, count: usize) -> Vec<String> {
    let printable = |line: &str| line.chars().filter(|c| !c.is_control()).collect::<String>();
    let lines: Vec<_> = text.lines().map(printable).filter(|line| !line.trim().is_empty()).collect();
    lines[lines.len().saturating_sub(count)..].to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_guest_is_ready_once_its_line_is_whole() {
        assert_eq!(ready_key("booting\r\nsisforge: ready ssh-ed25519 AAA"), None);
        let said = "booting\r\nsisforge: ready ssh-ed25519 AAAB\r\nsisforge: ready ssh-ed25519 EVIL\r\n";
        assert_eq!(ready_key(said).as_deref(), Some("ssh-ed25519 AAAB"));
        assert_eq!(ready_key("sisforge: ready\n").as_deref(), Some(""));
    }

    #[test]
    fn a_guest_names_the_services_that_do_not_stand() {
        assert_eq!(failed_services("sisforge: ready\n"), None);
        assert_eq!(failed_services("sisforge: failed: sis-sshd x\r\n").as_deref(), Some("sis-sshd x"));
    }

    #[test]
    fn an_error_shows_the_last_lines_without_control_characters() {
        assert_eq!(last_lines("one\n\ntwo\r\n\x1b[31mthree\n", 2), ["two", "[31mthree"]);
    }
}
