//! Requests that are told by their first element and their size.

/// Makes a function that reads such requests, and the list of those that it knows: the list cannot say anything else than what
/// is read, as both are made of the same lines.
///
/// The function gets the request, its number of elements, the bytes of its first and a cursor behind that.
macro_rules! operations {
    (
        $(#[$about:meta])*
        $vis:vis fn $read:ident<$life:lifetime>($term:ident, $arity:ident, $operation:ident, $cursor:ident) -> $gives:ty, $list:ident;
        $( ($($of:literal)|+, $name:literal) => $then:expr, )+
        _ => $other:expr $(,)?
    ) => {
        /// What is read so: names, each with the number of elements.
        pub(in crate::kv) const $list: &'static [(usize, &'static [u8])] = &[$( $( ($of, $name) ),+ ),+];

        $(#[$about])*
        $vis fn $read(
            $term: crate::etf::TermView<$life>,
            $arity: usize,
            $operation: &[u8],
            $cursor: crate::etf::Cursor<$life>,
        ) -> Option<$gives> {
            let _ = &$term;
            match ($arity, $operation) {
                $( $(($of, $name))|+ => $then, )+
                _ => $other,
            }
        }
    };
}

pub(super) use operations;

/// Names and numbers of elements, as text.
pub(super) fn named<'a>(
    known: impl IntoIterator<Item = &'a (usize, &'static [u8])>,
) -> impl Iterator<Item = (&'static str, usize)> {
    known.into_iter().map(|&(arity, name)| (str::from_utf8(name).unwrap_or_default(), arity))
}
