//! Container images of a registry: pinned by digest in fleet.lock, verified, and had without the network afterwards.

use std::fs;
use std::path::Path;

use serde_json::{Value, json};
use sisforge::base::Sha256;

use crate::common::docker_registry::{AUTH, DockerRegistry, Options};
use crate::common::sandbox::{Run, Sandbox};
use crate::common::server::{Fault, Server};
use crate::image::oci::{self, file};

use super::disks::HOME;

/// A registry that is served from a directory, and what is in it.
struct Registry {
    dir: tempfile::TempDir,
    server: Server,
}

/// Digests of an image.
struct Pushed {
    /// Of the index.
    index: Sha256,
    manifest: Sha256,
    layer: Sha256,
}

impl Registry {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let server = Server::of(dir.path());
        Self { dir, server }
    }

    /// `127.0.0.1:PORT/team/a` and what follows.
    fn image(&self, rest: &str) -> String {
        let url = self.server.url(&format!("team/a{rest}"));
        url.strip_prefix("http://").unwrap().to_owned()
    }

    fn put(&self, path: &str, bytes: &[u8]) -> Sha256 {
        let path = self.dir.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
        Sha256::of(bytes)
    }

    /// An image for several platforms, of one file for each.
    fn push(&self, tag: &str, text: &[u8]) -> Pushed {
        let own = self.push_manifest(text);
        let other = self.push_manifest(b"of another platform");
        let entry = |(sha256, _, size): &(Sha256, Sha256, usize), architecture: &str| {
            json!({
                "mediaType": "application/vnd.oci.image.manifest.v1+json",
                "digest": format!("sha256:{sha256}"),
                "size": size,
                "platform": { "os": "linux", "architecture": architecture },
            })
        };
        let index = json!({
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.index.v1+json",
            "manifests": [entry(&other, "arm64"), entry(&own, "amd64")],
        });
        let bytes = index.to_string().into_bytes();
        let index = Sha256::of(&bytes);
        self.put(&format!("v2/team/a/manifests/sha256:{index}"), &bytes);
        self.put(&format!("v2/team/a/manifests/{tag}"), &bytes);
        Pushed { index, manifest: own.0, layer: own.1 }
    }

    /// Digest of a manifest, that of its layer, and its size.
    fn push_manifest(&self, text: &[u8]) -> (Sha256, Sha256, usize) {
        let archive = self.dir.path().join("archive.tar");
        oci::write_archive(&archive, "x", &[oci::layer(&[file("f", text)])], |_, _| {});
        let mut files = std::collections::BTreeMap::new();
        for entry in tar::Archive::new(fs::File::open(&archive).unwrap()).entries().unwrap() {
            let mut entry = entry.unwrap();
            let name = entry.path().unwrap().display().to_string();
            let mut bytes = Vec::new();
            std::io::Read::read_to_end(&mut entry, &mut bytes).unwrap();
            files.insert(name, bytes);
        }
        let index: Value = serde_json::from_slice(&files["index.json"]).unwrap();
        let digest = index["manifests"][0]["digest"].as_str().unwrap().strip_prefix("sha256:").unwrap();
        let bytes = &files[&format!("blobs/sha256/{digest}")];
        self.put(&format!("v2/team/a/manifests/sha256:{digest}"), bytes);
        for (name, blob) in &files {
            if let Some(digest) = name.strip_prefix("blobs/sha256/") {
                self.put(&format!("v2/team/a/blobs/sha256:{digest}"), blob);
            }
        }
        let manifest: Value = serde_json::from_slice(bytes).unwrap();
        let layer = manifest["layers"][0]["digest"].as_str().unwrap().strip_prefix("sha256:").unwrap();
        (digest.parse().unwrap(), layer.parse().unwrap(), bytes.len())
    }
}

/// A project whose disk has an image of a registry.
fn project(image: &str) -> Sandbox {
    let sandbox = Sandbox::new();
    sandbox.write("recipes/home/recipe.toml", HOME);
    wish(&sandbox, image);
    sandbox
}

fn wish(sandbox: &Sandbox, image: &str) {
    let text = sandbox.fleet_text("a", "");
    let text = text.replace("packages = [\"tiny\"]", "packages = [\"tiny\"]\nrecipes = [\"home\"]");
    let disk = format!("size = \"16MiB\"\nimages = [\"docker://{image}\"]");
    sandbox.write("fleet.toml", text.replace("size = \"16MiB\"", &disk));
}

