//! Remote hosts that are left alone for a while.

use monofs_proto::v1;
use serde::Serialize;
use utoipa::ToSchema;

use crate::tongue::Time;

/// A remote host that said "not now": none of its repositories is asked about before `next_try_at`.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[schema(as = HostPause)]
pub struct HostPauseDocument {
    /// `host`, or `host:port`.
    pub host: String,
    /// What it answered.
    pub cause: String,
    pub next_try_at: Option<Time>,
}

impl From<&v1::HostPause> for HostPauseDocument {
    fn from(wire: &v1::HostPause) -> Self {
        Self {
            host: wire.host.clone(),
            cause: wire.cause.clone(),
            next_try_at: Time::known(wire.next_try_at),
        }
    }
}
