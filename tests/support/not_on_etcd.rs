//! The tests that cannot hold for stores in etcd, each with the reason: all that there are.
//!
//! `tests/conversation/on_etcd.rs` runs every test of `tests/conversation.rs` but for these over stores in etcd. It looks whether each name here is
//! one of a test, and whether each test of [`PROGRAMS`] is here, or is the one that [`IN_ETCD`] names.

/// A test that does not hold for a store in etcd.
pub struct NotOnEtcd {
    /// The file of `tests/`.
    pub program: &'static str,
    /// Its name there, with its modules; all of a module where it ends with `::`. In one of [`PROGRAMS`] also a part of a test that is a function.
    pub test: &'static str,
    /// The reason.
    pub why: &'static str,
}

const fn not(program: &'static str, test: &'static str, why: &'static str) -> NotOnEtcd {
    NotOnEtcd { program, test, why }
}

/// Tests of a store's requests with programs of their own.
pub const PROGRAMS: &[&str] = &["interop_requests", "interop_scan", "interop_watch", "interop_ends"];

/// A test of [`PROGRAMS`], and the test that is the same for a store in etcd.
pub const IN_ETCD: &[(&str, &str)] = &[
    (
        "every_request_of_a_store_in_memory_is_answered_with_the_terms_of_elixir",
        "every_request_of_a_store_in_etcd_is_answered_with_the_terms_of_elixir_also_after_a_restart",
    ),
    (
        "every_request_of_a_store_on_disk_is_answered_with_the_terms_of_elixir_also_after_a_restart",
        "every_request_of_a_store_in_etcd_is_answered_with_the_terms_of_elixir_also_after_a_restart",
    ),
    (
        "slaves_of_both_kinds_end_with_what_the_primary_in_memory_has",
        "slaves_of_both_kinds_end_with_what_the_primary_in_etcd_has",
    ),
    (
        "slaves_of_both_kinds_end_with_what_the_primary_on_disk_has",
        "slaves_of_both_kinds_end_with_what_the_primary_in_etcd_has",
    ),
    (
        "a_slave_hands_every_request_that_writes_on_to_its_primary",
        "a_slave_hands_every_request_that_writes_on_to_its_primary_in_etcd",
    ),
    (
        "a_store_in_memory_is_scanned_in_the_order_of_the_beam",
        "a_store_in_etcd_is_scanned_in_the_order_of_the_beam",
    ),
    (
        "a_store_on_disk_is_scanned_in_the_order_of_the_beam_and_goes_on_after_a_restart",
        "a_scan_in_order_of_a_store_in_etcd_goes_on_after_a_restart",
    ),
    ("a_store_in_memory_is_scanned_as_ets_would_be", "a_store_in_etcd_is_scanned_as_ets_would_be"),
    (
        "what_an_otp_cannot_decode_ends_the_call_and_keys_come_as_they_were_put",
        "so_do_keys_of_a_store_in_etcd",
    ),
    ("a_store_in_memory_tells_every_change_in_order", "a_store_in_etcd_tells_every_change_in_order"),
    (
        "a_watcher_of_a_prefix_is_told_of_keys_that_begin_so_and_of_no_others",
        "so_is_a_watcher_of_a_prefix_of_a_store_in_etcd",
    ),
    (
        "a_watch_is_over_with_its_process_its_node_and_where_its_node_is_too_slow",
        "so_is_a_watch_of_a_store_in_etcd",
    ),
    ("watchers_by_the_hundred_thousand_are_bounded_and_told", "so_are_watchers_of_a_store_in_etcd"),
    (
        "keys_of_a_store_in_memory_end_to_the_moment_here_and_at_slaves",
        "keys_of_a_store_in_etcd_end_to_the_moment_here_and_at_slaves",
    ),
    (
        "keys_of_a_store_on_disk_end_to_the_moment_here_and_at_slaves",
        "keys_of_a_store_in_etcd_end_to_the_moment_here_and_at_slaves",
    ),
    ("what_ends_is_told_in_the_words_of_elixir", "so_is_what_ends_in_etcd"),
    ("a_machines_clock_that_is_set_by_an_hour_neither_ends_a_key_nor_keeps_it", "nor_does_it_in_etcd"),
];

const OWN_STORE: &str = "its store is made for the test: one that fails, answers late or has little room";
const OTHER_ENGINE: &str = "it is about another engine";
const FRAMES: &str = "it is about frames and connections, with a store for each of many";
const AT_ONCE: &str =
    "it is about an answer on the caller's own connection: a store in etcd answers a write later";
const NO_SLAVE: &str = "a store in etcd is nobody's slave, and is not promoted";
const NO_CONFIRM: &str =
    "no write of a store in etcd waits for a slave: `confirm: 1` is answered by `:kept_by_etcd`";
const REVISIONS: &str = "a revision is etcd's there, and no number of the store's own that counts from 1";
const NUMBERS: &str = "the numbers of changes go up there, and are not one behind the other";
const BYTES: &str = "etcd takes 1.5 MiB in a request, and 119 keys";

