//! A server that speaks HTTP/2 and gRPC well enough to be heard, and says what no etcd says. Its frames are made by hand (RFC 9113,
//! section 4 and 6; RFC 7541, section 6.2.2).

use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use kvnode::block_on;
use kvnode::etcd::message::{ENTRIES_MAX, Effect, RangeRequest, TxnRequest};
use kvnode::etcd::{Ask, Config, Error, Etcd, WatchEvent, WatchOptions};

use super::get;

const SECOND: Duration = Duration::from_secs(1);
const MESSAGE_BYTES_MAX: usize = 4 << 20;
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const SETTINGS: u8 = 4;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;

/// What is answered to each request.
#[derive(Clone)]
struct Answer {
    headers: Vec<(&'static str, &'static [u8])>,
    data: Vec<u8>,
    trailers: Option<Vec<(&'static str, &'static [u8])>>,
    /// The data again and again.
    is_endless: bool,
}

fn well(data: Vec<u8>) -> Answer {
    Answer {
        headers: vec![(":status", b"200"), ("content-type", b"application/grpc")],
        data,
        trailers: Some(vec![("grpc-status", b"0")]),
        is_endless: false,
    }
}

fn framed(message: &[u8]) -> Vec<u8> {
    [&[0], &(message.len() as u32).to_be_bytes()[..], message].concat()
}

fn frame(kind: u8, flags: u8, stream: u32, content: &[u8]) -> Vec<u8> {
    let len = &(content.len() as u32).to_be_bytes()[1..];
    [len, &[kind, flags], &stream.to_be_bytes(), content].concat()
}

/// Each a literal without indexing, with a new name.
fn packed(headers: &[(&str, &[u8])]) -> Vec<u8> {
    let text = |text: &[u8]| [&[u8::try_from(text.len()).expect("below 127")][..], text].concat();
    headers.iter().flat_map(|(name, value)| [vec![0], text(name.as_bytes()), text(value)].concat()).collect()
}

/// The first request gets the first answer, and so on; the last answer is for all that come later.
fn serve(mut stream: TcpStream, answers: &[Answer], asked: &AtomicUsize) -> io::Result<()> {
    let mut preface = [0; 24];
    stream.read_exact(&mut preface)?;
    stream.write_all(&frame(SETTINGS, 0, 0, &[]))?;
    loop {
        let mut head = [0; 9];
        stream.read_exact(&mut head)?;
        let mut content = vec![0; u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize];
        stream.read_exact(&mut content)?;
        let id = u32::from_be_bytes([head[5], head[6], head[7], head[8]]);
        match head[3] {
            SETTINGS if head[4] == 0 => stream.write_all(&frame(SETTINGS, 1, 0, &[]))?,
            HEADERS => {
                let answer = &answers[asked.fetch_add(1, Ordering::AcqRel).min(answers.len() - 1)];
                let ends = if answer.data.is_empty() && answer.trailers.is_none() { END_STREAM } else { 0 };
                stream.write_all(&frame(HEADERS, END_HEADERS | ends, id, &packed(&answer.headers)))?;
                loop {
                    // The windows that the client gives are as large as any answer here.
                    for part in answer.data.chunks(16 << 10) {
                        stream.write_all(&frame(DATA, 0, id, part))?;
                    }
                    if !answer.is_endless {
                        break;
                    }
                }
                match &answer.trailers {
                    Some(trailers) => {
                        stream.write_all(&frame(HEADERS, END_HEADERS | END_STREAM, id, &packed(trailers)))?
                    }
                    None if ends == 0 => stream.write_all(&frame(DATA, END_STREAM, id, &[]))?,
                    None => {}
                }
            }
            _ => {}
        }
    }
}

/// A client of such a server.
fn client_of(answer: Answer) -> Etcd {
    client_of_all(vec![answer])
}

fn client_of_all(answers: Vec<Answer>) -> Etcd {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut config = Config::new([format!("http://{}", listener.local_addr().unwrap())]);
    config.deadline = SECOND;
    config.message_bytes_max = MESSAGE_BYTES_MAX;
    let answers = Arc::new((answers, AtomicUsize::new(0)));
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let (Ok(stream), answers) = (stream, Arc::clone(&answers)) else { return };
            std::thread::spawn(move || {
                // It ends with the client's connection.
                let _ = serve(stream, &answers.0, &answers.1);
            });
        }
    });
    Etcd::connect(config).unwrap()
}

#[track_caller]
fn error(answer: Answer) -> Error {
    let begun = Instant::now();
    let error = block_on(client_of(answer).call(&get("k"))).unwrap_err();
    assert!(begun.elapsed() < 3 * SECOND, "{:?}", begun.elapsed());
    error
}

/// What a read comes to that is asked again until its time is over.
#[track_caller]
fn is_asked_again(answer: Answer, says: &str) {
    let error = error(answer);
    assert!(matches!(&error, Error::Unavailable { reason } if reason.contains(says)), "{error:?}");
}

#[test]
fn an_answer_as_an_etcd_gives_it_is_taken_from_this_server_too() {
    let answer = block_on(client_of(well(framed(&[0x20, 7]))).call(&get("k"))).unwrap();
    assert_eq!(answer.count, 7);
}

