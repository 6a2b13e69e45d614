//! The layers, held: which may use which, and where I/O, tasks and the clock may be named.

use std::fs;
use std::path::{Path, PathBuf};

/// Each layer with the layers that it may use.
const ARROWS: &[(&str, &[&str])] = &[
    ("etf", &[]),
    ("distribution", &["etf"]),
    ("process", &["etf", "distribution", "log"]),
    ("config", &["distribution"]),
    ("log", &[]),
    ("clock", &[]),
    ("within", &["clock"]),
    ("epmd", &["config", "distribution", "within"]),
    // A room that could be a crate.
    ("etcd", &["within"]),
    ("elect", &["distribution", "etf", "replica"]),
    ("node", &["clock", "config", "distribution", "epmd", "etf", "log", "process", "within"]),
    ("handle", &["config", "distribution", "etf", "node", "process", "replica", "within"]),
    // The product.
    ("store", &["etf", "etcd"]),
    ("replica", &["etf", "distribution"]),
    ("kv", &["config", "distribution", "etf", "log", "node", "process", "replica", "store", "within"]),
    (
        "program",
        &[
            "config",
            "distribution",
            "elect",
            "epmd",
            "etcd",
            "etf",
            "kv",
            "log",
            "node",
            "process",
            "replica",
            "store",
            "within",
        ],
    ),
    (
        "cli",
        &[
            "config",
            "distribution",
            "epmd",
            "etcd",
            "etf",
            "handle",
            "node",
            "program",
            "replica",
            "store",
            "within",
        ],
    ),
];

/// Layers without I/O, tasks and clock, and the words that they must not use.
const PURE: &[&str] =
    &["etf", "distribution", "store", "replica", "process", "kv", "config", "log", "etcd", "elect"];
const IMPURE_WORDS: &[&str] = &[
    "smol",
    "async",
    "await",
    "Instant::now",
    "SystemTime",
    "std::fs",
    "TcpStream",
    "thread::spawn",
    "getrandom",
];

fn sources(layer: &str) -> Vec<(PathBuf, String)> {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut found = Vec::new();
    let mut folders = vec![src.join(layer)];
    let file = src.join(format!("{layer}.rs"));
    if file.exists() {
        found.push(file);
    }
    while let Some(folder) = folders.pop() {
        let Ok(entries) = fs::read_dir(&folder) else { continue };
        for entry in entries {
            let path = entry.expect("a readable folder").path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs")
                && !path.ends_with("tests.rs")
            {
                found.push(path);
            }
        }
    }
    assert!(!found.is_empty(), "the layer {layer} exists");
    found.into_iter().map(|path| (path.clone(), code_of(&path))).collect()
}

/// A file without its comments and its tests, which stand at its foot.
fn code_of(path: &Path) -> String {
    let text = fs::read_to_string(path).expect("a readable file");
    let code = text.split("\n#[cfg(test)]\nmod ").next().unwrap_or_default();
    let lines = code.lines().map(|line| line.split("//").next().unwrap_or_default());
    lines.collect::<Vec<_>>().join("\n")
}

fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split(|c: char| !(c.is_alphanumeric() || c == '_' || c == ':')).filter(|word| !word.is_empty())
}

/// The items that a text names from the crate's root: each first word behind `crate::`, also within braces, and behind as
/// many `super::` as lead there from a module so deep.
fn from_root(code: &str, depth: usize) -> Vec<String> {
    let up = "super::".repeat(depth);
    let mut found = Vec::new();
    for root in ["crate::", up.as_str()] {
        for (at, _) in code.match_indices(root) {
            let begins = !code[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_' || c == ':');
            if begins {
                found.extend(firsts(&code[at + root.len()..]));
            }
        }
    }
    found
}

/// The first word of each path of a group, or of the one path that a text begins with.
fn firsts(text: &str) -> Vec<String> {
    let word = |text: &str| -> String {
        text.trim_start().chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect()
    };
    let Some(group) = text.strip_prefix('{') else { return vec![word(text)] };
    let (mut depth, mut begin, mut found) = (0, 0, Vec::new());
    for (at, c) in group.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth > 0 => depth -= 1,
            ',' | '}' if depth == 0 => {
                found.push(word(&group[begin..at]));
                begin = at + 1;
                if c == '}' {
                    break;
                }
            }
            _ => {}
        }
    }
    found.retain(|word| !word.is_empty());
    found
}

