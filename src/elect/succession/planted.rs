//! Rules of the succession that a test can break one by one, to show that its simulation notices. Outside of the crate's own tests
//! [`planted`] is `false` as a constant.

/// A rule that can be broken. Its text is the rule as it is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(not(test), expect(dead_code, reason = "one of them is broken by the simulation's own shell"))]
pub(crate) enum Rule {
    /// A store is sealed before it reports.
    SealFirst,
    /// A store without data counts for nothing.
    EmptyIsNothing,
    /// So many reports are waited for that one of them has each confirmed write.
    EnoughReports,
    /// A primary that may have lost its lease leads no more, by its own clock.
    OwnClock,
    /// A primary whose key is gone or another's leads no more.
    KeyIsLost,
    /// The most advanced is chosen.
    MostAdvanced,
    /// A slave counts once it is recorded.
    RecordedCounts,
    /// A slave that is dropped from the record is not needed for any write that was confirmed.
    DroppedIsNotNeeded,
    /// The key is taken where nothing has changed since that was looked at.
    Compared,
    /// A copy of a primary that an election does not know counts for nothing.
    KnownCopies,
    /// A copy of a primary that has ended in good order is enough alone where the copy has come to that primary's last write.
    EndIsReached,
}

impl Rule {
    /// All of them.
    #[cfg(test)]
    pub(crate) const ALL: [Self; 11] = [
        Self::SealFirst,
        Self::EmptyIsNothing,
        Self::EnoughReports,
        Self::OwnClock,
        Self::KeyIsLost,
        Self::MostAdvanced,
        Self::RecordedCounts,
        Self::DroppedIsNotNeeded,
        Self::Compared,
        Self::KnownCopies,
        Self::EndIsReached,
    ];
}

/// Whether a rule is broken.
#[cfg(not(test))]
#[inline(always)]
pub(crate) const fn planted(_rule: Rule) -> bool {
    false
}

#[cfg(test)]
thread_local! {
    static PLANTED: std::cell::Cell<Option<Rule>> = const { std::cell::Cell::new(None) };
}

/// Whether a rule is broken.
#[cfg(test)]
pub(crate) fn planted(rule: Rule) -> bool {
    PLANTED.get() == Some(rule)
}

/// Breaks a rule on this thread, or none.
#[cfg(test)]
pub(crate) fn plant(rule: Option<Rule>) {
    PLANTED.set(rule);
}
