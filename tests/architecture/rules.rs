//! The rules: functions over sources, so that planted violations show that each of them can fail.

use std::collections::{BTreeMap, BTreeSet};

use super::source::{Mention, Source, Tree, What};

/// Functions that may do what others may not.
pub struct Allowed {
    pub file: &'static str,
    /// `Type::function` or `function`; `""` outside of functions, `"*"` anywhere in the file.
    pub functions: &'static [&'static str],
    pub why: &'static str,
}

/// What is wrong, with file and line, and what to do about it.
pub type Violations = Vec<String>;

/// The stages that `src/lib.rs` declares stand in the order of `order`, and each uses only those before it.
pub fn stages(tree: &Tree, order: &[&str]) -> Violations {
    let place = |stage: &str| order.iter().position(|one| *one == stage);
    let mut found = Vec::new();
    let mut last = None;
    for stage in tree.sources.iter().filter(|source| source.path == "src/lib.rs").flat_map(|lib| &lib.modules)
    {
        match place(stage) {
            None => found.push(format!("src/lib.rs: {stage} is in no place of ORDER: decide on one")),
            at if at < last => found.push(format!("src/lib.rs: {stage} stands below a stage that uses it")),
            at => last = at,
        }
    }
    for source in tree.below(&["src/"]) {
        let Some(stage) = source.module.first() else { continue };
        let Some(own) = place(stage) else { continue };
        for (line, path) in paths(source) {
            let Some(used) = path.strip_prefix("crate::").and_then(|path| path.split("::").next()) else {
                continue;
            };
            if place(used).is_some_and(|at| at > own) {
                found.push(format!(
                    "{}:{line}: {stage} uses {used}, which stands below it: move what is shared up",
                    source.path
                ));
            }
        }
        for line in &source.leaves {
            found.push(format!("{}:{line}: `super` leaves the stage: write `crate::`", source.path));
        }
    }
    found
}

fn paths(source: &Source) -> impl Iterator<Item = (usize, &str)> {
    source.mentions.iter().filter_map(|mention| match &mention.what {
        What::Path(path) => Some((mention.line, path.as_str())),
        _ => None,
    })
}

/// Whether a mention is one of the names: a path or what lies below it, or a method by `receiver.name` or `.name`.
fn is_one_of(what: &What, names: &[&str]) -> bool {
    names.iter().any(|name| match what {
        What::Path(path) => {
            path.strip_prefix(name).is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
        }
        What::Method(method) if name.starts_with('.') => method.ends_with(name),
        What::Method(method) => method == name,
        What::EnvAttribute => *name == "#[arg(env)]",
        What::Macro(called) => name.strip_suffix('!') == Some(called),
    })
}

fn shown(what: &What) -> String {
    match what {
        What::Path(path) => path.clone(),
        What::Method(method) => format!("`{method}(`"),
        What::Macro(name) => format!("{name}!"),
        What::EnvAttribute => "#[arg(env)]".into(),
    }
}

/// `names` are mentioned only where `allowed` says so, and every one of `allowed` is needed. `list` is its name.
pub fn only_in(tree: &Tree, places: &[&str], names: &[&str], allowed: &[Allowed], list: &str) -> Violations {
    let mut found = Vec::new();
    let mut needed = BTreeSet::new();
    for source in tree.below(places) {
        let entries: Vec<_> = allowed.iter().filter(|entry| entry.file == source.path).collect();
        for Mention { line, within, what } in &source.mentions {
            // An import alone does nothing: what it is used for is found where it is used.
            let is_import = within.is_empty() && matches!(what, What::Path(_));
            if is_import || !is_one_of(what, names) {
                continue;
            }
            let of_entry = |entry: &&&Allowed| {
                entry.functions.iter().find(|function| **function == "*" || *function == within).copied()
            };
            match entries.iter().find_map(|entry| of_entry(&entry)) {
                Some(function) => {
                    needed.insert((source.path.as_str(), function));
                }
                None => found.push(format!(
                    "{}:{line}: `{within}` mentions {}: leave it to those in {list}, or add it there, with a reason",
                    source.path,
                    shown(what)
                )),
            }
        }
    }
    for entry in allowed {
        if entry.why.is_empty() {
            found.push(format!("{list}: {} gives no reason", entry.file));
        }
        for function in entry.functions.iter().filter(|function| !needed.contains(&(entry.file, **function)))
        {
            found.push(format!("{list}: {} `{function}` no longer needs its entry: remove it", entry.file));
        }
    }
    found
}

