//! `kvnode export` and `import`, as a person types them.

#![cfg(feature = "program")]

mod support;

use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::Stdio;

use support::person::Person;
use support::{BeamNode, Epmd, KvNode, Otp, wait_until};

fn text_of(path: &Path) -> &str {
    path.to_str().expect("it is UTF-8")
}

fn sorted(path: &Path) -> Vec<String> {
    let mut lines: Vec<String> =
        fs::read_to_string(path).expect("it is there").lines().map(str::to_owned).collect();
    lines.sort();
    lines
}

/// Terms of all kinds, some of which no text says.
const ENTRIES: &str = "[{:a, 1}, {{:user, 7}, %{name: \"Manolito\", f: -0.0}}, {\"a\\nb\", [1 | 2]}, {self(), &Map.get/2}, \
                       {make_ref(), <<1::3>>}, {1.0, fn -> 1 end}, {1, String.duplicate(\"v\", 3_000_000)}]";

#[test]
fn what_is_exported_is_imported_to_the_last_bit() {
    let epmd = Epmd::start();
    let person = Person::new(&epmd);
    let (one, two) = (KvNode::start(&epmd, "one", ""), KvNode::start(&epmd, "two", ""));
    let beam = BeamNode::start(&Otp::newest(), &epmd, "beam");
    beam.run(&format!("entries = {ENTRIES}"));
    beam.ping(one.name());
    beam.ping(two.name());
    beam.check("GenServer.call({:global, :one}, {:put_many, entries})", ":ok");
    let dir = tempfile::tempdir().expect("a folder");
    for (form, file) in [(&[][..], "terms"), (&["--json"], "json")] {
        let file = dir.path().join(file);
        let exported: Vec<&str> =
            ["export", text_of(&file), "--node", "one"].into_iter().chain(form.iter().copied()).collect();
        assert_eq!(person.gets(&exported), "7 entries\n");
        let again = person.types(&exported);
        assert!(again.code == 1 && again.stderr.contains("is there: name another file"), "{again:?}");
        assert_eq!(person.gets(&["import", text_of(&file), "--node", "two"]), "7 entries\n");
        beam.check(
            "for({k, v} <- entries, do: GenServer.call({:global, :two}, {:get, k}) === v) |> Enum.uniq()",
            "[true]",
        );
        beam.check("GenServer.call({:global, :two}, :count)", "7");
        beam.check("GenServer.call({:global, :two}, {:delete_many, Enum.map(entries, &elem(&1, 0))})", ":ok");
    }
    assert_eq!(fs::read_dir(dir.path()).expect("it is ours").count(), 2, "nothing is left beside the files");
    // By standard output and input.
    let out = person.gets(&["export", "-", "--node", "one"]);
    assert_eq!(out.lines().count(), 7);
    let said = person.types_with(&["import", "-", "--node", "two"], out.as_bytes());
    assert_eq!((said.code, said.text().as_str()), (0, "7 entries\n"), "{said:?}");
    beam.check(
        "for({k, v} <- entries, do: GenServer.call({:global, :two}, {:get, k}) === v) |> Enum.uniq()",
        "[true]",
    );
}

#[test]
fn a_line_that_is_none_is_shown_and_what_is_before_it_is_in() {
    let epmd = Epmd::start();
    let person = Person::new(&epmd);
    let _one = KvNode::start(&epmd, "one", "");
    let dir = tempfile::tempdir().expect("a folder");
    let file = dir.path().join("lines");
    fs::write(&file, "{:a, 1}\n\n{\"key\": \"b\", \"value\": {\"c\": [1.5, null]}}\n{:c, d}\n{:e, 2}\n")
        .expect("it is ours");
    let path = text_of(&file);
    person.fails(
        &["import", path],
        2,
        &[
            "line 4 is no entry: column 6",
            "2 entries of the lines before are in the store: go on with --from-line 4",
        ],
    );
    assert_eq!(person.gets(&["get", "\"b\""]), "%{\"c\" => [1.5, nil]}\n");
    assert_eq!(person.gets(&["count"]), "2\n");
    assert_eq!(person.gets(&["import", path, "--from-line", "5"]), "1 entry\n");
    assert_eq!(person.gets(&["get", ":e"]), "2\n");
    person.fails(&["import", "/no/such/file"], 1, &["/no/such/file: No such file"]);
    person.fails(&["export", "/no/such/folder/file"], 1, &["/no/such/folder/file.part: No such file"]);
    person.fails(&["export", path], 1, &["lines is there: name another file, or - for standard output"]);
}

