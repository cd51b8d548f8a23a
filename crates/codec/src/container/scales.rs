//! Row and column scales: the narrowest form that holds all of a vector exactly.

use half::{bf16, f16};

use super::bytes;
use super::codes::Effort;
use super::directory::{self, ByteCoder};
use crate::cursor::{Cursor, unzigzag, write_varint, zigzag};
use crate::error::CodecError;
use crate::scale_grid;

/// How the scales of one vector are written. The values decide: it is the first form that holds them all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    /// Indices of [`crate::round_scale`]'s grid, above the least of them.
    Logarithmic,
    F16,
    Bf16,
    F32,
}

/// The wire order: a form's place is its number in the file.
const FORMS: [Form; 4] = [Form::F32, Form::F16, Form::Bf16, Form::Logarithmic];

impl Form {
    fn of(scales: &[f32]) -> Self {
        let all = |holds: &dyn Fn(f32) -> bool| scales.iter().all(|&scale| holds(scale));
        // The sign of a zero survives; processors differ in what they make of a NaN, so none is narrowed.
        let same = |scale: f32, narrow: f32| scale.to_bits() == narrow.to_bits() && !scale.is_nan();
        match () {
            // Nothing has no least index.
            () if scales.is_empty() => Self::F32,
            () if all(&|scale| scale_grid::index(scale).is_some()) => Self::Logarithmic,
            () if all(&|scale| same(scale, f16::from_f32(scale).to_f32())) => Self::F16,
            () if all(&|scale| same(scale, bf16::from_f32(scale).to_f32())) => Self::Bf16,
            () => Self::F32,
        }
    }
}

fn number(form: Form) -> u8 {
    FORMS.iter().position(|&other| other == form).expect("every form has a number") as u8
}

/// Bytes of an element that holds indices up to this distance from the least, which is not 0.
fn index_width(distance: u32) -> usize {
    if distance < 256 { 1 } else { 2 }
}

/// Appends: form and byte coder; for the logarithmic form the least index and the greatest distance from
/// it; the stored length and the coded elements, unless the distance is 0.
pub(super) fn write(scales: &[f32], effort: Effort, out: &mut Vec<u8>) {
    let form = Form::of(scales);
    let mut range = Vec::new();
    let (elements, width): (Vec<u8>, usize) = match form {
        Form::F32 => (scales.iter().flat_map(|scale| scale.to_le_bytes()).collect(), 4),
        Form::F16 => {
            (scales.iter().flat_map(|&scale| f16::from_f32(scale).to_le_bytes()).collect(), 2)
        }
        Form::Bf16 => {
            (scales.iter().flat_map(|&scale| bf16::from_f32(scale).to_le_bytes()).collect(), 2)
        }
        Form::Logarithmic => {
            let indices: Vec<i32> = scales.iter().filter_map(|&s| scale_grid::index(s)).collect();
            let least =
                indices.iter().copied().min().expect("the form is for vectors with elements");
            let greatest = indices.iter().copied().max().unwrap_or(least);
            let distance = (greatest - least) as u32;
            write_varint(&mut range, u64::from(zigzag(least)));
            write_varint(&mut range, u64::from(distance));
            if distance == 0 {
                out.push(number(form) << 2);
                out.extend(range);
                return;
            }
            let width = index_width(distance);
            let elements = indices
                .iter()
                .flat_map(|index| ((index - least) as u16).to_le_bytes().into_iter().take(width));
            (elements.collect(), width)
        }
    };
    let (coder, stored) = bytes::compress(&elements, width, effort);
    out.push(coder as u8 | number(form) << 2);
    out.extend(range);
    write_varint(out, stored.len() as u64);
    out.extend(stored);
}

