//! A decoder of single bzip2 blocks, which may start at any bit.
//!
//! It takes what libbz2 (bzip2 1.0.8) takes and refuses what that refuses, block by block: the tests and `core/fuzz`
//! hold the two against each other. Blocks of the randomised kind, which only bzip2 0.9.0 and older wrote, are told
//! apart and left to libbz2. How it works is told in `docs/bzip2-decoder.md`.
//!
//! There are two places with `unsafe`, each of them the call of a function that is compiled for instructions which were
//! found to be there.

mod bits;
mod crc;
mod expand;
mod huffman;
mod inverse;
mod mtf;
#[cfg(feature = "python")]
mod python;
mod scan;
mod symbols;

pub use scan::{BLOCK_MAGIC, END_MAGIC, MAGIC_BITS, Magic, find};

use std::fmt;

/// Bytes of a block of level 1, before the outer run-length code is expanded.
pub const BLOCK_UNIT: usize = 100_000;
/// Bytes in the largest block, before the outer run-length code is expanded.
pub const LARGEST: usize = 9 * BLOCK_UNIT;

/// Why a block is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Error {
    /// No block starts there.
    NoMagic,
    /// The data ends within the block.
    Truncated,
    /// The block is of the randomised kind: left to libbz2.
    Randomised,
    /// There is no byte, no selector, or not two to six tables; or a selector or a code length is out of range.
    Header,
    /// The origin is no row of the transform.
    Origin,
    /// Bits are no symbol's code.
    Code,
    /// The symbols go on behind the last selector's group.
    Selectors,
    /// The block is larger than its level allows.
    TooLong,
    /// The last run's count is missing.
    Run,
    /// The CRC differs.
    Crc,
}

impl fmt::Display for Error {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Error::NoMagic => "no block starts there",
            Error::Truncated => "the data ends within the block",
            Error::Randomised => "the block is of the randomised kind",
            Error::Header => "the block's tables are damaged",
            Error::Origin => "the block's origin is none of its rows",
            Error::Code => "bits are no symbol's code",
            Error::Selectors => "symbols go on behind the last selector's group",
            Error::TooLong => "the block is larger than its level allows",
            Error::Run => "the last run's count is missing",
            Error::Crc => "the CRC differs",
        })
    }
}

impl std::error::Error for Error {}

/// A piece of a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Segment {
    /// Bytes, by their place in those that come with the block.
    Bytes {
        /// The first one.
        start: usize,
        /// The one after the last.
        end: usize,
    },
    /// One byte, at least 65,536 times.
    Run {
        /// The byte.
        byte: u8,
        /// How many times it is there.
        count: u64,
    },
}

/// A decoded block, as long as its decoder decodes no other.
#[derive(Clone, Copy, Debug)]
pub struct Block<'a> {
    /// Bit after the block's last one, from the start of the data.
    pub end_bit: usize,
    /// CRC of its bytes, which is what its header says.
    pub crc: u32,
    /// Its pieces in order.
    pub segments: &'a [Segment],
    /// The bytes of those pieces that are no runs.
    pub bytes: &'a [u8],
}

impl Block<'_> {
    /// How many bytes the block has.
    pub fn size(&self) -> u64 {
        let run = |segment: &Segment| if let Segment::Run { count, .. } = segment { *count } else { 0 };
        self.bytes.len() as u64 + self.segments.iter().map(run).sum::<u64>()
    }

    /// All bytes of the block.
    pub fn to_vec(&self) -> Vec<u8> {
        let mut all = Vec::with_capacity(self.size() as usize);
        for segment in self.segments {
            match *segment {
                Segment::Bytes { start, end } => all.extend_from_slice(&self.bytes[start..end]),
                Segment::Run { byte, count } => all.resize(all.len() + count as usize, byte),
            }
        }
        all
    }
}

/// The memory of a decoder, which is reused from block to block: 9 MB, and as much as the largest block had since `trim`.
///
/// It has no state: what it decoded before makes no difference.
pub struct Decoder {
    symbols: symbols::Symbols,
    inverse: inverse::Inverse,
    packed: Vec<u8>,
    expanded: expand::Expanded,
}

impl Default for Decoder {
    fn default() -> Self {
        Self::new()
    }
}

impl Decoder {
    /// A decoder.
    pub fn new() -> Self {
        Decoder {
            symbols: symbols::Symbols::new(),
            inverse: inverse::Inverse::new(),
            packed: vec![0; LARGEST],
            expanded: expand::Expanded::default(),
        }
    }

