//! The screen: drawn anew from a [`View`], for 80 columns and 24 lines and for more.

use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Block, Borders, Paragraph, RenderDirection, Sparkline};

use super::super::size::short as bytes;
use super::view::View;
use crate::node::ServerSnapshot;
use crate::program::shown::{self, Mood};
use crate::program::snapshot::{EtcdSnapshot, PrimarySnapshot, ReasonKind, SlaveSnapshot, StoreSnapshot};
use crate::replica::{PrimaryStanding, StandingKind};

/// Lines of the plots, frames included.
const PLOT_LINES: u16 = 6;
/// Columns of a slave's bar.
const BAR_COLUMNS: usize = 12;
/// A slave with so many writes to acknowledge has an empty bar.
const LAG_EMPTY: f64 = 10_000.0;

/// Draws everything.
pub(super) fn draw(frame: &mut Frame<'_>, view: &View) {
    let stores: Vec<Line<'_>> = stores(view);
    let peers: Vec<Line<'_>> = peers(view);
    let warnings = (frame.area().height / 6).clamp(2, 10).min(view.now.log.len() as u16);
    // Stores first, then a few nodes, then warnings; what is left is the nodes'.
    let rest = frame.area().height.saturating_sub(2 + PLOT_LINES);
    let stores_lines = (stores.len() as u16).saturating_add(2).min(rest.saturating_sub(4));
    let left = rest - stores_lines;
    let log_lines = (warnings + 1).min(left.saturating_sub((peers.len() as u16).saturating_add(2).min(5)));
    let [head, plots, stores_area, peers_area, log, foot] = Layout::vertical([
        Constraint::Length(1),
        Constraint::Length(PLOT_LINES),
        Constraint::Length(stores_lines),
        Constraint::Length(left - log_lines),
        Constraint::Length(log_lines),
        Constraint::Length(1),
    ])
    .areas(frame.area());
    frame.render_widget(header(view), head);
    let [rates, times] = Layout::horizontal([Constraint::Fill(1), Constraint::Fill(1)]).areas(plots);
    let rate = view.rates.back().copied().unwrap_or_default();
    let title = format!(" requests/s {} ", short(rate as f64));
    plot(frame, rates, title, view.rates.iter().copied().collect(), style(Color::Cyan));
    let slowest = view.slowest.back().copied().filter(|nanos| *nanos > 0);
    let title = format!(
        " answers: half {}, 99% {} ",
        view.median_nanos.map_or_else(|| "–".into(), time),
        slowest.map_or_else(|| "–".into(), |nanos| time(nanos as f64))
    );
    plot(frame, times, title, view.slowest.iter().copied().collect(), style(Color::Magenta));
    frame.render_widget(Paragraph::new(stores).block(framed(" stores ")), stores_area);
    frame.render_widget(Paragraph::new(peers).block(framed(" nodes ")), peers_area);
    let lines: Vec<Line<'_>> = view.now.log.iter().rev().take(warnings.into()).map(warning).collect();
    frame.render_widget(
        Paragraph::new(lines).block(Block::new().borders(Borders::TOP).title(" last warnings ")),
        log,
    );
    let foot_line = match &view.problem {
        Some(why) => Line::styled(format!(" no answer: {}", why.replace('\n', " ")), style(Color::Red)),
        None => Line::styled(" q quits", style(Color::DarkGray)),
    };
    frame.render_widget(foot_line, foot);
}

/// A colour, unless the user wants none (no-color.org).
fn style(colour: Color) -> Style {
    let plain = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    if plain { Style::new() } else { Style::new().fg(colour) }
}

fn framed(title: &str) -> Block<'_> {
    Block::bordered().border_style(style(Color::DarkGray)).title(title)
}

