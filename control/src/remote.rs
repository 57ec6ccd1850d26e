//! Commands that ask a running node: they use its admin API, with an operator's key.
//!
//! Each is one call, or the same call again and again with `--watch`; what is allowed, and what becomes of it, the node
//! decides. Exit codes: [`client::Failure::code`].

mod asking;
mod client;
mod table;

use std::net::IpAddr;
use std::process::ExitCode;

use clap::builder::PossibleValuesParser;
use clap::{Args, Subcommand};
use reqwest::Method;
use runit_core::event::EventKind;
use runit_core::key::{KeyName, Role};
use runit_core::{KeyId, ProviderId, SessionId, Timestamp};
use serde_json::{Value, json};

use crate::local;
use asking::{Asked, Query, Watched};
use table::{KEYS, PROVIDERS, SESSIONS, USAGE};

/// What an operator asks of a running node.
#[derive(Subcommand)]
pub(crate) enum Remote {
    /// List the live sessions of a node.
    Sessions(Sessions),
    /// Show one session, and what happened to it last.
    Session {
        id: SessionId,
        #[command(flatten)]
        how: Watched,
    },
    /// End a session's lock in its renter's name; the workspace is made anew.
    Release {
        id: SessionId,
        #[command(flatten)]
        how: Asked,
    },
    /// Take a session away from its renter; the workspace is made anew.
    Cut {
        id: SessionId,
        #[command(flatten)]
        how: Asked,
    },
    /// Remove a session; its agent is told to register again, unless its key is revoked.
    Remove {
        id: SessionId,
        #[command(flatten)]
        how: Asked,
    },
    /// List providers, and how they are.
    Providers {
        #[command(flatten)]
        how: Watched,
    },
    /// Show the last 24 hours in numbers.
    Summary {
        #[command(flatten)]
        how: Watched,
    },
    /// Show the audit trail of a node, the newest first; or verify or export the one in this machine's files.
    #[command(args_conflicts_with_subcommands = true)]
    Events {
        #[command(subcommand)]
        of_files: Option<local::Events>,
        #[command(flatten)]
        events: WantedEvents,
    },
    /// Show what sessions used in the last 24 hours; or export the usage records in this machine's files.
    #[command(args_conflicts_with_subcommands = true)]
    Usage {
        #[command(subcommand)]
        of_files: Option<local::Usage>,
        #[command(flatten)]
        usage: WantedUsage,
    },
    /// List, make and revoke keys of operators and providers.
    #[command(subcommand)]
    Keys(Keys),
}

/// Which sessions, in which order.
#[derive(Args)]
pub(crate) struct Sessions {
    /// Only those in this state.
    #[arg(long, value_parser = ["READY", "LOCKED", "RECYCLING"], ignore_case = true)]
    status: Option<String>,
    /// Only those of this provider.
    #[arg(long, value_name = "ID")]
    provider: Option<ProviderId>,
    /// Only those locked from this address.
    #[arg(long, value_name = "ADDRESS")]
    address: Option<IpAddr>,
    /// In this order.
    #[arg(long, value_parser = ["registeredAt", "provider", "status", "lockedAt"])]
    sort: Option<String>,
    /// The other way round.
    #[arg(long)]
    descending: bool,
    /// Pass over so many.
    #[arg(long, value_name = "COUNT")]
    offset: Option<u32>,
    /// Show so many, 500 at the most.
    #[arg(long, value_name = "COUNT")]
    limit: Option<u32>,
    #[command(flatten)]
    how: Watched,
}

/// Which part of the audit trail.
#[derive(Args)]
pub(crate) struct WantedEvents {
    /// Only these kinds, with commas between them.
    #[arg(long, value_delimiter = ',', hide_possible_values = true,
        value_parser = PossibleValuesParser::new(EventKind::ALL.map(EventKind::as_str)))]
    kind: Vec<String>,
    /// Only about this session.
    #[arg(long, value_name = "ID")]
    session: Option<SessionId>,
    /// Only about this provider.
    #[arg(long, value_name = "ID")]
    provider: Option<ProviderId>,
    /// Then or later: 2026-11-01T00:00:00Z.
    #[arg(long, value_name = "TIME")]
    since: Option<Timestamp>,
    /// Before then.
    #[arg(long, value_name = "TIME", conflicts_with = "watch")]
    until: Option<Timestamp>,
    /// Older than this place.
    #[arg(long, value_name = "PLACE", conflicts_with = "watch")]
    before: Option<u32>,
    /// Newer than this place, the oldest of them first.
    #[arg(long, value_name = "PLACE", conflicts_with_all = ["before", "watch"])]
    after: Option<u32>,
    /// Show so many, 1000 at the most.
    #[arg(long, value_name = "COUNT")]
    limit: Option<u32>,
    /// Show the newest, oldest first, then each one as it happens, until interrupted.
    #[arg(long)]
    watch: bool,
    #[command(flatten)]
    how: Asked,
}

