//! The JSON Schema has every key that the parser knows, and no other.

use super::*;
use serde_json::Value;
use std::collections::BTreeSet;

/// A word that is near no key.
const UNKNOWN: &str = "zzzzzzzzzzzzzzzz";

fn schema() -> Value {
    serde_json::from_str(include_str!("../schema.json")).unwrap()
}

/// The keys that the parser names when it meets an unknown one in this file.
#[track_caller]
fn known_to_parser(file: &str) -> BTreeSet<String> {
    let error = parse(&file.replace("KEY", UNKNOWN), "t.yml").unwrap_err();
    let told = error.problems.iter().find(|p| p.message.contains(UNKNOWN)).expect("the key is refused");
    let (_, known) = told.message.split_once("; known: ").expect("no key is near");
    known.split(", ").map(str::to_owned).collect()
}

#[test]
fn every_key_that_the_parser_knows_is_in_the_schema() {
    let schema = schema();
    for (place, file) in [
        ("/properties", "KEY: 1\nlab: a\nlinks: []\n"),
        ("/$defs/defaults/properties", "lab: a\ndefaults: {KEY: 1}\nlinks: []\n"),
        ("/$defs/every-link/properties", "lab: a\ndefaults: {link: {KEY: 1}}\nlinks: []\n"),
        ("/$defs/vlan/properties", "lab: a\nvlans: {blue: {KEY: 1}}\nlinks: []\n"),
        ("/$defs/switch/properties", "lab: a\nswitches: {s1: {KEY: 1}}\nlinks: []\n"),
        ("/$defs/rule/properties", "lab: a\nswitches: {s1: {rules: [{KEY: 1}]}}\nlinks: []\n"),
        ("/$defs/router/properties", "lab: a\nrouters: {r1: {KEY: 1}}\nlinks: []\n"),
        ("/$defs/route/properties", "lab: a\nrouters: {r1: {routes: [{KEY: 1}]}}\nlinks: []\n"),
        ("/$defs/host/properties", "lab: a\nhosts: {h1: {KEY: 1}}\nlinks: []\n"),
        ("/$defs/link/anyOf/1/properties", "lab: a\nlinks: [{ends: [h1, s1], KEY: 1}]\n"),
        ("/$defs/back/properties", "lab: a\nlinks: [{ends: [h1, s1], back: {KEY: 1}}]\n"),
        ("/$defs/tunnel/properties", "lab: a\nlinks: []\ntunnels: [{KEY: 1}]\n"),
        ("/$defs/test/properties", "lab: a\nlinks: []\ntests: [{KEY: 1}]\n"),
    ] {
        let properties = schema.pointer(place).and_then(Value::as_object).unwrap_or_else(|| panic!("no {place}"));
        let described: BTreeSet<_> = properties.keys().cloned().collect();
        assert_eq!(described, known_to_parser(file), "{place}");
    }
}

