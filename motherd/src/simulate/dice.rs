//! Choices that follow from one number.

/// xorshift64*, seeded by a step of splitmix64 so that neighbouring seeds have nothing in common.
#[derive(Debug, Clone)]
pub(crate) struct Dice(u64);

impl Dice {
    pub(crate) fn new(seed: u64) -> Self {
        let mixed = seed.wrapping_add(1).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        Self((mixed ^ mixed >> 29) | 1)
    }

    /// 0 to `sides` - 1.
    pub(super) fn roll(&mut self, sides: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33) % sides
    }

    /// An index into so many.
    pub(super) fn index(&mut self, count: usize) -> usize {
        usize::try_from(self.roll(count as u64)).unwrap_or_default()
    }

    pub(super) fn one_in(&mut self, sides: u64) -> bool {
        self.roll(sides) == 0
    }
}
