//! Completions that end also where an engine forgets them.

use super::StoreError;

/// A completion that is called with an error where it is dropped without an answer: what waits for a read then goes on, instead
/// of waiting for ever.
///
/// For reads alone. Whether a write whose completion is dropped took effect is unknown.
pub struct Owed<T, F: FnOnce(Result<T, StoreError>)> {
    tell: Option<F>,
    _answer: std::marker::PhantomData<fn(T)>,
}

impl<T, F: FnOnce(Result<T, StoreError>)> Owed<T, F> {
    /// Owes `tell` an answer.
    pub const fn new(tell: F) -> Self {
        Self { tell: Some(tell), _answer: std::marker::PhantomData }
    }

    /// The answer.
    pub fn tell(mut self, answer: Result<T, StoreError>) {
        if let Some(tell) = self.tell.take() {
            tell(answer);
        }
    }
}

impl<T, F: FnOnce(Result<T, StoreError>)> Drop for Owed<T, F> {
    fn drop(&mut self) {
        if let Some(tell) = self.tell.take() {
            tell(Err(StoreError::Io("terminated")));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_told_once_of_an_answer_or_of_its_end() {
        let mut told = Vec::new();
        Owed::new(|answer| told.push(answer)).tell(Ok(1));
        drop(Owed::new(|answer| told.push(answer)));
        assert_eq!(told, [Ok(1), Err(StoreError::Io("terminated"))]);
    }
}