fn header(view: &View) -> Line<'_> {
    let now = &view.now;
    let (word, colour) = if view.problem.is_some() {
        ("no answer", Color::Red)
    } else if now.ready {
        ("ready", Color::Green)
    } else {
        ("not ready", Color::Red)
    };
    let memory = now.resident_bytes.map_or_else(String::new, |len| format!("  memory {}", bytes(len)));
    Line::from(vec![
        Span::styled(
            format!(" {} ", now.node),
            Style::new().add_modifier(Modifier::BOLD | Modifier::REVERSED),
        ),
        Span::raw(" "),
        Span::styled(word, style(colour)),
        Span::raw(format!("  up {}{memory}  kvnode {}", span(now.uptime_secs), now.version)),
    ])
}

/// Newest at the right edge.
fn plot(frame: &mut Frame<'_>, area: Rect, title: String, looks: Vec<u64>, colour: Style) {
    let newest_first: Vec<u64> = looks.into_iter().rev().collect();
    let plot = Sparkline::default()
        .block(Block::bordered().border_style(style(Color::DarkGray)).title(title))
        .direction(RenderDirection::RightToLeft)
        .style(colour)
        .data(newest_first);
    frame.render_widget(plot, area);
}

fn stores(view: &View) -> Vec<Line<'_>> {
    let mut lines = vec![Line::styled(
        format!(
            "{:<26}{:>9}{:>10}{:>8}{:>8}{:>8}  {}",
            "store", "keys", "size", "get/s", "put/s", "repl/s", "role"
        ),
        style(Color::DarkGray),
    )];
    for (number, store) in view.now.stores.iter().enumerate() {
        let rate = |counter: fn(&StoreSnapshot) -> u64| short(view.store_rate(number, counter));
        let (role, colour) = match store {
            StoreSnapshot { up: false, etcd: Some(_), .. } => ("loading", Color::Yellow),
            StoreSnapshot { up: false, .. } => ("down", Color::Red),
            StoreSnapshot { primary: Some(_), primary_standing, .. } => (
                "slave",
                primary_standing.as_ref().map_or(Color::Green, |standing| standing_text(standing).0),
            ),
            StoreSnapshot { election: Some(of), .. } if of.state != "primary" => ("no primary", Color::Red),
            StoreSnapshot { election: Some(_), .. } => ("primary", Color::Green),
            StoreSnapshot { slaves, .. } if !slaves.is_empty() => ("primary", Color::Green),
            _ => ("serving", Color::Green),
        };
        lines.push(Line::from(vec![
            Span::raw(format!(
                "{:<26}{:>9}{:>10}{:>8}{:>8}{:>8}  ",
                cut(store.names.first().map_or("", String::as_str), 25),
                short(store.entries as f64),
                bytes(store.bytes),
                rate(|store| store.requests.get),
                rate(|store| store.requests.put),
                rate(|store| store.requests.replicated),
            )),
            Span::styled(role, style(colour)),
        ]));
        if let (Some(node), Some(standing)) = (&store.primary, &store.primary_standing) {
            let (colour, text) = standing_text(standing);
            lines.push(Line::from(vec![
                Span::raw(format!("  ← {:<38} ", cut(node, 38))),
                Span::styled(text, style(colour)),
            ]));
        }
        if let Some(etcd) = &store.etcd {
            lines.extend(etcd_lines(etcd));
        }
        if let Some(election) = &store.election {
            lines.push(remark(shown::election(election)));
        }
        if store.watches.watchers > 0 {
            lines.push(Line::raw(format!(
                "  {}, {} events/s, {}",
                counted(store.watches.watchers, ["watch", "watches"]),
                rate(|store| store.watches.events),
                counted(store.watches.overruns, ["overrun", "overruns"]),
            )));
        }
        let expired = rate(|store| store.expired);
        if store.deadlines > 0 || store.expired > 0 {
            let keys = counted(store.deadlines, ["key", "keys"]);
            lines.push(Line::raw(format!("  {keys} with a deadline, {expired} expired/s")));
        }
        lines.extend(not_done(view, number, store));
        lines.extend(store.slaves.iter().map(slave));
    }
    lines.extend(servers(view));
    lines
}

