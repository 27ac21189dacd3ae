//! The outer run-length code, and the CRC of what it gives: four equal bytes are followed by how many more there are.

use crate::{Error, LARGEST, Segment, crc};

/// Bytes that are copied at once where they hold no run.
const WINDOW: usize = 32;
/// Bytes whose CRC is taken at once, while they are in the nearest cache.
const PIECE: usize = 1 << 14;
/// Bytes from which a run is told by its length.
const LONG: u64 = 1 << 16;
/// A run's bytes in the code: four and a count of more.
const CODED: usize = 5;
/// Bytes of memory that are kept from block to block: enough for one without runs.
const KEPT: usize = 1 << 20;
/// Bytes of a run, at most.
const LONGEST: usize = 4 + 255;
/// Bytes of a block, at most.
const MOST: usize = LARGEST / CODED * LONGEST;
/// Memory for them, and for what is written at once and counts only in part.
const ROOM: usize = MOST + PIECE + WINDOW + LONGEST;

/// The bytes of a block, which are kept from block to block only as memory.
#[derive(Default)]
pub(crate) struct Expanded {
    bytes: Vec<u8>,
    /// Of `bytes`, those that are of this block.
    size: usize,
    /// Those whose CRC was taken.
    passed: usize,
    state: u32,
    segments: Vec<Segment>,
}

impl Expanded {
    /// Expand a block.
    pub(crate) fn run(&mut self, packed: &[u8]) -> Result<(), Error> {
        (self.size, self.passed, self.state) = (0, 0, !0);
        self.segments.clear();
        let mut at = 0;
        loop {
            at = self.copy_windows(packed, at);
            // A run starts in the coming window, or the end is near.
            let rest = &packed[at..];
            let near = rest.windows(4).take(WINDOW).position(|four| four == [four[0]; 4]);
            let Some(plain) = near else {
                let plain = rest.len().min(WINDOW);
                self.push(&rest[..plain]);
                at += plain;
                if at == packed.len() {
                    break;
                }
                continue;
            };
            self.push(&rest[..plain]);
            at = self.expand_run(packed, at + plain)?;
            if at == packed.len() {
                break;
            }
        }
        self.pass();
        self.end_segment();
        Ok(())
    }

    /// Give back what a block took beyond what others need: it may have been 46 MB.
    pub(crate) fn trim(&mut self) {
        self.size = 0;
        self.segments.clear();
        self.bytes.truncate(KEPT);
        self.bytes.shrink_to(KEPT);
    }

    /// CRC of the block.
    pub(crate) fn crc(&self) -> u32 {
        !self.state
    }

    /// The block's pieces in order, and the bytes of those that are no runs.
    pub(crate) fn parts(&self) -> (&[Segment], &[u8]) {
        (&self.segments, &self.bytes[..self.size])
    }

    /// Make sure that there is room for `more` bytes.
    #[inline(always)]
    fn reserve(&mut self, more: usize) {
        if self.bytes.len() - self.size < more {
            self.grow(more);
        }
    }

    #[cold]
    #[inline(never)]
    fn grow(&mut self, more: usize) {
        let size = (self.bytes.len() * 2).clamp(1 << 16, ROOM).max(self.size + more);
        self.bytes.reserve_exact(size - self.bytes.len());
        self.bytes.resize(size, 0);
    }

    fn push(&mut self, bytes: &[u8]) {
        self.reserve(bytes.len());
        self.bytes[self.size..self.size + bytes.len()].copy_from_slice(bytes);
        self.size += bytes.len();
    }

    /// Copy what comes before the next run, as far as whole windows go; where that is.
    fn copy_windows(&mut self, packed: &[u8], mut at: usize) -> usize {
        loop {
            self.reserve(PIECE + WINDOW);
            let Self { bytes, size, passed, .. } = self;
            while let Some(window) = packed.get(at..).and_then(<[u8]>::first_chunk::<{ WINDOW + 3 }>) {
                let mut runs = 0;
                for place in 0..WINDOW {
                    let byte = window[place];
                    let equal = (byte == window[place + 1]) & (byte == window[place + 2]) & (byte == window[place + 3]);
                    runs |= u8::from(equal);
                }
                if runs != 0 || *size - *passed >= PIECE {
                    break;
                }
                bytes[*size..*size + WINDOW].copy_from_slice(&window[..WINDOW]);
                at += WINDOW;
                *size += WINDOW;
            }
            if self.size - self.passed < PIECE {
                return at;
            }
            self.pass();
        }
    }

    /// Expand the run at `at`, and those of the same byte that follow it; where the code goes on.
    fn expand_run(&mut self, packed: &[u8], mut at: usize) -> Result<usize, Error> {
        let byte = packed[at];
        let mut count = 0;
        while let Some([coded @ .., more]) = packed[at..].first_chunk::<CODED>() {
            if *coded != [byte; 4] {
                break;
            }
            count += 4 + u64::from(*more);
            at += CODED;
        }
        if packed[at..] == [byte; 4] {
            return Err(Error::Run); // its count is missing
        }
        if count >= LONG {
            self.pass();
            self.end_segment();
            self.state = crc::update_run(self.state, byte, count);
            self.segments.push(Segment::Run { byte, count });
            return Ok(at);
        }
        let mut left = count as usize;
        while left > 0 {
            self.reserve(LONGEST);
            let filled = left.min(LONGEST);
            // Of one length, which is quicker; what is too much is written over.
            self.bytes[self.size..self.size + LONGEST].fill(byte);
            self.size += filled;
            left -= filled;
        }
        Ok(at)
    }

