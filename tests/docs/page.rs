//! A page of the documentation: README.md, or a file in docs/. As much of Markdown as they use.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// The folder of the repository.
pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// A page, split into prose and code.
pub struct Page {
    /// Where it is, from the root of the repository.
    pub path: PathBuf,
    /// The whole text.
    pub text: String,
    /// Lines of code blocks, and inline code, each on its own.
    pub code: Vec<String>,
    /// What links point to, as it is written.
    pub links: Vec<String>,
    /// What a link may point to behind the `#`.
    pub anchors: BTreeSet<String>,
}

impl Page {
    /// Reads the page at this path from the root of the repository.
    pub fn read(path: impl Into<PathBuf>) -> Self {
        let path = path.into();
        let text = fs::read_to_string(root().join(&path)).unwrap_or_else(|error| panic!("{path:?}: {error}"));
        let (mut code, mut prose, mut anchors) = (Vec::new(), String::new(), BTreeSet::new());
        let (mut is_fenced, mut is_after_blank) = (false, true);
        for line in text.lines() {
            if line.starts_with("```") {
                is_fenced = !is_fenced;
            } else if is_fenced || (is_after_blank && line.starts_with("    ")) {
                code.push(line.trim().to_owned());
                continue;
            } else if line.starts_with('#') {
                let anchor = anchor(line.trim_start_matches('#').trim());
                assert!(anchors.insert(anchor), "{path:?} has two headings {line:?}");
            } else {
                prose.push_str(line);
                prose.push(' ');
            }
            is_after_blank = line.is_empty();
        }
        assert!(!is_fenced, "{path:?}: a code block without an end");
        let pieces: Vec<&str> = prose.split('`').collect();
        assert!(pieces.len() % 2 == 1, "{path:?}: inline code without an end");
        code.extend(pieces.iter().skip(1).step_by(2).map(|&span| span.to_owned()));
        // Without inline code, which may look like a link.
        let prose: Vec<&str> = pieces.into_iter().step_by(2).collect();
        let links = prose
            .join("`")
            .split("](")
            .skip(1)
            .filter_map(|rest| rest.split_once(')'))
            .map(|(target, _)| target.to_owned())
            .collect();
        Self { path, text, code, links, anchors }
    }

    /// Command lines in code: each part of a pipe or a list by itself, without a prompt.
    pub fn commands(&self) -> impl Iterator<Item = &str> {
        let lines = self.code.iter().map(|line| line.strip_prefix("$ ").unwrap_or(line));
        lines.flat_map(|line| line.split(" | ")).flat_map(|line| line.split(" && ")).map(str::trim)
    }
}

/// README.md and all pages in docs/.
pub fn pages() -> Vec<Page> {
    let entries = fs::read_dir(root().join("docs")).expect("the folder docs");
    let mut paths: Vec<PathBuf> =
        entries.map(|entry| Path::new("docs").join(entry.expect("a readable folder").file_name())).collect();
    paths.sort();
    let mut pages = vec![Page::read("README.md")];
    pages.extend(paths.into_iter().map(Page::read));
    pages
}

/// What GitHub makes of a heading.
fn anchor(heading: &str) -> String {
    let kept = heading.to_lowercase();
    let kept = kept.chars().filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
    kept.map(|c| if c == ' ' { '-' } else { c }).collect()
}

/// `--flag`s in a text.
pub fn flags(text: &str) -> BTreeSet<String> {
    let words = text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '-'));
    words
        .filter(|word| {
            word.strip_prefix("--").is_some_and(|name| name.starts_with(|c: char| c.is_ascii_lowercase()))
        })
        .map(str::to_owned)
        .collect()
}