/// Whose usage.
#[derive(Args)]
pub(crate) struct WantedUsage {
    /// Only of this provider's sessions.
    #[arg(long, value_name = "ID")]
    provider: Option<ProviderId>,
    /// Pass over so many.
    #[arg(long, value_name = "COUNT")]
    offset: Option<u32>,
    /// Show so many, 1000 at the most.
    #[arg(long, value_name = "COUNT")]
    limit: Option<u32>,
    #[command(flatten)]
    how: Watched,
}

/// What is done with keys.
#[derive(Subcommand)]
pub(crate) enum Keys {
    /// List all keys, revoked ones too.
    List {
        #[command(flatten)]
        how: Watched,
    },
    /// Make a key; it is shown this once.
    Create {
        /// For an operator, by a name for people.
        #[arg(long, value_name = "NAME", requires = "role", required_unless_present = "provider")]
        operator: Option<KeyName>,
        /// What the operator may do: read or operate.
        #[arg(long, requires = "operator")]
        role: Option<Role>,
        /// For the provider of this name.
        #[arg(long, value_name = "ID", conflicts_with = "operator")]
        provider: Option<ProviderId>,
        #[command(flatten)]
        how: Asked,
    },
    /// Revoke a key; the sessions that were last registered with a provider's key are removed.
    Revoke {
        id: KeyId,
        #[command(flatten)]
        how: Asked,
    },
}

impl Remote {
    pub(crate) fn run(self) -> ExitCode {
        match self {
            Self::Sessions(sessions) => sessions.run(),
            Self::Session { id, how } => how.show(&of(id, ""), &Query::default(), table::session),
            Self::Release { id, how } => how.send(Method::POST, &of(id, "/release"), None, table::changed),
            Self::Cut { id, how } => how.send(Method::POST, &of(id, "/cut"), None, table::changed),
            Self::Remove { id, how } => how.send(Method::DELETE, &of(id, ""), None, |_| "removed\n".to_owned()),
            Self::Providers { how } => how.show("/admin/v1/providers", &Query::default(), |page| {
                PROVIDERS.table(&page["providers"], &Value::Null)
            }),
            Self::Summary { how } => how.show("/admin/v1/summary", &Query::default(), table::summary),
            Self::Events { of_files: Some(of_files), .. } => local::ended(of_files.run()),
            Self::Events { of_files: None, events } => events.run(),
            Self::Usage { of_files: Some(of_files), .. } => local::ended(of_files.run()),
            Self::Usage { of_files: None, usage } => usage.run(),
            Self::Keys(keys) => keys.run(),
        }
    }
}

impl Sessions {
    fn run(self) -> ExitCode {
        let query = Query::default()
            .add("status", self.status.map(|status| status.to_uppercase()))
            .add("provider", self.provider)
            .add("address", self.address)
            .add("sort", self.sort)
            .add("descending", self.descending.then_some(true))
            .add("offset", self.offset)
            .add("limit", self.limit);
        self.how.show("/admin/v1/sessions", &query, |page| SESSIONS.table(&page["sessions"], &page["total"]))
    }
}

impl WantedEvents {
    fn run(self) -> ExitCode {
        let kinds = (!self.kind.is_empty()).then(|| self.kind.join(","));
        let which = Query::default().add("kind", kinds).add("session", self.session).add("provider", self.provider);
        let page = which.clone().add("since", self.since).add("limit", self.limit);
        if self.watch {
            return self.how.follow(&page, &which);
        }
        let page = page.add("until", self.until).add("before", self.before).add("after", self.after);
        self.how.show("/admin/v1/events", &page, |page| table::EVENTS.table(&page["events"], &Value::Null))
    }
}

impl WantedUsage {
    fn run(self) -> ExitCode {
        let query = Query::default().add("provider", self.provider).add("offset", self.offset).add("limit", self.limit);
        self.how.show("/admin/v1/usage", &query, |page| {
            format!("{}{}", USAGE.table(&page["sessions"], &page["total"]), table::sums(page))
        })
    }
}

impl Keys {
    fn run(self) -> ExitCode {
        match self {
            Self::List { how } => {
                how.show("/admin/v1/keys", &Query::default(), |page| KEYS.table(&page["keys"], &Value::Null))
            }
            Self::Create { operator, role, provider, how } => {
                let body = match provider {
                    Some(provider) => json!({ "providerId": provider }),
                    None => json!({ "name": operator.as_ref().map(KeyName::as_str), "role": role }),
                };
                how.send(Method::POST, "/admin/v1/keys", Some(body), table::made_key)
            }
            Self::Revoke { id, how } => {
                how.send(Method::DELETE, &format!("/admin/v1/keys/{id}"), None, |_| "revoked\n".to_owned())
            }
        }
    }
}

fn of(session: SessionId, action: &str) -> String {
    format!("/admin/v1/sessions/{session}{action}")
}
