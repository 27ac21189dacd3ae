//! Bits of a slice, most significant first, from a 64-bit buffer that is refilled by unaligned 8-byte loads.

/// A place among the bits of a slice. Zeros stand for what is past its end; `overrun` tells whether they were used.
#[derive(Clone, Copy)]
pub(crate) struct Bits<'a> {
    data: &'a [u8],
    /// The byte that is loaded next.
    next: usize,
    /// The coming bits, topmost first; below the valid ones are zeros or the bits that follow.
    buffer: u64,
    /// Valid bits of the buffer: 56 to 63 after a refill.
    valid: u32,
}

impl<'a> Bits<'a> {
    pub(crate) fn at(data: &'a [u8], bit: usize) -> Self {
        let mut bits = Bits { data, next: bit / 8, buffer: 0, valid: 0 };
        bits.refill();
        bits.skip((bit % 8) as u32);
        bits
    }

    /// Make at least 56 bits valid.
    #[inline(always)]
    pub(crate) fn refill(&mut self) {
        let word = match self.data.get(self.next..).and_then(<[u8]>::first_chunk) {
            Some(bytes) => u64::from_be_bytes(*bytes),
            None => word_at_end(self.data, self.next),
        };
        self.buffer |= word >> self.valid;
        self.next += ((63 - self.valid) >> 3) as usize;
        self.valid |= 56;
    }

    /// The next `count` bits, 1 to 56; they have to be valid.
    #[inline(always)]
    pub(crate) fn peek(&self, count: u32) -> u64 {
        self.buffer >> (64 - count)
    }

    /// Pass `count` bits, at most 63; they have to be valid.
    #[inline(always)]
    pub(crate) fn skip(&mut self, count: u32) {
        self.buffer <<= count & 63;
        self.valid = self.valid.wrapping_sub(count);
    }

    /// Pass and return the next `count` bits, 1 to 56.
    pub(crate) fn take(&mut self, count: u32) -> u64 {
        self.refill();
        let bits = self.peek(count);
        self.skip(count);
        bits
    }

    /// Bits from the start of the slice.
    pub(crate) fn position(&self) -> usize {
        self.next * 8 - self.valid as usize
    }

    pub(crate) fn overrun(&self) -> bool {
        self.position() > self.data.len() * 8
    }
}

#[cold]
#[inline(never)]
fn word_at_end(data: &[u8], next: usize) -> u64 {
    let rest = data.get(next..).unwrap_or(&[]);
    let mut word = [0; 8];
    word[..rest.len()].copy_from_slice(rest);
    u64::from_be_bytes(word)
}

#[cfg(test)]
mod tests {
    use super::Bits;

    #[test]
    fn any_count_at_any_bit() {
        let data: Vec<u8> = (0..40u8).map(|n| n.wrapping_mul(73) ^ 0x5a).collect();
        let bit = |at: usize| (data.get(at / 8).copied().unwrap_or(0) >> (7 - at % 8) & 1) as u64;
        for start in 0..data.len() * 8 {
            for count in 1..=56 {
                let mut bits = Bits::at(&data, start);
                let expected = (start..start + count).fold(0, |sum, at| sum << 1 | bit(at));
                assert_eq!(bits.take(count as u32), expected, "{count} bits at {start}");
                assert_eq!(bits.position(), start + count);
                assert_eq!(bits.overrun(), start + count > data.len() * 8);
            }
        }
    }

    #[test]
    fn nothing_is_all_zeros() {
        let mut bits = Bits::at(&[], 0);
        assert!(!bits.overrun());
        assert_eq!(bits.take(48), 0);
        assert!(bits.overrun());
    }
}
