//! Checkpoints that are read, coded and written tensor by tensor: the same files as in memory.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use backslash_codec::{Artifact, Effort, FloatType, RawTensor, Tensor, encode_with};
use backslash_quant::{Plan, Weights};
use safetensors::tensor::{Dtype, TensorView};

use crate::place::{Place, bytes, json};

/// One tensor: name, type, shape, and its values as floats or as bytes.
struct Case {
    name: &'static str,
    dtype: Dtype,
    shape: Vec<usize>,
    floats: Vec<f32>,
    bytes: Vec<u8>,
}

/// Values that all three float types hold exactly, and positions.
fn cases() -> Vec<Case> {
    // 0, 1, −1, ½, −¼ and 3 as f16, which `half` is not needed for.
    let values = [0.0_f32, 1.0, -1.0, 0.5, -0.25, 3.0];
    let halves = [0_u16, 0x3c00, 0xbc00, 0x3800, 0xb400, 0x4200];
    let case = |name, dtype, shape: &[usize]| {
        let count: usize = shape.iter().product();
        let picks = || (0..count).map(|at| at * at % 83 % 6);
        let bytes = match dtype {
            Dtype::F32 => picks().flat_map(|pick| values[pick].to_le_bytes()).collect(),
            Dtype::F16 => picks().flat_map(|pick| halves[pick].to_le_bytes()).collect(),
            Dtype::BF16 => picks()
                .flat_map(|pick| ((values[pick].to_bits() >> 16) as u16).to_le_bytes())
                .collect(),
            _ => (0..count as i64).flat_map(i64::to_le_bytes).collect(),
        };
        let floats = picks().map(|pick| values[pick]).collect();
        Case { name, dtype, shape: shape.to_vec(), floats, bytes }
    };
    vec![
        case("a.bf16.weight", Dtype::BF16, &[80, 64]),
        case("a.f16.weight", Dtype::F16, &[3, 40, 64]),
        case("a.f32.weight", Dtype::F32, &[5000, 120]),
        case("b.norm", Dtype::F16, &[7]),
        case("b.positions", Dtype::I64, &[5000]),
    ]
}

fn write(path: &Path, cases: &[Case]) {
    let views = cases.iter().map(|case| {
        (case.name, TensorView::new(case.dtype, case.shape.clone(), &case.bytes).unwrap())
    });
    let none = None::<HashMap<String, String>>;
    std::fs::write(path, safetensors::serialize(views, none).unwrap()).unwrap();
}

/// What the plan makes of all weights at once.
fn in_memory(cases: &[Case]) -> Artifact {
    let floats = cases.iter().filter(|case| case.dtype != Dtype::I64);
    let weights: Vec<Weights<'_>> = floats
        .map(|case| Weights { name: case.name, shape: &case.shape, data: &case.floats })
        .collect();
    let plan = Plan::relative(&weights, 1.0).scaled(0.5);
    let mut artifact = plan.artifact(&weights, &BTreeMap::new()).unwrap();
    for case in cases.iter().filter(|case| case.dtype == Dtype::I64) {
        let (shape, bytes) = (case.shape.clone(), case.bytes.clone());
        let raw = RawTensor { shape, dtype: FloatType::I64, bytes };
        artifact.tensors.insert(case.name.into(), Tensor::Raw(raw));
    }
    artifact
}

