//! The Erlang Port Mapper Daemon (erl_dist_protocol, "EPMD Protocol"): client and daemon.
