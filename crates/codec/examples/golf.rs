use backslash_codec::*;
use std::time::Instant;
fn main() {
    let d = std::fs::read("/tmp/maxexp/codes.bin").unwrap();
    let only: Option<usize> = std::env::args().nth(1).and_then(|s| s.parse().ok());
    let fast = std::env::args().nth(2).is_some();
    let (mut pos, mut k) = (0, 0);
    let mut artifact = Artifact::default();
    while pos < d.len() {
        let r = u32::from_le_bytes(d[pos..pos + 4].try_into().unwrap()) as usize;
        let c = u32::from_le_bytes(d[pos + 4..pos + 8].try_into().unwrap()) as usize;
        pos += 8;
        let codes = d[pos..pos + r * c].iter().map(|&b| i32::from(b as i8)).collect();
        pos += r * c;
        if only.is_none_or(|o| o == k || o == 99) {
            let t = QuantizedTensor {
                shape: vec![r, c],
                codes,
                step: 1.0,
                row_scales: None,
                column_scales: None,
                reconstruction: Reconstruction::Uniform,
            };
            artifact.tensors.insert(format!("blocks.{k}.weight"), Tensor::Quantized(t));
        }
        k += 1;
    }
    let n: usize = artifact.tensors.values().map(|t| t.shape().iter().product::<usize>()).sum();
    let t = Instant::now();
    let bytes = encode_with(&artifact, if fast { Effort::Fast } else { Effort::Smallest }).unwrap();
    let e = t.elapsed().as_secs_f64();
    let mut best = 1e9_f64;
    for _ in 0..std::env::var("REP").map_or(2, |r| r.parse().unwrap()) {
        let t = cpu();
        let back = decode(&bytes, &Limits::default()).unwrap();
        best = best.min(cpu() - t);
        assert!(back == artifact);
    }
    let i = inspect(&bytes).unwrap();
    if only.is_some() {
        for t in &i.tensors {
            println!(
                "{} {:?} {} {:.4} {:?}",
                t.name, t.shape, t.coder, t.bits_per_weight, t.split.payload
            );
        }
    }
    println!(
        "{} bytes; {:?}; encode {:.1} M/s decode {:.1} M/s ({} threads)",
        bytes.len(),
        i.split,
        n as f64 / e / 1e6,
        n as f64 / best / 1e6,
        rayon::current_num_threads()
    );
}

fn cpu() -> f64 {
    // nanoseconds on CPU of this task
    let s = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap();
    let own: f64 = s.split(' ').next().unwrap().parse().unwrap();
    let mut sum = own;
    for e in std::fs::read_dir("/proc/self/task").unwrap() {
        let p = e.unwrap().path();
        if p.file_name().unwrap().to_str().unwrap() != std::process::id().to_string() {
            let s = std::fs::read_to_string(p.join("schedstat")).unwrap();
            sum += s.split(' ').next().unwrap().parse::<f64>().unwrap();
        }
    }
    sum / 1e9
}
