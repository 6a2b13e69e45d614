//! What a node says when it has started: everything that a caller needs.

use std::fmt::Write;
use std::path::PathBuf;

use super::server_name::shown;
use super::settings::Origin;
use crate::distribution::node_name::NameKind;
use crate::distribution::{NodeAt, NodeName};
use crate::program::{EtcdConfig, Started, StoreConfig};

/// Where the cookie came from. Never the cookie.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum CookieOrigin {
    /// It was typed, or stands among the settings.
    Given(Origin),
    /// It stands in a file.
    File {
        /// The file.
        path: PathBuf,
        /// Whether it was made just now.
        created: bool,
    },
}

/// The text, with a line end. `tls` has the flags by which an erl speaks TLS, where that is spoken.
pub(super) fn text(
    kind: NameKind,
    connect: &[NodeAt],
    etcd: Option<&EtcdConfig>,
    elect: Option<&EtcdConfig>,
    cookie: &CookieOrigin,
    tls: Option<&str>,
    started: &Started,
) -> String {
    let Started { node_name, listening, epmd, stores, http } = started;
    let version = env!("CARGO_PKG_VERSION");
    let mut rows = vec![
        ("node", format!("{node_name} (hidden)")),
        ("listens", listening.to_string()),
        (
            "epmd",
            match epmd {
                Some(epmd) => format!("{} ({})", epmd.address, epmd.starter),
                None => format!("none: all nodes at port {}", listening.port()),
            },
        ),
        ("cookie", cookie_text(cookie)),
    ];
    if let Some(etcd) = etcd {
        rows.push(("etcd", format!("{}, below {}", etcd.endpoints.join(", "), etcd.prefix)));
    }
    if let Some(etcd) = elect {
        rows.push(("elects", format!("the primary by {}, below {}", etcd.endpoints.join(", "), etcd.prefix)));
    }
    for (store, pid) in stores {
        let pid = pid.as_ref().map_or_else(|| "is not loaded yet".to_owned(), |pid| format!("{pid:?}"));
        rows.push(("store", format!("{} {pid}", names(store).join(" and "))));
    }
    if let Some(http) = http {
        rows.push(("page", format!("http://{http}/")));
    }
    for peer in connect {
        rows.push(("connects", format!("to {peer}")));
    }
    let mut text = format!("kvnode {version} is up\n\n");
    for (what, value) in rows {
        text_line(&mut text, format_args!("  {what:<9} {value}"));
    }
    text_line(&mut text, format_args!("\nCall it from Elixir:\n"));
    let without_epmd = epmd.is_none().then_some(listening.port());
    text_line(&mut text, format_args!("  $ {}", iex(kind, node_name, cookie, without_epmd, tls)));
    // A hidden node's global names are known to those that it is connected to, and to their clusters.
    let connect = format!("Node.ping({})", shown(node_name.as_str()));
    text_line(&mut text, format_args!("  iex> {connect}"));
    let server = stores.first().and_then(|(store, _)| server(store, node_name));
    if let Some(server) = server {
        text_line(&mut text, format_args!("  iex> GenServer.call({server}, {{:put, :nombre, \"Mafalda\"}})"));
        text_line(&mut text, format_args!("  iex> GenServer.call({server}, {{:get, :nombre}})"));
    }
    text
}

fn text_line(text: &mut String, line: std::fmt::Arguments<'_>) {
    // Writing to a String does not fail.
    let _ = writeln!(text, "{line}");
}

fn cookie_text(cookie: &CookieOrigin) -> String {
    match cookie {
        CookieOrigin::Given(origin) => format!("from {origin}"),
        CookieOrigin::File { path, created: false } => format!("from {}", path.display()),
        CookieOrigin::File { path, created: true } => {
            format!("from {}, made just now: the other nodes of the cluster need it too", path.display())
        }
    }
}

fn names(store: &StoreConfig) -> Vec<String> {
    let global = store.global.iter().map(|name| format!("{{:global, {}}}", shown(name)));
    global.chain(store.local.iter().map(|name| shown(name))).collect()
}

/// What a caller on another node calls the store by.
fn server(store: &StoreConfig, node: &NodeName) -> Option<String> {
    match (store.global.first(), store.local.first()) {
        (Some(name), _) => Some(format!("{{:global, {}}}", shown(name))),
        (None, Some(name)) => Some(format!("{{{}, {}}}", shown(name), shown(node.as_str()))),
        (None, None) => None,
    }
}

