//! `generated SECONDS [SEED]`: hold the core against libbz2 on blocks that are made up.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use vmvisor_image_core_fuzz::Judge;
use vmvisor_image_core_fuzz::generate::{Chance, block, damage};

fn main() {
    let mut arguments = std::env::args().skip(1);
    let mut number = |default: u64| arguments.next().map_or(default, |word| word.parse().expect("a number"));
    let (seconds, seed) = (number(60), number(1));
    let until = Instant::now() + Duration::from_secs(seconds);
    let mut chance = Chance::new(seed);
    let mut judge = Judge::default();
    let mut verdicts: BTreeMap<String, u64> = BTreeMap::new();
    while Instant::now() < until {
        for _ in 0..20 {
            let whole = block(&mut chance);
            let level = if chance.below(20) == 0 { 1 + chance.below(9) } else { 1 };
            for _ in 0..8 {
                let mut block = whole.clone();
                damage(&mut chance, &mut block);
                let verdict = judge.check(&block, level, chance.below(8));
                *verdicts.entry(format!("{verdict:?}")).or_default() += 1;
            }
        }
    }
    println!("seed {seed}: {} executions; {verdicts:?}", judge.executions);
}
