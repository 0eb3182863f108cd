//! The way of a path through symlinks, as the kernel goes it.

/// Most symlinks on the way of one path (`MAXSYMLINKS` of Linux).
const MOST_LINKS: usize = 40;

/// How a path is followed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct FollowRules {
    /// Whether a symlink in the last part is followed too.
    pub last: bool,
    /// Whether above the root is the root again, as for whoever has it as root. Else a path that leads there leads nowhere.
    pub stays_within: bool,
}

/// Where a path leads. `target` gives the target of the symlink at a place that has no symlinks in it, `Some(None)` where there
/// is none, and `None` where the way ends.
pub(super) fn follow<'a>(
    path: &str,
    rules: FollowRules,
    target: impl Fn(&str) -> Option<Option<&'a str>>,
) -> Option<String> {
    let mut links = 0;
    let mut real = String::new();
    let mut open: Vec<String> = path.split('/').rev().map(str::to_owned).collect();
    while let Some(part) = open.pop() {
        match part.as_str() {
            "" | "." => {}
            ".." if real.is_empty() && !rules.stays_within => return None,
            ".." => real.truncate(real.rfind('/').unwrap_or(0)),
            part => {
                let next = format!("{real}/{part}");
                let is_last = open.iter().all(String::is_empty);
                match target(&next)?.filter(|_| rules.last || !is_last) {
                    Some(_) if links == MOST_LINKS => return None,
                    Some(target) => {
                        links += 1;
                        if target.starts_with('/') {
                            real.clear();
                        }
                        open.extend(target.split('/').rev().map(str::to_owned));
                    }
                    None => real = next,
                }
            }
        }
    }
    Some(real)
}
