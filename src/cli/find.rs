//! How nodes are found: by epmd, or without it. The flags of the commands that ask one, and what they mean for a node too.

use std::net::SocketAddr;

use clap::{Args, ValueEnum};

use super::CliError;
use crate::config::EpmdConfig;
use crate::distribution::node_at::with_port;
use crate::distribution::{NodeAt, NodeAtError};
use crate::epmd::environment;

/// The variables of a node's settings that the commands which ask one take too, as they take the cookie's.
const EPMD_VARIABLE: &str = "KVNODE_EPMD";
const PORT_VARIABLE: &str = "KVNODE_DIST_PORT";

/// Whether epmd says where nodes listen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(super) enum EpmdUse {
    /// The epmd of each machine knows its nodes
    #[default]
    Use,
    /// No epmd is asked: a node listens at the port that it is named with, or all at one
    None,
}

#[derive(Args, Clone, Debug)]
#[group(skip)]
pub(super) struct FindArgs {
    /// How nodes are found: use, by the epmd of their machine; or none, where all nodes have one port (-erl_epmd_port) or are
    /// named with theirs [default: KVNODE_EPMD of the environment, else use]
    #[arg(long, value_name = "HOW", value_enum, hide_possible_values = true, help_heading = "Whom to ask")]
    epmd: Option<EpmdUse>,
    /// The port of all nodes, with --epmd none [default: KVNODE_DIST_PORT of the environment]
    #[arg(long, value_name = "PORT", value_parser = clap::value_parser!(u16).range(1..), help_heading = "Whom to ask")]
    dist_port: Option<u16>,
}

/// How nodes are found, as the flags and the environment say.
#[derive(Clone, Debug)]
pub(super) enum Find {
    /// By epmd.
    Epmd(EpmdConfig),
    /// At the port that a node is named with, else at that of all nodes, where it is known.
    Ports(Option<u16>),
}

impl FindArgs {
    /// How nodes are found.
    ///
    /// # Errors
    /// The flags do not go together, or the environment says what means nothing.
    pub(super) fn find(&self) -> Result<Find, CliError> {
        let variable = |name: &str| {
            let value = std::env::var_os(name).filter(|value| !value.is_empty());
            value.map(|value| value.to_string_lossy().into_owned())
        };
        let epmd = match (self.epmd, variable(EPMD_VARIABLE)) {
            (Some(epmd), _) => epmd,
            (None, Some(value)) => EpmdUse::from_str(&value, false).map_err(|_| {
                CliError::usage(format!("{EPMD_VARIABLE} is {value:?}; write use or none, or unset it"))
            })?,
            (None, None) => EpmdUse::Use,
        };
        if epmd == EpmdUse::Use {
            if self.dist_port.is_some() {
                return Err(CliError::usage(
                    "--dist-port is the port of all nodes where there is no epmd: say --epmd none too, or name the node with \
                     its port, NAME@HOST:PORT",
                ));
            }
            return environment::epmd_config().map(Find::Epmd).map_err(CliError::usage);
        }
        let port = match (self.dist_port, variable(PORT_VARIABLE)) {
            (Some(port), _) => Some(port),
            (None, Some(value)) => {
                let port = value.trim().parse::<u16>();
                let port = port.map_err(|_| {
                    CliError::usage(format!(
                        "{PORT_VARIABLE} is {value:?}, which is no port; set it to 1..65535, or unset it"
                    ))
                })?;
                Some(port).filter(|port| *port != 0)
            }
            (None, None) => None,
        };
        Ok(Find::Ports(port))
    }
}

impl Find {
    /// The epmd, where one is asked.
    pub(super) const fn epmd(&self) -> Option<&EpmdConfig> {
        match self {
            Self::Epmd(epmd) => Some(epmd),
            Self::Ports(_) => None,
        }
    }

    /// The port that a node is dialled at without asking epmd; `None`: epmd is asked. `what` is the argument's name.
    ///
    /// # Errors
    /// There is no epmd to ask, and the port is not known.
    pub(super) fn port(&self, what: &str, node: &NodeAt) -> Result<Option<u16>, CliError> {
        match (node.port, self) {
            (Some(port), _) => Ok(Some(port)),
            (None, Self::Ports(Some(port))) => Ok(Some(*port)),
            (None, Self::Epmd(_)) => Ok(None),
            (None, Self::Ports(None)) => Err(CliError::usage(format!(
                "{what} {node}: its port is not known, as no epmd is asked; write {}, or give the port of all nodes with \
                 --dist-port",
                with_port(&node.name, "PORT")
            ))),
        }
    }
}

/// Why a node that was typed is none, for a person.
pub(super) fn wrong_node(error: &NodeAtError) -> String {
    match error {
        NodeAtError::Name(_) => {
            format!("{error}; `Node.self()` in its iex shows it, and a kvnode's banner")
        }
        error => error.to_string(),
    }
}

/// A list of addresses for a person.
pub(super) fn listed(addresses: &[SocketAddr]) -> String {
    addresses.iter().map(SocketAddr::to_string).collect::<Vec<_>>().join(" and ")
}
