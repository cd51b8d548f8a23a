//! Ratio and speed of every coder and of general compressors on the same codes.

use std::io::Write;
use std::time::Instant;

use crate::layout::Layout;
use crate::quantized::QuantizedTensor;
use crate::{
    Artifact, CodecError, Effort, Limits, Tensor, decode, encode_with, mix, paper_bits, rans,
};

/// One row of the comparison.
#[derive(Debug, Clone, PartialEq)]
pub struct CoderResult {
    /// Coder and setting, such as `zstd-22`.
    pub coder: String,
    /// Bytes of all codes, tables included.
    pub bytes: u64,
    /// Best time of encoding, in seconds; `None` where only the size is computed.
    pub encode_seconds: Option<f64>,
    /// Best time of decoding, in seconds.
    pub decode_seconds: Option<f64>,
}

/// Measures every coder on the codes of an artifact's quantised tensors, on one thread of the caller's
/// pool each; `repetitions` ≥ 1 decodings are timed and the best is kept. General compressors get one byte
/// per code where all codes fit, else two or four, all tensors in one stream.
///
/// # Errors
///
/// Those of [`encode_with`] and [`decode`].
pub fn compare_coders(
    artifact: &Artifact,
    repetitions: u32,
) -> Result<Vec<CoderResult>, CodecError> {
    let mut codes_only = Artifact::default();
    for (name, tensor) in &artifact.tensors {
        if let Tensor::Quantized(tensor) = tensor {
            let tensor =
                QuantizedTensor { row_scales: None, column_scales: None, ..tensor.clone() };
            codes_only.tensors.insert(name.clone(), Tensor::Quantized(tensor));
        }
    }
    let mut results = Vec::new();
    for (coder, effort) in [("fast", Effort::Fast), ("max", Effort::Smallest)] {
        let start = Instant::now();
        let file = encode_with(&codes_only, effort)?;
        let encode_seconds = Some(start.elapsed().as_secs_f64());
        let decode_seconds = best(repetitions, || decode(&file, &Limits::default()).map(drop))?;
        results.push(CoderResult {
            coder: coder.into(),
            bytes: file.len() as u64,
            encode_seconds,
            decode_seconds,
        });
    }
    let tensors: Vec<&[i32]> = codes_only
        .tensors
        .values()
        .filter_map(|tensor| {
            if let Tensor::Quantized(tensor) = tensor { Some(&tensor.codes[..]) } else { None }
        })
        .collect();
    results.extend(paper_rows(&tensors));
    let bytes = narrow_bytes(&tensors);
    for (coder, compress, decompress) in general_compressors() {
        let start = Instant::now();
        let packed = compress(&bytes);
        let encode_seconds = Some(start.elapsed().as_secs_f64());
        let decode_seconds = best(repetitions, || {
            assert_eq!(decompress(&packed).len(), bytes.len(), "{coder} round trip");
            Ok(())
        })?;
        results.push(CoderResult {
            coder: coder.into(),
            bytes: packed.len() as u64,
            encode_seconds,
            decode_seconds,
        });
    }
    Ok(results)
}

fn best(
    repetitions: u32,
    mut run: impl FnMut() -> Result<(), CodecError>,
) -> Result<Option<f64>, CodecError> {
    let mut best: Option<f64> = None;
    for _ in 0..repetitions {
        let start = Instant::now();
        run()?;
        let seconds = start.elapsed().as_secs_f64();
        best = Some(best.map_or(seconds, |best| best.min(seconds)));
    }
    Ok(best)
}

fn paper_rows(tensors: &[&[i32]]) -> Vec<CoderResult> {
    let bits: Vec<_> = tensors.iter().map(|codes| paper_bits(codes)).collect();
    let row = |coder: &str, size: &dyn Fn(&crate::PaperBits) -> u64| CoderResult {
        coder: coder.into(),
        bytes: bits.iter().map(|bits| (size(bits) + bits.table).div_ceil(8)).sum(),
        encode_seconds: None,
        decode_seconds: None,
    };
    vec![
        row("paper exp-Golomb 0", &|bits| bits.exponential_golomb[0]),
        row("paper exp-Golomb best", &|bits| {
            *bits.exponential_golomb.iter().min().expect("orders")
        }),
        row("paper Huffman", &|bits| bits.huffman),
        row("paper fixed length", &|bits| bits.fixed_length),
    ]
}

