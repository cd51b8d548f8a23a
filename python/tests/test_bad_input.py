"""Bad files and bad tensors: exceptions of documented types that say what is wrong, and nothing left behind."""

import os
import struct

import numpy
import pytest
import torch

import backslash
import backslash.torch

# Bytes before the major version, a u16.
VERSION_OFFSET = 8


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """A file with a quantised, a verbatim and an empty tensor, and metadata."""
    path = tmp_path_factory.mktemp("small") / "small.bsl"
    random = numpy.random.default_rng(5)
    tensors = {
        "matrix": random.normal(size=(32, 32)).astype(numpy.float32),
        "vector": random.normal(size=9).astype(numpy.float32),
        "empty": numpy.zeros((0, 3), numpy.int32),
    }
    backslash.save_file(tensors, path, steps=1.0, metadata={"key": "value"})
    return path.read_bytes()


def read_everything(path):
    backslash.load_file(path)


def read_singly(path):
    with backslash.safe_open(path) as file:
        file.metadata()
        for name in file.keys():
            file.get_tensor(name)


def test_a_file_cut_anywhere_is_corrupt(small, tmp_path):
    path = tmp_path / "cut.bsl"
    for length in range(len(small)):
        path.write_bytes(small[:length])
        for read in (read_everything, read_singly, backslash.inspect, backslash.torch.load_file):
            with pytest.raises(backslash.CorruptFileError, match="cut.bsl"):
                read(path)


def test_a_flipped_bit_anywhere_is_noticed(small, tmp_path):
    path = tmp_path / "flipped.bsl"
    documented = (backslash.CorruptFileError, backslash.FutureVersionError, backslash.MemoryLimitError)
    for position in range(len(small)):
        for bit in (0, 3, 7):
            damaged = bytearray(small)
            damaged[position] ^= 1 << bit
            path.write_bytes(damaged)
            with pytest.raises(documented, match="flipped.bsl"):
                read_everything(path)
            try:
                read_singly(path)
                backslash.inspect(path)
            except documented:
                pass


@pytest.mark.parametrize("seed", range(20))
def test_noise_is_corrupt(small, tmp_path, seed):
    path = tmp_path / "noise.bsl"
    random = numpy.random.default_rng(seed)
    noise = random.integers(0, 256, size=random.integers(0, 400), dtype=numpy.uint8).tobytes()
    for content in (noise, small[:8] + noise, small + noise + b"x", small[:64] + noise):
        path.write_bytes(content)
        for read in (read_everything, read_singly, backslash.inspect):
            with pytest.raises((backslash.CorruptFileError, backslash.FutureVersionError)):
                read(path)


def test_wrong_magic_and_future_version_are_told_apart(small, tmp_path):
    path = tmp_path / "other.bsl"
    path.write_bytes(b"GGUF" + small[4:])
    with pytest.raises(backslash.CorruptFileError, match="other.bsl"):
        backslash.load_file(path)
    major = struct.unpack_from("<H", small, VERSION_OFFSET)[0]
    future = bytearray(small)
    struct.pack_into("<H", future, VERSION_OFFSET, major + 1)
    path.write_bytes(future)
    for read in (read_everything, read_singly, backslash.inspect, backslash.torch.load_file):
        with pytest.raises(backslash.FutureVersionError, match=rf"other.bsl.*version {major + 1}\."):
            read(path)


def test_memory_is_limited(small, tmp_path):
    path = tmp_path / "small.bsl"
    path.write_bytes(small)
    with pytest.raises(backslash.MemoryLimitError, match="small.bsl.*limit is 4000"):
        backslash.load_file(path, max_memory=4000)
    # The matrix takes 4,096 bytes.
    with backslash.safe_open(path, max_memory=4000) as file:
        file.get_tensor("vector")
        with pytest.raises(backslash.MemoryLimitError, match="matrix"):
            file.get_tensor("matrix")


def test_missing_files_and_folders(tmp_path):
    for read in (backslash.load_file, backslash.inspect, backslash.safe_open):
        with pytest.raises(FileNotFoundError, match="absent.bsl"):
            read(tmp_path / "absent.bsl")
    with pytest.raises(OSError):
        backslash.load_file(tmp_path)
    with pytest.raises(FileNotFoundError):
        backslash.save_file({"x": numpy.zeros(3)}, tmp_path / "nowhere" / "x.bsl")


MATRIX = numpy.ones((64, 64), numpy.float32)


@pytest.mark.parametrize(
    ("tensor", "message"),
    [
        ([1.0, 2.0], "`w` is a list"),
        (None, "`w` is a NoneType"),
        (numpy.array(["text"]), "`w` is of type str"),
        (numpy.array([object()]), "`w` is of type object"),
        (numpy.zeros(3, numpy.complex128), "`w` is of type complex128"),
        (torch.zeros(3, dtype=torch.complex128), "`w` is of type complex128"),
        (torch.empty(4, 4, device="meta"), "`w` is on the meta device"),
        (torch.eye(4).to_sparse(), "`w` is sparse"),
        (numpy.where(numpy.eye(64) > 0, numpy.nan, MATRIX).astype(numpy.float32), "`w` holds NaN at index 0"),
        (numpy.array([1.0, numpy.inf], numpy.float32), "`w` holds inf at index 1"),
    ],
)
@pytest.mark.parametrize("goal", [{}, {"budget": 1000}, {"steps": {}}])
def test_what_a_file_cannot_hold_is_named(tmp_path, tensor, message, goal):
    if "steps" in goal and getattr(tensor, "shape", ()) == (64, 64):
        goal = {"steps": {"w": 0.1}}
    with pytest.raises(backslash.InvalidTensorError, match=message):
        backslash.save_file({"w": tensor}, tmp_path / "bad.bsl", **goal)
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(
    ("arguments", "kind", "message"),
    [
        ({"budget": 1000, "steps": 0.5}, backslash.ConfigurationError, "steps and budget"),
        ({"budget": -1}, backslash.ConfigurationError, "budget is -1"),
        ({"bits_per_weight": float("nan")}, backslash.ConfigurationError, "bits_per_weight is nan"),
        ({"steps": 0.0}, backslash.ConfigurationError, "steps is 0.0"),
        ({"effort": "most"}, backslash.ConfigurationError, "'most'"),
        ({"budget": 20}, backslash.BudgetError, "20 bytes cannot be reached: the smallest file"),
        ({"steps": {}}, backslash.InvalidTensorError, "`w` has no step"),
        ({"steps": {"w": -1.0}}, backslash.InvalidTensorError, "`w`: step -1"),
        ({"steps": {"w": 1e-30}}, backslash.InvalidTensorError, "`w`: at step .* use a step of at least"),
        ({"steps": {"w": 1.0, "v": 1.0}}, backslash.InvalidTensorError, "step for `v`"),
    ],
)
def test_what_cannot_be_asked_for_is_said(tmp_path, arguments, kind, message):
    with pytest.raises(kind, match=message):
        backslash.save_file({"w": MATRIX}, tmp_path / "bad.bsl", **arguments)
    assert os.listdir(tmp_path) == []


def test_exceptions_are_of_one_family():
    for kind in (
        backslash.BudgetError,
        backslash.ConfigurationError,
        backslash.CorruptFileError,
        backslash.FutureVersionError,
        backslash.InvalidTensorError,
        backslash.MemoryLimitError,
    ):
        assert issubclass(kind, backslash.BackslashError)