/// The command that starts an iex which this node talks to. Without epmd all nodes have one port: an iex on this machine cannot
/// listen at it too.
fn iex(
    kind: NameKind,
    node: &NodeName,
    cookie: &CookieOrigin,
    port_without_epmd: Option<u16>,
    tls: Option<&str>,
) -> String {
    let name = if node.name() == "master" { "iex" } else { "master" };
    let name = match kind {
        NameKind::Short => format!("--sname {name}"),
        NameKind::Long => format!("--name {name}@{}", node.host()),
    };
    let cookie = match cookie {
        CookieOrigin::Given(_) => " --cookie …",
        // The same user's iex reads the same file.
        CookieOrigin::File { .. } => "",
    };
    let port =
        port_without_epmd.map(|port| format!("-start_epmd false -erl_epmd_port {port} -dist_listen false"));
    let erl: Vec<&str> = port.as_deref().into_iter().chain(tls).collect();
    let erl = if erl.is_empty() { String::new() } else { format!(" --erl \"{}\"", erl.join(" ")) };
    format!("iex {name}{cookie}{erl}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::epmd::EpmdStart;
    use crate::epmd::start::EpmdStarter;
    use crate::etf::Pid;

    fn started(node: &str, stores: &[(&[&str], &[&str])]) -> Started {
        let owned = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        let pid = Pid { node: node.into(), id: 7, serial: 0, creation: 1 };
        Started {
            http: None,
            node_name: NodeName::new(node).unwrap(),
            listening: "[::]:40000".parse().unwrap(),
            epmd: Some(EpmdStart {
                address: "127.0.0.1:4369".parse().unwrap(),
                starter: EpmdStarter::Running,
            }),
            stores: stores
                .iter()
                .map(|(global, local)| {
                    (StoreConfig { global: owned(global), local: owned(local) }, Some(pid.clone()))
                })
                .collect(),
        }
    }

    #[test]
    fn a_banner_has_all_that_a_caller_needs() {
        let started = started("slave1@my-host", &[(&["slave1"], &["Elixir.KeyValueStore"]), (&[], &["two"])]);
        let peers = ["master@h".parse().unwrap(), "other@h:4370".parse().unwrap()];
        let text = text(
            NameKind::Short,
            &peers,
            Some(&EtcdConfig::new(["http://a:1", "http://b:2"])),
            Some(&EtcdConfig::new(["http://c:3"])),
            &CookieOrigin::Given(Origin::Flag("cookie".into())),
            None,
            &started,
        );
        for part in [
            "node      slave1@my-host (hidden)\n",
            "listens   [::]:40000\n",
            "epmd      127.0.0.1:4369 (was running)\n",
            "cookie    from --cookie\n",
            "etcd      http://a:1, http://b:2, below kvnode\n",
            "elects    the primary by http://c:3, below kvnode\n",
            "store     {:global, :slave1} and KeyValueStore #PID<",
            "store     :two #PID<",
            "connects  to master@h\n",
            "connects  to other@h:4370\n",
            "$ iex --sname master --cookie …\n",
            "iex> Node.ping(:\"slave1@my-host\")\n",
            "iex> GenServer.call({:global, :slave1}, {:put, :nombre, \"Mafalda\"})\n",
        ] {
            assert!(text.contains(part), "{part} is not in:\n{text}");
        }
    }

    #[test]
    fn a_store_that_waits_for_etcd_is_shown_so() {
        let mut started = started("a@10.0.0.1", &[(&["kv"], &[])]);
        started.stores[0].1 = None;
        let cookie = CookieOrigin::Given(Origin::Flag("cookie".into()));
        let text = text(NameKind::Long, &[], None, None, &cookie, None, &started);
        assert!(text.contains("store     {:global, :kv} is not loaded yet\n"), "{text}");
    }

    #[test]
    fn without_epmd_an_iex_of_this_machine_does_not_listen() {
        let started = Started { epmd: None, ..started("slave1@10.0.0.1", &[]) };
        let cookie = CookieOrigin::Given(Origin::Flag("cookie".into()));
        let text = text(NameKind::Long, &[], None, None, &cookie, Some("-proto_dist inet_tls"), &started);
        for part in [
            "epmd      none: all nodes at port 40000\n",
            "--erl \"-start_epmd false -erl_epmd_port 40000 -dist_listen false -proto_dist inet_tls\"\n",
        ] {
            assert!(text.contains(part), "{part} is not in:\n{text}");
        }
    }

    #[test]
    fn a_store_with_a_local_name_is_called_at_its_node() {
        let started = started("master@10.0.0.1", &[(&[], &["Elixir.KeyValueStore"])]);
        let cookie = CookieOrigin::File { path: "/home/u/.erlang.cookie".into(), created: true };
        let text = text(NameKind::Long, &[], None, None, &cookie, Some("-proto_dist inet_tls"), &started);
        for part in [
            "cookie    from /home/u/.erlang.cookie, made just now",
            "$ iex --name iex@10.0.0.1 --erl \"-proto_dist inet_tls\"\n",
            "iex> GenServer.call({KeyValueStore, :\"master@10.0.0.1\"}, {:get, :nombre})\n",
        ] {
            assert!(text.contains(part), "{part} is not in:\n{text}");
        }
    }
}
