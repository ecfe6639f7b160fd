//! Whether a document has the shape that an OpenAPI document describes: as much of JSON Schema as
//! ours uses.

use serde_json::Value;

/// What of `value` is not as `schema` of the document `openapi` says, one line each.
pub fn differences(openapi: &Value, schema: &Value, value: &Value) -> Vec<String> {
    let mut found = Vec::new();
    check(openapi, schema, value, "$", &mut found);
    found
}

fn check(openapi: &Value, schema: &Value, value: &Value, at: &str, found: &mut Vec<String>) {
    if let Some(reference) = schema.get("$ref").and_then(Value::as_str) {
        let target = openapi
            .pointer(&reference[1..])
            .unwrap_or_else(|| panic!("{reference} leads nowhere"));
        return check(openapi, target, value, at, found);
    }
    for part in schema
        .get("allOf")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
    {
        check(openapi, part, value, at, found);
    }
    for choice in ["oneOf", "anyOf"] {
        if let Some(parts) = schema.get(choice).and_then(Value::as_array) {
            let fits = parts
                .iter()
                .any(|part| differences(openapi, part, value).is_empty());
            if !fits {
                found.push(format!("{at}: {value} is none of {choice}"));
            }
        }
    }
    if let Some(allowed) = schema.get("enum").and_then(Value::as_array)
        && !allowed.contains(value)
    {
        found.push(format!("{at}: {value} is not one of {allowed:?}"));
    }
    let types: Vec<&str> = match schema.get("type") {
        Some(Value::String(one)) => vec![one],
        Some(Value::Array(several)) => several.iter().filter_map(Value::as_str).collect(),
        _ => Vec::new(),
    };
    if !types.is_empty() && !types.iter().any(|kind| is(kind, value)) {
        found.push(format!("{at}: {value} is no {types:?}"));
    }
    if let Value::Object(fields) = value {
        for name in schema
            .get("required")
            .and_then(Value::as_array)
            .into_iter()
            .flatten()
            .filter_map(Value::as_str)
        {
            if !fields.contains_key(name) {
                found.push(format!("{at}: {name} is missing"));
            }
        }
        let described = schema.get("properties").and_then(Value::as_object);
        for (name, field) in fields {
            let schema = described
                .and_then(|described| described.get(name))
                .or(schema.get("additionalProperties"));
            if let Some(schema) = schema {
                check(openapi, schema, field, &format!("{at}.{name}"), found);
            }
        }
    }
    if let (Value::Array(items), Some(schema)) = (value, schema.get("items")) {
        for (number, item) in items.iter().enumerate() {
            check(openapi, schema, item, &format!("{at}[{number}]"), found);
        }
    }
}

fn is(kind: &str, value: &Value) -> bool {
    match kind {
        "null" => value.is_null(),
        "boolean" => value.is_boolean(),
        "string" => value.is_string(),
        "integer" => value.is_i64() || value.is_u64(),
        "number" => value.is_number(),
        "array" => value.is_array(),
        "object" => value.is_object(),
        other => panic!("no type {other}"),
    }
}