#[test]
fn a_checkpoint_goes_through_tensor_by_tensor() {
    let place = Place::new();
    let cases = cases();
    write(&place.path("one.safetensors"), &cases);
    std::fs::create_dir(place.path("shards")).unwrap();
    write(&place.path("shards/model-1.safetensors"), &cases[..2]);
    write(&place.path("shards/model-2.safetensors"), &cases[2..]);
    let shard = |(index, case): (usize, &Case)| {
        (case.name.to_owned(), format!("model-{}.safetensors", 1 + index / 2 % 2 + index / 4))
    };
    let map: BTreeMap<String, String> = cases.iter().enumerate().map(shard).collect();
    let index = serde_json::json!({ "weight_map": map }).to_string();
    std::fs::write(place.path("shards/model.safetensors.index.json"), index).unwrap();

    let artifact = in_memory(&cases);
    for (name, effort) in [("fast", Effort::Fast), ("smallest", Effort::Smallest)] {
        let expected = encode_with(&artifact, effort).unwrap();
        for input in ["one.safetensors", "shards"] {
            let arguments =
                ["compress", input, "-o", "out.bsl", "--effort", name, "--force", "--json"];
            let result = json(&place.ok(&arguments));
            assert!(bytes(&place.path("out.bsl")) == expected, "{name} {input}");
            assert_eq!(result["split"]["total"], expected.len());
            assert_eq!(result["parameters"], 5120 + 7680 + 600_000 + 7 + 5000);
        }
        let verified = json(&place.ok(&["verify", "out.bsl", "--json"]));
        assert_eq!(verified["canonical"], name);
    }

    place.ok(&["decompress", "out.bsl", "-o", "back.safetensors"]);
    let back = bytes(&place.path("back.safetensors"));
    let back = safetensors::SafeTensors::deserialize(&back).unwrap();
    for case in &cases {
        let tensor = back.tensor(case.name).unwrap();
        let expected = match &artifact.tensors[case.name] {
            Tensor::Quantized(tensor) => tensor.dequantize(),
            Tensor::Raw(raw) if case.dtype == Dtype::I64 => {
                assert_eq!(tensor.data(), raw.bytes);
                continue;
            }
            Tensor::Raw(raw) => raw.to_f32(case.name).unwrap(),
        };
        let expected: Vec<u8> = expected.iter().flat_map(|weight| weight.to_le_bytes()).collect();
        assert_eq!((tensor.dtype(), tensor.data()), (Dtype::F32, &expected[..]), "{}", case.name);
    }
    place.ok(&["verify", "out.bsl", "--against", "back.safetensors"]);
    let against = ["verify", "out.bsl", "--against", "one.safetensors"];
    place.fails(&against, 1, "3 of 5 tensors differ or are missing (a.bf16.weight");
    write(&place.path("more.safetensors"), &cases[4..]);
    let against = ["verify", "out.bsl", "--against", "more.safetensors"];
    place.fails(&against, 1, "4 of 5 tensors");
}

#[test]
fn what_is_wrong_with_a_checkpoint_is_named() {
    let place = Place::new();
    let mut cases = cases();
    std::fs::create_dir(place.path("shards")).unwrap();
    write(&place.path("shards/model-1.safetensors"), &cases[..2]);
    let index = r#"{"weight_map": {"a.f16.weight": "model-1.safetensors"}}"#;
    std::fs::write(place.path("shards/model.safetensors.index.json"), index).unwrap();
    place.ok(&["compress", "shards", "-o", "out.bsl", "--effort", "fast"]);
    std::fs::remove_file(place.path("out.bsl")).unwrap();

    let shard = bytes(&place.path("shards/model-1.safetensors"));
    std::fs::write(place.path("shards/model-1.safetensors"), &shard[..shard.len() - 9]).unwrap();
    let compress = ["compress", "shards", "-o", "out.bsl"];
    place.fails(&compress, 1, "shards/model-1.safetensors: not a valid safetensors file");

    cases[2].bytes[4 * 300_001..][..4].copy_from_slice(&f32::NAN.to_le_bytes());
    write(&place.path("nan.safetensors"), &cases);
    let compress = ["compress", "nan.safetensors", "-o", "out.bsl", "--effort", "fast"];
    place.fails(&compress, 1, "nan.safetensors: tensor `a.f32.weight` holds NaN at index 300001");
    let both = ["compress", "one", "-o", "x", "--step", "0.5", "--budget", "9kB"];
    place.fails(&both, 2, "cannot be used with");
    assert_eq!(place.files(), ["nan.safetensors", "shards", "text.txt"]);
}