    /// Take the CRC of what was written.
    fn pass(&mut self) {
        self.state = crc::update(self.state, &self.bytes[self.passed..self.size]);
        self.passed = self.size;
    }

    /// End the segment of plain bytes, where there are any.
    fn end_segment(&mut self) {
        let start = self.segments.iter().rev().find_map(|segment| match segment {
            Segment::Bytes { end, .. } => Some(*end),
            Segment::Run { .. } => None,
        });
        let start = start.unwrap_or(0);
        if start < self.size {
            self.segments.push(Segment::Bytes { start, end: self.size });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{CODED, Expanded, KEPT, LONG, MOST, ROOM};
    use crate::{Error, LARGEST, Segment, crc};

    /// As the format is told: byte by byte.
    fn expand(packed: &[u8]) -> Result<Vec<u8>, Error> {
        let (mut out, mut equal, mut at) = (Vec::new(), 0, 0);
        while at < packed.len() {
            let byte = packed[at];
            equal = if at > 0 && equal > 0 && out.last() == Some(&byte) { equal + 1 } else { 1 };
            out.push(byte);
            at += 1;
            if equal == 4 {
                let more = *packed.get(at).ok_or(Error::Run)?;
                out.extend(vec![byte; usize::from(more)]);
                (equal, at) = (0, at + 1);
            }
        }
        Ok(out)
    }

    fn check(expanded: &mut Expanded, packed: &[u8]) {
        let found = expanded.run(packed).map(|()| {
            let (segments, bytes) = expanded.parts();
            let pieces = segments.iter().map(|segment| match *segment {
                Segment::Bytes { start, end } => bytes[start..end].to_vec(),
                Segment::Run { byte, count } => vec![byte; count as usize],
            });
            pieces.collect::<Vec<_>>().concat()
        });
        let expected = expand(packed);
        assert!(found == expected, "{packed:?}");
        if let Ok(bytes) = expected {
            assert_eq!(expanded.crc(), !crc::update(!0, &bytes));
        }
    }

    #[test]
    fn as_byte_by_byte() {
        let mut expanded = Expanded::default();
        let mut seed = 1u32;
        let mut random = |below: u32| {
            seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (seed >> 8) % below
        };
        for _ in 0..if cfg!(miri) { 20 } else { 4000 } {
            let mut packed = Vec::new();
            for _ in 0..random(60) {
                let byte = random(3) as u8;
                let equal = [1, 1, 2, 3, 4, 4, 4, 40][random(8) as usize];
                packed.extend(vec![byte; equal]);
                if equal == 4 {
                    packed.push(random(256) as u8);
                }
            }
            check(&mut expanded, &packed);
        }
    }

    #[test]
    fn long_runs_are_told_by_their_length() {
        let mut expanded = Expanded::default();
        for byte in [0, 7] {
            for runs in [252, 253, 254, 255, 2000] {
                for (before, after) in [("", ""), ("ab", ""), ("", "cd"), ("ab", "cd")] {
                    let run = [byte, byte, byte, byte, 255];
                    let packed = [before.as_bytes(), &run.repeat(runs), after.as_bytes()].concat();
                    check(&mut expanded, &packed);
                    let is_long = runs as u64 * 259 >= LONG;
                    let told = expanded.parts().0.iter().any(|segment| matches!(segment, Segment::Run { .. }));
                    assert_eq!(told, is_long);
                    check(&mut expanded, &[&packed[..], &packed[..]].concat());
                }
            }
        }
    }

    #[test]
    fn memory_is_given_back() {
        let mut expanded = Expanded::default();
        let packed = [[1, 1, 1, 1, 255], [2, 2, 2, 2, 255]].concat().repeat(LARGEST / 2 / CODED);
        assert_eq!(expanded.run(&packed), Ok(()));
        assert_eq!(expanded.parts().1.len(), MOST);
        assert!(expanded.bytes.capacity() <= ROOM);
        expanded.trim();
        assert!(expanded.bytes.capacity() <= KEPT);
        check(&mut expanded, b"abcdddde");
    }

    #[test]
    fn windows_and_pieces() {
        let mut expanded = Expanded::default();
        let plain: Vec<u8> = (0..70_000u32).map(|n| (n * 7 % 251) as u8).collect();
        for size in (0..70).chain([16_383, 16_384, 16_385, 32_768, 70_000]) {
            check(&mut expanded, &plain[..size]);
            check(&mut expanded, &[&plain[..size], &[9, 9, 9, 9, 0][..], &plain[..40]].concat());
            check(&mut expanded, &[&plain[..size], &[9, 9, 9, 9][..]].concat());
        }
    }
}