/// Whether a value is what a schema asks for, by the keywords that ours uses; what is wrong if not. Patterns are left out.
fn check(root: &Value, schema: &Value, value: &Value) -> Result<(), String> {
    let Value::Object(keywords) = schema else { return Ok(()) };
    let wrong = |why: &str| Err(format!("{value} {why} {schema}"));
    let all = |schemas: &Value| schemas.as_array().cloned().unwrap_or_default();
    for (keyword, asked) in keywords {
        match keyword.as_str() {
            "$ref" => check(root, root.pointer(&asked.as_str().unwrap()[1..]).expect("it points somewhere"), value)?,
            "type" => {
                let names = if asked.is_array() { all(asked) } else { vec![asked.clone()] };
                let is = |name: &Value| match name.as_str().unwrap() {
                    "object" => value.is_object(),
                    "array" => value.is_array(),
                    "string" => value.is_string(),
                    "integer" => value.is_i64() || value.is_u64(),
                    "number" => value.is_number(),
                    "boolean" => value.is_boolean(),
                    "null" => value.is_null(),
                    other => panic!("unknown type {other}"),
                };
                if !names.iter().any(is) {
                    return wrong("is of another type than");
                }
            }
            "enum" if !all(asked).contains(value) => return wrong("is none of"),
            "const" if asked != value => return wrong("is not"),
            "not" if check(root, asked, value).is_ok() => return wrong("is"),
            "anyOf" if !all(asked).iter().any(|one| check(root, one, value).is_ok()) => return wrong("is none of"),
            "oneOf" if all(asked).iter().filter(|one| check(root, one, value).is_ok()).count() != 1 => {
                return wrong("is not one of");
            }
            "minimum" if value.is_number() && value.as_f64() < asked.as_f64() => return wrong("is less than"),
            "maximum" if value.is_number() && value.as_f64() > asked.as_f64() => return wrong("is more than"),
            "minItems" if value.as_array().is_some_and(|v| v.len() < asked.as_u64().unwrap() as usize) => {
                return wrong("has fewer items than");
            }
            "maxItems" if value.as_array().is_some_and(|v| v.len() > asked.as_u64().unwrap() as usize) => {
                return wrong("has more items than");
            }
            "required"
                if value.is_object() && all(asked).iter().any(|key| value.get(key.as_str().unwrap()).is_none()) =>
            {
                return wrong("lacks a key of");
            }
            "items" => value.as_array().into_iter().flatten().try_for_each(|item| check(root, asked, item))?,
            "properties" => {
                for (key, asked) in asked.as_object().unwrap() {
                    value.get(key).map_or(Ok(()), |value| check(root, asked, value))?;
                }
            }
            "propertyNames" => {
                let names = value.as_object().into_iter().flat_map(|map| map.keys());
                names.into_iter().try_for_each(|name| check(root, asked, &Value::String(name.clone())))?;
            }
            "additionalProperties" => {
                let known = |key: &String| schema["properties"].get(key).is_some();
                let others = value.as_object().into_iter().flatten().filter(|(key, _)| !known(key));
                for (key, value) in others {
                    if *asked == Value::Bool(false) {
                        return wrong(&format!("has the key {key}, unlike"));
                    }
                    check(root, asked, value)?;
                }
            }
            _ => {}
        }
    }
    Ok(())
}

fn validate(text: &str) -> Result<(), String> {
    let value: Value = serde_saphyr::from_str(text).unwrap();
    check(&schema(), &schema(), &value)
}

#[test]
fn every_example_and_every_preset_is_what_the_schema_asks_for() {
    let mut folders = vec![PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../examples"))];
    let mut seen = 0;
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|e| e == "yml") && has_lab_key(&path) {
                let checked = validate(&std::fs::read_to_string(&path).unwrap());
                checked.unwrap_or_else(|wrong| panic!("{}: {wrong}", path.display()));
                seen += 1;
            }
        }
    }
    assert!(seen >= 8, "{seen} examples");
    for preset in ["single,2", "linear,2", "tree,2,2", "leafspine,2,2", "ring,3"] {
        let file = preset.parse::<Preset>().unwrap().file("x").unwrap();
        validate(&file).unwrap_or_else(|wrong| panic!("{preset}: {wrong}"));
    }
}

#[test]
fn the_schema_refuses_what_the_parser_refuses() {
    for wrong in [
        "links: []\n",
        "lab: a\nlinks: []\nlnks: 1\n",
        "lab: a\nlinks: [[h1]]\n",
        "lab: a\nlinks: [{ends: [h1, s1], delay: 5}]\n",
        "lab: all\nlinks: []\n",
        "lab: a\ndefaults: {mtu: 9}\nlinks: []\n",
        "lab: a\nhosts: {h1: {ipp: 1}}\nlinks: []\n",
        "lab: a\nhosts: {h1: {dhcp: yes-please}}\nlinks: []\n",
        "lab: a\nvlans: {blue: {dhcp: {lease: 10}}}\nlinks: []\n",
        "lab: a\nlinks: []\ntests: [{want: ok}]\n",
        "lab: a\nlinks: []\ntests: [{ping: [h1, h2], want: dorp}]\n",
    ] {
        assert!(validate(wrong).is_err() && parse(wrong, "t.yml").is_err(), "{wrong}");
    }
}