/// All codes as little-endian integers of the narrowest width that holds them.
fn narrow_bytes(tensors: &[&[i32]]) -> Vec<u8> {
    let codes = || tensors.iter().flat_map(|codes| codes.iter().copied());
    let width = match () {
        () if codes().all(|code| i8::try_from(code).is_ok()) => 1,
        () if codes().all(|code| i16::try_from(code).is_ok()) => 2,
        () => 4,
    };
    codes().flat_map(|code| code.to_le_bytes().into_iter().take(width)).collect()
}

type Coder = fn(&[u8]) -> Vec<u8>;

fn general_compressors() -> [(&'static str, Coder, Coder); 4] {
    const PROBLEM: &str = "memory streams do not fail";
    [
        (
            "zlib-9",
            |bytes| {
                let mut encoder =
                    flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::best());
                encoder.write_all(bytes).and_then(|()| encoder.finish()).expect(PROBLEM)
            },
            |packed| {
                let mut decoder = flate2::write::ZlibDecoder::new(Vec::new());
                decoder.write_all(packed).and_then(|()| decoder.finish()).expect(PROBLEM)
            },
        ),
        (
            "zstd-22",
            |bytes| zstd::encode_all(bytes, 22).expect(PROBLEM),
            |packed| zstd::decode_all(packed).expect(PROBLEM),
        ),
        (
            "brotli-11",
            |bytes| {
                let mut out = Vec::new();
                let parameters = brotli::enc::BrotliEncoderParams {
                    quality: 11,
                    lgwin: 24,
                    ..Default::default()
                };
                brotli::BrotliCompress(&mut &bytes[..], &mut out, &parameters).expect(PROBLEM);
                out
            },
            |packed| {
                let mut out = Vec::new();
                brotli::BrotliDecompress(&mut &packed[..], &mut out).expect(PROBLEM);
                out
            },
        ),
        (
            "xz-9e",
            |bytes| {
                let mut encoder = liblzma::write::XzEncoder::new(Vec::new(), 9 | 1 << 31);
                encoder.write_all(bytes).and_then(|()| encoder.finish()).expect(PROBLEM)
            },
            |packed| {
                let mut decoder = liblzma::write::XzDecoder::new(Vec::new());
                decoder.write_all(packed).and_then(|()| decoder.finish()).expect(PROBLEM)
            },
        ),
    ]
}

/// The inner loops alone, on one tensor: bytes of the blocks, and seconds, best of `repetitions`, for
/// encoding and for decoding with the fastest instructions; then decoding by the scalar reference.
#[must_use]
pub fn fast_kernel_seconds(codes: &[i32], repetitions: u32) -> (u64, f64, f64, f64) {
    let columns = Layout::new(&[codes.len()]).columns;
    let classes = rans::Classes::single(codes);
    let mut block = Vec::new();
    let timed = |run: &mut dyn FnMut()| {
        best(repetitions, || {
            run();
            Ok(())
        })
        .ok()
        .flatten()
        .unwrap_or(f64::NAN)
    };
    let encode = timed(&mut || block = rans::encode(codes, columns, 0, &classes));
    let mut decoded = vec![0; codes.len()];
    let decode = timed(&mut || {
        rans::decode(&block, &mut decoded, columns, 0, &classes, "bench").expect("just encoded")
    });
    let scalar = timed(&mut || {
        rans::decode_by_reference(&block, &mut decoded, columns, 0, &classes, "bench")
            .expect("just encoded");
    });
    (block.len() as u64, encode, decode, scalar)
}

/// Bytes and best decoding seconds of the mixing coder alone on one tensor of the given shape.
#[must_use]
pub fn max_kernel_seconds(codes: &[i32], shape: &[usize], repetitions: u32) -> (u64, f64) {
    let layout = Layout::new(shape);
    let (parameters, blocks) = mix::Parameters::choose(codes, layout);
    let mut decoded = vec![0; codes.len()];
    let mut run = || {
        for (index, (codes, block)) in
            decoded.chunks_mut(layout.block_codes()).zip(&blocks).enumerate()
        {
            let first_row = index * layout.rows_per_block();
            mix::decode(block, codes, layout.columns, first_row, &parameters, "bench")
                .expect("just encoded");
        }
        Ok(())
    };
    let seconds = best(repetitions, &mut run).ok().flatten().unwrap_or(f64::NAN);
    (blocks.iter().map(|block| block.len() as u64).sum(), seconds)
}