/// The bytes of the image's one file, in the store that was built.
fn built(sandbox: &Sandbox) -> Vec<u8> {
    let image = fs::File::open(sandbox.path("out/containers/home/images.ext4")).unwrap();
    let store = ext4_view::Ext4::load(Box::new(image)).unwrap();
    let layers =
        store.read_dir("/overlay").unwrap().map(|entry| entry.unwrap().file_name().display().to_string());
    let layer = layers.into_iter().find(|name| name.len() == 64).unwrap();
    store.read(format!("/overlay/{layer}/diff/f").as_str()).unwrap()
}

fn names(sandbox: &Sandbox) -> String {
    let image = fs::File::open(sandbox.path("out/containers/home/images.ext4")).unwrap();
    let store = ext4_view::Ext4::load(Box::new(image)).unwrap();
    store.read_to_string("/overlay-images/images.json").unwrap()
}

#[test]
fn a_tag_is_pinned_once_and_the_image_of_the_guests_platform_is_built() {
    let registry = Registry::new();
    let first = registry.push("1.0", b"one");
    let sandbox = project(&registry.image(":1.0"));
    sandbox.done("build disk home");
    assert_eq!(built(&sandbox), b"one");
    assert!(sandbox.read("fleet.lock").contains(&first.index.to_string()), "the index is pinned");
    assert!(names(&sandbox).contains(&registry.image(":1.0")), "{}", names(&sandbox));

    // The tag leads elsewhere, the lock does not, until it is told to.
    let second = registry.push("1.0", b"two");
    fs::remove_dir_all(sandbox.path("out")).unwrap();
    sandbox.done("build disk home --locked --offline");
    assert_eq!(built(&sandbox), b"one");
    sandbox.done("lock --update");
    assert!(sandbox.read("fleet.lock").contains(&second.index.to_string()));
    sandbox.done("build disk home --check");
    assert_eq!(built(&sandbox), b"two");
}

#[test]
fn what_is_pinned_in_fleet_toml_is_what_is_built() {
    let registry = Registry::new();
    let pushed = registry.push("1.0", b"one");
    for digest in [pushed.index, pushed.manifest] {
        let sandbox = project(&registry.image(&format!("@sha256:{digest}")));
        sandbox.done("build disk home");
        assert_eq!(built(&sandbox), b"one");
    }
    assert_eq!(registry.server.requests("1.0"), [""; 0], "no tag was asked for");
    let other = Sha256::of("other");
    let sandbox = project(&registry.image(&format!(":1.0@sha256:{other}")));
    sandbox.run("build disk home").fails(1, &["404"]);
    // A registry that gives something else for a digest.
    registry.put(&format!("v2/team/a/manifests/sha256:{other}"), b"{}");
    sandbox.run("build disk home").fails(1, &["has the SHA-256", &other.to_string()]);
}

#[test]
fn a_registry_that_fails_is_told_and_leaves_nothing_that_is_trusted() {
    let registry = Registry::new();
    let pushed = registry.push("1.0", b"one");
    let sandbox = project(&registry.image(":2.0"));
    sandbox.run("lock").fails(1, &["404", "team/a"]);
    assert!(!sandbox.path("fleet.lock").exists());
    sandbox.run("lock --offline").fails(1, &["offline"]);

    wish(&sandbox, &registry.image(":1.0"));
    sandbox.done("lock");
    let layer = format!("sha256:{}", pushed.layer);
    registry.server.always(&layer, Fault::Garbled);
    sandbox
        .run("build disk home")
        .fails(1, &["has the SHA-256", &pushed.layer.to_string(), "push the image there again"]);
    // Less than the manifest says.
    registry.server.always(&layer, Fault::Lie(-5));
    sandbox.run("fetch").fails(1, &["bytes, but", "are expected"]);
    registry.server.always(&layer, Fault::Status(403, ""));
    sandbox.run("fetch").fails(1, &["does not allow anonymous pulls", "403", "skopeo copy"]);
    registry.server.heal();
    registry.server.next(&layer, &[Fault::Cut(10), Fault::Status(503, "")]);
    sandbox.done("build disk home");
    assert_eq!(built(&sandbox), b"one");
}

#[test]
fn fetch_and_vendor_bring_whole_images() {
    let registry = Registry::new();
    registry.push("1.0", b"one");
    let sandbox = project(&registry.image(":1.0"));
    let fetched: Value = serde_json::from_str(sandbox.done("fetch --json").lines().last().unwrap()).unwrap();
    let of_image = |file: &&Value| file["name"].as_str().unwrap().starts_with("docker://");
    let files = fetched["files"].as_array().unwrap().iter().filter(of_image).count();
    assert_eq!(files, 4, "index, manifest, config and layer: {fetched}");
    sandbox.done("vendor vendored");
    fs::remove_dir_all(sandbox.path("cache")).unwrap();
    drop(registry);
    sandbox.done("build disk home --locked --offline --vendor-dir vendored");
    assert_eq!(built(&sandbox), b"one");
    sandbox
        .run("build disk home --locked --offline --vendor-dir none --out-dir other")
        .fails(1, &["offline"]);
}