/// Reads `count` scales that [`write`] wrote.
///
/// # Errors
///
/// Truncated or corrupt bytes, an index beyond the grid, and any form but the first that holds the values.
pub(super) fn read(cursor: &mut Cursor, count: usize, name: &str) -> Result<Vec<f32>, CodecError> {
    let first = cursor.u8()?;
    let coder = directory::coder(first & 3, cursor)?;
    let form = *FORMS
        .get(usize::from(first >> 2))
        .ok_or_else(|| cursor.corrupt(format!("form {} of scales is unknown", first >> 2)))?;
    let (mut least, mut distance) = (0, 0);
    if form == Form::Logarithmic {
        (least, distance) = read_range(cursor)?;
        if distance == 0 {
            return match (coder, count) {
                (ByteCoder::Stored, 1..) => Ok(vec![scale_grid::value(least); count]),
                _ => Err(cursor.corrupt("equal scales are none, or have a byte coder")),
            };
        }
    }
    let width = match form {
        Form::F32 => 4,
        Form::F16 | Form::Bf16 => 2,
        Form::Logarithmic => index_width(distance),
    };
    let length = cursor.length()?;
    let length_decoded = (count as u64).saturating_mul(width as u64);
    let bytes = bytes::decompress(coder, cursor.take(length)?, length_decoded, width, name)?;
    let elements = bytes.chunks_exact(width);
    let pair = |element: &[u8]| [element[0], element[1]];
    let scales: Vec<f32> = match form {
        Form::F32 => elements.map(|e| f32::from_le_bytes(e.try_into().expect("4 bytes"))).collect(),
        Form::F16 => elements.map(|e| f16::from_le_bytes(pair(e)).to_f32()).collect(),
        Form::Bf16 => elements.map(|e| bf16::from_le_bytes(pair(e)).to_f32()).collect(),
        Form::Logarithmic => {
            let above: Vec<u32> = elements
                .map(|e| e.iter().rev().fold(0, |sum, &byte| sum << 8 | u32::from(byte)))
                .collect();
            if above.iter().min() != Some(&0) || above.iter().max() != Some(&distance) {
                return Err(cursor.corrupt("the indices of the scales do not fill their range"));
            }
            above.iter().map(|&above| scale_grid::value(least + above as i32)).collect()
        }
    };
    if Form::of(&scales) != form {
        return Err(cursor.corrupt("the scales have a form that comes before the one they are in"));
    }
    Ok(scales)
}