/// How many `super::` lead from a file's module to the crate's root.
fn depth_of(path: &Path) -> usize {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let inside = path.strip_prefix(src).expect("a file of src");
    inside.components().count() - usize::from(inside.ends_with("mod.rs"))
}

/// The layer of each item that lib.rs gives on from one.
fn given_on() -> Vec<(String, String)> {
    let lib = code_of(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src/lib.rs"));
    let uses = lib.split("pub use ").skip(1).filter_map(|text| text.split_once("::"));
    uses.flat_map(|(layer, items)| firsts(items).into_iter().map(move |item| (item, layer.to_owned())))
        .collect()
}

#[test]
fn all_ways_to_name_a_layer_are_seen() {
    let code =
        "use crate::{etf::{Pid, key}, node, Node as N};\nfn f() { super::super::kv::f(crate::store::wait) }";
    assert_eq!(from_root(code, 2), ["etf", "node", "Node", "store", "kv"]);
    assert!(!from_root(code, 3).contains(&"kv".to_owned()) && !from_root(code, 1).contains(&"kv".to_owned()));
    let given = given_on();
    assert!(
        given.contains(&("Node".into(), "node".into())) && given.contains(&("Turn".into(), "process".into()))
    );
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    assert_eq!(
        ["kv/mod.rs", "kv/a.rs", "kv/b/mod.rs", "kv/b/c.rs"].map(|file| depth_of(&src.join(file))),
        [1, 2, 2, 3]
    );
}

#[test]
fn every_layer_uses_only_those_below_it() {
    let given = given_on();
    for (layer, below) in ARROWS {
        for (path, code) in sources(layer) {
            for item in from_root(&code, depth_of(&path)) {
                let face = given.iter().find(|(name, _)| *name == item);
                let other = face.map_or(&item, |(_, layer)| layer);
                let is_layer = ARROWS.iter().any(|(known, _)| known == other);
                // What the root gives on is the library's face, for all that may use the library.
                let is_open = face.is_some() && below.contains(&"node");
                assert!(
                    !is_layer || other == layer || below.contains(&other.as_str()) || is_open,
                    "{} uses {other} (crate::{item}), which {layer} may not",
                    path.display()
                );
            }
        }
    }
}

#[test]
fn every_layer_is_in_the_table() {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    for entry in fs::read_dir(src).expect("src exists") {
        let name = entry.expect("a readable folder").file_name().into_string().expect("UTF-8");
        let name = name.trim_end_matches(".rs");
        assert!(["lib", "main"].contains(&name) || ARROWS.iter().any(|(layer, _)| *layer == name), "{name}");
    }
}

#[test]
fn the_pure_layers_name_no_socket_task_or_clock() {
    for layer in PURE {
        for (path, code) in sources(layer) {
            // The store on disk is files and the thread that writes them.
            let path_text = path.to_string_lossy();
            // What looks after slaves waits for their nodes.
            if path_text.contains("/store/disk") || path_text.contains("/kv/downstream/") {
                continue;
            }
            // What a store drops is written into files.
            if path_text.contains("/kv/serve/files") {
                continue;
            }
            // What speaks to etcd.
            if path_text.contains("/etcd/client/") || path_text.contains("/store/etcd/shell") {
                continue;
            }
            for word in words(&code) {
                let impure = IMPURE_WORDS.iter().find(|impure| {
                    word == **impure
                        || word.starts_with(&format!("{impure}::"))
                        || word.ends_with(&format!("::{impure}"))
                });
                assert!(impure.is_none(), "{} says {word}", path.display());
            }
        }
    }
}

/// What is longer has a second subject.
const LINES_MAX: usize = 700;

#[test]
fn no_file_is_longer_than_one_subject_needs() {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let (mut folders, mut too_long) = (vec![src], Vec::new());
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).expect("a readable folder") {
            let path = entry.expect("a readable folder").path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs")
                && !path.ends_with("tests.rs")
            {
                let lines = fs::read_to_string(&path).expect("a readable file").lines().count();
                too_long.extend((lines > LINES_MAX).then_some((path, lines)));
            }
        }
    }
    assert!(too_long.is_empty(), "more than {LINES_MAX} lines: {too_long:?}");
}
