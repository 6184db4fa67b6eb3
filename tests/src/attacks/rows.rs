//! The table of pitfalls that sandboxes and service managers are known by, and what answers each of them here.

/// One of them.
#[derive(Debug)]
pub struct Row {
    /// Its number, by which attacks name it.
    pub number: u8,
    /// What goes wrong elsewhere.
    pub pitfall: &'static str,
    /// Tests beside the attacks, or in their place.
    pub tests: &'static [&'static str],
    /// What there is to know: why there is no attack, or what is left.
    pub note: &'static str,
}

/// Makes the table.
macro_rules! rows {
    ($($number:literal $pitfall:literal [$($test:ident),*] $note:literal;)*) => {
        /// All of them.
        pub const ROWS: &[Row] = &[$(Row {
            number: $number,
            pitfall: $pitfall,
            tests: &[$(stringify!($test)),*],
            note: $note,
        }),*];
    };
}

rows! {
    1 "the launcher's program overwritten through /proc/self/exe" [] "";
    2 "a descriptor of a host folder leaked, or made the working directory"
        [nothing_of_the_caller_leaks_in] "";
    3 "masks made from the container's own /dev/null" [] "";
    4 "/dev, /proc or /sys of a given root are links" [] "";
    5 "writes to /proc misdirected by what the root has there" [] "";
    6 "mount targets exchanged for links meanwhile" [] "100,000 exchanges during launches, or 15 seconds of them on a slow machine";
    7 "mounts that propagate to the host" [] "";
    8 "a submount of a read-only bind stays writable" [] "200 launches under churn, or 15 seconds of them on a slow machine";
    9 "the old root reachable after pivot_root" [] "";
    10 "chroot left with CAP_SYS_CHROOT" [] "";
    11 "keys typed into the caller's terminal" [] "TIOCLINUX is of virtual consoles alone, which no sandbox has";
    12 "x32 numbers"
        [every_shipped_filter_says_what_its_policy_and_seccompiler_say]
        "kernels without CONFIG_X86_X32_ABI refuse them too, so that the proof is the interpreter's";
    13 "the i386 gate" [a_foreign_architecture_is_killed] "";
    14 "clone3, whose flags lie in memory" [namespaces_are_made_of_the_kinds_that_are_named] "";
    15 "EPERM for calls that a libc only tries"
        [every_number_gets_what_the_policy_says] "";
    16 "io_uring beside the filter" [io_uring_needs_its_switch_besides_its_calls] "";
    17 "filters that decide on memory" [] "no handler of ours decides on memory either: there is none";
    18 "arguments compared as 64 bits"
        [no_shipped_filter_sees_the_high_half_of_an_argument] "";
    19 "a notified call answered for another process" [no_filter_asks_another_process]
        "no filter of ours notifies: there is no handler that could answer for the wrong one";
    20 "ptrace and its relatives between services of one user" [] "";
    21 "calls that only attackers make"
        [the_default_policy_denies_what_attacks_are_made_of,
         denied_calls_reach_the_log_of_the_kernel] "";
    22 "user namespaces as a way to code that only root should reach"
        [no_namespace_is_made_by_clone_either] "";
    23 "maps of ids that reach the host's"
        [an_automatic_range_is_another_for_another_service] "";
    24 "supplementary groups and inheritable capabilities kept" [] "";
    25 "capabilities that come back"
        [securebits_are_strict_but_for_what_is_chosen] "";
    26 "set-user-ID programs and file capabilities"
        [no_set_user_id_bit_is_set_by_any_call,
         a_bind_ignores_set_user_id_unless_it_says_otherwise] "";
    27 "readiness said by somebody else" [ready_is_heard_with_the_pid_of_who_said_it, who_floods_stalls_or_lies_disturbs_nobody]
        "motherd's protocol, not the sandbox's";
    28 "the control socket abused"
        [a_peer_that_trickles_is_let_go_when_its_time_is_over,
         files_outside_of_the_policy_are_out_of_reach]
        "motherd's; no sandbox shows /run, where it is, unless its policy binds it";
    29 "the wrong process signalled, its pid having been given anew"
        [a_pid_that_was_given_anew_is_signalled_by_nobody]
        "motherd's: signals go by pidfd, and a cgroup is ended whole; the sandbox signals nobody";
    30 "a double fork out of supervision"
        [a_run_leaves_no_cgroup_and_no_process,
         two_thousand_orphans_are_reaped_and_told_each_once] "";
    31 "floods of processes, memory, files"
        [cgroups_hold_their_limits_and_go_with_their_services] "";
    32 "ways out of a cgroup, and limits raised from within" [] "";
    33 "a frozen cgroup that cannot be ended" [] "";
    34 "the kernel's settings and memory by way of /proc, /sys and /dev" [] "";
    35 "core dumps of secrets" [] "";
    36 "secrets in environments, arguments and readable files"
        [a_credential_is_in_no_environment_and_no_other_service_sees_it] "";
    37 "what Landlock does not see"
        [what_an_abi_lacks_is_refused_or_left_out_by_name_and_the_rest_is_enforced,
         a_right_that_an_old_kernel_lacks_is_an_error_unless_it_is_optional]
        "sockets by path outside of /run, /tmp and /dev/shm are kept by their modes and by `hidden` until Landlock's ABI 9";
    38 "Landlock rules on paths that are missing, come later or are renamed over"
        [a_missing_path_is_an_error_at_its_place] "";
    39 "control sockets of other managers bound into a sandbox"
        [a_control_socket_is_bound_only_where_the_policy_says_so]
        "a folder that has one in it is refused on a host where it is there";
    40 "write and execute by memfd, shared memory and /proc/self/mem"
        [no_memory_is_writable_and_executable] "";
    41 "a step that fails and leaves half a sandbox"
        [a_step_that_fails_in_any_way_is_told_and_leaves_nothing_behind,
         each_call_of_motherds_in_a_launch_fails_once_and_nothing_is_left]
        "each kind of step in four ways, and each system call of motherd's, on the host";
    42 "an empty list that means everything" [an_empty_list_means_none] "";
    43 "signals, masks, descriptors and limits of the launcher" [] "against a golden table";
    44 "the program exchanged between a check and execve" []
        "nothing of the program is checked beforehand that execve itself would not check";
    45 "variables of the caller's that the loader obeys"
        [nothing_of_the_caller_leaks_in] "";
    46 "walls that fall with the manager"
        [services_outlive_a_killed_motherd_and_obey_the_next,
         a_killed_motherd_is_replaced_and_its_services_go_on] "nothing that confines is held by motherd";
    47 "policies that somebody else wrote, and paths that mislead"
        [a_file_that_somebody_else_could_have_written_is_refused,
         deep_nesting_is_an_error_and_no_crash,
         any_text_is_loaded_or_refused] "";
    48 "a policy that was changed after the start"
        [a_policy_that_was_changed_after_the_start_is_told_until_the_service_is_started_by_it]
        "motherd's: `status` has a digest of the text in force, and says when the files say something else";
    49 "speculation" [speculation_is_disabled_or_the_policy_is_refused]
        "core scheduling is not offered";
    50 "clocks set from a sandbox"
        [no_shipped_policy_lets_a_clock_be_set,
         a_clock_cannot_be_before_the_machines_start] "";
}
