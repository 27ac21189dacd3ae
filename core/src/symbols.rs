//! A block's first half: its header, and its symbols up to the last column of the Burrows-Wheeler transform.

use crate::bits::Bits;
use crate::huffman::{AT_ONCE, LONGEST, SYMBOLS, Table};
use crate::mtf::{self, Room};
use crate::scan::{BLOCK_MAGIC, MAGIC_BITS};
use crate::{Error, LARGEST};

/// Symbols that are coded with one table before the next selector.
const GROUP: usize = 50;
const _: () = assert!(GROUP.is_multiple_of(AT_ONCE));
const MOST_TABLES: usize = 6;
/// Selectors that are kept, as by libbz2 since 1.0.7: more are read but never used.
const MOST_SELECTORS: usize = 18002;
/// Digits of a run's length past which it is too long for any block.
const MOST_DIGITS: u32 = 22;

/// What stands before a block's symbols.
pub(crate) struct Header {
    /// CRC of the block's bytes.
    pub(crate) crc: u32,
    /// Row of the transform that the block itself is.
    pub(crate) origin: usize,
    /// Bytes that occur, ascending, then zeros.
    order: [u8; 256],
    /// How many occur, 1 to 256.
    used: usize,
    selectors: usize,
}

/// Equal bytes in a row of the last column: the byte lowest, and from bit 8 on how many there are.
#[derive(Clone, Copy, Default)]
pub(crate) struct Run(u32);

impl Run {
    #[inline(always)]
    fn new(byte: u8, count: u32) -> Self {
        Run(count << 8 | u32::from(byte))
    }

    #[inline(always)]
    pub(crate) fn byte(self) -> u8 {
        self.0 as u8
    }

    #[inline(always)]
    pub(crate) fn count(self) -> u32 {
        self.0 >> 8
    }
}

/// The last column of a block, and where the block ends.
pub(crate) struct Column<'a> {
    pub(crate) runs: &'a [Run],
    /// Bytes in all runs.
    pub(crate) size: usize,
    /// Bit after the block's last one, from the start of the data.
    pub(crate) end_bit: usize,
}

/// Memory for tables and runs, reused from block to block.
pub(crate) struct Symbols {
    tables: Box<[Table; MOST_TABLES]>,
    selectors: Box<[u8; MOST_SELECTORS]>,
    runs: Vec<Run>,
}

impl Symbols {
    pub(crate) fn new() -> Self {
        Symbols {
            tables: Box::new(std::array::from_fn(|_| Table::new())),
            selectors: Box::new([0; MOST_SELECTORS]),
            runs: vec![Run::default(); LARGEST + GROUP + 2], // the size is looked at once a group
        }
    }

    /// The header and the last column of the block at `start_bit`, which may hold `limit` bytes.
    pub(crate) fn decode(
        &mut self,
        data: &[u8],
        start_bit: usize,
        limit: usize,
    ) -> Result<(Header, Column<'_>), Error> {
        let mut bits = Bits::at(data, start_bit);
        let header = self.read_header(&mut bits, limit);
        if bits.overrun() {
            return Err(Error::Truncated); // whatever the zeros that stand for what is missing seemed to be
        }
        let header = header?;
        let runs = read_runs_fastest(&self.tables, &self.selectors[..], &mut self.runs, &mut bits, &header, limit);
        if bits.overrun() {
            return Err(Error::Truncated);
        }
        let (count, size) = runs?;
        Ok((header, Column { runs: &self.runs[..count], size, end_bit: bits.position() }))
    }

    fn read_header(&mut self, bits: &mut Bits, limit: usize) -> Result<Header, Error> {
        if bits.take(MAGIC_BITS as u32) != BLOCK_MAGIC {
            return Err(Error::NoMagic);
        }
        let crc = bits.take(32) as u32;
        if bits.take(1) != 0 {
            return Err(Error::Randomised);
        }
        let origin = bits.take(24) as usize;
        if origin >= limit {
            return Err(Error::Origin);
        }
        let (mut order, mut used) = ([0; 256], 0);
        let sixteens = bits.take(16);
        for sixteen in (0..16).filter(|number| sixteens >> (15 - number) & 1 != 0) {
            let ones = bits.take(16);
            for one in (0..16).filter(|number| ones >> (15 - number) & 1 != 0) {
                order[used] = sixteen * 16 + one;
                used += 1;
            }
        }
        let tables = bits.take(3) as usize;
        let selectors = bits.take(15) as usize;
        if used == 0 || !(2..=MOST_TABLES).contains(&tables) || selectors == 0 {
            return Err(Error::Header);
        }
        self.read_selectors(bits, tables, selectors)?;
        for table in &mut self.tables[..tables] {
            let mut lengths = [0u8; SYMBOLS];
            let lengths = &mut lengths[..used + 2];
            read_lengths(bits, lengths)?;
            table.build(lengths);
        }
        Ok(Header { crc, origin, order, used, selectors: selectors.min(MOST_SELECTORS) })
    }

