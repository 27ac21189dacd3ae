//! Finding a 48-bit magic at any bit.

/// Begins each block: the digits of pi.
pub const BLOCK_MAGIC: u64 = 0x3141_5926_5359;
/// Ends a stream: the digits of the square root of pi.
pub const END_MAGIC: u64 = 0x1772_4538_5090;
/// Bits of a magic.
pub const MAGIC_BITS: usize = 48;

/// For each value of a pair of bytes, whether a magic may have it.
///
/// At any alignment a magic fills the five bytes after the one it starts in, and exactly one pair of bytes at a
/// multiple of four lies within them: only these are looked at, half of the data.
type Pairs = [bool; 1 << 16];

const fn pairs(magic: u64) -> Pairs {
    let mut pairs = [false; 1 << 16];
    let mut shift = 0;
    while shift < 8 {
        let mut place = 0;
        while place < 4 {
            pairs[(magic << 8 >> (shift + 32 - place * 8)) as usize & 0xffff] = true;
            place += 1;
        }
        shift += 1;
    }
    pairs
}
static BLOCK_PAIRS: Pairs = pairs(BLOCK_MAGIC);
static END_PAIRS: Pairs = pairs(END_MAGIC);

/// One of the two magics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Magic {
    /// `BLOCK_MAGIC`.
    Block,
    /// `END_MAGIC`.
    End,
}

impl Magic {
    fn value(self) -> u64 {
        match self {
            Magic::Block => BLOCK_MAGIC,
            Magic::End => END_MAGIC,
        }
    }

    fn pairs(self) -> &'static Pairs {
        match self {
            Magic::Block => &BLOCK_PAIRS,
            Magic::End => &END_PAIRS,
        }
    }
}

/// The bits, ascending, at which a magic starts that lies within `data`.
pub fn find(data: &[u8], magic: Magic) -> Vec<usize> {
    let (value, pairs) = (magic.value(), magic.pairs());
    let mut found = Vec::new();
    let (words, rest) = data.as_chunks::<4>();
    let last = rest.first_chunk().map(|&[first, second]| [first, second, 0, 0]);
    for (number, word) in words.iter().chain(&last).enumerate() {
        if pairs[usize::from(u16::from_be_bytes([word[0], word[1]]))] {
            // The magic starts in one of the four bytes before the pair.
            let first = (number * 32).saturating_sub(32).max(found.last().map_or(0, |last| last + 1));
            found.extend((first..number * 32).filter(|&bit| magic_at(data, bit) == Some(value)));
        }
    }
    found
}

/// 48 bits from `bit` on; `None` where there are not so many.
fn magic_at(data: &[u8], bit: usize) -> Option<u64> {
    let bytes = data.get(bit / 8..(bit + MAGIC_BITS).div_ceil(8))?;
    let mut word = [0; 8];
    word[..bytes.len()].copy_from_slice(bytes);
    Some(u64::from_be_bytes(word) << (bit % 8) >> 16)
}

#[cfg(test)]
mod tests {
    use super::{BLOCK_MAGIC, END_MAGIC, MAGIC_BITS, Magic, find};

    fn put(data: &mut [u8], bit: usize, magic: u64) {
        for at in 0..MAGIC_BITS {
            let mask = 0x80 >> ((bit + at) % 8);
            let byte = &mut data[(bit + at) / 8];
            *byte = *byte & !mask | if magic >> (MAGIC_BITS - 1 - at) & 1 != 0 { mask } else { 0 };
        }
    }

    #[test]
    fn one_at_any_bit_of_any_size() {
        for (magic, value) in [(Magic::Block, BLOCK_MAGIC), (Magic::End, END_MAGIC)] {
            for filler in [0, 0xff, 0x31, 0x17] {
                for size in 6..24 {
                    for bit in 0..=size * 8 - MAGIC_BITS {
                        let mut data = vec![filler; size];
                        put(&mut data, bit, value);
                        assert_eq!(find(&data, magic), [bit], "{size}");
                    }
                }
            }
        }
    }

    #[test]
    fn many_in_a_row_and_none() {
        let mut data = vec![0; 600];
        let places: Vec<usize> = (0..90).map(|number| number * 49 + 3).collect();
        places.iter().for_each(|&bit| put(&mut data, bit, BLOCK_MAGIC));
        assert_eq!(find(&data, Magic::Block), places);
        assert_eq!(find(&data, Magic::End), []);
        for size in 0..6 {
            assert_eq!(find(&data[..size], Magic::Block), []);
        }
    }
}
