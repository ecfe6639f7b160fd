//! Routes with a list of what they are, so that a test can hold the OpenAPI document against it.

use axum::Router;
use axum::handler::Handler;
use axum::http::Method;
use axum::middleware;
use axum::routing::{self, MethodRouter};

use super::guard;
use crate::site::Site;

type App = Site;

/// A router that knows what it routes.
#[derive(Default)]
pub(super) struct Routes {
    router: Router<App>,
    listed: Vec<(Method, &'static str)>,
}

impl Routes {
    /// Answers GET, and HEAD with it.
    pub fn get<T: 'static>(self, path: &'static str, handler: impl Handler<T, App>) -> Self {
        self.add(Method::GET, path, routing::get(handler))
    }

    /// Answers POST, behind the guard.
    pub fn post<T: 'static>(self, path: &'static str, handler: impl Handler<T, App>) -> Self {
        self.add(
            Method::POST,
            path,
            routing::post(handler).route_layer(middleware::from_fn(guard::same_site)),
        )
    }

    /// Answers DELETE, behind the guard.
    pub fn delete<T: 'static>(self, path: &'static str, handler: impl Handler<T, App>) -> Self {
        self.add(
            Method::DELETE,
            path,
            routing::delete(handler).route_layer(middleware::from_fn(guard::same_site)),
        )
    }

    /// These and those.
    pub fn merge(mut self, other: Self) -> Self {
        self.listed.extend(other.listed);
        Self {
            router: self.router.merge(other.router),
            listed: self.listed,
        }
    }

    /// The router, for serving.
    pub fn into_router(self) -> Router<App> {
        self.router
    }

    /// What is routed.
    #[cfg(test)]
    pub fn listed(&self) -> &[(Method, &'static str)] {
        &self.listed
    }

    fn add(mut self, method: Method, path: &'static str, handler: MethodRouter<App>) -> Self {
        self.listed.push((method, path));
        Self {
            router: self.router.route(path, handler),
            listed: self.listed,
        }
    }
}