    /// Which table each group uses: move-to-front indices in unary.
    fn read_selectors(&mut self, bits: &mut Bits, tables: usize, count: usize) -> Result<(), Error> {
        let mut recent: [u8; MOST_TABLES] = [0, 1, 2, 3, 4, 5];
        for number in 0..count {
            bits.refill();
            let place = (bits.peek(6) << 58).leading_ones();
            if place as usize >= tables || bits.overrun() {
                return Err(Error::Header);
            }
            bits.skip(place + 1);
            recent[..=place as usize].rotate_right(1);
            if let Some(selector) = self.selectors.get_mut(number) {
                *selector = recent[0];
            }
        }
        Ok(())
    }
}

/// A table's code lengths, each as its difference from the one before.
fn read_lengths(bits: &mut Bits, lengths: &mut [u8]) -> Result<(), Error> {
    let mut length = bits.take(5) as usize;
    for slot in lengths {
        loop {
            if !(1..=LONGEST).contains(&length) || bits.overrun() {
                return Err(Error::Header);
            }
            if bits.take(1) == 0 {
                break;
            }
            length = if bits.take(1) == 0 { length + 1 } else { length - 1 };
        }
        *slot = length as u8;
    }
    Ok(())
}

/// `read_runs` with the move-to-front list that is the fastest on this processor.
fn read_runs_fastest(
    tables: &[Table; MOST_TABLES],
    selectors: &[u8],
    runs: &mut [Run],
    bits: &mut Bits,
    header: &Header,
    limit: usize,
) -> Result<(usize, usize), Error> {
    let selectors = &selectors[..header.selectors];
    #[cfg(target_arch = "x86_64")]
    if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("bmi1") && is_x86_feature_detected!("bmi2") {
        // SAFETY: the instructions were found to be there.
        return unsafe { read_runs_avx2(tables, selectors, runs, bits, header, limit) };
    }
    read_runs_portably(tables, selectors, runs, bits, header, limit)
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,bmi1,bmi2")]
fn read_runs_avx2(
    tables: &[Table; MOST_TABLES],
    selectors: &[u8],
    runs: &mut [Run],
    bits: &mut Bits,
    header: &Header,
    limit: usize,
) -> Result<(usize, usize), Error> {
    let mut room = Room::new();
    let mut list = mtf::avx2::Lanes::new(&header.order, &mut room);
    read_runs(tables, selectors, runs, bits, header.used, limit, |index| list.take(index))
}

fn read_runs_portably(
    tables: &[Table; MOST_TABLES],
    selectors: &[u8],
    runs: &mut [Run],
    bits: &mut Bits,
    header: &Header,
    limit: usize,
) -> Result<(usize, usize), Error> {
    let mut room = Room::new();
    let mut list = mtf::Portable::new(&header.order, &mut room);
    read_runs(tables, selectors, runs, bits, header.used, limit, |index| list.take(index))
}

/// Decode a block's symbols; how many runs there are, and how many bytes in them.
///
/// Decoding and move-to-front in one loop are up to 15 % quicker than one after the other.
#[inline(always)]
fn read_runs(
    tables: &[Table; MOST_TABLES],
    selectors: &[u8],
    runs: &mut [Run],
    bits: &mut Bits,
    used: usize,
    limit: usize,
    take: impl FnMut(usize) -> u8,
) -> Result<(usize, usize), Error> {
    let end = used as u16 + 1;
    runs[0] = Run::default(); // where no digit comes first, that run stays empty
    let mut maker = RunMaker { take, runs, at: 0, run: 0, digits: 0, size: 0 };
    let mut here = *bits; // in registers
    let mut result = Err(Error::Selectors);
    'groups: for &selector in selectors {
        let table = &tables[usize::from(selector) % MOST_TABLES];
        for _ in 0..GROUP / AT_ONCE {
            here.refill();
            for _ in 0..AT_ONCE {
                let symbol = table.decode(&mut here);
                if symbol < end {
                    maker.push(u32::from(symbol));
                    continue;
                }
                result = if symbol == end { Ok((maker.at + 1, maker.size as usize)) } else { Err(Error::Code) };
                break 'groups;
            }
        }
        if maker.size as usize > limit {
            break;
        }
    }
    *bits = here;
    if maker.size as usize > limit { Err(Error::TooLong) } else { result }
}

/// Makes runs of symbols without a branch on whether one is a digit of a run's length.
struct RunMaker<'a, F> {
    /// Moves the byte at an index to the front and returns it.
    take: F,
    runs: &'a mut [Run],
    /// The latest run's place and length; digits make it longer, any other symbol begins the next one.
    at: usize,
    run: u32,
    /// Digits of the latest run so far.
    digits: u32,
    /// Length of all runs; past any limit once there are more digits than a length can have.
    size: u32,
}

impl<F: FnMut(usize) -> u8> RunMaker<'_, F> {
    #[inline(always)]
    fn push(&mut self, symbol: u32) {
        let byte = (self.take)(symbol.saturating_sub(1) as usize);
        let is_digit = u32::from(symbol < 2);
        let kept = is_digit.wrapping_neg();
        let digit = self.digits & kept;
        let added = (1 + u32::from(symbol == 1)) << digit.min(MOST_DIGITS);
        self.digits = digit + is_digit;
        self.at += 1 - is_digit as usize;
        self.run = (self.run & kept) + added;
        self.size += added;
        self.runs[self.at] = Run::new(byte, self.run);
    }
}