/// Has a registry let in whoever brings a token, and gives one; the header that asks for it.
fn wants_tokens(registry: &Registry) -> &'static str {
    let challenge =
        format!("WWW-Authenticate: Bearer realm=\"{}\",service=\"here\"", registry.server.url("token"));
    let challenge: &'static str = Box::leak(challenge.into_boxed_str());
    registry.server.always("", Fault::Status(401, challenge));
    registry.put("token?service=here&scope=repository:team/a:pull", br#"{"token":"secret"}"#);
    challenge
}

#[test]
fn a_registry_that_gives_tokens_is_asked_for_one_and_another_server_never_sees_it() {
    let registry = Registry::new();
    let pushed = registry.push("1.0", b"one");
    wants_tokens(&registry);
    // As registries do that keep layers elsewhere.
    let elsewhere = tempfile::tempdir().unwrap();
    let layer = format!("sha256:{}", pushed.layer);
    let from = registry.dir.path().join("v2/team/a/blobs").join(&layer);
    fs::rename(from, elsewhere.path().join("layer")).unwrap();
    let other = Server::of(Path::new(elsewhere.path()));
    registry.server.always(&layer, Fault::Redirect(other.url("layer")));
    let sandbox = project(&registry.image(":1.0"));
    sandbox.done("build disk home");
    assert_eq!(built(&sandbox), b"one");
    let asked = registry.server.authorizations();
    assert!(asked.iter().filter(|said| *said == "Bearer secret").count() >= 4, "{asked:?}");
    assert_eq!(other.authorizations(), ["-"]);

    registry.server.always("", Fault::Status(401, "WWW-Authenticate: Digest realm=x"));
    fs::remove_dir_all(sandbox.path("cache")).unwrap();
    sandbox.run("fetch").fails(1, &["an unsupported kind of login", "Digest"]);
}

#[test]
fn a_token_that_holds_no_longer_is_asked_for_anew() {
    let registry = Registry::new();
    let pushed = registry.push("1.0", b"one");
    let challenge = wants_tokens(&registry);
    registry.server.next(&format!("sha256:{}", pushed.layer), &[Fault::Status(401, challenge)]);
    let sandbox = project(&registry.image(":1.0"));
    sandbox.done("build disk home");
    assert_eq!(built(&sandbox), b"one");

    // One that is never taken is asked for once more, and no oftener.
    registry.server.always(&format!("sha256:{}", pushed.layer), Fault::Status(401, challenge));
    fs::remove_dir_all(sandbox.path("cache")).unwrap();
    sandbox.run("build disk home --out-dir other").fails(1, &["does not allow anonymous pulls"]);
    let layer = registry.server.requests(&format!("sha256:{}", pushed.layer)).len();
    assert_eq!(layer, 2 + 2);
}

#[test]
fn an_image_of_no_use_to_a_guest_is_refused() {
    let registry = Registry::new();
    let layer = "application/vnd.in-toto+json";
    let pushed = registry.push_manifest(b"one");
    let path = registry.dir.path().join(format!("v2/team/a/manifests/sha256:{}", pushed.0));
    let manifest = fs::read_to_string(path).unwrap();
    let statement = manifest.replace("application/vnd.oci.image.layer.v1.tar+gzip", layer);
    let statement = statement.replace("application/vnd.oci.image.layer.v1.tar\"", &format!("{layer}\""));
    assert_ne!(statement, manifest);
    registry.put("v2/team/a/manifests/statement", statement.as_bytes());
    registry.put(&format!("v2/team/a/manifests/sha256:{}", Sha256::of(&statement)), statement.as_bytes());
    let sandbox = project(&registry.image(":statement"));
    sandbox.run("build disk home").fails(2, &["only tar layers are supported"]);

    let index = json!({ "manifests": [{
        "digest": format!("sha256:{}", pushed.0), "size": 1, "platform": { "os": "linux", "architecture": "s390x" },
    }] });
    let index = index.to_string();
    registry.put("v2/team/a/manifests/s390x", index.as_bytes());
    registry.put(&format!("v2/team/a/manifests/sha256:{}", Sha256::of(&index)), index.as_bytes());
    wish(&sandbox, &registry.image(":s390x"));
    sandbox.run("build disk home").fails(2, &["it is available for linux/s390x, but guests are linux/amd64"]);
}

