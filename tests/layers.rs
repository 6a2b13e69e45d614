//! The layers, held: who may use whom, and where I/O, tasks and the clock may be named.

use std::fs;
use std::path::{Path, PathBuf};

/// Each layer with the layers that it may use.
const ARROWS: &[(&str, &[&str])] = &[
    ("etf", &[]),
    ("distribution", &["etf"]),
    ("process", &["etf", "distribution"]),
    ("config", &["distribution"]),
    ("within", &[]),
    ("epmd", &["config", "distribution", "within"]),
    ("node", &["config", "distribution", "epmd", "etf", "process", "within"]),
    // The product.
    ("store", &["etf"]),
    ("replica", &["etf", "distribution"]),
    ("kv", &["config", "distribution", "etf", "node", "process", "replica", "store"]),
    (
        "program",
        &["config", "distribution", "epmd", "etf", "kv", "node", "process", "replica", "store", "within"],
    ),
    ("cli", &["config", "distribution", "epmd", "etf", "node", "program", "replica", "store", "within"]),
];

/// Layers without I/O, tasks and clock, and the words that they must not use.
const PURE: &[&str] = &["etf", "distribution", "store", "replica", "process", "kv", "config"];
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

#[test]
fn every_layer_uses_only_those_below_it() {
    let all: Vec<&str> = ARROWS.iter().map(|(layer, _)| *layer).collect();
    for (layer, below) in ARROWS {
        for (path, code) in sources(layer) {
            for other in all.iter().filter(|other| *other != layer && !below.contains(other)) {
                assert!(
                    !code.contains(&format!("crate::{other}::"))
                        && !code.contains(&format!("crate::{other};")),
                    "{} uses {other}, which {layer} may not",
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
