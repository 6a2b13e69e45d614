//! `kvnode top`: a live screen of a kvnode.
//!
//! It asks the process `:kvnode` of the node for `:status` every second. A BEAM has no such process, so asking one ends at
//! once and does no harm there.

mod screen;
mod view;

use std::io::{self, IsTerminal};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use async_signal::{Signal, Signals};
use clap::Args;
use ratatui::crossterm::event::{self, Event, KeyCode, KeyEventKind, KeyModifiers};
use smol::Timer;
use smol::channel::{Receiver, Sender};
use smol::future::FutureExt;
use smol::stream::StreamExt;

use super::ask::{AskArgs, Session};
use super::{CliError, print};
use crate::CallError;
use crate::config::ServerName;
use crate::etf::from_term;
use crate::program::{STATUS_NAME, Snapshot};
use view::View;

/// From one question to the next.
const INTERVAL: Duration = Duration::from_secs(1);
/// How long a key may wait to be noticed once the screen is left.
const KEY_WAIT: Duration = Duration::from_millis(100);

#[derive(Args)]
#[command(before_help = "\
EXAMPLES
  $ kvnode top
  $ kvnode top --node slave1@myhost
  $ kvnode top --json                      one look, for scripts

q, Esc or Ctrl-C ends it. It asks a kvnode once a second; a BEAM has none of these figures.")]
pub(super) struct TopArgs {
    #[command(flatten)]
    ask: AskArgs,
}

pub(super) fn main(args: TopArgs) -> Result<(), CliError> {
    if args.ask.json {
        let snapshot = args.ask.with_session(async |session: &Session| status(session).await)?;
        let text = serde_json::to_string(&snapshot).map_err(CliError::cannot_run)?;
        return print(&format!("{text}\n"));
    }
    if !io::stdout().is_terminal() || !io::stdin().is_terminal() {
        return Err(CliError::usage(
            "top draws on a terminal, and this is none; `kvnode top --json` prints one look",
        ));
    }
    args.ask.with_lasting_session(async |session: &Session| {
        // Before the screen is taken: what fails at once is told as for every other command.
        let first = status(session).await?;
        let mut screen = Screen::take()?;
        live(session, View::new(first), &mut screen).await
    })
}

/// What the node says of itself.
async fn status(session: &Session) -> Result<Snapshot, CliError> {
    let to = ServerName::Local(STATUS_NAME.into());
    let called =
        session.node.client().call(&session.server(&to), |w| _ = w.atom("status"), session.time).await;
    let answer = called.map_err(|error| match error {
        CallError::NoProcess => CliError::NoProcess(format!(
            "{} has no process :{STATUS_NAME}: it is a BEAM, or a kvnode of an older version, and has no figures to show",
            session.connected.name
        )),
        error => session.failed(&to, &error),
    })?;
    from_term(answer.view()).map_err(|error| {
        CliError::Failed(format!("{} says of itself what cannot be read: {error}", session.connected.name))
    })
}

/// The terminal, taken; given back however this ends.
struct Screen {
    terminal: ratatui::DefaultTerminal,
}

impl Screen {
    fn take() -> Result<Self, CliError> {
        // With a hook that gives the terminal back before a panic is told.
        let terminal = ratatui::try_init();
        Ok(Self {
            terminal: terminal.map_err(|error| {
                ratatui::restore();
                CliError::cannot_run(format!("the terminal cannot be drawn on: {error}"))
            })?,
        })
    }

    fn draw(&mut self, view: &View) -> Result<(), CliError> {
        let drawn = self.terminal.draw(|frame| screen::draw(frame, view));
        drawn
            .map(|_| ())
            .map_err(|error| CliError::cannot_run(format!("the terminal cannot be drawn on: {error}")))
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        ratatui::restore();
    }
}

/// What happens while the screen is shown.
enum Happening {
    Quit,
    /// The terminal has another size.
    Resized,
    Said(Box<Result<Snapshot, CliError>>),
}

async fn live(session: &Session, mut view: View, screen: &mut Screen) -> Result<(), CliError> {
    let mut signals = Signals::new([Signal::Term, Signal::Int, Signal::Hup]).map_err(CliError::cannot_run)?;
    let keys = Keys::read()?;
    loop {
        screen.draw(&view)?;
        let asked = async {
            Timer::after(INTERVAL).await;
            Happening::Said(Box::new(status(session).await))
        };
        let mut asked = std::pin::pin!(asked);
        // A key or a new size must not put the next question off.
        loop {
            let told = async {
                signals.next().await;
                Happening::Quit
            };
            let key = async { keys.events.recv().await.unwrap_or(Happening::Quit) };
            match key.or(told).or(&mut asked).await {
                Happening::Quit => return Ok(()),
                Happening::Resized => screen.draw(&view)?,
                Happening::Said(said) => {
                    match *said {
                        Ok(snapshot) => view.look(snapshot),
                        Err(error) => view.fail(&error.to_string()),
                    }
                    break;
                }
            }
        }
    }
}

/// A thread that waits for keys, as a terminal cannot be waited for otherwise. It ends with this.
struct Keys {
    events: Receiver<Happening>,
    wanted: Arc<AtomicBool>,
}

impl Keys {
    fn read() -> Result<Self, CliError> {
        let (tell, events) = smol::channel::unbounded();
        let wanted = Arc::new(AtomicBool::new(true));
        let still = Arc::clone(&wanted);
        let reader = thread::Builder::new().name("kvnode-keys".into());
        reader.spawn(move || read_keys(&tell, &still)).map_err(CliError::cannot_run)?;
        Ok(Self { events, wanted })
    }
}

impl Drop for Keys {
    fn drop(&mut self) {
        self.wanted.store(false, Ordering::Relaxed);
    }
}

/// Without a terminal any more the channel ends, and that ends the screen.
fn read_keys(tell: &Sender<Happening>, wanted: &AtomicBool) {
    while wanted.load(Ordering::Relaxed) {
        let event = match event::poll(KEY_WAIT) {
            Ok(false) => continue,
            Ok(true) => event::read(),
            Err(error) => Err(error),
        };
        let happening = match event {
            Ok(Event::Key(key)) if key.kind == KeyEventKind::Press => match key.code {
                KeyCode::Char('q' | 'Q') | KeyCode::Esc => Happening::Quit,
                KeyCode::Char('c' | 'd') if key.modifiers.contains(KeyModifiers::CONTROL) => Happening::Quit,
                _ => continue,
            },
            Ok(Event::Resize(..)) => Happening::Resized,
            Ok(_) => continue,
            Err(_) => return,
        };
        if tell.try_send(happening).is_err() {
            return;
        }
    }
}
