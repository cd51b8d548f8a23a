"""Bytes and squared error of NNCodec 2.1.3 (`pip install nncodec==2.1.3 torch safetensors numpy`) on safetensors files, with
its defaults (dependent quantisation, parameter optimisation): nncodec_squared_error.py FILE… Decibels are Σw² over Σ(w − ŵ)²
over the F32 tensors of two and more dimensions, as `backslash ladder FILE` counts them."""
import contextlib, io, os, sys, tempfile
import numpy as np
import nncodec.nn as nn
from safetensors.numpy import load_file

QUANTISATION_PARAMETERS = (-8, -14, -20, -26, -32)


def roundtrip(weights, qp):
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
        arguments = {**nn.nncargs, "qp": qp, "verbose": False, "results": folder, "wandb": False}
        stream = nn.encode({name: values.copy() for name, values in weights.items()}, arguments)
        decoded = nn.decode(stream, arguments)
    decoded = decoded if isinstance(decoded, dict) else decoded.state_dict()
    return len(bytes(stream)), {name: np.asarray(values) for name, values in decoded.items()}


if __name__ == "__main__":
    for path in sys.argv[1:]:
        weights = {name: values for name, values in load_file(path).items() if values.dtype == np.float32}
        count = sum(values.size for values in weights.values())
        for qp in QUANTISATION_PARAMETERS:
            size, decoded = roundtrip(weights, qp)
            power = error = 0.0
            for name, values in weights.items():
                if values.ndim >= 2:
                    original = values.astype(np.float64)
                    power += (original**2).sum()
                    error += ((original - decoded[name].reshape(values.shape)) ** 2).sum()
            print(f"{os.path.basename(path)} qp {qp}: {size} bytes, {8 * size / count:.3f} bits/weight, "
                  f"{10 * np.log10(power / error):.2f} dB", flush=True)
