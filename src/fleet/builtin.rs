//! The recipes and kernel configs that come with sisforge, inside the program.

macro_rules! embedded {
    ($($path:literal,)+) => {
        &[$( ($path, include_bytes!(concat!(env!("CARGO_MANIFEST_DIR"), "/", $path))) ),+]
    };
}

/// Path within this repository, and content; sorted by path. A test compares the list with the directories.
const FILES: &[(&str, &[u8])] = embedded![
    "kernel-configs/fragments/balloon.config",
    "kernel-configs/fragments/console.config",
    "kernel-configs/fragments/debug.config",
    "kernel-configs/fragments/entropy.config",
    "kernel-configs/fragments/fuse-overlayfs.config",
    "kernel-configs/fragments/hardening.config",
    "kernel-configs/fragments/iptables.config",
    "kernel-configs/fragments/nftables.config",
    "kernel-configs/fragments/rootless-podman.config",
    "kernel-configs/fragments/vsock.config",
    "kernel-configs/microvm-6.1-aarch64.config",
    "kernel-configs/microvm-6.1-x86_64.config",
    "kernel-configs/microvm-6.12-x86_64.config",
    "kernel-configs/parts/guest.config",
    "recipes/fuse-overlayfs/recipe.toml",
    "recipes/openrc/inittab",
    "recipes/openrc/rc.conf",
    "recipes/openrc/recipe.toml",
    "recipes/openrc/sis-mounts",
    "recipes/openrc/sis-ready",
    "recipes/rootless-podman/as-session",
    "recipes/rootless-podman/containers.conf",
    "recipes/rootless-podman/podman-limits",
    "recipes/rootless-podman/recipe.toml",
    "recipes/rootless-podman/sis-podman",
    "recipes/rootless-podman/sis-session",
    "recipes/rootless-podman/sis-sshd",
    "recipes/rootless-podman/sshd_config",
    "recipes/rootless-podman/storage.conf",
];

/// The content of a built-in file.
pub fn read(path: &str) -> Option<&'static [u8]> {
    FILES.iter().find(|(name, _)| *name == path).map(|(_, bytes)| *bytes)
}

/// Names of the files and directories directly in a built-in directory; a name may come more than once.
pub fn list(directory: &str) -> impl Iterator<Item = &'static str> {
    FILES.iter().filter_map(move |(path, _)| inside(directory, path)?.split('/').next())
}

fn inside(directory: &str, path: &'static str) -> Option<&'static str> {
    path.strip_prefix(directory)?.strip_prefix('/')
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use super::*;

    fn files_below(directory: &Path, found: &mut Vec<String>) {
        for entry in fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                files_below(&path, found);
            } else if path.file_name().is_some_and(|name| name != "README.md") {
                let relative = path.strip_prefix(env!("CARGO_MANIFEST_DIR")).unwrap();
                found.push(relative.to_str().unwrap().to_owned());
            }
        }
    }

    #[test]
    fn every_file_of_the_directories_is_built_in() {
        let mut found = Vec::new();
        for directory in ["recipes", "kernel-configs"] {
            files_below(&Path::new(env!("CARGO_MANIFEST_DIR")).join(directory), &mut found);
        }
        found.sort();
        let listed: Vec<&str> = FILES.iter().map(|(path, _)| *path).collect();
        assert_eq!(listed, found);
    }

    #[test]
    fn a_directory_is_not_mistaken_for_one_whose_name_begins_alike() {
        assert!(list("recipes").any(|name| name == "openrc"));
        assert_eq!(list("recipe").count(), 0);
    }
}
