//! Reproducible pseudo-random numbers.

/// Pseudo-random number generator (xorshift).
pub struct TestRng(pub u64);

impl TestRng {
    /// Returns a number below `sides`.
    pub fn roll(&mut self, sides: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % sides as u64).unwrap()
    }
}