#[test]
fn frames_that_are_wrong_are_refused() {
    is_asked_again(well(vec![1, 0, 0, 0, 0]), "compressed");
    is_asked_again(well(framed(&[0x20, 7]).repeat(2)), "two messages");
    is_asked_again(well(Vec::new()), "no message");
    is_asked_again(well(framed(&[0x20, 7])[..6].to_vec()), "cut");
    is_asked_again(Answer { trailers: None, ..well(framed(&[0x20, 7])) }, "no status");
    is_asked_again(Answer { trailers: None, ..well(Vec::new()) }, "no status");
    is_asked_again(Answer { trailers: Some(vec![("x", b"y")]), ..well(framed(&[])) }, "no status");
    let html = vec![(":status", &b"200"[..]), ("content-type", b"text/html")];
    is_asked_again(Answer { headers: html, ..well(framed(&[])) }, "not of gRPC");
    let proxy = vec![(":status", &b"503"[..])];
    is_asked_again(Answer { headers: proxy, ..well(framed(&[])) }, "503");
}

#[test]
fn what_is_too_large_is_refused_before_it_is_there_or_before_it_is_read() {
    let too_large = Error::AnswerTooLarge { bytes_max: MESSAGE_BYTES_MAX };
    assert_eq!(error(well(vec![0, 0xff, 0xff, 0xff, 0xff])), too_large);
    // Entries of two bytes, which would have a hundred each.
    assert_eq!(error(well(framed(&[0x12, 0].repeat(ENTRIES_MAX + 1)))), too_large);
}

#[test]
fn messages_that_are_none_are_refused() {
    for message in [&[0xff][..], &[0x12, 0xff], &[0x0b], &[0x12, 0x02, 0x0a, 0x7f], &[0x20, 0xff]] {
        let error = error(well(framed(message)));
        assert!(matches!(error, Error::Malformed { .. }), "{message:?}: {error:?}");
    }
}

#[test]
fn an_answer_without_end_ends_with_the_time_for_it() {
    let endless = Answer { is_endless: true, ..well(framed(&[0x20, 7])) };
    is_asked_again(endless.clone(), "two messages");
    is_asked_again(Answer { data: vec![0, 0, 0x30, 0, 0, 1, 2, 3], ..endless }, "");
}

#[test]
fn a_status_is_shown_without_what_moves_a_cursor() {
    let refused = vec![("grpc-status", &b"3"[..]), ("grpc-message", b"%1b[2J%ffno")];
    let error = error(Answer { trailers: Some(refused), ..well(framed(&[])) });
    assert_eq!(error, Error::Refused { code: 3, text: "?[2J\u{fffd}no".to_owned() });
}

#[test]
fn what_may_have_been_done_stays_so_when_a_later_try_is_refused() {
    let status = |code: &'static str, text: &'static str| {
        let trailers = vec![("grpc-status", code.as_bytes()), ("grpc-message", text.as_bytes())];
        Answer { trailers: Some(trailers), ..well(Vec::new()) }
    };
    let unknown = status("14", "etcdserver: request timed out");
    let full = status("8", "etcdserver: mvcc: database space exceeded");
    // The check between the two tries is answered by one that has a leader.
    let answers = vec![unknown, well(framed(&[0x20, 7])), full];
    let ask = |effect| {
        let etcd = client_of_all(answers.clone());
        block_on(etcd.call_with(&TxnRequest::default(), Ask { effect: Some(effect), deadline: None }))
    };
    let guarded = ask(Effect::Guarded).unwrap_err();
    assert!(
        matches!(&guarded, Error::Unknown { reason } if *reason == Error::NoSpace.to_string()),
        "{guarded:?}"
    );
    let once = ask(Effect::Changes).unwrap_err();
    assert!(matches!(&once, Error::Unknown { reason } if reason.contains("timed out")), "{once:?}");
    assert_eq!(ask(Effect::Idempotent), Err(Error::NoSpace));
}

#[test]
fn pages_that_go_nowhere_have_an_end() {
    // One entry with the key "k", and that there are more.
    let etcd = client_of(well(framed(&[0x12, 3, 0x0a, 1, b'k', 0x18, 1])));
    let mut pages = etcd.pages(RangeRequest { range_end: "z".into(), ..get("a") });
    assert_eq!(block_on(pages.next()).unwrap().unwrap().len(), 1);
    assert!(matches!(block_on(pages.next()), Err(Error::Malformed { .. })));
}

#[test]
fn a_watch_of_what_is_no_etcd_goes_on_trying_and_says_so_once() {
    // Events before it has begun; a watch that ends at once; and what is no message.
    for message in [&[0x5a, 0][..], &[0x18, 1, 0x20, 1], &[0xff]] {
        let etcd = client_of(well(framed(message)));
        let mut watch = etcd.watch(WatchOptions::key("k"));
        assert!(matches!(block_on(watch.next()), Ok(WatchEvent::Cut { .. })), "{message:?}");
        let more = async { Some(watch.next().await) };
        let waited = async {
            smol::Timer::after(SECOND).await;
            None
        };
        assert_eq!(block_on(smol::future::or(more, waited)), None, "{message:?}");
    }
}
