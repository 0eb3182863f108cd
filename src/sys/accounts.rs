//! Whose user and group numbers are: passwd(5), group(5), subuid(5), and the directories behind getent(1).

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::ops::RangeInclusive;
use std::panic::resume_unwind;
use std::path::Path;

use super::tool::{self, Tool};

/// The number of a user, by name or as it is; `None` where there is no such user.
pub fn uid_of(user: &str) -> Option<u32> {
    let ask = || Tool::new("id").args(["-u", "--", user]).text().ok()?.trim().parse().ok();
    user.parse().ok().or_else(ask)
}

/// Who has what number, in words.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HostAccounts {
    /// `user alice`, `group staff`.
    named: BTreeMap<u32, String>,
    /// First number, count, and `the user namespace of alice (/etc/subuid)`.
    ranges: Vec<(u32, u32, String)>,
}

impl HostAccounts {
    /// Reads the host's files, and asks getent for `numbers` where it is installed: accounts may also be in a directory
    /// of the network. A file that is not there names nobody.
    pub fn read(numbers: &BTreeSet<u32>) -> Self {
        let mut found = Self::default();
        // Side by side: each takes milliseconds, and a directory of the network more.
        let (users, groups) = std::thread::scope(|scope| {
            let groups = scope.spawn(|| getent("group", numbers));
            (getent("passwd", numbers), groups.join().unwrap_or_else(|panic| resume_unwind(panic)))
        });
        for (kind, file, directory) in [("user", "/etc/passwd", users), ("group", "/etc/group", groups)] {
            found.add_names(kind, &fs::read_to_string(file).unwrap_or_default());
            found.add_names(kind, &directory);
        }
        for file in ["/etc/subuid", "/etc/subgid"] {
            found.add_ranges(file, &fs::read_to_string(file).unwrap_or_default());
        }
        found
    }

    /// Everybody who has a number of a range, in words.
    pub fn within(&self, range: &RangeInclusive<u32>) -> Vec<String> {
        let named = self.named.range(range.clone()).map(|(number, who)| format!("{who} ({number})"));
        let overlaps = |(first, count): (u32, u32)| {
            let end = u64::from(first) + u64::from(count);
            first <= *range.end() && end > u64::from(*range.start())
        };
        let ranges = self.ranges.iter().filter(|(first, count, _)| overlaps((*first, *count)));
        named.chain(ranges.map(|(first, count, who)| format!("{who}, {count} from {first} on"))).collect()
    }

    /// Lines of `name:password:number:...`.
    fn add_names(&mut self, kind: &str, text: &str) {
        for line in text.lines() {
            let mut fields = line.split(':');
            let (Some(name), Some(number)) = (fields.next(), fields.nth(1)) else { continue };
            if let Ok(number) = number.parse() {
                self.named.entry(number).or_insert_with(|| format!("{kind} {name}"));
            }
        }
    }

    /// Lines of `name:first:count`.
    fn add_ranges(&mut self, file: &str, text: &str) {
        for line in text.lines() {
            let fields: Vec<_> = line.split(':').collect();
            let [name, first, count] = fields[..] else { continue };
            if let (Ok(first), Ok(count)) = (first.parse(), count.trim().parse()) {
                self.ranges.push((first, count, format!("the user namespaces of {name} ({file})")));
            }
        }
    }

    /// Who has a number; `None` where nobody has.
    pub fn holder(&self, number: u32) -> Option<&str> {
        let in_range = || {
            let found = self
                .ranges
                .iter()
                .find(|(first, count, _)| number.checked_sub(*first).is_some_and(|at| at < *count));
            found.map(|(_, _, who)| who.as_str())
        };
        self.named.get(&number).map(String::as_str).or_else(in_range)
    }
}

/// What getent says of numbers; nothing where it is not installed. It fails where it does not know one of them.
fn getent(database: &str, numbers: &BTreeSet<u32>) -> String {
    if numbers.is_empty() || !Path::new("/etc/nsswitch.conf").exists() || tool::find("getent").is_none() {
        return String::new();
    }
    let call = Tool::new("getent").arg(database).args(numbers.iter().map(ToString::to_string));
    call.output().map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_is_held_by_a_user_a_group_or_a_range() {
        let mut accounts = HostAccounts::default();
        accounts
            .add_names("user", "root:x:0:0:root:/root:/bin/bash\nalice:x:1000:1000::/home/alice:\nbroken\n");
        accounts.add_names("group", "staff:x:50:alice\nalice:x:1000:\n");
        accounts.add_ranges("/etc/subuid", "alice:100000:65536\nbob:165536:65536\n\n");
        assert_eq!(accounts.holder(1000), Some("user alice"));
        assert_eq!(accounts.holder(50), Some("group staff"));
        assert_eq!(accounts.holder(165_535), Some("the user namespaces of alice (/etc/subuid)"));
        assert_eq!(accounts.holder(165_536), Some("the user namespaces of bob (/etc/subuid)"));
        assert_eq!(accounts.holder(231_072), None);
        assert_eq!(accounts.within(&(900..=1100)), ["user alice (1000)"]);
        let bobs = "the user namespaces of bob (/etc/subuid), 65536 from 165536 on";
        assert_eq!(accounts.within(&(231_071..=300_000)), [bobs]);
        assert_eq!(accounts.within(&(231_072..=300_000)), [""; 0]);
    }

    #[test]
    fn the_hosts_own_accounts_are_known() {
        assert_eq!(HostAccounts::read(&[0, 4_000_000_000].into()).holder(0), Some("user root"));
    }
}
