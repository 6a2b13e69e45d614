//! A server of eetf's terms: what was written for the crates eetf and erl_rpc moves over as it is. (Feature `eetf`.)

use std::collections::HashMap;

use eetf::{Atom, List, Map, Term, Tuple};
use kvnode::etf::tree::EetfTerm;
use kvnode::{Context, Never, Node, ReplyTo, Server};

#[derive(Default)]
struct Shelf(HashMap<Term, Term>);

impl Shelf {
    /// It knows nothing of kvnode.
    fn answer(&mut self, request: Term) -> Term {
        let Term::Tuple(Tuple { elements }) = request else { return error("not a tuple") };
        match &elements[..] {
            // {:put, thing, place}
            [Term::Atom(verb), thing, place] if verb.name == "put" => {
                self.0.insert(thing.clone(), place.clone());
                Atom::from("ok").into()
            }
            // {:where, thing}
            [Term::Atom(verb), thing] if verb.name == "where" => {
                self.0.get(thing).cloned().unwrap_or_else(|| Atom::from("nil").into())
            }
            // {:all}
            [Term::Atom(verb)] if verb.name == "all" => Map::from(self.0.clone()).into(),
            _ => error("not a request"),
        }
    }
}

/// {:error, why, []}
fn error(why: &str) -> Term {
    Tuple::from(vec![Atom::from("error").into(), Atom::from(why).into(), List::nil().into()]).into()
}

impl Server for Shelf {
    type Call = EetfTerm;
    type Cast = Never;
    type Info = Never;

    async fn handle_call(&mut self, EetfTerm(request): EetfTerm, from: ReplyTo, _: &mut Context<Self>) {
        from.reply(&EetfTerm(self.answer(request)));
    }
}

/// Runs the node until it ends.
pub fn main() -> Result<(), Box<dyn std::error::Error>> {
    let node = Node::builder("shelf").start()?;
    node.serve(Shelf::default()).register_global("shelf")?;
    node.wait();
    Ok(())
}
