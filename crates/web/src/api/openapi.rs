//! The OpenAPI document: made from the handlers, with what holds for all of them added.

use std::sync::LazyLock;

use axum::http::header;
use axum::response::IntoResponse;
use monofs_api::ingest::IngestDocument;
use serde_json::{Value, json};
use utoipa::OpenApi;

use super::{browse, ingest, jobs, members, nodes, overview, placement, repos};
use crate::error::ErrorDocument;
use crate::guide;
use crate::routes::Routes;

pub(super) fn routes() -> Routes {
    Routes::default().get("/api/v1/openapi.json", openapi)
}

#[derive(OpenApi)]
#[openapi(
    info(
        title = "MonoFS",
        description = "The HTTP API of a MonoFS router: see docs/api.md.",
        license(name = "Apache-2.0")
    ),
    paths(
        guide::health,
        guide::ready,
        guide::metrics,
        guide::status,
        guide::fetchers,
        repos::list,
        ingest::add,
        repos::one,
        repos::delete,
        repos::refresh,
        repos::rebalance,
        repos::history,
        ingest::events,
        nodes::list,
        nodes::one,
        members::fetchers,
        members::clients,
        members::remove,
        jobs::list,
        jobs::one,
        jobs::events,
        jobs::cancel,
        jobs::drain,
        jobs::undrain,
        jobs::failovers,
        jobs::fail_over,
        jobs::clear,
        jobs::rebalance,
        placement::placement,
        browse::tree,
        browse::file,
        overview::overview,
        overview::events,
        overview::history,
        openapi,
    ),
    components(schemas(ErrorDocument, IngestDocument))
)]
struct Described;

/// The document, as text.
static DOCUMENT: LazyLock<String> = LazyLock::new(|| document().to_string());

/// Statuses of errors: of every request, and of those that change something.
const ALWAYS: [(&str, &str); 6] = [
    ("400", "The request is wrong"),
    ("404", "There is no such thing"),
    ("409", "Something stands against it"),
    ("500", "A defect of the router"),
    ("502", "What nodes gave is damaged"),
    (
        "503",
        "Something that is needed does not answer, or there is no room",
    ),
];
const CHANGES: [(&str, &str); 4] = [
    ("403", "A page of another site asks"),
    ("408", "The body did not arrive in time"),
    ("413", "The body is too large"),
    ("415", "The body is not said to be JSON"),
];

/// What the HTTP server itself answers, without a body, to what it does not read to its end.
const UNREAD: [(&str, &str); 2] = [
    ("414", "The URL is too long"),
    ("431", "The headers are too long"),
];

/// This document
#[utoipa::path(get, path = "/api/v1/openapi.json", tag = "overview",
    responses((status = 200, description = "OpenAPI 3.1", body = Object, content_type = "application/json")))]
pub(super) async fn openapi() -> impl IntoResponse {
    (
        [(header::CONTENT_TYPE, "application/json")],
        DOCUMENT.as_str(),
    )
}

fn document() -> Value {
    let mut document = serde_json::to_value(Described::openapi()).unwrap_or_default();
    document["info"]["version"] = json!(env!("CARGO_PKG_VERSION"));
    let error = json!({ "application/json": { "schema": { "$ref": "#/components/schemas/ErrorDocument" } } });
    let paths = document["paths"].as_object_mut().into_iter().flatten();
    for (path, methods) in paths {
        for (method, operation) in methods.as_object_mut().into_iter().flatten() {
            operation["operationId"] = json!(operation_id(method, path));
            let summary = operation["summary"].clone();
            for response in operation["responses"]
                .as_object_mut()
                .into_iter()
                .flatten()
                .map(|(_, response)| response)
            {
                // The format demands one.
                if response["description"].as_str().is_none_or(str::is_empty) {
                    response["description"] = summary.clone();
                }
            }
            let changes = method != "get";
            let statuses = ALWAYS.iter().chain(CHANGES.iter().filter(|_| changes));
            // The paths of old know no errors of ours but a router that cannot do its work.
            if !path.starts_with("/api/v1/") {
                continue;
            }
            for (status, why) in statuses {
                let responses = &mut operation["responses"];
                if responses.get(status).is_none() {
                    responses[status] = json!({ "description": why, "content": error });
                }
            }
            for (status, why) in UNREAD {
                operation["responses"][status] = json!({ "description": why });
            }
            if path == "/api/v1/file" {
                operation["responses"]["416"] =
                    json!({ "description": "The range lies beyond the file", "content": error });
            }
        }
    }
    document
}

