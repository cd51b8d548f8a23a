//! The kernel with AMX, which multiplies whole tiles. Its instructions are written out: there are no stable functions for
//! them.
#![allow(unsafe_code)]

use std::arch::asm;
use std::arch::x86_64::__cpuid_count;
use std::sync::OnceLock;

use super::packed::Strip;
use super::{BLOCK, Block};

/// What the tile registers hold: eight tiles of 16 rows of 64 bytes.
#[repr(C, align(64))]
struct Configuration {
    palette: u8,
    start_row: u8,
    reserved: [u8; 14],
    row_bytes: [u16; 16],
    rows: [u8; 16],
}

const CONFIGURATION: Configuration = {
    let mut configuration = Configuration {
        palette: 1,
        start_row: 0,
        reserved: [0; 14],
        row_bytes: [0; 16],
        rows: [0; 16],
    };
    let mut tile = 0;
    while tile < 8 {
        configuration.row_bytes[tile] = 64;
        configuration.rows[tile] = 16;
        tile += 1;
    }
    configuration
};

/// Whether the processor has tiles of bf16, and the system lets this process use them.
pub(super) fn is_here() -> bool {
    const TILES_OF_BF16: u32 = 1 << 22 | 1 << 24;
    static HERE: OnceLock<bool> = OnceLock::new();
    *HERE.get_or_init(|| {
        __cpuid_count(0, 0).eax >= 7
            && __cpuid_count(7, 0).edx & TILES_OF_BF16 == TILES_OF_BF16
            && is_permitted()
    })
}

/// Asks Linux for the state of the tile registers, which a process does not have before it asks.
fn is_permitted() -> bool {
    const ARCH_PRCTL: i64 = 158;
    const ARCH_REQ_XCOMP_PERM: u64 = 0x1023;
    const TILE_DATA: u64 = 18;
    let result: i64;
    // SAFETY: the call changes nothing but what the process may use; the registers that it overwrites are named.
    unsafe {
        asm!(
            "syscall",
            inlateout("rax") ARCH_PRCTL => result,
            in("rdi") ARCH_REQ_XCOMP_PERM,
            in("rsi") TILE_DATA,
            out("rcx") _,
            out("r11") _,
            options(nostack),
        );
    }
    result == 0
}

/// Runs `work` with tile registers set up on this thread, on which [`multiply`] may be called from there.
///
/// # Panics
/// Where there are none.
pub(super) fn with_tiles<T>(work: impl FnOnce() -> T) -> T {
    struct Release;
    impl Drop for Release {
        fn drop(&mut self) {
            // SAFETY: the registers are nobody else's.
            unsafe { asm!("tilerelease", options(nostack, nomem)) }
        }
    }
    assert!(is_here());
    // SAFETY: the processor has tiles, the process may use them, and the configuration is 64 bytes of the right form.
    unsafe { asm!("ldtilecfg [{}]", in(reg) &CONFIGURATION, options(nostack, readonly)) }
    let _release = Release;
    work()
}

/// The product of a block.
///
/// Four tiles of sums stay in registers; for every inner position two of either operand are loaded.
///
/// # Panics
/// If the operands are of different depths, or of none.
pub(super) fn multiply(rows: Strip<'_>, columns: Strip<'_>, block: &mut Block) {
    let depth = rows.len();
    assert!(depth > 0 && columns.len() == depth);
    let below = block.0[BLOCK * BLOCK / 2..].as_mut_ptr();
    // SAFETY: of both operands `depth` times two tiles of 1,024 bytes are read, and 32 rows of 128 bytes are written to the
    // block. The compiler itself uses no tile registers.
    unsafe {
        asm!(
            "tilezero tmm0",
            "tilezero tmm1",
            "tilezero tmm2",
            "tilezero tmm3",
            "2:",
            "tileloadd tmm4, [{left} + {row}*1]",
            "tileloadd tmm6, [{right} + {row}*1]",
            "tileloadd tmm7, [{right} + {row}*1 + 1024]",
            "tdpbf16ps tmm0, tmm4, tmm6",
            "tileloadd tmm5, [{left} + {row}*1 + 1024]",
            "tdpbf16ps tmm1, tmm4, tmm7",
            "tdpbf16ps tmm2, tmm5, tmm6",
            "tdpbf16ps tmm3, tmm5, tmm7",
            "add {left}, 2048",
            "add {right}, 2048",
            "dec {depth}",
            "jnz 2b",
            "tilestored [{above} + {row}*2], tmm0",
            "tilestored [{above} + {row}*2 + 64], tmm1",
            "tilestored [{below} + {row}*2], tmm2",
            "tilestored [{below} + {row}*2 + 64], tmm3",
            left = inout(reg) rows.as_ptr() => _,
            right = inout(reg) columns.as_ptr() => _,
            depth = inout(reg) depth => _,
            above = in(reg) block.0.as_mut_ptr(),
            below = in(reg) below,
            row = in(reg) 64_usize,
            options(nostack),
        );
    }
}
