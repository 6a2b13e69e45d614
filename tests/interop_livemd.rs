//! The walk-through keeps its word: its cells, run one after the other in a plain Elixir, give what stands under them.

mod support;

use std::fmt::Write;
use std::process::{Command, Stdio};

use support::Epmd;
use support::kvnode::program;

const NOTEBOOK: &str = include_str!("../scripts/kvnode.livemd");
/// What Livebook writes before the output of the cell above.
const OUTPUT: &str = "<!-- livebook:{\"output\":true} -->";

/// The cells, each with what it gives.
fn cells() -> Vec<(&'static str, &'static str)> {
    NOTEBOOK
        .split("```elixir\n")
        .skip(1)
        .map(|rest| {
            let (code, behind) = rest.split_once("\n```\n").expect("a cell ends");
            let behind = behind.trim_start().strip_prefix(OUTPUT).expect("each cell has its output");
            let output =
                behind.trim_start().strip_prefix("```\n").and_then(|text| text.split("\n```").next());
            (code, output.expect("an output in a block").trim())
        })
        .collect()
}

#[test]
fn the_cells_of_the_walk_through_give_what_stands_under_them() {
    let cells = cells();
    assert!(cells.len() > 10, "{}", cells.len());
    let epmd = Epmd::start();
    let home = tempfile::tempdir().expect("a folder can be made");
    let notebook = concat!(env!("CARGO_MANIFEST_DIR"), "/scripts/kvnode.livemd");
    let mut script = String::from("binding = []\n");
    for (number, (code, wanted)) in cells.iter().enumerate() {
        let file = home.path().join(format!("{number}.exs"));
        std::fs::write(&file, code).expect("it is ours");
        write!(
            script,
            "{{value, binding}} = Code.eval_string(File.read!({file:?}), binding, file: {notebook:?})\n\
             {{wanted, _}} = Code.eval_string({wanted:?})\n\
             unless value === wanted, do: raise(\"cell {number} gives \" <> inspect(value))\n\
             IO.puts(\"cell {number} is right\")\n"
        )
        .expect("a String takes all");
    }
    // What the last cell has bound is not used.
    script.push_str("_ = binding\nIO.puts(\"all of them\")\n");
    let path = home.path().join("all.exs");
    std::fs::write(&path, script).expect("it is ours");
    let mut elixir = Command::new("elixir");
    elixir.arg(&path).env("HOME", home.path()).env("KVNODE", program()).stdin(Stdio::null());
    elixir
        .env("ERL_EPMD_PORT", epmd.port().to_string())
        .env_remove("XDG_CONFIG_HOME")
        .env("LC_ALL", "C.UTF-8");
    let output = elixir.output().expect("Elixir is installed");
    let (stdout, stderr) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success() && stdout.ends_with("all of them\n"), "{stdout}\n{stderr}");
}
