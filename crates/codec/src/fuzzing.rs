//! Entry points for fuzzing each decoder behind the checksums. Not part of the interface.

use crate::cursor::Cursor;
use crate::layout::Layout;
use crate::trellis::{indices_to_codes, rows_per_run};
use crate::{
    Artifact, Effort, Limits, QuantizedTensor, Reconstruction, Tensor, decode, encode_with,
    inspect, mix, rans, reseal,
};

/// The container, as it is and with right outer checksums.
pub fn container(data: &[u8]) {
    let limits = Limits { max_memory: 1 << 22 };
    let _ = decode(data, &limits);
    let mut file = data.to_vec();
    if let Some(length) = data.get(20..28) {
        let length = u64::from_le_bytes(length.try_into().expect("8 bytes"));
        reseal(&mut file, usize::try_from(length).unwrap_or(usize::MAX));
        let _ = decode(&file, &limits);
        let _ = inspect(&file);
    }
}

/// A layout from two bytes, and the rest.
fn layout(data: &[u8]) -> Option<(Layout, &[u8])> {
    let (&[rows, columns], rest) = data.split_first_chunk::<2>()?;
    Some((Layout::new(&[usize::from(rows), usize::from(columns)]), rest))
}

/// Tables and one block of the fast coder; all instruction sets must agree.
pub fn fast(data: &[u8]) {
    let Some((layout, rest)) = layout(data) else { return };
    let mut cursor = Cursor::new(rest, "fuzz");
    let Ok(classes) = rans::Classes::read(&mut cursor, layout) else { return };
    let block = cursor.take(cursor.remaining()).expect("what remains");
    rans::decode_every_way(block, layout, &classes);
}

/// Tables and one block of the mixing coder.
pub fn max(data: &[u8]) {
    let Some((layout, rest)) = layout(data) else { return };
    let mut cursor = Cursor::new(rest, "fuzz");
    let Ok(parameters) = mix::Parameters::read(&mut cursor, layout) else { return };
    let block = cursor.take(cursor.remaining()).expect("what remains");
    let mut codes = vec![0; layout.count];
    let _ = mix::decode(block, &mut codes, layout.columns, 0, &parameters, "fuzz");
}

/// [`layout`], where it has a trellis.
fn trellis_layout(data: &[u8]) -> Option<(Layout, &[u8])> {
    let shape = data.first_chunk::<2>()?.map(usize::from);
    rows_per_run(&shape)?;
    layout(data)
}

/// [`fast`] on a trellis.
pub fn fast_trellis(data: &[u8]) {
    let Some((layout, rest)) = trellis_layout(data) else { return };
    let mut cursor = Cursor::new(rest, "fuzz");
    let Ok(classes) = rans::TrellisClasses::read(&mut cursor, layout) else { return };
    let block = cursor.take(cursor.remaining()).expect("what remains");
    classes.decode_every_way(block, layout);
}

/// [`max`] on a trellis.
pub fn max_trellis(data: &[u8]) {
    let Some((layout, rest)) = trellis_layout(data) else { return };
    let mut cursor = Cursor::new(rest, "fuzz");
    let Ok(parameters) = mix::Parameters::read(&mut cursor, layout) else { return };
    let block = cursor.take(cursor.remaining()).expect("what remains");
    let mut codes = vec![0; layout.count];
    let parameters = parameters.on_trellis();
    if mix::decode(block, &mut codes, layout.columns, 0, &parameters, "fuzz").is_ok() {
        let _ = indices_to_codes(&mut codes, layout.columns);
    }
}

/// Files of a tensor on the trellis, whose indices are the bytes in turn: they come back.
pub fn trellis_round_trip(data: &[u8]) {
    let Some((layout, bytes)) = trellis_layout(data) else { return };
    let bytes = if bytes.is_empty() { &[1] } else { bytes };
    let indices = bytes.iter().cycle().map(|&byte| i32::from(byte as i8));
    let mut codes: Vec<i32> = indices.take(layout.count).collect();
    indices_to_codes(&mut codes, layout.columns).expect("small indices");
    let tensor = QuantizedTensor {
        shape: vec![layout.rows(), layout.columns],
        codes,
        step: 1.0,
        row_scales: None,
        column_scales: None,
        reconstruction: Reconstruction::Uniform,
        origin: None,
    };
    let mut artifact = Artifact::default();
    artifact.tensors.insert("fuzz".into(), Tensor::Quantized(tensor));
    for effort in [Effort::Fast, Effort::Smallest] {
        let file = encode_with(&artifact, effort).expect("the tensor is valid");
        assert!(decode(&file, &Limits::default()).expect("just encoded") == artifact);
    }
}

