//! Names of nodes.

use std::fmt;
use std::sync::Arc;

/// The full name of a node, `name@host`. Cheap to clone.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NodeName(Arc<str>);

impl NodeName {
    /// Takes `name@host`.
    ///
    /// # Errors
    /// What a node would refuse the name for.
    pub fn new(full: &str) -> Result<Self, NodeNameError> {
        match full.split_once('@') {
            Some((name, host)) if !name.is_empty() && !host.is_empty() => Ok(Self(full.into())),
            _ => Err(NodeNameError::Form),
        }
    }

    /// The whole name.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// What stands before the `@`.
    pub fn name(&self) -> &str {
        self.0.split_once('@').map_or("", |(name, _)| name)
    }

    /// What stands after the `@`.
    pub fn host(&self) -> &str {
        self.0.split_once('@').map_or("", |(_, host)| host)
    }

    /// The text, shared.
    pub fn shared(&self) -> Arc<str> {
        Arc::clone(&self.0)
    }
}

impl fmt::Display for NodeName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for NodeName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Why a name is not one of a node.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum NodeNameError {
    /// Not of the form `name@host`.
    Form,
}

impl fmt::Display for NodeNameError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Form => f.write_str("a node's name is written name@host"),
        }
    }
}

impl std::error::Error for NodeNameError {}