/// Servers of a program that has more than stores on its node.
fn servers(view: &View) -> Vec<Line<'_>> {
    let mut lines = Vec::new();
    for server in view.now.servers_beside() {
        if lines.is_empty() {
            let heads = ["calls/s", "casts/s", "infos/s", "waits", "99%", "restarts"];
            let [calls, casts, infos, waits, slowest, restarts] = heads;
            let text =
                format!("{:<24}{calls:>9}{casts:>9}{infos:>9}{waits:>8}{slowest:>9}{restarts:>10}", "server");
            lines.push(Line::styled(text, style(Color::DarkGray)));
        }
        let rate = |counter: fn(&ServerSnapshot) -> u64| short(view.server_rate(server, counter));
        let slowest = view.server_quantile(server, 0.99).map_or_else(|| "–".into(), time);
        lines.push(Line::raw(format!(
            "{:<24}{:>9}{:>9}{:>9}{:>8}{slowest:>9}{:>10}",
            cut(&server.name, 23),
            rate(|server| server.calls),
            rate(|server| server.casts),
            rate(|server| server.infos),
            short(server.waiting_messages as f64),
            short(server.restarts as f64),
        )));
    }
    lines
}

fn counted(count: u64, nouns: [&str; 2]) -> String {
    shown::counted(count, nouns, |count| short(count as f64))
}

/// Requests of a store that were not done, where there were any: of each kind the rate, and how many for which reason.
fn not_done(view: &View, number: usize, store: &StoreSnapshot) -> Vec<Line<'static>> {
    let mut lines = Vec::new();
    for (kind, words) in shown::NOT_DONE {
        let of_kind = store.not_done.iter().filter(|not_done| not_done.kind == kind.code());
        let reasons: Vec<String> =
            of_kind.map(|of| format!("{} {}", of.reason, short(of.count as f64))).collect();
        if reasons.is_empty() {
            continue;
        }
        let rate = view.store_rate(number, |store| store.not_done_of(kind));
        // What fails now is somebody's to look at.
        let is_bad = kind == ReasonKind::Failed && rate > 0.0;
        let shown = if is_bad { style(Color::Red) } else { Style::new() };
        let text = format!("  {words} {}/s: {}", short(rate), reasons.join(", "));
        lines.push(Line::styled(cut(&text, 78), shown));
    }
    lines
}

/// How a store stands with its primary, in a colour.
fn standing_text(standing: &PrimarySnapshot) -> (Color, String) {
    let lag = Some(standing.lag.unwrap_or_default());
    match PrimaryStanding::of_code(&standing.state).map(shown::primary) {
        Some(shown) => (colour(shown.mood(lag)), shown.text(lag, |lag| short(lag as f64))),
        // Of a newer node.
        None => (Color::Red, standing.state.clone()),
    }
}

fn etcd_lines(etcd: &EtcdSnapshot) -> Vec<Line<'static>> {
    shown::etcd(etcd, |number| short(number as f64), bytes).into_iter().map(remark).collect()
}

fn remark((mood, text): (Mood, String)) -> Line<'static> {
    Line::styled(cut(&format!("  {text}"), 78), style(colour(mood)))
}

const fn colour(mood: Mood) -> Color {
    match mood {
        Mood::Good => Color::Green,
        Mood::Warn => Color::Yellow,
        Mood::Bad => Color::Red,
    }
}

fn slave(slave: &SlaveSnapshot) -> Line<'_> {
    let lag = slave.lag;
    let state = StandingKind::of_code(&slave.state);
    let (colour, text) = match state.map(shown::slave) {
        Some(shown) => (colour(shown.mood(lag)), shown.text(lag, |lag| short(lag as f64))),
        // Of a newer node.
        None => (Color::Red, slave.state.clone()),
    };
    let to_come = lag.unwrap_or_default() as f64;
    let part = match (state, slave.total) {
        (Some(StandingKind::InStep), _) => 1.0 - (to_come / LAG_EMPTY).min(1.0),
        (Some(StandingKind::Copying), Some(total)) => 1.0 - to_come / (total as f64).max(1.0),
        _ => 0.0,
    };
    let full = ((part.clamp(0.0, 1.0) * BAR_COLUMNS as f64).round() as usize).min(BAR_COLUMNS);
    let name =
        slave.node.as_ref().map_or_else(|| slave.name.clone(), |node| format!("{} at {node}", slave.name));
    Line::from(vec![
        Span::raw(format!("  → {:<38} ", cut(&name, 38))),
        Span::styled("█".repeat(full), style(colour)),
        Span::styled("░".repeat(BAR_COLUMNS - full), style(Color::DarkGray)),
        Span::styled(format!(" {text}"), style(colour)),
    ])
}