/// Nothing below `pure` mentions any of `names` but those of `allowed`.
pub fn pure(tree: &Tree, pure: &[&str], names: &[&str], allowed: &[Allowed]) -> Violations {
    let mut found = only_in(tree, pure, names, allowed, "PURE_BUT");
    for place in pure.iter().filter(|place| tree.below(&[place]).next().is_none()) {
        found.push(format!("PURE: {place} is not there: remove or rename its entry"));
    }
    found
}

/// In each folder, modules (each with all below it) use each other in no circle. A parent and what lies below it are one.
pub fn circles(tree: &Tree, allowed: &[&[&str]]) -> Violations {
    let modules: BTreeSet<_> = tree.below(&["src/"]).map(|source| source.module.clone()).collect();
    let mut uses: BTreeMap<Vec<String>, BTreeMap<String, BTreeMap<String, String>>> = BTreeMap::new();
    for source in tree.below(&["src/"]) {
        for (line, path) in paths(source) {
            let Some(path) = path.strip_prefix("crate::") else { continue };
            let path: Vec<_> = path.split("::").map(str::to_owned).collect();
            let Some(target) = (1..=path.len()).rev().map(|end| &path[..end]).find(|p| modules.contains(*p))
            else {
                continue;
            };
            let shared = source.module.iter().zip(target).take_while(|(a, b)| a == b).count();
            let (Some(from), Some(to)) = (source.module.get(shared), target.get(shared)) else { continue };
            let folder = uses.entry(source.module[..shared].to_vec()).or_default();
            let at = format!("{}:{line}", source.path);
            folder.entry(from.clone()).or_default().entry(to.clone()).or_insert(at);
        }
    }
    let mut found = Vec::new();
    let mut needed = BTreeSet::new();
    for (folder, uses) in &uses {
        for circle in circles_of(uses) {
            let folder = folder.iter().map(|part| format!("{part}/")).collect::<String>();
            let names: Vec<_> = circle.iter().map(|name| format!("{folder}{name}")).collect();
            if allowed.contains(&names.iter().map(String::as_str).collect::<Vec<_>>().as_slice()) {
                needed.insert(names);
                continue;
            }
            let edges = circle.iter().flat_map(|from| {
                let to = uses[from].iter().filter(|(to, _)| circle.contains(*to));
                to.map(move |(to, at)| format!("\n    {from} uses {to} ({at})"))
            });
            found.push(format!(
                "src/{folder}: a circle, cut it (or list {names:?}):{}",
                edges.collect::<String>()
            ));
        }
    }
    for circle in allowed {
        if !needed.contains(&circle.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>()) {
            found.push(format!(
                "CIRCLES: {circle:?} is no longer one: remove its entry, or list what is left"
            ));
        }
    }
    found
}

/// Sets of two and more that reach each other.
fn circles_of(uses: &BTreeMap<String, BTreeMap<String, String>>) -> Vec<BTreeSet<String>> {
    let reach = |from: &String| {
        let mut reached = BTreeSet::new();
        let mut next = vec![from];
        while let Some(one) = next.pop() {
            let targets = uses.get(one).into_iter().flat_map(BTreeMap::keys);
            next.extend(targets.filter(|target| reached.insert((*target).clone())));
        }
        reached
    };
    let reached: BTreeMap<_, _> = uses.keys().map(|from| (from, reach(from))).collect();
    let mut found: Vec<BTreeSet<String>> = Vec::new();
    for (from, all) in &reached {
        let circle: BTreeSet<_> = all
            .iter()
            .filter(|to| reached.get(to).is_some_and(|back| back.contains(*from)))
            .cloned()
            .collect();
        if circle.len() > 1 && !found.contains(&circle) {
            found.push(circle);
        }
    }
    found
}

/// Files of at most so many lines of code, without their tests.
pub fn long_files(tree: &Tree, most: usize) -> Violations {
    let long = tree.sources.iter().filter(|source| source.lines > most);
    long.map(|source| format!("{}: {} lines, at most {most}: split it", source.path, source.lines)).collect()
}

