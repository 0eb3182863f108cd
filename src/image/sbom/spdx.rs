//! SPDX 2.3 in JSON (<https://spdx.github.io/spdx-spec/v2.3/>).

use crate::base::time::rfc3339;
use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::text::{person, uuid_of};
use super::{BillOfMaterials, Item, built};

/// What is not known, and not claimed.
const UNKNOWN: &str = "NOASSERTION";

const DOCUMENT: &str = "SPDXRef-DOCUMENT";
const IMAGE: &str = "SPDXRef-Image";

/// The whole document.
pub(super) fn document(bill: &BillOfMaterials<'_>) -> Value {
    let mut packages = vec![image(bill)];
    packages.extend(bill.packages.iter().map(|item| package(bill, item)));
    packages.extend(origins(bill).into_values());
    let mut document = json!({
        "spdxVersion": "SPDX-2.3",
        "dataLicense": "CC0-1.0",
        "SPDXID": DOCUMENT,
        "name": bill.name,
        "documentNamespace": "",
        "creationInfo": {
            "created": rfc3339(bill.created),
            "creators": [concat!("Tool: sisforge-", env!("CARGO_PKG_VERSION"))],
        },
        "packages": packages,
        "relationships": relationships(bill),
    });
    let own = own_licenses(bill);
    if !own.is_empty() {
        document["hasExtractedLicensingInfos"] = Value::Array(own);
    }
    // Another document has another namespace, and the same one the same.
    let uuid = uuid_of(document.to_string().as_bytes());
    document["documentNamespace"] = format!("https://spdx.org/spdxdocs/{}-{uuid}", id(&bill.name)).into();
    document
}

fn image(bill: &BillOfMaterials<'_>) -> Value {
    let mut image = json!({
        "SPDXID": IMAGE,
        "name": bill.name,
        "downloadLocation": UNKNOWN,
        "filesAnalyzed": false,
        "checksums": [{ "algorithm": "SHA256", "checksumValue": bill.sha256.to_string() }],
        "licenseConcluded": UNKNOWN,
        "licenseDeclared": UNKNOWN,
        "copyrightText": UNKNOWN,
        "primaryPackagePurpose": "OPERATING_SYSTEM",
    });
    if let Some(title) = bill.title {
        image["summary"] = title.into();
    }
    image
}

fn package(bill: &BillOfMaterials<'_>, item: &Item<'_>) -> Value {
    let info = item.info;
    let mut fields = Map::new();
    let mut set = |name: &str, value: Value| drop(fields.insert(name.to_owned(), value));
    set("SPDXID", package_id(item).into());
    set("name", info.name.as_str().into());
    set("versionInfo", info.version.as_str().into());
    set("packageFileName", info.file_name().into());
    set("supplier", info.maintainer.as_deref().and_then(supplier).unwrap_or(UNKNOWN.into()).into());
    set("downloadLocation", item.download().unwrap_or(UNKNOWN.into()).into());
    set("filesAnalyzed", false.into());
    if let Some(locked) = item.locked {
        let sha256 = locked.sha256.to_string();
        set("checksums", json!([{ "algorithm": "SHA256", "checksumValue": sha256 }]));
    }
    if let Some(homepage) = item.homepage() {
        set("homepage", homepage.into());
    }
    set("sourceInfo", source(item).into());
    set("licenseConcluded", UNKNOWN.into());
    set("licenseDeclared", item.license.as_ref().map_or(UNKNOWN, |license| &license.expression).into());
    set("copyrightText", UNKNOWN.into());
    if !info.description.is_empty() {
        set("summary", info.description.as_str().into());
    }
    set("comment", format!("apk checksum {} (SHA-1 of the control member)", info.checksum).into());
    let url = bill.package_url(info);
    let reference =
        json!({ "referenceCategory": "PACKAGE-MANAGER", "referenceType": "purl", "referenceLocator": url });
    set("externalRefs", Value::Array(vec![reference]));
    if let Some(built) = built(info) {
        set("builtDate", rfc3339(built).into());
    }
    Value::Object(fields)
}

fn supplier(maintainer: &str) -> Option<String> {
    let (name, address) = person(maintainer)?;
    Some(match address {
        Some(address) => format!("Person: {name} ({address})"),
        None => format!("Person: {name}"),
    })
}

fn source(item: &Item<'_>) -> String {
    let info = item.info;
    let origin = info.origin.as_deref().unwrap_or(&info.name);
    match &info.commit {
        Some(commit) => format!("built of {origin} at commit {commit}"),
        None => format!("built of {origin}"),
    }
}

/// Name and version of the source package.
fn origin<'a>(item: &Item<'a>) -> Option<(&'a str, &'a str)> {
    Some((item.info.origin.as_deref()?, item.info.version.as_str()))
}

/// Each source package once, by its identifier.
fn origins(bill: &BillOfMaterials<'_>) -> BTreeMap<String, Value> {
    let of = |(name, version): (&str, &str)| {
        let fields = json!({
            "SPDXID": origin_id(name, version),
            "name": name,
            "versionInfo": version,
            "downloadLocation": UNKNOWN,
            "filesAnalyzed": false,
            "licenseConcluded": UNKNOWN,
            "licenseDeclared": UNKNOWN,
            "copyrightText": UNKNOWN,
            "primaryPackagePurpose": "SOURCE",
        });
        (origin_id(name, version), fields)
    };
    bill.packages.iter().filter_map(origin).map(of).collect()
}

fn relationships(bill: &BillOfMaterials<'_>) -> Vec<Value> {
    let relation = |one: &str, how: &str, other: &str| json!({ "spdxElementId": one, "relationshipType": how, "relatedSpdxElement": other });
    let mut all = vec![relation(DOCUMENT, "DESCRIBES", IMAGE)];
    all.extend(bill.packages.iter().map(|item| relation(IMAGE, "CONTAINS", &package_id(item))));
    for item in &bill.packages {
        let id = package_id(item);
        let needed = item.needs.iter().filter_map(|number| bill.packages.get(*number));
        all.extend(needed.map(|other| relation(&id, "DEPENDS_ON", &package_id(other))));
        let origin = origin(item).map(|(name, version)| origin_id(name, version));
        all.extend(origin.map(|origin| relation(&id, "GENERATED_FROM", &origin)));
    }
    all
}

/// Licenses that SPDX does not list, as packages spell them.
fn own_licenses(bill: &BillOfMaterials<'_>) -> Vec<Value> {
    let licenses = bill.packages.iter().filter_map(|item| item.license.as_ref());
    let own: BTreeMap<&str, &str> =
        licenses.flat_map(|license| &license.own).map(|(id, text)| (id.as_str(), text.as_str())).collect();
    let info = |(id, text): (&str, &str)| {
        let told = format!("The package says: {text}");
        json!({ "licenseId": id, "name": text, "extractedText": told })
    };
    own.into_iter().map(info).collect()
}

fn package_id(item: &Item<'_>) -> String {
    format!("SPDXRef-Package-{}", id(&item.info.name))
}

fn origin_id(name: &str, version: &str) -> String {
    format!("SPDXRef-Origin-{}-{}", id(name), id(version))
}

/// Letters, digits, `.` and `-` alone; any other character as its number between dots.
fn id(name: &str) -> String {
    let shown = |c: char| {
        if c.is_ascii_alphanumeric() || ".-".contains(c) {
            c.to_string()
        } else {
            format!(".{:x}.", u32::from(c))
        }
    };
    name.chars().map(shown).collect()
}