    /// Decode the block that starts at `start_bit` of `data`, of a stream of `level` 1 to 9.
    ///
    /// What follows the block is not looked at. A level that is none is taken for the nearest one.
    pub fn decode(&mut self, data: &[u8], start_bit: usize, level: usize) -> Result<Block<'_>, Error> {
        let limit = level.clamp(1, 9) * BLOCK_UNIT;
        if start_bit / 8 >= data.len() {
            return Err(Error::Truncated);
        }
        let (header, column) = self.symbols.decode(data, start_bit, limit)?;
        let packed = &mut self.packed[..column.size];
        self.inverse.run(&column, header.origin, packed)?;
        self.expanded.run(packed)?;
        if self.expanded.crc() != header.crc {
            return Err(Error::Crc);
        }
        let end_bit = column.end_bit;
        Ok(self.last(end_bit, header.crc))
    }

    /// Give back the memory that the last block took beyond what most need; it is not there any more then.
    pub fn trim(&mut self) {
        self.expanded.trim();
    }

    /// The block that was decoded last, with what `decode` said of it.
    fn last(&self, end_bit: usize, crc: u32) -> Block<'_> {
        let (segments, bytes) = self.expanded.parts();
        Block { end_bit, crc, segments, bytes }
    }
}

/// The CRC of a block of these bytes.
pub fn crc(bytes: &[u8]) -> u32 {
    !crc::update(!0, bytes)
}

/// What `work` gives, or the words of its panic.
#[cfg(any(test, feature = "python"))]
fn guarded<T>(work: impl FnOnce() -> T) -> Result<T, String> {
    std::panic::catch_unwind(std::panic::AssertUnwindSafe(work)).map_err(|panic| {
        let words = panic.downcast_ref::<&str>().map(ToString::to_string);
        words.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "a panic".into())
    })
}

#[cfg(test)]
mod tests {
    use super::{Decoder, Error, crc, guarded};

    /// The block of `bzip2 -1` for "a", which ends after 179 bits.
    const BLOCK: [u8; 23] = *b"1AY&SY\x19\x93\x9bk\0\0\0\x01\0 \0 \0!\x18F\x80";

    fn flipped(bit: usize) -> Vec<u8> {
        let mut bytes = BLOCK.to_vec();
        bytes[bit / 8] ^= 0x80 >> (bit % 8);
        bytes
    }

    #[test]
    fn a_block_at_any_bit_and_what_is_cut_off() {
        let mut decoder = Decoder::new();
        for shift in 0..8 {
            let wide = [&[0x5a], &BLOCK[..], &[0x5a]].concat();
            let data: Vec<u8> =
                wide.windows(2).map(|two| (u16::from_be_bytes([two[0], two[1]]) >> shift) as u8).collect();
            let block = decoder.decode(&data, shift, 1).expect("a block");
            assert_eq!((block.to_vec(), block.crc), (b"a".to_vec(), crc(b"a")));
            let end = block.end_bit;
            assert_eq!(end, shift + 179);
            for size in 0..data.len() {
                let found = decoder.decode(&data[..size], shift, 1).map(|block| block.end_bit);
                assert_eq!(found, if size * 8 < end { Err(Error::Truncated) } else { Ok(end) });
            }
        }
    }

    #[test]
    fn errors_are_told_apart() {
        let mut decoder = Decoder::new();
        let mut refusal = |data: &[u8]| decoder.decode(data, 0, 1).err();
        assert_eq!(refusal(&flipped(0)), Some(Error::NoMagic));
        assert_eq!(refusal(&flipped(60)), Some(Error::Crc));
        assert_eq!(refusal(&flipped(80)), Some(Error::Randomised));
        assert_eq!(refusal(&flipped(81)), Some(Error::Origin));
        assert_eq!(refusal(&flipped(104)), Some(Error::Origin));
        assert_eq!(refusal(&[]), Some(Error::Truncated));
    }

    #[test]
    fn a_panic_is_a_result() {
        assert_eq!(guarded(|| 7), Ok(7));
        assert_eq!(guarded(|| -> u8 { panic!("fixed words") }), Err("fixed words".into()));
        assert_eq!(guarded(|| -> u8 { panic!("words {}", 1) }), Err("words 1".into()));
    }
}
