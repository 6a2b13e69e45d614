//! The README keeps its word: its first command starts a node, and its lines give what stands behind them.

#![cfg(feature = "program")]

mod support;

use support::{BeamNode, Epmd, KvNode, on_every_otp, short_hostname};

const README: &str = include_str!("../README.md");

#[test]
fn the_lines_of_the_readme_give_what_stands_behind_them() {
    let command =
        README.lines().find_map(|line| line.trim().strip_prefix("cargo run --release -- ")).expect("it");
    let command = command.replace("$(hostname -s)", &short_hostname());
    let args = command.strip_prefix("--sname slave1 ").expect("the README's node is called slave1");
    let block =
        README.split("```elixir\n").nth(1).and_then(|rest| rest.split("```").next()).expect("a block");
    let lines: Vec<(&str, &str)> = block.lines().filter_map(|line| line.rsplit_once(" # ")).collect();
    assert!(
        lines.len() > 10 && lines.len() == block.lines().count(),
        "each line says what it gives:\n{block}"
    );
    on_every_otp(|otp| {
        let epmd = Epmd::start();
        let _kv = KvNode::start(&epmd, "slave1", args);
        let iex = BeamNode::start(otp, &epmd, support::BeamOptions::new("master").cookie("secret"));
        for (code, value) in &lines {
            iex.check(code, value);
        }
    });
}
