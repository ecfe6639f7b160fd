//! Where the roles of a run listen. The two ports that users know are checked before anything is
//! made; those of nodes and fetcher are a matter of the run, so where the usual ones are taken it
//! has others.

use monofs_cluster::Ports;
use monofs_launch::args::Listen;
use monofs_launch::exit::Failure;
use monofs_launch::holder::PortHolder;

/// Which ports a run asks for.
#[derive(Debug, Clone, Copy)]
pub(super) struct PortChoice {
    /// 0 = any that is free.
    pub(super) router: u16,
    pub(super) http: u16,
    pub(super) nodes: u16,
}

impl PortChoice {
    /// The ports to listen on at `host`. Errors: the router's or that of HTTP cannot be listened
    /// on; what is there, and what to do.
    pub(super) fn checked(self, host: &str) -> Result<Ports, Failure> {
        check(host, self.router, "--port")?;
        check(host, self.http, "--http-port")?;
        // A run with free ports of its own is to disturb no other.
        let usual = match self.router {
            0 => Ports::FREE,
            _ => Ports::DEFAULT,
        };
        Ok(Ports {
            router: self.router,
            http: self.http,
            first_node: usual_or_free(host, usual.first_node, self.nodes),
            first_fetcher: usual_or_free(host, usual.first_fetcher, 1),
        })
    }
}

/// Listens on a port for a moment.
fn check(host: &str, port: u16, flag: &str) -> Result<(), Failure> {
    let listen = Listen {
        host: host.to_owned(),
        port,
    };
    let Err(failure) = listen.bind(flag) else {
        return Ok(());
    };

    // What holds the port decides the advice: another MonoFS can be used or ended, another program
    // stays, and a holder that cannot be read may be a MonoFS of another user.
    Err(match PortHolder::of(port) {
        Some(holder) if holder.is_ours() => failure.hint(format!(
            "another MonoFS runs here: use it (`monofs status` shows those of `monofs up`), end it \
             (`monofs down`, or `kill {}`), or start this one beside it: with --temporary, or with \
             --port, --http-port and --dir of its own",
            holder.pid
        )),
        Some(holder) => failure.hint(format!(
            "{} (process {}) has that port: give another with {flag}, or take free ones with \
             --temporary",
            holder.program, holder.pid
        )),
        None => failure.hint(format!(
            "give another with {flag}, or take free ones with --temporary; if another MonoFS runs \
             here, `monofs status` shows it and `monofs down` ends it"
        )),
    })
}

/// `first` if it and those that follow it are free, else 0.
fn usual_or_free(host: &str, first: u16, count: u16) -> u16 {
    let are_free = (first..first.saturating_add(count))
        .all(|port| std::net::TcpListener::bind((host, port)).is_ok());
    match are_free {
        true => first,
        false => 0,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn nodes_move_away_from_a_port_that_is_taken() {
        let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = taken.local_addr().unwrap().port();
        assert_eq!(usual_or_free("127.0.0.1", port, 1), 0);
        assert_eq!(usual_or_free("127.0.0.1", 0, 1), 0);
        drop(taken);
        assert_eq!(usual_or_free("127.0.0.1", port, 1), port);
    }
}