fn peers(view: &View) -> Vec<Line<'_>> {
    let mut lines = vec![Line::styled(
        format!("{:<29}{:>9}{:>10}{:>11}{:>11}", "node", "up", "in/s", "out/s", "waits"),
        style(Color::DarkGray),
    )];
    for name in &view.now.missing {
        lines.push(Line::styled(format!("{:<29}  not connected", cut(name, 28)), style(Color::Red)));
    }
    for peer in &view.now.peers {
        lines.push(Line::raw(format!(
            "{:<29}{:>9}{:>10}{:>11}{:>11}{}",
            cut(&peer.name, 28),
            span(peer.up_secs),
            bytes(view.peer_rate(peer, |peer| peer.received_bytes) as u64),
            bytes(view.peer_rate(peer, |peer| peer.sent_bytes) as u64),
            bytes(peer.queued_bytes),
            if peer.hidden { "  hidden" } else { "" },
        )));
    }
    lines
}

fn warning(line: &crate::program::snapshot::LoggedLine) -> Line<'_> {
    // Of the day, in UTC, as the log has it.
    let secs = line.unix_secs as u64 % 86_400;
    let colour = if line.level == "ERROR" { Color::Red } else { Color::Yellow };
    Line::from(vec![
        Span::styled(
            format!(" {:02}:{:02}:{:02} ", secs / 3600, secs / 60 % 60, secs % 60),
            style(Color::DarkGray),
        ),
        Span::styled(line.level.as_str(), style(colour)),
        Span::raw(format!(" {}", line.text)),
    ])
}

fn cut(text: &str, most: usize) -> String {
    if text.chars().count() <= most {
        return text.to_owned();
    }
    text.chars().take(most.saturating_sub(1)).chain(['…']).collect()
}

fn short(number: f64) -> String {
    match number {
        n if n >= 1e9 => format!("{:.1}G", n / 1e9),
        n if n >= 1e6 => format!("{:.1}M", n / 1e6),
        n if n >= 1e4 => format!("{:.1}k", n / 1e3),
        n => format!("{n:.0}"),
    }
}

fn time(nanos: f64) -> String {
    match nanos {
        n if n >= 1e9 => format!("{:.1} s", n / 1e9),
        n if n >= 1e6 => format!("{:.1} ms", n / 1e6),
        n => format!("{:.0} µs", (n / 1e3).max(1.0)),
    }
}

fn span(secs: f64) -> String {
    match secs as u64 {
        secs if secs >= 172_800 => format!("{} d", secs / 86_400),
        secs if secs >= 7_200 => format!("{} h", secs / 3_600),
        secs if secs >= 120 => format!("{} min", secs / 60),
        secs => format!("{secs} s"),
    }
}

#[cfg(test)]
mod tests {
    use ratatui::Terminal;
    use ratatui::backend::TestBackend;

    use super::*;
    use crate::node::{self, PeerSnapshot};
    use crate::program::Snapshot;
    use crate::program::snapshot::LoggedLine;
    use crate::program::snapshot::{NotDone, Requests, Watches};

