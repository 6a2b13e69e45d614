//! Your tokio library as a GenServer: a client that is written for tokio is asked from Elixir.

use std::time::Duration;

use kvnode::{Context, Never, Node, ReplyTo, Server};
use serde::Deserialize;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;

/// It stands for the client of your library, which sends a request over tokio's sockets and waits by tokio's timers.
#[derive(Clone)]
struct LineClient {
    timeout: Duration,
}

impl LineClient {
    async fn ask(&self, address: &str, line: &str) -> std::io::Result<String> {
        let asked = async {
            let mut stream = BufReader::new(TcpStream::connect(address).await?);
            stream.write_all(format!("{line}\n").as_bytes()).await?;
            let mut answer = String::new();
            stream.read_line(&mut answer).await?;
            Ok(answer.trim_end().to_owned())
        };
        tokio::time::timeout(self.timeout, asked).await?
    }
}

struct Lines(LineClient);

#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
enum Call {
    Ask(String, String), // {:ask, "host:port", "text"}
}

impl Server for Lines {
    type Call = Call;
    type Cast = Never;
    type Info = Never;

    async fn handle_call(&mut self, Call::Ask(address, line): Call, from: ReplyTo, _cx: &mut Context<Self>) {
        let client = self.0.clone();
        // In a task of its own, so that no call waits for the answer to another. (A handler may await the client itself.)
        tokio::spawn(async move {
            let answer = client.ask(&address, &line).await.map_err(|error| error.to_string());
            _ = from.reply_in_turn(&answer).await; // {:ok, "text"} or {:error, "why"}
        });
    }
}

/// Runs the node until it ends.
pub fn main() -> Result<(), Box<dyn std::error::Error>> {
    let runtime = tokio::runtime::Runtime::new()?;
    let node = Node::builder("lines").tokio(runtime.handle().clone()).start()?;
    node.serve(Lines(LineClient { timeout: Duration::from_secs(3) })).register_global("lines")?;
    node.wait();
    Ok(())
}
