//! The allocator of the process.

use libmimalloc_sys::{mi_option_set, mi_option_t};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// `mi_option_purge_delay`: milliseconds after which free memory goes back to the system; never, if negative.
const PURGE_DELAY: mi_option_t = 15;

/// Keeps free memory from now on, for work that asks for as much again within moments: every step of a training frees and
/// takes the same hundreds of megabytes, and a tenth of its time would go into pages that the system has to clear anew.
pub fn keep_free_memory() {
    // SAFETY: sets a number that the allocator reads when it frees.
    #[allow(unsafe_code)]
    unsafe {
        mi_option_set(PURGE_DELAY, -1);
    }
}