    fn snapshot(uptime_secs: f64, get: u64) -> Snapshot {
        let slave = |name: &str, node: Option<&str>, state: &str, lag, total| SlaveSnapshot {
            name: format!("{{:global, :{name}}}"),
            node: node.map(str::to_owned),
            state: state.to_owned(),
            lag,
            total,
        };
        let mut answers = vec![0; 20];
        answers[5] = get;
        Snapshot {
            of_node: node::Snapshot {
                node: "mafalda@vm".into(),
                version: "0.1.0".into(),
                started_unix_secs: 5.0,
                uptime_secs,
                ready: true,
                port: 1,
                resident_bytes: Some(17 << 20),
                peers: vec![PeerSnapshot {
                    name: "felipe@vm".into(),
                    hidden: false,
                    up_secs: uptime_secs,
                    received_bytes: get * 100,
                    sent_bytes: 0,
                    queued_bytes: 0,
                    dropped: 0,
                }],
                missing: vec!["miguelito@vm".into()],
                servers: Vec::new(),
                answers,
                answers_nanos: 0,
            },
            stored_bytes_max: None,
            stored_bytes: 0,
            stores: vec![StoreSnapshot {
                names: vec!["global:mafalda".into()],
                up: true,
                entries: 48_213,
                bytes: 5 << 20,
                deadlines: 0,
                expired: 0,
                requests: Requests { get, ..Requests::default() },
                not_done: Vec::new(),
                watches: Watches::default(),
                primary: None,
                primary_standing: None,
                engine: "memory".into(),
                etcd: None,
                election: None,
                slaves: vec![
                    slave("felipe", Some("felipe@vm"), "in_step", Some(0), None),
                    slave("susanita", None, "seeking", None, None),
                    slave("manolito", Some("manolito@vm"), "copying", Some(50), Some(100)),
                    slave("guille", None, "gone", Some(7), None),
                ],
            }],
            log: vec![LoggedLine { unix_secs: 3_661.0, level: "WARN".into(), text: "slave lost".into() }],
        }
    }

    fn drawn(view: &View, columns: u16, lines: u16) -> Vec<String> {
        let mut terminal = Terminal::new(TestBackend::new(columns, lines)).unwrap();
        terminal.draw(|frame| draw(frame, view)).unwrap();
        let buffer = terminal.backend().buffer().clone();
        buffer
            .content()
            .chunks(columns.into())
            .map(|row| row.iter().map(|cell| cell.symbol()).collect())
            .collect()
    }

    #[test]
    fn all_is_seen_on_the_smallest_terminal() {
        let mut view = View::new(snapshot(10.0, 1000));
        view.look(snapshot(12.0, 3000));
        let lines = drawn(&view, 80, 24);
        let text = lines.join("\n");
        for part in [
            " mafalda@vm  ready  up 12 s  memory 17.0 MiB",
            "requests/s 1000",
            "answers: half 15 µs, 99% 20 µs",
            "global:mafalda                48.2k   5.0 MiB    1000       0       0  primary",
            "→ {:global, :felipe} at felipe@vm        ████████████ in step",
            "→ {:global, :susanita}                   ░░░░░░░░░░░░ not found yet",
            "██████░░░░░░ copying, 50 to go",
            "gone, misses 7",
            "miguelito@vm                   not connected",
            "97.7 KiB",
            " 01:01:01 WARN slave lost",
            " q quits",
        ] {
            assert!(text.contains(part), "{part:?} is not in\n{text}");
        }
    }

    #[test]
    fn servers_are_seen_that_are_no_stores() {
        let with = |uptime, calls: u64| {
            let mut now = snapshot(uptime, 1000);
            let mut answers = vec![0; 20];
            answers[10] = calls;
            let server = |name: &str| ServerSnapshot {
                name: name.into(),
                calls,
                restarts: 3,
                waiting_messages: 7,
                answers: answers.clone(),
                ..ServerSnapshot::default()
            };
            now.of_node.servers =
                ["global:mafalda", "local:kvnode", "local:counter"].map(server).into_iter().collect();
            now
        };
        let mut view = View::new(with(10.0, 100));
        view.look(with(12.0, 300));
        let text = drawn(&view, 80, 30).join("\n");
        let row =
            format!("{:<24}{:>9}{:>9}{:>9}{:>8}{:>9}{:>10}", "local:counter", 100, 0, 0, 7, "995 µs", 3);
        assert!(text.contains(&row), "{row} is not in\n{text}");
        assert_eq!(text.matches("local:").count(), 1, "{text}");
    }

