//! Blocks to try: real ones, ones that follow the format and are no transform of anything, and damaged ones of both.

use bzip2::{Action, Compress, Compression};

use crate::MAGIC;

/// Numbers that look random, by xorshift.
pub struct Chance(u64);

impl Chance {
    /// Begin with a seed.
    pub fn new(seed: u64) -> Self {
        Chance(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 11
    }

    /// 0 to `below - 1`.
    pub fn below(&mut self, below: usize) -> usize {
        (self.next() % below as u64) as usize
    }

    fn pick<T: Copy>(&mut self, values: &[T]) -> T {
        values[self.below(values.len())]
    }

    fn one_in(&mut self, number: usize) -> bool {
        self.below(number) == 0
    }
}

/// A text that a block may hold.
fn text(chance: &mut Chance) -> Vec<u8> {
    let size = chance.pick(&[1, 2, 3, 5, 20, 60, 200, 600]);
    match chance.below(8) {
        0 => (0..size).map(|_| chance.below(256) as u8).collect(),
        1 => vec![chance.below(256) as u8; size * chance.pick(&[1, 10, 30])],
        2 => {
            let period: Vec<u8> = (0..=chance.below(9)).map(|_| chance.below(256) as u8).collect();
            period.into_iter().cycle().take(size).collect()
        }
        3 => {
            let mut bytes = Vec::new();
            for _ in 0..size / 10 + 1 {
                let count = chance.pick(&[1, 2, 3, 4, 5, 255, 258, 259, 260]);
                bytes.extend(vec![chance.below(3) as u8; count]);
            }
            bytes
        }
        4 => (0..size).map(|_| chance.pick(b"etaoin shrdlu")).collect(),
        5 => (0..size).map(|n| n as u8).collect(),
        6 => (0..size).map(|_| chance.below(256).min(chance.below(256)) as u8).collect(),
        _ => [vec![0; size * 60], (0..9).map(|_| chance.below(256) as u8).collect()].concat(),
    }
}

/// A block that libbz2 wrote, and the rest of its stream.
fn real(chance: &mut Chance) -> Vec<u8> {
    let text = text(chance);
    let mut packed = Vec::with_capacity(text.len() * 2 + 1000);
    let level = 1 + chance.below(9) as u32;
    let mut libbz2 = Compress::new(Compression::new(level), 30);
    libbz2.compress_vec(&text, &mut packed, Action::Finish).expect("it compresses");
    packed.split_off(4)
}

#[derive(Default)]
struct Writer {
    bytes: Vec<u8>,
    used: usize,
}

impl Writer {
    fn put(&mut self, value: u64, count: usize) {
        for bit in (0..count).rev() {
            if self.used.is_multiple_of(8) {
                self.bytes.push(0);
            }
            let last = self.bytes.len() - 1;
            self.bytes[last] |= ((value >> bit & 1) as u8) << (7 - self.used % 8);
            self.used += 1;
        }
    }
}

/// Code lengths that make a code, whole or nearly so.
fn lengths(chance: &mut Chance, count: usize) -> Vec<usize> {
    if chance.one_in(8) {
        return (0..count).map(|_| 1 + chance.below(20)).collect();
    }
    // Splits of the longest or of any leaf, until there are enough.
    let mut lengths = vec![1, 1];
    let deep = chance.one_in(3);
    while lengths.len() < count {
        let at = if deep { lengths.len() - 1 } else { chance.below(lengths.len()) };
        if lengths[at] < 20 {
            lengths[at] += 1;
            lengths.insert(at, lengths[at]);
        } else if lengths.iter().all(|&length| length == 20) || deep {
            lengths.insert(0, 20);
        }
    }
    for at in (1..lengths.len()).rev() {
        lengths.swap(at, chance.below(at + 1));
    }
    if chance.one_in(8) {
        let at = chance.below(count);
        lengths[at] = 1 + chance.below(20);
    }
    lengths
}

/// Codes of these lengths, as the format gives them.
fn codes(lengths: &[usize]) -> Vec<u64> {
    let mut codes = vec![0; lengths.len()];
    let mut code = 0;
    for length in 1..=20 {
        for symbol in (0..lengths.len()).filter(|&symbol| lengths[symbol] == length) {
            codes[symbol] = code;
            code += 1;
        }
        code <<= 1;
    }
    codes
}

/// A block that follows the format and was made of no text.
fn made(chance: &mut Chance) -> Vec<u8> {
    let mut writer = Writer { bytes: MAGIC.to_vec(), used: 48 };
    writer.put(0, 32);
    writer.put(u64::from(chance.one_in(300)), 1);
    let used = chance.pick(&[1, 2, 3, 10, 17, 40, 256]);
    let count = chance.pick(&[0, 1, 2, 7, 40, 49, 50, 51, 99, 100, 101, 400]);
    let origin = if chance.one_in(10) { chance.below(1 << 24) } else { chance.below(count * 2 + 1) };
    writer.put(origin as u64, 24);
    let mut present = [false; 256];
    let mut left = used;
    while left > 0 {
        let byte = chance.below(256);
        left -= usize::from(!present[byte]);
        present[byte] = true;
    }
    for sixteen in present.chunks(16) {
        writer.put(u64::from(sixteen.contains(&true)), 1);
    }
    for sixteen in present.chunks(16).filter(|sixteen| sixteen.contains(&true)) {
        sixteen.iter().for_each(|&byte| writer.put(u64::from(byte), 1));
    }
    let tables = if chance.one_in(50) { chance.below(8) } else { 2 + chance.below(5) };
    let needed = (count + 1).div_ceil(50);
    let selectors = match chance.below(20) {
        0 => chance.below(needed + 1),
        1 => needed + chance.below(40),
        2 if chance.one_in(200) => 17_990 + chance.below(40),
        _ => needed,
    };
    writer.put(tables as u64, 3);
    writer.put(selectors as u64, 15);
    let mut recent: Vec<usize> = (0..8).collect();
    let mut chosen = Vec::new();
    for _ in 0..selectors {
        let place = chance.below(tables.max(1)) + usize::from(chance.one_in(2000));
        (0..place).for_each(|_| writer.put(1, 1));
        writer.put(0, 1);
        recent[..=place].rotate_right(1);
        chosen.push(recent[0]);
    }
    let mut all = Vec::new();
    for _ in 0..tables {
        let lengths = lengths(chance, used + 2);
        let mut length = lengths[0];
        writer.put(length as u64, 5);
        for &wanted in &lengths {
            while length != wanted {
                writer.put(if wanted > length { 2 } else { 3 }, 2);
                length = if wanted > length { length + 1 } else { length - 1 };
            }
            writer.put(0, 1);
        }
        all.push((codes(&lengths), lengths));
    }
    let digits = chance.pick(&[0, 1, 2, 8]);
    let most = if chance.one_in(300) { 40 } else { 6 }; // digits in a row: 20 of them are a million bytes
    let mut row = 0;
    for number in 0..=count {
        let symbol = if number == count {
            used + 1
        } else if chance.below(10) < digits && row < most {
            row += 1;
            chance.below(2)
        } else {
            row = 0;
            (2 + chance.below(used + 1)).min(used)
        };
        if let Some((codes, lengths)) = chosen.get(number / 50).and_then(|&table| all.get(table)) {
            writer.put(codes[symbol], lengths[symbol]);
        }
    }
    writer.put(chance.next(), 40);
    writer.bytes
}

/// A block to try; most are damaged.
pub fn block(chance: &mut Chance) -> Vec<u8> {
    let mut block = if chance.one_in(3) { real(chance) } else { made(chance) };
    damage(chance, &mut block);
    block
}

/// Flip bits, or cut a block off; or leave it as it is.
pub fn damage(chance: &mut Chance, block: &mut Vec<u8>) {
    if chance.one_in(3) {
        return;
    }
    for _ in 0..chance.pick(&[0, 1, 1, 1, 2, 5, 20]) {
        let most = (block.len() * 8).min(chance.pick(&[160, 400, 2000, 1 << 30]));
        let bit = 80 + chance.below(most.saturating_sub(80).max(1));
        if let Some(byte) = block.get_mut(bit / 8) {
            *byte ^= 0x80 >> (bit % 8);
        }
    }
    if chance.one_in(10) {
        block.truncate(1 + chance.below(block.len()));
    }
}
