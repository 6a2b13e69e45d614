//! The name of this host, as `erl` finds it (kernel, `inet_config.erl` and `net_kernel.erl`, create_hostpart).

use std::path::{Path, PathBuf};

use crate::distribution::node_name::NameKind;

/// What the system says of this host's name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Host {
    nodename: String,
    resolv_conf: String,
    hosts: String,
}

impl Host {
    /// Asks the system: uname(2), and the files of the resolver in `/etc` (or in `ERL_INET_ETC_DIR`, as `erl` does).
    pub fn of_system() -> Self {
        let etc = std::env::var_os("ERL_INET_ETC_DIR").map_or_else(|| PathBuf::from("/etc"), PathBuf::from);
        // A file that is not there or not readable says nothing; `erl` goes on too.
        let text = |folder: &Path, name| std::fs::read(folder.join(name)).unwrap_or_default();
        Self {
            nodename: rustix::system::uname().nodename().to_string_lossy().into_owned(),
            resolv_conf: String::from_utf8_lossy(&text(&etc, "resolv.conf")).into_owned(),
            // Found by `erl` through the system's resolver, which does not know of that variable.
            hosts: String::from_utf8_lossy(&text(Path::new("/etc"), "hosts")).into_owned(),
        }
    }

    /// The host part of a node's name that was typed without one.
    ///
    /// # Errors
    /// This host has no name of that kind; for the user to mend, or to type the host.
    pub fn name(&self, kind: NameKind) -> Result<String, HostError> {
        let (short, own_domain) = match self.nodename.split_once('.') {
            Some((short, domain)) => (short, Some(domain)),
            None => (self.nodename.as_str(), None),
        };
        // inet_config, set_hostname: without any name there is still one to run with.
        let short = if short.is_empty() { "nohost" } else { short };
        if kind == NameKind::Short {
            return Ok(short.to_owned());
        }
        // The resolver's `domain` line replaces what the host's own name says; `search` lines are not looked at.
        // Where both say nothing, the first of this host's names in the hosts file may have a domain.
        let domain = domain_line(&self.resolv_conf)
            .or(own_domain)
            .or_else(|| canonical(&self.hosts, &self.nodename)?.split_once('.').map(|(_, domain)| domain))
            .filter(|domain| !domain.is_empty());
        match domain {
            Some(domain) => Ok(format!("{short}.{domain}")),
            None => Err(HostError::NoDomain { host: short.to_owned() }),
        }
    }

    /// Whether this host is called so, by its short name or by one with a domain.
    pub fn is_called(&self, name: &str) -> bool {
        let is = |own: &str| own.eq_ignore_ascii_case(name);
        (!name.is_empty() && is(&self.nodename))
            || [NameKind::Short, NameKind::Long].iter().any(|&kind| self.name(kind).is_ok_and(|own| is(&own)))
    }
}

/// inet_parse, resolv: a line of exactly two words, the first being `domain`; the last such line counts.
fn domain_line(resolv_conf: &str) -> Option<&str> {
    resolv_conf
        .lines()
        .filter_map(|line| {
            let mut words = line.split(['#', ';']).next()?.split_whitespace();
            match (words.next(), words.next(), words.next()) {
                (Some("domain"), Some(domain), None) => Some(domain),
                _ => None,
            }
        })
        .next_back()
}

/// The first name of the line of hosts(5) that has the given one.
fn canonical<'a>(hosts: &'a str, name: &str) -> Option<&'a str> {
    hosts.lines().find_map(|line| {
        let mut names = line.split('#').next()?.split_whitespace().skip(1).peekable();
        let first = *names.peek()?;
        names.any(|other| other.eq_ignore_ascii_case(name)).then_some(first)
    })
}

/// Why this host has no name of the wanted kind.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum HostError {
    /// No domain is known.
    #[error(
        "can't set a long node name: this host is called \"{host}\" and no domain is set, neither in its name, nor in \
         resolv.conf, nor in /etc/hosts; write the host too, as in --name NAME@{host}.example.org or \
         --name NAME@127.0.0.1, or use --sname"
    )]
    NoDomain {
        /// The short name.
        host: String,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(nodename: &str, resolv_conf: &str, hosts: &str) -> Host {
        Host { nodename: nodename.into(), resolv_conf: resolv_conf.into(), hosts: hosts.into() }
    }

    #[test]
    fn a_short_name_ends_at_the_first_dot() {
        assert_eq!(host("vm", "", "").name(NameKind::Short).unwrap(), "vm");
        assert_eq!(host("vm.example.org", "", "").name(NameKind::Short).unwrap(), "vm");
        assert_eq!(host("", "", "").name(NameKind::Short).unwrap(), "nohost");
    }

    // Tried with `erl -name a` of OTP 25 and ERL_INET_ETC_DIR: `domain` counts, `search` does not.
    #[test]
    fn a_long_name_has_the_domain_that_erl_finds() {
        let long = |nodename, resolv_conf, hosts| host(nodename, resolv_conf, hosts).name(NameKind::Long);
        assert_eq!(long("vm.example.org", "", "").unwrap(), "vm.example.org");
        assert_eq!(long("vm", "# c\nnameserver 1.1.1.1\ndomain a.b\n", "").unwrap(), "vm.a.b");
        assert_eq!(long("vm.x.y", "domain a.b\nsearch c.d\n", "").unwrap(), "vm.a.b");
        assert_eq!(long("vm", "", "127.0.1.1 vm.home.lan vm # me\n").unwrap(), "vm.home.lan");
        let none = Err(HostError::NoDomain { host: "vm".into() });
        assert_eq!(long("vm", "search a.b c.d\n", "127.0.0.1 vm\n"), none);
        assert_eq!(long("vm", "domain\n", "127.0.0.1 localhost.lan vm2\n"), none);
    }

    #[test]
    fn a_host_knows_its_own_names() {
        let vm = host("vm", "domain a.b\n", "");
        assert!(vm.is_called("vm") && vm.is_called("VM") && vm.is_called("vm.a.b"));
        assert!(
            !vm.is_called("vm.c.d")
                && !vm.is_called("vm2")
                && !vm.is_called("")
                && !vm.is_called("localhost")
        );
        let long = host("vm.x.y", "", "");
        assert!(long.is_called("vm") && long.is_called("vm.x.y") && !long.is_called("vm.x"));
        assert!(host("", "", "").is_called("nohost"));
    }

    #[test]
    fn the_system_has_a_short_name() {
        let name = Host::of_system().name(NameKind::Short).unwrap();
        assert!(!name.is_empty() && !name.contains('.'));
    }
}
