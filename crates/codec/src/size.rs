//! Where the bytes of a file go.

/// Bytes of a file by purpose; the total is the exact file size.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct SizeSplit {
    /// Entropy-coded weight codes.
    pub payload: u64,
    /// Probability tables and coder parameters.
    pub tables: u64,
    /// Row and column scales.
    pub scales: u64,
    /// Corrections added to quantised weights.
    pub corrections: u64,
    /// Tensors stored verbatim, and metadata.
    pub uncoded: u64,
    /// Header, directory, checksums, padding.
    pub directory: u64,
}

impl SizeSplit {
    /// Sum of all parts, in bytes.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.payload + self.tables + self.scales + self.corrections + self.uncoded + self.directory
    }
}

impl std::ops::AddAssign for SizeSplit {
    fn add_assign(&mut self, other: Self) {
        self.payload += other.payload;
        self.tables += other.tables;
        self.scales += other.scales;
        self.corrections += other.corrections;
        self.uncoded += other.uncoded;
        self.directory += other.directory;
    }
}
