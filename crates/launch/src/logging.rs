//! Logging of the process: text or JSON lines, filtered by `RUST_LOG`, changeable while it runs.
//!
//! Called once by `start`; roles reach it through [`crate::Context::log`] (for an HTTP hook) and
//! signals through [`LogHandle::louder`] and [`LogHandle::reset`].

use std::io::IsTerminal;
use std::sync::Arc;

use parking_lot::{Mutex, MutexGuard};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer, Registry, fmt, reload};

use crate::exit::{Code, Failure};
use crate::spans::SpanLayer;
use crate::style::ProcessStyle;

/// What a server logs unless told otherwise: libraries only when something is wrong.
const SERVER_FILTER: &str = "info,h2=warn,hyper=warn,tower=warn,tonic=warn,rustls=warn";
/// What a tool logs unless told otherwise.
const TOOL_FILTER: &str = "warn";
/// The steps of [`LogHandle::louder`].
const LOUDER: [&str; 2] = [
    "debug,h2=info,hyper=info,tower=info,tonic=info,rustls=info",
    "trace,h2=debug,hyper=debug",
];

/// How log lines are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum LogFormat {
    /// One line for people
    Text,
    /// One JSON object in each line
    Json,
}

/// Changes what is logged while the process runs. Cheap to clone.
#[derive(Clone)]
pub struct LogHandle {
    reload: reload::Handle<EnvFilter, Registry>,
    state: Arc<Mutex<LevelState>>,
}

struct LevelState {
    initial: String,
    current: String,
    /// How many steps of [`LOUDER`] have been taken.
    steps: usize,
}

impl std::fmt::Debug for LogHandle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LogHandle")
            .field("filter", &self.filter())
            .finish()
    }
}

impl LogHandle {
    /// The filter in force, in the language of `RUST_LOG`.
    pub fn filter(&self) -> String {
        self.lock().current.clone()
    }

    /// Replaces the filter, such as `debug` or `info,monofs_store=trace`.
    pub fn set(&self, directives: &str) -> monofs_model::Result<()> {
        self.replace(&mut self.lock(), directives)
    }

    /// One step more talkative: debug, then trace.
    pub fn louder(&self) {
        let mut state = self.lock();
        let step = state.steps.min(LOUDER.len() - 1);
        if self.replace(&mut state, LOUDER[step]).is_ok() {
            state.steps = step + 1;
            tracing::info!(filter = state.current, "log level changed");
        }
    }

    /// Back to what the process was started with.
    pub fn reset(&self) {
        let mut state = self.lock();
        let initial = state.initial.clone();
        if self.replace(&mut state, &initial).is_ok() {
            state.steps = 0;
            tracing::info!(filter = state.current, "log level restored");
        }
    }

    fn lock(&self) -> MutexGuard<'_, LevelState> {
        self.state.lock()
    }

    fn replace(&self, state: &mut LevelState, directives: &str) -> monofs_model::Result<()> {
        let filter = parse(directives)?;
        self.reload
            .reload(filter)
            .map_err(|error| monofs_model::Error::internal(format!("log filter: {error}")))?;
        state.current = directives.to_owned();
        Ok(())
    }
}

fn parse(directives: &str) -> monofs_model::Result<EnvFilter> {
    EnvFilter::builder().parse(directives).map_err(|error| {
        monofs_model::Error::invalid(format!(
            "log filter '{}': {error}",
            directives.escape_debug()
        ))
    })
}