/// The mixing coder of bytes.
pub fn bytes(data: &[u8]) {
    let Some((&first, rest)) = data.split_first() else { return };
    let _ = mix::decode_bytes(rest, usize::from(first) * 4, 1 + usize::from(first % 8), "fuzz");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trellis::Indices;

    type Target = fn(&[u8]);

    /// Inputs that fuzzing has kept because each reaches other code, and every finding there has been.
    #[test]
    fn the_hostile_corpus_is_refused_or_decoded() {
        let targets: [(Target, &str); 7] = [
            (container, "container"),
            (fast, "fast"),
            (fast_trellis, "fast"),
            (max, "max"),
            (max_trellis, "max"),
            (trellis_round_trip, "fast"),
            (bytes, "bytes"),
        ];
        for (target, name) in targets {
            let folder =
                std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/hostile").join(name);
            let files: Vec<_> = std::fs::read_dir(&folder).unwrap().collect();
            assert!(files.len() > 20, "{name}");
            for file in files {
                target(&std::fs::read(file.unwrap().path()).unwrap());
            }
        }
    }

    /// Seeded mutations of valid streams, and noise: no panic, and bounded work.
    #[test]
    fn mutated_streams_are_refused_or_decoded() {
        let mut state = 3_u64;
        let mut random = move |bound: usize| {
            state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            (state >> 33) as usize % bound
        };
        let codes: Vec<i32> =
            (0..40 * 30).map(|index| index * index % 11 % (1 + index / 30 % 9) - 2).collect();
        let layout = Layout::new(&[40, 30]);
        let mut fast_stream = vec![40, 30];
        let (_, classes) = rans::Classes::choose(&codes, layout);
        classes.write(&mut fast_stream);
        fast_stream.extend(rans::encode(&codes, 30, 0, &classes));
        let mut max_stream = vec![40, 30];
        let (parameters, blocks) = mix::Parameters::choose(&codes, layout);
        parameters.write(&mut max_stream);
        max_stream.extend(&blocks[0]);
        let small: Vec<i32> = codes.iter().map(|code| code % 4).collect();
        let mut on_trellis = small.clone();
        indices_to_codes(&mut on_trellis, 30).unwrap();
        let indices = Indices::of(&on_trellis, &[40, 30]).unwrap();
        let mut fast_trellis_stream = vec![40, 30];
        let (_, classes) = rans::TrellisClasses::choose(&indices, layout);
        classes.write(&mut fast_trellis_stream);
        fast_trellis_stream.extend(classes.encode(&small, &indices.quantisers, layout, 0));
        let mut max_trellis_stream = vec![40, 30];
        let (parameters, blocks) = mix::Parameters::choose_on_trellis(&small, layout);
        parameters.write(&mut max_trellis_stream);
        max_trellis_stream.extend(&blocks[0]);
        let mut byte_stream = vec![200];
        byte_stream.extend(mix::encode_bytes(&[7; 800], 1));
        let targets: [(Target, Vec<u8>); 5] = [
            (fast, fast_stream),
            (fast_trellis, fast_trellis_stream),
            (max, max_stream),
            (max_trellis, max_trellis_stream),
            (bytes, byte_stream),
        ];
        for (target, stream) in targets {
            target(&stream);
            for round in 0..300 {
                let mut damaged = stream.clone();
                for _ in 0..1 + random(4) {
                    let position = random(damaged.len());
                    damaged[position] = [0, 1, 0x80, 0xff, random(256) as u8][random(5)];
                }
                damaged.truncate(if round % 3 == 0 {
                    random(damaged.len())
                } else {
                    damaged.len()
                });
                target(&damaged);
            }
        }
    }
}
