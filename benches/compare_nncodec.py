"""Bytes and speed of NNCodec 2.1.3 (`pip install nncodec==2.1.3 safetensors numpy`) on the integer tensors of a
safetensors file: compare_nncodec.py FILE [SUFFIX]. Tensors whose name ends with SUFFIX (default: all integer tensors) are
coded losslessly, each by its own DeepCABAC coder, unary length 11, with and without parameter optimisation.
Compare with `cargo bench -p backslash-codec --features comparison` on the same file."""
import gzip, json, struct, sys, time
import numpy as np
from nncodec.extensions import deepCABAC
from nncodec.nnc_core.coder.baseline import HDSP_OPTS_OFF


def tensors(path, suffix):
    data = open(path, "rb").read()
    data = gzip.decompress(data) if data[:2] == b"\x1f\x8b" else data
    end = 8 + struct.unpack("<Q", data[:8])[0]
    for name, entry in json.loads(data[8:end]).items():
        types = {"I8": "i1", "I16": "<i2", "I32": "<i4"}
        if name.endswith(suffix) and entry.get("dtype") in types:
            first, last = (end + offset for offset in entry["data_offsets"])
            yield np.frombuffer(data[first:last], types[entry["dtype"]]).reshape(entry["shape"]).astype(np.int32)


def run(codes, optimise):
    start = time.perf_counter()
    encoder = deepCABAC.Encoder()
    encoder.initCtxModels(11, optimise)
    skip = np.zeros(codes.shape[0], np.int32)
    encoder.encodeLayer(codes, 0, 0, 0, 0, 0, skip, *HDSP_OPTS_OFF(), 0, 0)
    stream = encoder.finish()
    middle = time.perf_counter()
    decoder, decoded = deepCABAC.Decoder(), np.zeros(codes.shape, np.int32)
    decoder.setStream(stream)
    decoder.initCtxModels(11)
    decoder.decodeLayer(decoded, 0, 0, 0, 0, *HDSP_OPTS_OFF(), 0, 0)
    assert (decoded == codes).all(), "not lossless"
    return len(stream), middle - start, time.perf_counter() - middle


if __name__ == "__main__":
    found = list(tensors(sys.argv[1], sys.argv[2] if len(sys.argv) > 2 else ""))
    count = sum(codes.size for codes in found)
    for optimise in (0, 1):
        size, encode, decode = (sum(column) for column in zip(*(run(codes, optimise) for codes in found)))
        print(f"parameter optimisation {optimise}: {size} bytes, {8 * size / count:.4f} bits/weight, "
              f"encode {count / encode / 1e6:.1f} M/s, decode {count / decode / 1e6:.1f} M/s")
