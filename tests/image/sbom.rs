//! Bills of materials, held against the schemas of SPDX and CycloneDX by validators that others made.

use std::path::{Path, PathBuf};

use serde_json::Value;
use sisforge::base::Sha256;
use sisforge::image::inspect::InspectedImage;
use sisforge::image::sbom::{Format, Sources, document};
use sisforge::sys::tool::Tool;

use super::reading::alpine;
use super::skip;

const CYCLONEDX: &str = "\
import sys
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
error = JsonStrictValidator(SchemaVersion.V1_6).validate_str(open(sys.argv[1]).read())
sys.exit(str(error) if error else 0)
";

/// The validators that `demo/install-packages test` brings; `None`, said aloud, where they are not here.
pub fn validators(test: &str) -> Option<PathBuf> {
    let tools = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/test-tools/sbom");
    if !tools.join("complete-2").exists() {
        skip(test, "validators of documents are not here: `demo/install-packages test` brings them");
        return None;
    }
    Some(tools.join("bin"))
}

/// What a validator has against a document; empty where it is valid.
pub fn complaint(validators: &Path, format: Format, document: &Value) -> String {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("bill.spdx.json");
    std::fs::write(&file, document.to_string()).unwrap();
    let call = match format {
        Format::Spdx => Tool::new(validators.join("pyspdxtools")).args(["--version", "SPDX-2.3", "-i"]),
        Format::CycloneDx => Tool::new(validators.join("python")).args(["-c", CYCLONEDX]),
    };
    let output = call.arg(&file).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.success(), said.trim().is_empty(), "{output:?}");
    said
}

fn bill(image: &InspectedImage, format: Format) -> Value {
    let sha256 = Sha256::of("an image");
    document(image, &Sources { sha256, lock: None, created: None }, format)
}

#[test]
fn a_bill_of_a_real_root_is_what_its_schema_wants() {
    const TEST: &str = "a_bill_of_a_real_root_is_what_its_schema_wants";
    let dir = tempfile::tempdir().unwrap();
    let (Some((image, _)), Some(validators)) = (alpine(TEST, dir.path()), validators(TEST)) else { return };
    let image = InspectedImage::read(&image).unwrap();
    for (format, needed) in [(Format::Spdx, "creationInfo"), (Format::CycloneDx, "bomFormat")] {
        let mut bill = bill(&image, format);
        assert_eq!(complaint(&validators, format, &bill), "");
        bill.as_object_mut().unwrap().remove(needed);
        assert_ne!(complaint(&validators, format, &bill), "", "the validator of {format:?} looks");
    }
}

#[test]
fn a_bill_tells_what_a_root_is_made_of() {
    let dir = tempfile::tempdir().unwrap();
    let Some((image, _)) = alpine("a_bill_tells_what_a_root_is_made_of", dir.path()) else { return };
    let image = InspectedImage::read(&image).unwrap();
    let spdx = bill(&image, Format::Spdx);
    assert_eq!(spdx, bill(&image, Format::Spdx), "nothing but the image counts");
    // The newest of the packages, and no clock.
    assert_eq!(spdx["creationInfo"]["created"], "2024-09-03T18:09:57Z");
    let packages = spdx["packages"].as_array().unwrap();
    let musl = packages.iter().find(|package| package["SPDXID"] == "SPDXRef-Package-musl-utils").unwrap();
    assert_eq!(musl["versionInfo"], "1.2.5-r0");
    assert_eq!(musl["licenseDeclared"], "MIT AND BSD-2-Clause AND GPL-2.0-or-later");
    assert_eq!(musl["supplier"], "Person: Natanael Copa (ncopa@alpinelinux.org)");
    let url = "pkg:apk/alpine/musl-utils@1.2.5-r0?arch=x86_64";
    assert_eq!(musl["externalRefs"][0]["referenceLocator"], url);
    let relations = spdx["relationships"].as_array().unwrap();
    let has = |one: &str, how: &str, other: &str| {
        let is = |relation: &Value| {
            let named = |field: &str, name: &str| relation[field] == format!("SPDXRef-{name}").as_str();
            let one = named("spdxElementId", one);
            one && relation["relationshipType"] == how && named("relatedSpdxElement", other)
        };
        assert_eq!(relations.iter().filter(|relation| is(relation)).count(), 1, "{one} {how} {other}");
    };
    has("DOCUMENT", "DESCRIBES", "Image");
    has("Image", "CONTAINS", "Package-musl");
    // By name, and by a library that it needs.
    has("Package-busybox-binsh", "DEPENDS_ON", "Package-busybox");
    has("Package-libssl3", "DEPENDS_ON", "Package-libcrypto3");
    has("Package-musl-utils", "GENERATED_FROM", "Origin-musl-1.2.5-r0");
    assert_eq!(relations.iter().filter(|relation| relation["relationshipType"] == "CONTAINS").count(), 14);

    let cyclonedx = bill(&image, Format::CycloneDx);
    assert_eq!(cyclonedx["components"].as_array().unwrap().len(), 14);
    let of_musl = cyclonedx["dependencies"].as_array().unwrap().iter().find(|entry| entry["ref"] == url);
    assert!(
        of_musl.unwrap()["dependsOn"]
            .as_array()
            .unwrap()
            .contains(&"pkg:apk/alpine/musl@1.2.5-r0?arch=x86_64".into())
    );
    // Another image has other numbers, and so has another format.
    let sources = Sources { sha256: Sha256::of("another"), lock: None, created: Some(0) };
    let other = document(&image, &sources, Format::Spdx);
    assert_ne!(other["documentNamespace"], spdx["documentNamespace"]);
    assert_eq!(other["creationInfo"]["created"], "1970-01-01T00:00:00Z");
}
