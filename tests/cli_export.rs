//! `kvnode export` and `import`, as a person types them.

#![cfg(feature = "program")]

mod support;

use std::fs;
use std::path::Path;

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
        &["line 4 is no entry: column 6", "The 2 entries before", "--from-line 4"],
    );
    assert_eq!(person.gets(&["get", "\"b\""]), "%{\"c\" => [1.5, nil]}\n");
    assert_eq!(person.gets(&["count"]), "2\n");
    assert_eq!(person.gets(&["import", path, "--from-line", "5"]), "1 entries\n");
    assert_eq!(person.gets(&["get", ":e"]), "2\n");
    person.fails(&["import", "/no/such/file"], 1, &["/no/such/file: No such file"]);
    person.fails(&["export", "/no/such/folder/file"], 1, &["/no/such/folder/file.part: No such file"]);
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
    let cursor = dir.path().join("entries.part.cursor");
    let mut child = person.command(&["export", text_of(&file)]).spawn().expect("it was built");
    wait_until("a page is written", || cursor.exists());
    child.kill().expect("it is our child");
    child.wait().expect("it is our child");
    assert!(!file.exists(), "it takes longer than the look at the file");
    let said = person.types(&["export", text_of(&file)]);
    assert_eq!((said.code, said.text().as_str()), (0, "200000 entries\n"), "{said:?}");
    assert!(said.stderr.contains("going on behind"), "{said:?}");
    let lines = sorted(&file);
    assert_eq!(lines.len(), 200_000);
    assert!(lines.windows(2).all(|pair| pair[0] != pair[1]), "no entry twice");
    assert!(!cursor.exists());
    // Of another store.
    fs::rename(&file, dir.path().join("entries.part")).expect("it is ours");
    fs::write(&cursor, "{9, 1, <<1, 2, 3>>}\n").expect("it is ours");
    person.fails(
        &["export", text_of(&file)],
        5,
        &["another one than that of the lines so far", "begin anew"],
    );
    fs::write(&cursor, "9").expect("it is ours");
    person.fails(&["export", text_of(&file)], 1, &["entries.part: ", "remove both"]);
}