/// The least index and the distance to the greatest, within the grid.
fn read_range(cursor: &mut Cursor) -> Result<(i32, u32), CodecError> {
    let (least, distance) = (cursor.varint()?, cursor.varint()?);
    let range = u32::try_from(least).ok().zip(u32::try_from(distance).ok()).and_then(
        |(least, distance)| {
            let least = unzigzag(least);
            let greatest = least.checked_add_unsigned(distance)?;
            let inside = |index| scale_grid::INDICES.contains(&index);
            (inside(least) && inside(greatest)).then_some((least, distance))
        },
    );
    range.ok_or_else(|| cursor.corrupt("an index of the scales lies outside the grid"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scale_grid::round_scale;
    use proptest::prelude::*;

    fn round_trip(scales: &[f32]) -> Vec<u8> {
        let mut shortest = Vec::new();
        for effort in [Effort::Fast, Effort::Smallest] {
            shortest.clear();
            write(scales, effort, &mut shortest);
            let mut cursor = Cursor::new(&shortest, "t");
            let decoded = read(&mut cursor, scales.len(), "t").unwrap();
            cursor.finish().unwrap();
            let bits = |scales: &[f32]| scales.iter().map(|s| s.to_bits()).collect::<Vec<_>>();
            assert_eq!(bits(&decoded), bits(scales));
        }
        shortest
    }

    #[test]
    fn every_form_is_found_and_comes_back() {
        let nan = f32::from_bits(0x7f80_0001);
        for (scales, form) in [
            (vec![], Form::F32),
            (vec![1.0; 9], Form::Logarithmic),
            (vec![round_scale(0.3), round_scale(9e9)], Form::Logarithmic),
            (vec![f32::MIN_POSITIVE, round_scale(f32::MAX)], Form::Logarithmic),
            (vec![0.1, 0.2], Form::F32),
            (vec![0.0, 1.5, -0.0], Form::F16),
            (vec![f32::INFINITY, 6e-8_f32.next_down(), -2.0], Form::F32),
            (vec![f32::NEG_INFINITY, 5.9604645e-8], Form::F16),
            (vec![f32::from_bits(0x7e96_0000), -0.5], Form::Bf16),
            (vec![f32::NAN, 1.0], Form::F32),
            (vec![nan], Form::F32),
            (vec![1e-40], Form::F32),
            (vec![-round_scale(0.3)], Form::F32),
        ] {
            assert_eq!(Form::of(&scales), form, "{scales:?}");
            round_trip(&scales);
        }
    }

    /// Log-normal scales, as rows of a network have: a little above the entropy of their indices.
    #[test]
    fn logarithms_take_a_fifth_of_the_floats() {
        let mut state = 5_u64;
        let mut uniform = move || {
            state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            (state >> 40) as f32 / (1 << 24) as f32
        };
        let floats: Vec<f32> = (0..2048)
            .map(|_| ((0..12).map(|_| uniform()).sum::<f32>() - 6.0).mul_add(0.3, -3.0).exp())
            .collect();
        let rounded: Vec<f32> = floats.iter().map(|&scale| round_scale(scale)).collect();
        let (exact, logarithms) = (round_trip(&floats).len(), round_trip(&rounded).len());
        // Entropy: log2(0.3·√(2πe)·32/ln 2) = 5.84 bits.
        assert!(logarithms * 8 < 2048 * 63 / 10, "{logarithms} bytes");
        assert!(logarithms * 7 < exact * 2, "{logarithms} against {exact} bytes");
    }

    #[test]
    fn what_a_writer_would_not_write_is_refused() {
        let refused = |bytes: &[u8], count: usize| {
            let error = read(&mut Cursor::new(bytes, "layer.weight"), count, "layer.weight");
            let message = error.unwrap_err().to_string();
            assert!(message.starts_with("layer.weight: "), "{message}");
            message
        };
        // 1.0 and 1.5 as f32 where f16 holds them.
        let mut floats = vec![0, 8];
        floats.extend([1.0_f32, 1.5].iter().flat_map(|scale| scale.to_le_bytes()));
        assert!(refused(&floats, 2).contains("form"));
        // 1.0 and 2.0 as f16 where the grid holds them.
        assert!(refused(&[1 << 2, 4, 0, 0x3c, 0, 0x40], 2).contains("form"));
        // Indices 1 and 2 above −1: the least is 0. A range that is wider than the indices. Beyond the grid.
        assert!(refused(&[3 << 2, 1, 2, 2, 1, 2], 2).contains("range"));
        assert!(refused(&[3 << 2, 0, 3, 2, 0, 2], 2).contains("range"));
        assert!(refused(&[3 << 2, 0, 2, 2, 0, 3], 2).contains("range"));
        assert!(refused(&[3 << 2, 0xfe, 0x3f, 1, 2, 0, 1], 2).contains("grid"));
        assert!(refused(&[3 << 2, 0, 0xff, 0xff, 0xff, 0xff, 0xff, 0x1f, 0], 2).contains("grid"));
        assert!(refused(&[3 << 2 | 1, 0, 0], 2).contains("equal"));
        // A logarithmic form of nothing, an unknown form, an unknown byte coder.
        assert!(refused(&[3 << 2, 0, 0], 0).contains("equal"));
        assert!(refused(&[4 << 2, 0], 0).contains("form 4"));
        assert!(refused(&[3, 0], 0).contains("byte coder 3"));
        for good in [&[3 << 2, 0, 2, 2, 0, 2][..], &[3 << 2, 0, 0]] {
            assert_eq!(read(&mut Cursor::new(good, "t"), 2, "t").unwrap()[0], 1.0);
        }
    }

    proptest! {
        #[test]
        fn any_floats_round_trip(bits in prop::collection::vec(any::<u32>(), 0..40)) {
            round_trip(&bits.into_iter().map(f32::from_bits).collect::<Vec<_>>());
        }

        #[test]
        fn any_values_of_the_grid_round_trip(
            indices in prop::collection::vec(prop_oneof![-70..70_i32, scale_grid::INDICES], 1..300),
        ) {
            let scales: Vec<f32> = indices.into_iter().map(scale_grid::value).collect();
            prop_assert_eq!(Form::of(&scales), Form::Logarithmic);
            round_trip(&scales);
        }

        #[test]
        fn any_bytes_are_refused_or_decoded(
            bytes in prop::collection::vec(any::<u8>(), 0..60),
            first in 0..20_u8,
            count in 0..40_usize,
        ) {
            let stream = [&[first][..], &bytes].concat();
            if let Ok(scales) = read(&mut Cursor::new(&stream, "t"), count, "t") {
                prop_assert_eq!(scales.len(), count);
            }
        }
    }
}
