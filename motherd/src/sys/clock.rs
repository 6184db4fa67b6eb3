//! What the time of day is where this machine stands.

/// localtime_r(3): how many seconds local time is ahead of UTC at a time in seconds since 1970; `None` where the libc
/// cannot say.
pub(crate) fn ahead_of_utc(at: i64) -> Option<i64> {
    let mut local = std::mem::MaybeUninit::<libc::tm>::zeroed();
    // SAFETY: both pointers are to locals; the call reads one and writes a `struct tm` to the other.
    let filled = unsafe { libc::localtime_r(&raw const at, local.as_mut_ptr()) };
    if filled.is_null() {
        return None;
    }
    // SAFETY: it was all zero, which is a `struct tm`, and the call has filled it in.
    Some(unsafe { local.assume_init() }.tm_gmtoff)
}