/// Functions of at most `most` lines, and no more than `count` of more than `goal`.
pub fn long_functions(tree: &Tree, most: usize, goal: usize, count: usize) -> Violations {
    let all = tree.sources.iter().flat_map(|s| s.functions.iter().map(move |function| (s, function)));
    let shown = |(source, function): (&Source, &super::source::Function)| {
        format!("{}:{}: {} has {} lines", source.path, function.line, function.name, function.lines)
    };
    let (longest, long): (Vec<_>, Vec<_>) =
        all.filter(|(_, function)| function.lines > goal).partition(|(_, function)| function.lines > most);
    let mut found: Violations =
        longest.into_iter().map(|one| format!("{}, at most {most}: split it", shown(one))).collect();
    found.extend(counted(&long.into_iter().map(shown).collect::<Vec<_>>(), count, "LONG_FUNCTIONS"));
    let all = tree.sources.iter().flat_map(|source| &source.functions);
    let longest = all.map(|function| function.lines).max().unwrap_or_default();
    found.extend(
        (longest < most)
            .then(|| format!("LONGEST_FUNCTION is {most}, the longest has {longest}: set it to {longest}")),
    );
    found
}

/// Holds a count that can only shrink.
fn counted(all: &[String], count: usize, constant: &str) -> Violations {
    match all.len() {
        now if now > count => {
            vec![format!("{constant} is {count}, now there are {now}:\n    {}", all.join("\n    "))]
        }
        now if now < count => vec![format!("{constant} is {count}, only {now} are left: set it to {now}")],
        _ => Vec::new(),
    }
}

/// Nothing is left unwritten, in tests neither.
pub fn unwritten(tree: &Tree) -> Violations {
    let all =
        tree.sources.iter().flat_map(|s| s.unwritten.iter().map(move |(what, line)| (&s.path, line, what)));
    all.map(|(path, line, what)| format!("{path}:{line}: {what}: write it, or leave it out")).collect()
}

/// `unwrap()` and `expect(` outside of tests are listed by file, with their number and why they cannot fail.
pub fn unwraps(tree: &Tree, allowed: &[(&str, usize, &str)]) -> Violations {
    let mut found = Vec::new();
    for source in tree.below(&["src/"]) {
        let all = source.mentions.iter().filter(|mention| is_one_of(&mention.what, &[".unwrap", ".expect"]));
        let all: Vec<_> = all.map(|mention| format!("{}:{}", source.path, mention.line)).collect();
        let count = allowed.iter().find(|(file, ..)| *file == source.path).map_or(0, |(_, count, _)| *count);
        found.extend(counted(&all, count, &format!("UNWRAPS of {}", source.path)));
    }
    let gone = |file: &str| tree.sources.iter().all(|source| source.path != file);
    found.extend(
        allowed.iter().filter(|(file, ..)| gone(file)).map(|(file, ..)| format!("UNWRAPS: {file} is gone")),
    );
    found
}

/// No more than `count` names of types are borne by several types.
pub fn doubled_names(tree: &Tree, count: usize) -> Violations {
    let mut places: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for source in &tree.sources {
        for (name, line) in &source.types {
            places.entry(name).or_default().push(format!("{}:{line}", source.path));
        }
    }
    let doubled = places.iter().filter(|(_, places)| places.len() > 1);
    let doubled: Vec<_> = doubled.map(|(name, places)| format!("{name}: {}", places.join(", "))).collect();
    counted(&doubled, count, "DOUBLED_NAMES")
}

/// The operations of the trait `Host` are called in the file that declares it, and in `others`.
pub fn steps_in_one_place(tree: &Tree, others: &[&str]) -> Violations {
    let host = |source: &&Source| source.traits.contains_key("Host");
    let Some(place) = tree.below(&["src/apply/"]).find(host) else {
        return vec!["src/apply/: the trait `Host` is not there: adapt steps_in_one_place".into()];
    };
    let operations: BTreeSet<_> = place.traits["Host"].iter().filter(|name| *name != "observe").collect();
    let mut found = Vec::new();
    for source in tree.below(&["src/"]).filter(|source| source.path != place.path) {
        for mention in &source.mentions {
            let What::Method(method) = &mention.what else { continue };
            let Some(operation) = method.strip_prefix("host.") else { continue };
            if operations.iter().any(|one| *one == operation) && !others.contains(&source.path.as_str()) {
                let at = format!("{}:{}", source.path, mention.line);
                found.push(format!("{at}: takes the step {operation}: make it part of a plan"));
            }
        }
    }
    found
}
