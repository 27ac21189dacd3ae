//! `cargo +nightly fuzz run --features libfuzzer block`: the first byte chooses level and bit, a block follows.

#![no_main]

use std::cell::RefCell;

use libfuzzer_sys::fuzz_target;
use vmvisor_image_core_fuzz::{Judge, MAGIC};

thread_local! {
    static JUDGE: RefCell<Judge> = RefCell::default();
}

fuzz_target!(|input: &[u8]| {
    if let Some((&first, block)) = input.split_first() {
        let block = [&MAGIC[..], block].concat();
        JUDGE.with_borrow_mut(|judge| judge.check(&block, 1 + usize::from(first) % 9, usize::from(first) / 9 % 8));
    }
});
