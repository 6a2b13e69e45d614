defmodule KvPeers.MixProject do
  use Mix.Project

  def project do
    [
      app: :kv_peers,
      version: "0.1.0",
      elixir: "~> 1.10",
      description: "The Elixir side of kvnode's tests and demo: three small key-value servers",
      deps: []
    ]
  end

  def application, do: [extra_applications: [:logger]]
end
