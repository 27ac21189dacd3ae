//! Decode all blocks of a file: `blocks FILE [dump]` writes the data, or how many milliseconds a block took.

use std::io::Write;
use std::time::Instant;
use vmvisor_image_core::{Decoder, Magic, find};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let data = std::fs::read(arguments.next().ok_or("a file is needed")?)?;
    let dump = arguments.next().is_some();
    let before = Instant::now();
    let starts = find(&data, Magic::Block);
    let scanned = before.elapsed();
    let level = usize::from(data.get(3).ok_or("not bzip2")? - b'0');
    let mut decoder = Decoder::new();
    let (mut times, mut size) = (Vec::new(), 0);
    for &start in &starts {
        let before = Instant::now();
        let block = decoder.decode(&data, start, level)?;
        times.push(before.elapsed().as_secs_f64() * 1e3);
        size += block.size();
        if dump {
            std::io::stdout().write_all(&block.to_vec())?;
        }
    }
    if !dump {
        times.sort_by(f64::total_cmp);
        let (sum, median) = (times.iter().sum::<f64>(), times.get(times.len() / 2).unwrap_or(&0.0));
        println!("{} blocks of {size} bytes in {sum:.1} ms, median {median:.2} ms; scan {scanned:.2?}", starts.len());
    }
    Ok(())
}
