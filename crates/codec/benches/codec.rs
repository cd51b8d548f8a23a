//! Ratio and speed of the coders: `cargo bench -p backslash-codec --features comparison`. One thread, the
//! best of several runs. With a `.bsl` file as argument (`-- FILE`): every coder on the codes of that file, and the
//! estimate of its size.

use std::time::Instant;

use backslash_codec::{
    Artifact, CodecError, Limits, QuantizedTensor, Reconstruction, SizeSplit, compare_coders,
    encoded_size, estimated_size, fast_kernel_seconds, max_kernel_seconds, read_file,
};

const COUNT: usize = 1 << 20;

/// Uniform numbers in (0, 1), the same every time.
struct Random(u64);

impl Random {
    fn next(&mut self) -> f64 {
        self.0 = self.0.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        let mixed = (self.0 ^ (self.0 >> 29)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        ((mixed >> 11) as f64 + 0.5) / (1_u64 << 53) as f64
    }

    fn gaussian(&mut self) -> f64 {
        (-2.0 * self.next().ln()).sqrt() * (std::f64::consts::TAU * self.next()).cos()
    }

    /// Generalised Gaussian of shape 2, 1 or ½: |x|^shape has a gamma distribution.
    fn sample(&mut self, shape: f64) -> f64 {
        let sign = if self.next() < 0.5 { -1.0 } else { 1.0 };
        match shape {
            2.0 => self.gaussian(),
            1.0 => -sign * self.next().ln(),
            _ => sign * (self.next() * self.next()).ln().powi(2),
        }
    }
}

fn entropy_bits(codes: &[i32]) -> f64 {
    let mut counts = std::collections::HashMap::new();
    codes.iter().for_each(|code| *counts.entry(*code).or_insert(0_u32) += 1);
    counts
        .values()
        .map(|&count| -f64::from(count) * (f64::from(count) / codes.len() as f64).log2())
        .sum()
}

fn compare(path: &str) {
    let artifact = read_file(path.as_ref(), &Limits::default()).expect("a .bsl file");
    let codes: usize =
        artifact.tensors.values().map(|tensor| tensor.shape().iter().product::<usize>()).sum();
    let speed = |seconds: Option<f64>| {
        seconds.map_or("-".into(), |seconds| format!("{:.1}", codes as f64 / seconds / 1e6))
    };
    println!("coder, bytes, encode, decode (M codes/s)");
    for row in compare_coders(&artifact, 7).expect("every coder round-trips") {
        println!(
            "{:22} {:>10} {:>8} {:>8}",
            row.coder,
            row.bytes,
            speed(row.encode_seconds),
            speed(row.decode_seconds)
        );
    }
    let timed = |size: fn(&Artifact) -> Result<SizeSplit, CodecError>| {
        let start = Instant::now();
        let bytes = size(&artifact).expect("a size").total();
        format!("{bytes} bytes in {:.2} s", start.elapsed().as_secs_f64())
    };
    println!("size: {}; estimated: {}", timed(encoded_size), timed(estimated_size));
}

/// Best seconds of turning codes into weights.
fn dequantise_seconds(codes: Vec<i32>) -> f64 {
    let tensor = QuantizedTensor {
        shape: vec![1024, 1024],
        codes,
        step: 0.1,
        row_scales: Some(vec![1.5; 1024]),
        column_scales: None,
        reconstruction: Reconstruction::Shrink(20),
        origin: None,
    };
    let run = |_| {
        let start = Instant::now();
        std::hint::black_box(tensor.dequantize());
        start.elapsed().as_secs_f64()
    };
    (0..50).map(run).fold(f64::INFINITY, f64::min)
}

fn main() {
    rayon::ThreadPoolBuilder::new().num_threads(1).build_global().expect("the first pool");
    if let Some(path) = std::env::args().skip(1).find(|argument| argument.ends_with(".bsl")) {
        return compare(&path);
    }
    println!(
        "source shape, entropy (bits/code): fast excess, max excess; fast encode, decode, scalar decode, max decode (M codes/s)"
    );
    for shape in [2.0, 1.0, 0.5] {
        for target in [0.3, 1.0, 2.0, 3.5, 5.0] {
            let mut random = Random(1);
            let samples: Vec<f64> = (0..COUNT).map(|_| random.sample(shape)).collect();
            let codes_at = |step: f64| -> Vec<i32> {
                samples.iter().map(|x| (x / step).round() as i32).collect()
            };
            let (mut low, mut high) = (1e-3_f64, 1e3_f64);
            for _ in 0..18 {
                let middle = (low * high).sqrt();
                if entropy_bits(&codes_at(middle)) > target * COUNT as f64 {
                    low = middle
                } else {
                    high = middle
                }
            }
            let codes = codes_at(high);
            let entropy = entropy_bits(&codes);
            let (fast, encode, decode, scalar) = fast_kernel_seconds(&codes, 100);
            let (max, max_decode) = max_kernel_seconds(&codes, &[1024, 1024], 5);
            let excess = |bytes: u64| (bytes as f64 * 8.0 / entropy - 1.0) * 100.0;
            let speed = |seconds: f64| COUNT as f64 / seconds / 1e6;
            println!(
                "{shape}  {:.3}: {:+.3} % {:+.3} %; {:.0} {:.0} {:.0} {:.1}; {:.1}",
                entropy / COUNT as f64,
                excess(fast),
                excess(max),
                speed(encode),
                speed(decode),
                speed(scalar),
                speed(max_decode),
                COUNT as f64 * 4e-9 / (decode + dequantise_seconds(codes))
            );
        }
    }
}