/// Sets up the process's log and gives the handle that changes it; `spans` collects for another
/// place than the log.
pub(crate) fn init(
    style: ProcessStyle,
    format: LogFormat,
    spans: Option<SpanLayer>,
) -> Result<LogHandle, Failure> {
    // RUST_LOG wins over what is usual for this kind of process.
    let usual = if style == ProcessStyle::Server {
        SERVER_FILTER
    } else {
        TOOL_FILTER
    };
    let initial = std::env::var("RUST_LOG")
        .ok()
        .filter(|text| !text.is_empty())
        .unwrap_or_else(|| usual.to_owned());
    let filter = parse(&initial).map_err(|error| {
        Failure::new(Code::Usage, format!("RUST_LOG: {error}"))
            .hint("write it like RUST_LOG=info,monofs_store=debug")
    })?;
    let (filter, reload) = reload::Layer::new(filter);
    // Standard output belongs to a tool's answers.
    let lines = match style {
        ProcessStyle::Server => lines(format, colours(&std::io::stdout()), std::io::stdout),
        ProcessStyle::Tool | ProcessStyle::Session => {
            lines(format, colours(&std::io::stderr()), std::io::stderr)
        }
    };
    // A second subscriber can only exist in a test that runs two launches in one process; the first
    // one stays.
    let _ = subscriber(lines.with_filter(filter).boxed(), spans).try_init();
    let state = LevelState {
        initial: initial.clone(),
        current: initial,
        steps: 0,
    };
    Ok(LogHandle {
        reload,
        state: Arc::new(Mutex::new(state)),
    })
}

/// The level of the log is the log's alone: a quiet log does not hide spans, and each of the two is
/// asked only about what it may want (libraries trace every frame of a connection).
fn subscriber(
    lines: Box<dyn Layer<Registry> + Send + Sync>,
    spans: Option<SpanLayer>,
) -> impl tracing::Subscriber {
    tracing_subscriber::registry().with([lines].into_iter().chain(spans).collect::<Vec<_>>())
}

/// Whether lines are coloured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum LineColours {
    Plain,
    Coloured,
}

fn colours(stream: &impl IsTerminal) -> LineColours {
    let forbidden = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    if stream.is_terminal() && !forbidden {
        LineColours::Coloured
    } else {
        LineColours::Plain
    }
}

/// What writes log lines in this format.
fn lines<W>(
    format: LogFormat,
    colours: LineColours,
    writer: W,
) -> Box<dyn Layer<Registry> + Send + Sync>
where
    W: for<'a> fmt::MakeWriter<'a> + Send + Sync + 'static,
{
    let coloured = colours == LineColours::Coloured;
    let layer = fmt::layer().with_writer(writer).with_ansi(coloured);
    match format {
        LogFormat::Text => layer.boxed(),
        LogFormat::Json => layer.json().flatten_event(true).boxed(),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use tracing::level_filters::LevelFilter;

    use super::*;

    #[test]
    fn what_no_log_wants_is_not_even_asked_about() {
        for (directives, level) in [
            ("warn", LevelFilter::WARN),
            (SERVER_FILTER, LevelFilter::INFO),
        ] {
            let (filter, _reload) = reload::Layer::new(parse(directives).unwrap());
            let lines = lines(LogFormat::Text, LineColours::Plain, std::io::sink);
            let subscriber = subscriber(lines.with_filter(filter).boxed(), None);
            assert_eq!(
                tracing::Subscriber::max_level_hint(&subscriber),
                Some(level)
            );
        }
    }

    #[test]
    fn levels_step_up_and_return_to_the_start() {
        let (_layer, reload) = reload::Layer::<EnvFilter, Registry>::new(parse("warn").unwrap());
        let state = LevelState {
            initial: "warn".into(),
            current: "warn".into(),
            steps: 0,
        };
        let log = LogHandle {
            reload,
            state: Arc::new(Mutex::new(state)),
        };
        log.louder();
        assert!(log.filter().starts_with("debug"));
        log.louder();
        log.louder();
        assert!(log.filter().starts_with("trace"));
        assert!(log.set("monofs=notalevel").is_err());
        assert!(
            log.filter().starts_with("trace"),
            "a wrong filter changes nothing"
        );
        log.set("info,monofs_store=trace").unwrap();
        assert_eq!(log.filter(), "info,monofs_store=trace");
        log.reset();
        assert_eq!(log.filter(), "warn");
    }
}
