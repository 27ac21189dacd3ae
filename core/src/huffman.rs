//! Prefix codes: a table for the short ones, and a slow way for the long ones.

use crate::bits::Bits;

/// Bits that the table decodes at once. 13 gained nothing: what the longer codes save, the cache misses cost.
const WIDTH: u32 = 10;
const SIZE: usize = 1 << WIDTH;
/// Symbols that can be decoded between two refills.
pub(crate) const AT_ONCE: usize = 5;
const _: () = assert!(AT_ONCE as u32 * WIDTH <= 56);
/// Bits of the longest code.
pub(crate) const LONGEST: usize = 20;
/// Symbols of the largest alphabet: two digits of run lengths, 255 places of the move-to-front list, the end.
pub(crate) const SYMBOLS: usize = 258;
/// Stands for bits that are no code; greater than any symbol.
const INVALID: u16 = 511;

/// A code's length in bits 0 to 5, its symbol from bit 6 on. A length of 0: the code is longer than `WIDTH`.
#[derive(Clone, Copy)]
struct Entry(u16);

impl Entry {
    const LONG: Entry = Entry(0);

    fn new(symbol: u16, length: usize) -> Self {
        Entry(length as u16 | symbol << 6)
    }

    #[inline(always)]
    fn length(self) -> u32 {
        u32::from(self.0 & 63)
    }

    #[inline(always)]
    fn symbol(self) -> u16 {
        self.0 >> 6
    }
}

/// One of a block's two to six codes.
pub(crate) struct Table {
    entries: [Entry; SIZE],
    /// For each length its last code, as libbz2's `limit`.
    last: [i32; LONGEST + 1],
    /// For each length what to subtract from a code for its place in `symbols`, as libbz2's `base`.
    base: [i32; LONGEST + 1],
    /// Symbols by ascending code, as libbz2's `perm`.
    symbols: [u16; SYMBOLS],
    shortest: usize,
}

impl Table {
    pub(crate) fn new() -> Self {
        Table {
            entries: [Entry::LONG; SIZE],
            last: [0; LONGEST + 1],
            base: [0; LONGEST + 1],
            symbols: [INVALID; SYMBOLS],
            shortest: 1,
        }
    }

    /// Make the table for these code lengths, each 1 to 20.
    ///
    /// As to libbz2, lengths may be those of more codes than there are, or of fewer: the first fit, what is missing
    /// is an error when it occurs.
    pub(crate) fn build(&mut self, lengths: &[u8]) {
        let mut counts = [0i32; LONGEST + 1];
        lengths.iter().for_each(|&length| counts[usize::from(length)] += 1);
        self.shortest = counts.iter().position(|&count| count != 0).unwrap_or(LONGEST);
        let mut places = [0usize; LONGEST + 1];
        let (mut place, mut code) = (0, 0);
        for length in 1..=LONGEST {
            places[length] = place as usize;
            self.base[length] = code - place;
            code += counts[length];
            place += counts[length];
            self.last[length] = code - 1;
            code <<= 1;
        }
        for (symbol, &length) in lengths.iter().enumerate() {
            let place = &mut places[usize::from(length)];
            self.symbols[*place] = symbol as u16;
            *place += 1;
        }
        let mut at = 0;
        for length in self.shortest..=WIDTH as usize {
            let span = 1 << (WIDTH as usize - length);
            while at < SIZE && (at / span) as i32 <= self.last[length] {
                let symbol = self.symbol((at / span) as i32, length);
                self.entries[at..at + span].fill(Entry::new(symbol, length));
                at += span;
            }
        }
        self.entries[at..].fill(Entry::LONG);
    }

    fn symbol(&self, code: i32, length: usize) -> u16 {
        *self.symbols.get((code - self.base[length]) as usize).unwrap_or(&INVALID)
    }

    /// The symbol whose code begins these 20 bits, and the code's length, found length by length.
    #[cold]
    #[inline(never)]
    fn decode_long(&self, bits: u32) -> (u16, u32) {
        for length in self.shortest..=LONGEST {
            let code = (bits >> (LONGEST - length)) as i32;
            if code <= self.last[length] {
                return (self.symbol(code, length), length as u32);
            }
        }
        (INVALID, LONGEST as u32)
    }

    /// The next symbol; a refill has to be at most `AT_ONCE - 1` symbols ago. Bits that are no code are a symbol past
    /// the alphabet.
    #[inline(always)]
    pub(crate) fn decode(&self, bits: &mut Bits) -> u16 {
        let entry = self.entries[bits.peek(WIDTH) as usize];
        if entry.length() == 0 {
            // Only values go into the cold call, so that the bits stay in registers.
            bits.refill();
            let (symbol, length) = self.decode_long(bits.peek(LONGEST as u32) as u32);
            bits.skip(length);
            bits.refill();
            return symbol;
        }
        bits.skip(entry.length());
        entry.symbol()
    }
}

#[cfg(test)]
mod tests {
    use super::{INVALID, LONGEST, Table};
    use crate::bits::Bits;

    fn decode(lengths: &[u8], text: &str) -> (u16, usize) {
        let mut table = Table::new();
        table.build(&[7; 40]); // what was there before must not matter
        table.build(lengths);
        let mut bytes = [0; 16];
        text.bytes().enumerate().for_each(|(at, bit)| bytes[at / 8] |= (bit & 1) << (7 - at % 8));
        let mut bits = Bits::at(&bytes, 0);
        (table.decode(&mut bits), bits.position())
    }

    #[test]
    fn short_and_long_codes() {
        let mut lengths: Vec<u8> = (1..=LONGEST as u8).collect();
        lengths.push(LONGEST as u8);
        for length in 1..=LONGEST {
            let code = format!("{}0", "1".repeat(length - 1));
            assert_eq!(decode(&lengths, &code), (length as u16 - 1, length));
        }
        assert_eq!(decode(&lengths, &"1".repeat(LONGEST)), (LONGEST as u16, LONGEST));
    }

    #[test]
    fn codes_are_in_order_of_length_then_symbol() {
        let lengths = [3, 2, 3, 2, 2];
        for (code, symbol) in [("00", 1), ("01", 3), ("10", 4), ("110", 0), ("111", 2)] {
            assert_eq!(decode(&lengths, code), (symbol, code.len()));
        }
    }

    #[test]
    fn a_code_that_is_missing() {
        assert_eq!(decode(&[2, 2, 2], "11").0, INVALID);
        assert_eq!(decode(&[12, 12, 12], "111111111111").0, INVALID);
    }

    #[test]
    fn more_codes_than_there_are() {
        assert_eq!(decode(&[1, 1, 1, 1], "1"), (1, 1));
        assert_eq!(decode(&[20; 258], &"1".repeat(LONGEST)).0, INVALID);
        assert_eq!(decode(&[1; 258], "0"), (0, 1));
    }
}
