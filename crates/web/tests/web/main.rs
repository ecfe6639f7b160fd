//! The web page of a real cluster in a real browser: Chromium, driven by its chromedriver.
#![allow(clippy::unwrap_used)]

mod accessible;
mod adding;
mod browser;
mod hostile;
mod http;
mod live;
mod repositories;
mod screenshots;
mod site;
