//! Constants that are atoms.

/// Names atoms: `pub OK = "ok"` is `pub const OK: Atom = atom("ok")`.
///
/// ```
/// use kvnode::etf::{Atom, OwnedTerm, atoms};
///
/// atoms! {
///     /// What everything answers that has worked.
///     pub OK = "ok";
///     NOT_FOUND = "not_found";
///     USER = "Elixir.MyApp.User";
/// }
///
/// let answer: Result<(), Atom> = OwnedTerm::from_value(&Err::<(), _>(NOT_FOUND))?.to()?;
/// assert_eq!(answer, Err(NOT_FOUND));
/// assert_eq!(OK, "ok");
/// assert_eq!(format!("{:?}", OwnedTerm::from_value(&USER)?), "MyApp.User");
/// # Ok::<(), kvnode::etf::ConvertError>(())
/// ```
///
/// A text of more than 255 characters does not compile.
///
/// ```compile_fail
/// # const LONG: &str = match std::str::from_utf8(&[b'a'; 256]) {
/// #     Ok(text) => text,
/// #     Err(_) => "",
/// # };
/// kvnode::etf::atoms! { TOO_LONG = LONG }
/// ```
// Hidden where the compiler puts it: `etf::atoms` is its place.
#[doc(hidden)]
#[macro_export]
macro_rules! __atoms {
    ($($(#[$attribute:meta])* $visibility:vis $name:ident = $text:expr);* $(;)?) => {
        $($(#[$attribute])* $visibility const $name: $crate::etf::Atom = $crate::etf::atom($text);)*
    };
}