/// Such as `get_repos_path_events`.
fn operation_id(method: &str, path: &str) -> String {
    let words = path
        .trim_start_matches("/api/v1")
        .split(|c: char| !c.is_ascii_alphanumeric());
    let words = words.filter(|word| !word.is_empty()).map(str::to_owned);
    std::iter::once(method.to_owned())
        .chain(words)
        .collect::<Vec<_>>()
        .join("_")
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_route_is_described_and_every_description_is_a_route() {
        let routes = crate::routes();
        let routed: BTreeSet<String> = routes
            .listed()
            .iter()
            .map(|(method, path)| format!("{method} {path}"))
            .collect();
        let document = document();
        let paths = document["paths"].as_object().expect("paths");
        let operations = paths.iter().flat_map(|(path, methods)| {
            methods
                .as_object()
                .expect("methods")
                .keys()
                .map(move |method| format!("{} {path}", method.to_uppercase()))
        });
        assert_eq!(operations.collect::<BTreeSet<_>>(), routed);
    }

    /// Every schema of an object, with its properties.
    fn properties<'a>(value: &'a Value, found: &mut Vec<&'a serde_json::Map<String, Value>>) {
        match value {
            Value::Object(fields) => {
                found.extend(fields.get("properties").and_then(Value::as_object));
                fields.values().for_each(|value| properties(value, found));
            }
            Value::Array(items) => items.iter().for_each(|value| properties(value, found)),
            _ => {}
        }
    }

    #[test]
    fn a_word_that_was_replaced_is_deprecated() {
        let document = document();
        let mut schemas = Vec::new();
        properties(&document["components"]["schemas"], &mut schemas);
        let mut seen = 0;
        for schema in schemas {
            for (word, by) in monofs_api::tongue::REPLACED_OVER_HTTP {
                // What it is counted in now has a schema of its own.
                let is_new = by.ends_with(word) && !schema.contains_key("requests");
                let Some(property) = schema.get(word).filter(|_| !is_new) else {
                    continue;
                };
                if property.get("$ref").is_none() {
                    seen += 1;
                    assert_eq!(
                        property["deprecated"], true,
                        "{word} is {by} now: {schema:#?}"
                    );
                }
            }
        }
        assert!(seen > 10, "only {seen} replaced words were found");
    }

    #[test]
    fn every_reference_leads_somewhere_and_every_operation_has_a_name_of_its_own() {
        fn references<'a>(value: &'a Value, found: &mut Vec<&'a str>) {
            match value {
                Value::Object(fields) => {
                    found.extend(fields.get("$ref").and_then(Value::as_str));
                    fields.values().for_each(|value| references(value, found));
                }
                Value::Array(items) => items.iter().for_each(|value| references(value, found)),
                _ => {}
            }
        }
        let document = document();
        let mut found = Vec::new();
        references(&document, &mut found);
        assert!(found.len() > 20, "{found:?}");
        for reference in found {
            let pointer = reference
                .strip_prefix('#')
                .expect("a reference into the document");
            assert!(
                document.pointer(pointer).is_some(),
                "{reference} leads nowhere"
            );
        }
        let mut names = BTreeSet::new();
        for response in document["paths"]
            .as_object()
            .expect("paths")
            .values()
            .flat_map(|methods| {
                let operations = methods.as_object().expect("methods").values();
                operations.flat_map(|operation| {
                    operation["responses"]
                        .as_object()
                        .expect("responses")
                        .values()
                })
            })
        {
            assert!(
                response["description"]
                    .as_str()
                    .is_some_and(|text| !text.is_empty()),
                "{response}"
            );
        }
        for operation in document["paths"]
            .as_object()
            .expect("paths")
            .values()
            .flat_map(|methods| methods.as_object().expect("methods").values())
        {
            let name = operation["operationId"].as_str().expect("a name");
            assert!(names.insert(name.to_owned()), "{name} is there twice");
        }
    }
}