#[test]
fn of_several_variants_the_one_is_pulled_that_the_most_processors_run() {
    let registry = Registry::new();
    let [own, newer, newest] = ["own", "newer", "newest"].map(|text| registry.push_manifest(text.as_bytes()));
    let index = |tag: &str, all: &[(&(Sha256, Sha256, usize), &str)]| {
        let entries = all.iter().map(|((sha256, _, size), variant)| {
            json!({
                "mediaType": "application/vnd.oci.image.manifest.v1+json", "digest": format!("sha256:{sha256}"), "size": size,
                "annotations": null, "platform": { "os": "linux", "architecture": "amd64", "variant": variant },
            })
        });
        let index = json!({ "manifests": entries.collect::<Vec<_>>() }).to_string();
        registry.put(&format!("v2/team/a/manifests/{tag}"), index.as_bytes());
        registry.put(&format!("v2/team/a/manifests/sha256:{}", Sha256::of(&index)), index.as_bytes());
    };
    index("all", &[(&newest, "v3"), (&newer, "v2"), (&own, "v1")]);
    index("new", &[(&newest, "v3"), (&newer, "v2")]);
    index("last", &[(&newest, "v4")]);
    for (tag, text) in [("all", "own"), ("new", "newer")] {
        let sandbox = project(&registry.image(&format!(":{tag}")));
        sandbox.done("build disk home");
        assert_eq!(built(&sandbox), text.as_bytes());
    }
    let sandbox = project(&registry.image(":last"));
    sandbox.run("build disk home").fails(2, &["it is available for linux/amd64/v4"]);
}

#[test]
fn a_login_of_podman_or_docker_is_used() {
    let test = "a_login_of_podman_or_docker_is_used";
    let options = Options { wants_login: true, ..Options::default() };
    let Some(registry) = DockerRegistry::start(test, "127.0.0.1", options) else { return };
    if sisforge::sys::tool::find("skopeo").is_none() {
        return crate::common::namespaces::skip(test, "skopeo is not installed");
    }
    let image = format!("{}/team/a:1", registry.address);
    let sandbox = project(&image);
    let archive = sandbox.path("archive.tar");
    oci::write_archive(&archive, "x", &[oci::layer(&[file("f", b"one")])], |_, _| {});
    let mut skopeo = std::process::Command::new("skopeo");
    skopeo.args(["copy", "-q", "--insecure-policy", "--dest-tls-verify=false", "--dest-creds=ann:secret"]);
    skopeo.arg(format!("oci-archive:{}", archive.display())).arg(format!("docker://{image}"));
    assert_eq!(Run::of(&mut skopeo).code, 0);

    let none = sandbox.path("none.json");
    let with = |file: &Path, args: &str| {
        Run::of(sandbox.command().env("REGISTRY_AUTH_FILE", file).args(args.split(' ')))
    };
    with(&none, "lock").fails(1, &["does not allow anonymous pulls", "podman login 127.0.0.1"]);
    for (name, key) in [
        ("podman.json", registry.address.to_string()),
        ("docker.json", format!("http://{}/v2/", registry.address)),
    ] {
        sandbox.write(name, json!({ "auths": { key: { "auth": AUTH } } }).to_string());
        let _ = fs::remove_dir_all(sandbox.path("out"));
        let _ = fs::remove_dir_all(sandbox.path("cache"));
        with(&sandbox.path(name), "build disk home").fails(0, &[]);
        assert_eq!(built(&sandbox), b"one");
    }
    sandbox.write(
        "wrong.json",
        json!({ "auths": { registry.address.to_string(): { "auth": "YTpi" } } }).to_string(),
    );
    fs::remove_dir_all(sandbox.path("cache")).unwrap();
    with(&sandbox.path("wrong.json"), "fetch").fails(1, &["pulls by this login"]);
    // Logins that Docker leaves to a helper are not had, and somebody must know.
    let helpers = json!({ "auths": { registry.address.to_string(): {} }, "credsStore": "secretservice" });
    sandbox.write("helper.json", helpers.to_string());
    let words = [
        "anonymous pulls",
        "helper.json leaves this login",
        "docker-credential-secretservice",
        "podman login",
    ];
    with(&sandbox.path("helper.json"), "fetch").fails(1, &words);
    let plain = json!({ "auths": { registry.address.to_string(): { "auth": "ann:secret" } } });
    sandbox.write("plain.json", plain.to_string());
    let run = with(&sandbox.path("plain.json"), "fetch");
    run.fails(2, &["plain.json: `auth` of ", "is not a name and a password in base64", "log in again"]);
    assert!(!run.err.contains("secret"), "{run}");
    sandbox.write("damaged.json", "{");
    with(&sandbox.path("damaged.json"), "fetch").fails(2, &["is not a file of logins at registries"]);
}
