//! CycloneDX 1.6 in JSON (<https://cyclonedx.org/docs/1.6/json/>).

use crate::base::time::rfc3339;
use serde_json::{Map, Value, json};

use super::text::{person, uuid_of};
use super::{BillOfMaterials, Item, built};

/// What the image is called where its parts refer to it.
const IMAGE: &str = "image";

/// The whole document.
pub(super) fn document(bill: &BillOfMaterials<'_>) -> Value {
    let mut document = json!({
        "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "serialNumber": "",
        "version": 1,
        "metadata": {
            "timestamp": rfc3339(bill.created),
            "tools": { "components": [
                { "type": "application", "name": "sisforge", "version": env!("CARGO_PKG_VERSION") }
            ] },
            "component": image(bill),
        },
        "components": bill.packages.iter().map(|item| component(bill, item)).collect::<Vec<_>>(),
        "dependencies": dependencies(bill),
    });
    // Another document has another number, and the same one the same.
    let uuid = uuid_of(document.to_string().as_bytes());
    document["serialNumber"] = format!("urn:uuid:{uuid}").into();
    document
}

fn image(bill: &BillOfMaterials<'_>) -> Value {
    let mut image = json!({
        "type": "operating-system",
        "bom-ref": IMAGE,
        "name": bill.name,
        "hashes": [{ "alg": "SHA-256", "content": bill.sha256.to_string() }],
    });
    if let Some(title) = bill.title {
        image["description"] = title.into();
    }
    image
}

fn component(bill: &BillOfMaterials<'_>, item: &Item<'_>) -> Value {
    let info = item.info;
    let url = bill.package_url(info);
    let mut fields = Map::new();
    let mut set = |name: &str, value: Value| drop(fields.insert(name.to_owned(), value));
    set("type", "library".into());
    set("bom-ref", url.as_str().into());
    if let Some((name, address)) = info.maintainer.as_deref().and_then(person) {
        let mut contact = json!({ "name": name });
        if let Some(address) = address {
            contact["email"] = address.into();
        }
        set("supplier", json!({ "name": name, "contact": [contact] }));
    }
    set("name", info.name.as_str().into());
    set("version", info.version.as_str().into());
    if !info.description.is_empty() {
        set("description", info.description.as_str().into());
    }
    if let Some(locked) = item.locked {
        set("hashes", json!([{ "alg": "SHA-256", "content": locked.sha256.to_string() }]));
    }
    if let Some(license) = &item.license {
        set("licenses", json!([{ "expression": license.expression }]));
    }
    set("purl", url.into());
    let references = references(item);
    if !references.is_empty() {
        set("externalReferences", Value::Array(references));
    }
    set("properties", Value::Array(properties(item)));
    Value::Object(fields)
}

fn references(item: &Item<'_>) -> Vec<Value> {
    let distribution = item.download().map(|url| json!({ "type": "distribution", "url": url }));
    let website = item.homepage().map(|url| json!({ "type": "website", "url": url }));
    distribution.into_iter().chain(website).collect()
}

/// What apk knows and CycloneDX has no field for.
fn properties(item: &Item<'_>) -> Vec<Value> {
    let info = item.info;
    let properties = [
        ("sisforge:apk:checksum", Some(info.checksum.to_string())),
        ("sisforge:apk:origin", info.origin.clone()),
        ("sisforge:apk:commit", info.commit.clone()),
        ("sisforge:apk:built", built(info).map(rfc3339)),
    ];
    let known = properties.into_iter().filter_map(|(name, value)| Some((name, value?)));
    known.map(|(name, value)| json!({ "name": name, "value": value })).collect()
}

fn dependencies(bill: &BillOfMaterials<'_>) -> Vec<Value> {
    let url = |item: &Item<'_>| bill.package_url(item.info);
    let all: Vec<_> = bill.packages.iter().map(url).collect();
    let mut dependencies = vec![json!({ "ref": IMAGE, "dependsOn": all })];
    dependencies.extend(bill.packages.iter().map(|item| {
        let needed: Vec<_> = item.needs.iter().filter_map(|number| all.get(*number)).collect();
        json!({ "ref": url(item), "dependsOn": needed })
    }));
    dependencies
}
