//! The core against libbz2: of any block, both give the same bytes, or both refuse it.

use bzip2::{Decompress, Status};
use vmvisor_image_core::{Decoder, Error, crc};

pub mod generate;

/// What each block begins with.
pub const MAGIC: [u8; 6] = [0x31, 0x41, 0x59, 0x26, 0x53, 0x59];
const END: [u8; 6] = [0x17, 0x72, 0x45, 0x38, 0x50, 0x90];
/// Bit of a block's CRC.
const CRC_BYTE: usize = 6;
/// Bit that says that a block is of the randomised kind.
const RANDOMISED_BYTE: usize = 10;

/// How a block was found to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Verdict {
    /// Both give the same bytes.
    Taken,
    /// Both refuse it; the core says why.
    Refused(Error),
    /// Left to libbz2.
    Left,
}

/// Holds the decoder, which is used for all blocks in a row.
#[derive(Default)]
pub struct Judge {
    decoder: Decoder,
    /// How often a block was decoded by both.
    pub executions: u64,
}

impl Judge {
    /// Check a block that begins with its magic, moved by up to 7 bits, and again with the CRC that it should have.
    ///
    /// # Panics
    /// The core and libbz2 do not agree.
    pub fn check(&mut self, block: &[u8], level: usize, shift: usize) -> Verdict {
        let block = &[block, &[0xa5]].concat()[..]; // of which moving leaves out up to 7 bits
        let (verdict, decoded) = self.compare(block, level, shift);
        let stored = block.get(CRC_BYTE..CRC_BYTE + 4);
        match (decoded, stored) {
            (Some(bytes), Some(stored)) if crc(&bytes).to_be_bytes() != stored => {
                let mut mended = block.to_vec();
                mended[CRC_BYTE..CRC_BYTE + 4].copy_from_slice(&crc(&bytes).to_be_bytes());
                self.compare(&mended, level, shift).0
            }
            _ => verdict,
        }
    }

    /// The verdict, and what libbz2 gave, whether or not it then refused it.
    fn compare(&mut self, block: &[u8], level: usize, shift: usize) -> (Verdict, Option<Vec<u8>>) {
        self.executions += 1;
        let moved = shifted(block, shift);
        let ours =
            self.decoder.decode(&moved, shift, level).map(|found| (found.end_bit - shift, found.to_vec(), found.crc));
        match ours {
            Err(Error::Randomised) => {
                assert!(block[RANDOMISED_BYTE] & 0x80 != 0, "it is not randomised");
                (Verdict::Left, None)
            }
            Ok((end, bytes, crc)) => {
                let stream = ended(block, end, level, crc);
                let theirs = decompress(&stream);
                assert!(theirs.ended, "libbz2 refuses what the core takes, or its end: {block:02x?} {level} {end}");
                assert!(theirs.bytes == bytes, "libbz2 gives other bytes: {block:02x?} {level}");
                (Verdict::Taken, Some(bytes))
            }
            Err(error) => {
                let theirs = decompress(&[&header(level), block].concat());
                let stored = block.get(CRC_BYTE..CRC_BYTE + 4);
                if !theirs.bytes.is_empty() && stored == Some(&crc(&theirs.bytes).to_be_bytes()) {
                    // The data is right. The block is so too if there is a bit behind which a stream may end.
                    assert!(
                        !self.ends_somewhere(block, level, shift),
                        "the core refuses it: {error} {block:02x?} {level}"
                    );
                }
                (Verdict::Refused(error), Some(theirs.bytes).filter(|bytes| !bytes.is_empty()))
            }
        }
    }

    /// Whether libbz2 takes the block, wherever it ends before the bits that were left out by moving it.
    fn ends_somewhere(&mut self, block: &[u8], level: usize, shift: usize) -> bool {
        let stored = u32::from_be_bytes(block[CRC_BYTE..CRC_BYTE + 4].try_into().expect("four bytes"));
        // The first byte comes out when the last bit is in.
        let mut libbz2 = Decompress::new(false);
        let mut byte = [0];
        libbz2.decompress(&header(level), &mut byte).expect("a header");
        let fed = block.iter().position(|&fed| libbz2.decompress(&[fed], &mut byte).is_err() || libbz2.total_out() > 0);
        let last = fed.map_or(block.len(), |last| last + 1);
        let ends = last * 8 - 7..=(last * 8).min(block.len() * 8 - shift);
        ends.into_iter().any(|end| decompress(&ended(block, end, level, stored)).ended)
    }
}

fn header(level: usize) -> [u8; 4] {
    [b'B', b'Z', b'h', b'0' + level as u8]
}

/// As many bytes, of which the last bits are left out.
fn shifted(block: &[u8], shift: usize) -> Vec<u8> {
    let mut before = 0x5a;
    let bytes = block.iter().map(|&byte| {
        let both = u16::from_be_bytes([before, byte]) >> shift;
        before = byte;
        both as u8
    });
    bytes.take(block.len()).collect()
}

/// A stream of that block alone, which ends at that bit.
fn ended(block: &[u8], end: usize, level: usize, crc: u32) -> Vec<u8> {
    let mut stream = [&header(level), &block[..end.div_ceil(8)]].concat();
    let footer = [&END[..], &crc.to_be_bytes()].concat();
    if end.is_multiple_of(8) {
        stream.extend(footer);
    } else {
        let (used, last) = (end % 8, stream.pop().expect("a byte"));
        let moved = shifted(&[&footer[..], &[0]].concat(), used);
        stream.push(last & !(0xff >> used) | moved[0] & 0xff >> used);
        stream.extend(&moved[1..]);
    }
    stream
}

struct Decompressed {
    bytes: Vec<u8>,
    /// Whether the stream's end was reached, and its CRC right.
    ended: bool,
}

fn decompress(stream: &[u8]) -> Decompressed {
    let mut libbz2 = Decompress::new(false);
    let mut bytes = Vec::with_capacity(4096);
    loop {
        let (before_in, before_out) = (libbz2.total_in(), libbz2.total_out());
        if bytes.len() == bytes.capacity() {
            bytes.reserve(bytes.len());
        }
        match libbz2.decompress_vec(&stream[before_in as usize..], &mut bytes) {
            Ok(Status::StreamEnd) => return Decompressed { bytes, ended: true },
            Err(_) => {
                bytes.truncate(libbz2.total_out() as usize);
                return Decompressed { bytes, ended: false };
            }
            Ok(_) if before_in == libbz2.total_in() && before_out == libbz2.total_out() => {
                return Decompressed { bytes, ended: false };
            }
            Ok(_) => {}
        }
    }
}
