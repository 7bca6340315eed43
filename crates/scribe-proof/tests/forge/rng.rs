//! Random numbers that depend on seed, kind and case alone, so that any case can be replayed by
//! itself (SplitMix64).

/// A stream of numbers.
pub struct Rng(u64);

impl Rng {
    /// The stream of one case.
    pub fn of_case(seed: u64, kind: &str, case: u64) -> Rng {
        let kind = kind.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
        });
        let mut rng = Rng(seed ^ kind);
        rng.0 = rng.next() ^ case.wrapping_mul(0xd1b5_4a32_d192_ed03);
        rng
    }

    /// Any number.
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `end`, which is not 0.
    pub fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }

    /// A place in a list of `length` items, which is not empty.
    pub fn place(&mut self, length: usize) -> usize {
        self.below(length as u64) as usize
    }

    /// Whether a chance of one in `among` came true.
    pub fn one_in(&mut self, among: u64) -> bool {
        self.below(among) == 0
    }

    /// One of the items.
    pub fn pick<'a, T>(&mut self, items: &'a [T]) -> &'a T {
        &items[self.place(items.len())]
    }

    /// One of the words.
    pub fn word(&mut self, words: &[&'static str]) -> &'static str {
        words[self.place(words.len())]
    }

    /// How often to change something: seldom not at all, mostly once, sometimes more.
    pub fn changes(&mut self) -> u64 {
        match self.below(16) {
            0 => 0,
            1..=10 => 1,
            11..=13 => 2,
            _ => 3,
        }
    }

    /// 32 bytes.
    pub fn bytes(&mut self) -> [u8; 32] {
        let mut bytes = [0; 32];
        for chunk in bytes.chunks_exact_mut(8) {
            chunk.copy_from_slice(&self.next().to_be_bytes());
        }
        bytes
    }
}