/// All of them.
pub const NOT_ON_ETCD: &[NotOnEtcd] = &[
    not("conversation", "on_etcd::", "it runs the others"),
    not(
        "conversation",
        "model::",
        "a store in etcd has a model of its own, which `model::in_etcd` holds it to",
    ),
    not("conversation", "copies::", OWN_STORE),
    not("conversation", "ends::a_deadline_that_no_clock_has_is_as_good_as_none", NO_SLAVE),
    not(
        "conversation",
        "ends::a_slave_goes_by_its_own_clock_waits_for_its_primary_and_removes_once_it_is_promoted",
        NO_SLAVE,
    ),
    not(
        "conversation",
        "ends::keys_that_have_ended_are_removed_and_it_is_looked_for_them_while_there_are_any",
        REVISIONS,
    ),
    not("conversation", "figures::each_request_that_is_not_done_is_counted_by_its_reason", REVISIONS),
    not("conversation", "figures::each_write_of_the_primary_that_fails_is_counted_once", OWN_STORE),
    not("conversation", "primaries::", NO_SLAVE),
    not("conversation", "requests::a_batch_that_has_no_room_changes_nothing", OWN_STORE),
    not("conversation", "requests::a_key_is_compared_by_its_value_or_by_the_write_that_it_is_of", REVISIONS),
    not(
        "conversation",
        "requests::a_read_says_how_new_it_is_to_be_and_a_primary_misses_nothing_anyway",
        REVISIONS,
    ),
    not("conversation", "requests::more_than_the_bounds_is_refused_with_the_bound", BYTES),
    not(
        "conversation",
        "requests::what_a_caller_cannot_decode_ends_its_call_and_stays_where_it_is",
        OWN_STORE,
    ),
    not("conversation", "requests::what_has_no_room_is_asked_again_and_changes_nothing_before", AT_ONCE),
    not("conversation", "revisions::", NO_SLAVE),
    not("conversation", "scan::a_scan_behind_a_put_of_the_same_caller_finds_it", OTHER_ENGINE),
    not("conversation", "scan::pages_beyond_a_bound_that_wait_are_refused", OWN_STORE),
    not("conversation", "signals::a_peer_without_payloads_gets_the_reason_in_the_control_message", FRAMES),
    not(
        "conversation",
        "signals::calls_and_spawn_requests_wait_for_room_in_their_order_and_end_past_the_bound",
        NO_SLAVE,
    ),
    not("conversation", "signals::no_cut_and_no_changed_byte_of_a_conversation_panics", FRAMES),
    not(
        "conversation",
        "store::a_copy_of_a_store_that_answers_later_brings_all_of_it_and_no_value_goes_back",
        OWN_STORE,
    ),
    not(
        "conversation",
        "store::a_late_value_that_the_callers_release_cannot_decode_ends_the_call_too",
        OWN_STORE,
    ),
    not("conversation", "store::a_slave_is_added_once_and_each_write_waits_for_it_in_order", AT_ONCE),
    not(
        "conversation",
        "store::a_slave_gets_writes_in_the_order_of_their_numbers_whatever_order_they_are_done_in",
        OWN_STORE,
    ),
    not("conversation", "store::a_store_that_answers_later_is_answered_for_later", OWN_STORE),
    not(
        "conversation",
        "store::a_value_that_the_callers_release_cannot_decode_ends_the_call_instead_of_the_connection",
        OWN_STORE,
    ),
    not(
        "conversation",
        "store::whatever_order_a_store_answers_in_each_call_is_answered_once_and_those_of_a_key_in_order",
        OWN_STORE,
    ),
    not("conversation", "transact::changes_are_made_where_all_guards_hold_and_else_none_is", REVISIONS),
    not("conversation", "watch::a_slave_tells_what_its_primary_sends_by_numbers_of_its_own", NO_SLAVE),
    not("conversation", "watch::a_watcher_goes_on_behind_the_number_that_it_has_seen", NUMBERS),
    not("conversation", "watch::what_is_there_is_shown_first_and_what_changes_meanwhile_once", NUMBERS),
    not("interop_requests", "check_unconfirmed", NO_CONFIRM),
    not("interop_requests", "check_counted_revisions", REVISIONS),
    not("interop_requests", "a_slave_of_an_elixir_primary_answers_every_request_that_reads", NO_SLAVE),
    not("interop_requests", "revisions_stay_over_promotion_and_restarts_and_never_go_back", NO_SLAVE),
    not(
        "interop_scan",
        "a_store_on_disk_is_scanned_as_ets_would_be_and_goes_on_after_a_restart",
        "without an order a place in a scan is one of the memory of the node that gave it, as in a store in memory",
    ),
    not(
        "interop_watch",
        "a_store_on_disk_tells_every_change_in_order_and_goes_on_after_it_was_killed",
        "a node that was started again knows no change of before: watchers of numbers before begin anew, `:too_old`",
    ),
    not("interop_watch", "a_slave_tells_what_its_primary_writes_and_goes_on_when_it_is_promoted", NO_SLAVE),
    not("interop_watch", "a_clear_is_one_event_at_its_primary_and_at_slaves", NO_CONFIRM),
    not("interop_ends", "deadlines_stay_over_restarts_and_promotions", NO_SLAVE),
];
