//! The page: one file with everything in it, which asks for `/status.json` and draws.

use std::sync::LazyLock;

use hyper::StatusCode;
use hyper::header::{self, HeaderValue};

use super::routes::with;
use crate::program::shown;

/// With `{{nonce}}` where the one style and the one script say that they are ours, and `{{shown}}` where the script has the
/// words for states and requests.
const TEMPLATE: &str = include_str!("page.html");

/// The same with the words. They are ours, and none of them ends a script.
static PAGE: LazyLock<String> = LazyLock::new(|| TEMPLATE.replace("{{shown}}", &shown::table().to_string()));

pub(super) fn answer() -> super::routes::Answer {
    let nonce = nonce();
    let mut answer = with(StatusCode::OK, "text/html; charset=utf-8", PAGE.replace("{{nonce}}", &nonce));
    let policy = format!(
        "default-src 'none'; script-src 'nonce-{nonce}'; style-src 'nonce-{nonce}'; connect-src 'self'; img-src data:; \
         base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    );
    let policy = HeaderValue::from_str(&policy).expect("it is ASCII");
    answer.headers_mut().insert(header::CONTENT_SECURITY_POLICY, policy);
    answer
}

/// 96 bits of the system's.
fn nonce() -> String {
    let random = || getrandom::u32().expect("the system has a random source: the node has started with it");
    format!("{:08x}{:08x}{:08x}", random(), random(), random())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kv::ElectionState;
    use crate::replica::{PrimaryStanding, StandingKind};

    #[test]
    fn a_page_needs_nothing_from_elsewhere_and_each_has_a_nonce_of_its_own() {
        assert!(
            !PAGE.contains("://")
                || PAGE.matches("://").count() == PAGE.matches("http://www.w3.org/2000/svg").count()
        );
        assert!(!PAGE.contains(" style=") && !PAGE.contains(" onclick="), "the policy forbids it");
        assert_eq!(PAGE.matches("{{nonce}}").count(), 2);
        assert!(TEMPLATE.contains("{{shown}}") && !PAGE.contains("{{shown}}"));
        let policy = || answer().headers()[header::CONTENT_SECURITY_POLICY].clone();
        assert_ne!(policy(), policy());
    }

    #[test]
    fn a_page_has_the_words_of_all_states_and_names_no_other() {
        let slaves = StandingKind::ALL.map(StandingKind::code);
        let primaries = PrimaryStanding::ALL.map(PrimaryStanding::code);
        let known: Vec<&str> = slaves.into_iter().chain(primaries).collect();
        assert!(known.iter().all(|code| PAGE.contains(&format!("\"{code}\":{{"))), "{}", *PAGE);
        let elections = ElectionState::ALL.map(ElectionState::code);
        for named in TEMPLATE.split("state === \"").skip(1) {
            let named = named.split('"').next().unwrap_or_default();
            assert!(
                known.contains(&named) || elections.contains(&named),
                "the page knows a state that is none: {named}"
            );
        }
    }
}