#[test]
fn an_export_that_is_interrupted_goes_on() {
    let epmd = Epmd::start();
    let person = Person::new(&epmd);
    let one = KvNode::start(&epmd, "one", "");
    let beam = BeamNode::start(&Otp::newest(), &epmd, "filler");
    beam.ping(one.name());
    beam.run(
        "for n <- 1..20, do: :ok = GenServer.call({:global, :one}, {:put_many, for(m <- 1..10_000, do: {{n, m}, m})})",
    );
    let dir = tempfile::tempdir().expect("a folder");
    let file = dir.path().join("entries");
    let cursor_file = dir.path().join("entries.part.cursor");
    let mut child = person.command(&["export", text_of(&file)]).spawn().expect("it was built");
    let has_a_page = || fs::read_to_string(&cursor_file).is_ok_and(|said| !said.starts_with("{0, "));
    wait_until("a page is written", has_a_page);
    child.kill().expect("it is our child");
    child.wait().expect("it is our child");
    assert!(!file.exists(), "it takes longer than the look at the file");
    let said = person.types(&["export", text_of(&file)]);
    assert_eq!((said.code, said.text().as_str()), (0, "200000 entries\n"), "{said:?}");
    assert!(said.stderr.contains("continuing behind"), "{said:?}");
    let lines = sorted(&file);
    assert_eq!(lines.len(), 200_000);
    assert!(lines.windows(2).all(|pair| pair[0] != pair[1]), "no entry twice");
    assert!(!cursor_file.exists());
    // What cannot be continued is left as it is.
    let part = dir.path().join("entries.part");
    let cannot = |parts: &[&str]| person.fails(&["export", text_of(&file), "--node", "one"], 1, parts);
    fs::rename(&file, dir.path().join("whole")).expect("it is ours");
    fs::write(&part, "mine").expect("it is ours");
    cannot(&["entries.part: it is there, and no export that can continue: remove it"]);
    let at = |bytes: u64, node: &str, json: bool, cursor: &str| {
        let said = format!(
            "{{{bytes}, {}, \"{node}\", \"{{KeyValueStore, :{}}}\", {json}, {cursor}}}\n",
            bytes.min(1),
            one.name()
        );
        fs::write(&cursor_file, said).expect("it is ours");
    };
    at(9, one.name(), false, "<<1, 2, 3>>");
    cannot(&["it is not what was written, but shorter", "entries.part.cursor to start over"]);
    at(1, one.name(), true, "<<1, 2, 3>>");
    cannot(&["with --json: do the same, or remove it and "]);
    at(1, "other@h", false, "<<1, 2, 3>>");
    cannot(&["it was begun from {KeyValueStore, "]);
    at(1, one.name(), false, ":done");
    cannot(&["entries.part.cursor: it says not how far"]);
    assert_eq!(fs::read_to_string(&part).expect("it is there"), "mine");
    at(1, one.name(), false, "<<1, 2, 3>>");
    let lock = fs::File::open(&part).expect("it is there");
    lock.lock().expect("nobody has it");
    cannot(&["entries.part: another export is writing it"]);
    drop(lock);
    person.fails(&["export", text_of(&file)], 5, &["begun from another store", "to start over"]);
    fs::remove_file(&part).expect("it is ours");
    cannot(&["entries.part: it is gone: remove "]);
    // An export that had no time for its first entry is begun again: it has an empty file, and perhaps said so.
    for said in [None, Some("\"\"")] {
        fs::write(&part, "").expect("it is ours");
        match said {
            None => fs::remove_file(&cursor_file).expect("it is ours"),
            Some(cursor) => at(0, one.name(), false, cursor),
        }
        assert_eq!(person.gets(&["export", text_of(&file)]), "200000 entries\n", "{said:?}");
        assert!(!cursor_file.exists() && !part.exists(), "{said:?}");
        assert_eq!(sorted(&file), lines, "{said:?}");
        fs::remove_file(&file).expect("it is ours");
        at(0, one.name(), false, "<<>>");
    }
}

#[test]
fn an_import_that_is_interrupted_says_from_where_to_go_on() {
    let epmd = Epmd::start();
    let person = Person::new(&epmd);
    let _one = KvNode::start(&epmd, "one", "");
    let mut child = person.command(&["import", "-"]).stdin(Stdio::piped()).spawn().expect("it was built");
    let mut input = child.stdin.take().expect("it is piped");
    let lines: String = (1..=1500).map(|n| format!("{{{n}, {n}}}\n")).collect();
    input.write_all(lines.as_bytes()).expect("it reads");
    wait_until("the first thousand is put", || person.gets(&["count"]) == "1000\n");
    let pid = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(pid, rustix::process::Signal::INT).expect("it is our child");
    let output = child.wait_with_output().expect("it is our child");
    let stderr = String::from_utf8(output.stderr).expect("it is text");
    assert_eq!(output.status.code(), Some(5), "{stderr}");
    assert!(
        stderr.contains("1000 entries of the lines before are in the store")
            && stderr.contains("--from-line 1001"),
        "{stderr}"
    );
    drop(input);
    // Lines that are no text, with those before and behind.
    let said = person.types_with(&["import", "-"], b"{:a, 1}\n\xff\n{:b, 2}\n");
    assert!(
        said.code == 2
            && said.stderr.contains("line 2 is no entry: it is not UTF-8 behind byte 0; 1 entry of"),
        "{said:?}"
    );
    let said =
        person.types_with(&["import", "-", "--from-line", "3", "--json"], b"{:a, 1}\n\xff\n{:b, 2}\r\n");
    assert_eq!((said.code, said.text().as_str()), (0, "{\"entries\":1}\n"), "{said:?}");
    let said = person.types_with(&["import", "-"], b"\xef\xbb\xbf{:c, 3}");
    assert_eq!((said.code, said.text().as_str()), (0, "1 entry\n"), "{said:?}");
    assert_eq!(person.gets(&["get", ":c"]), "3\n");
}
