//! The walk-through keeps its word: its cells, run one after the other in a plain Elixir, give what stands under them.

#![cfg(feature = "program")]

mod support;

use std::fmt::Write;
use std::path::{Path, PathBuf};
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

/// Evaluates the cells one after the other, with the bindings of those before, and stops at the first that gives
/// something else. `before` comes first: what the node is to be.
fn script(folder: &Path, before: &str) -> PathBuf {
    let cells = cells();
    assert!(cells.len() > 10, "{}", cells.len());
    let notebook = concat!(env!("CARGO_MANIFEST_DIR"), "/scripts/kvnode.livemd");
    let mut script = format!("{before}\nbinding = []\n");
    for (number, (code, wanted)) in cells.iter().enumerate() {
        let file = folder.join(format!("{number}.exs"));
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
    let path = folder.join("all.exs");
    std::fs::write(&path, script).expect("it is ours");
    path
}

/// Runs it with these arguments of `elixir`, without the settings of this machine.
fn run(epmd: &Epmd, home: &Path, args: &[&str], script: &Path) {
    let mut elixir = Command::new("elixir");
    elixir.args(args).arg(script).env("HOME", home).env("KVNODE", program()).stdin(Stdio::null());
    elixir
        .env("ERL_EPMD_PORT", epmd.port().to_string())
        .env_remove("XDG_CONFIG_HOME")
        .env("LC_ALL", "C.UTF-8");
    let output = elixir.output().expect("Elixir is installed");
    let (stdout, stderr) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success() && stdout.ends_with("all of them\n"), "{stdout}\n{stderr}");
}

#[test]
fn the_cells_of_the_walk_through_give_what_stands_under_them() {
    let epmd = Epmd::start();
    let home = tempfile::tempdir().expect("a folder can be made");
    run(&epmd, home.path(), &[], &script(home.path(), ""));
}

/// What Livebook (0.14 to 0.18) does before the first cell of its standalone runtime: the distribution is started by code,
/// with a name of the moment and long names, by an epmd module of its own that asks the daemon only where it has to. The
/// node is hidden, and has Livebook's cookie.
const LIVEBOOK: &str = r#"
defmodule LikeLivebook.Epmd do
  def register_node(name, port), do: register_node(name, port, :inet)

  def register_node(name, port, family) do
    case :erl_epmd.register_node(name, port, family) do
      {:ok, creation} -> {:ok, creation}
      _not_running -> {:ok, -1}
    end
  end

  def port_please(name, host), do: port_please(name, host, :infinity)
  defdelegate port_please(name, host, timeout), to: :erl_epmd
  defdelegate start_link(), to: :erl_epmd
  defdelegate address_please(name, host, family), to: :erl_epmd
  defdelegate listen_port_please(name, host), to: :erl_epmd
  defdelegate names(host), to: :erl_epmd
end

random = fn -> Base.encode32(:crypto.strong_rand_bytes(5), case: :lower) end
name = String.to_atom("livebook_#{random.()}--#{random.()}@127.0.0.1")
{:ok, _} = :net_kernel.start(name, %{name_domain: :longnames})
"#;

#[test]
fn the_cells_give_the_same_in_a_runtime_of_livebook() {
    // The first with an epmd on the machine; the second without one, as Livebook starts none.
    for epmd in [Epmd::start(), Epmd::absent()] {
        let home = tempfile::tempdir().expect("a folder can be made");
        let flags = "+sbwt none +sbwtdcpu none +sbwtdio none +sssdio 128 -elixir ansi_enabled true -noinput \
                     -epmd_module Elixir.LikeLivebook.Epmd";
        let args = ["--erl", flags, "--hidden", "--cookie", "c_of_livebook"];
        run(&epmd, home.path(), &args, &script(home.path(), LIVEBOOK));
    }
}