    #[test]
    fn watches_are_seen_where_there_are_some() {
        let watched = |uptime, events| {
            let mut now = snapshot(uptime, 1000);
            now.stores[0].watches = Watches { watchers: 3, events, overruns: 1 };
            now
        };
        let mut view = View::new(watched(10.0, 100));
        view.look(watched(12.0, 500));
        let text = drawn(&view, 80, 30).join("\n");
        assert!(text.contains("  3 watches, 200 events/s, 1 overrun  "), "{text}");
    }

    #[test]
    fn keys_that_end_and_requests_that_are_not_done_are_seen_where_there_are_some() {
        let with = |uptime, expired, conflicts| {
            let mut now = snapshot(uptime, 1000);
            (now.stores[0].deadlines, now.stores[0].expired) = (12_345, expired);
            let not_done = |kind: &str, reason: &str, count| NotDone {
                reason: reason.to_owned(),
                kind: kind.to_owned(),
                count,
            };
            now.stores[0].not_done = vec![
                not_done("refused", "too_large", 3),
                not_done("refused", "slave_of", 1),
                not_done("conflict", "conflict", conflicts),
                not_done("failed", "no_space", 2),
            ];
            now
        };
        let mut view = View::new(with(10.0, 100, 5));
        view.look(with(12.0, 500, 25));
        let text = drawn(&view, 80, 30).join("\n");
        assert!(text.contains("  12.3k keys with a deadline, 200 expired/s"), "{text}");
        for line in
            ["failed 0/s: no_space 2", "refused 0/s: too_large 3, slave_of 1", "conflicts 10/s: conflict 25"]
        {
            assert!(text.contains(&format!("│  {line} ")), "{line:?} is not in\n{text}");
        }
    }

    #[test]
    fn a_primary_that_is_lost_is_seen() {
        let mut now = snapshot(10.0, 1000);
        now.stores[0].primary = Some("quino@vm".into());
        for (state, lag, shown) in [
            ("following", Some(0), "← quino@vm                               followed, in step"),
            ("gone", Some(12), "← quino@vm                               gone, 12 behind"),
            ("writing", None, "← quino@vm                               writes here"),
        ] {
            now.stores[0].primary_standing = Some(PrimarySnapshot { state: state.into(), seq: None, lag });
            let text = drawn(&View::new(now.clone()), 80, 24).join("\n");
            assert!(text.contains(shown) && text.contains("  slave"), "{shown:?} is not in\n{text}");
        }
    }

    #[test]
    fn nothing_is_cut_in_eighty_columns() {
        let mut now = snapshot(10.0, 1000);
        now.of_node.peers[0] = PeerSnapshot {
            name: format!("kvnode-{}@vm", "4".repeat(30)),
            hidden: true,
            queued_bytes: 1023 << 20,
            ..now.of_node.peers[0].clone()
        };
        let mut view = View::new(now);
        view.median_nanos = Some(999_900_000.0);
        view.slowest.push_back(999_900_000);
        let text = drawn(&view, 80, 24).join("\n");
        assert!(
            text.contains("  hidden│") && text.contains(" answers: half 999.9 ms, 99% 999.9 ms ┐"),
            "{text}"
        );
    }

    #[test]
    fn a_node_that_is_started_again_or_silent_is_shown_as_such() {
        let mut view = View::new(snapshot(10.0, 1000));
        let mut again = snapshot(1.0, 3);
        again.of_node.started_unix_secs = 9.0;
        view.look(again);
        assert!(view.rates.is_empty(), "nothing to compare with");
        view.fail("no answer within 5 s\nreally");
        let text = drawn(&view, 80, 24).join("\n");
        assert!(
            text.contains("mafalda@vm  no answer")
                && text.contains(" no answer: no answer within 5 s really")
        );
    }

    #[test]
    fn no_size_of_the_terminal_is_too_small_to_be_drawn_on() {
        let mut view = View::new(snapshot(10.0, 1000));
        view.look(snapshot(12.0, 3000));
        for columns in [1, 2, 10, 79, 80, 300] {
            for lines in [1, 2, 5, 10, 24, 100] {
                assert_eq!(drawn(&view, columns, lines).len(), usize::from(lines));
            }
        }
    }
}
