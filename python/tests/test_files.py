"""What goes into a file comes back, by every kind of tensor and every way to say how large the file is."""

import importlib.util
import os
import pathlib
import threading

import numpy
import pytest
import torch

import backslash
import backslash.torch

REPOSITORY = pathlib.Path(__file__).parents[2]


def matrix(rows=96, columns=80, seed=0, scale=0.05):
    random = numpy.random.default_rng(seed)
    return (scale * random.standard_t(4, size=(rows, columns))).astype(numpy.float32)


def test_a_quantised_matrix_is_within_half_a_step_of_what_was_saved(tmp_path):
    path = tmp_path / "m.bsl"
    weights = matrix()
    split = backslash.save_file({"w": weights}, path, steps=0.25)
    assert split.total == path.stat().st_size
    step = 0.25 * numpy.sqrt(numpy.mean(weights.astype(numpy.float64) ** 2))
    loaded = backslash.load_file(path)["w"]
    assert loaded.dtype == numpy.float32 and loaded.shape == (96, 80) and loaded.flags.writeable
    # Codes are to the nearest; they are read back near the mean of their cells, at most a cell's half away from its middle.
    error = numpy.abs(loaded - weights)
    assert numpy.sqrt(numpy.mean(error**2)) < 0.31 * step
    assert error.max() < 1.0001 * step


def test_given_steps_give_back_multiples_of_them_exactly(tmp_path):
    codes = numpy.random.default_rng(1).integers(-9, 10, size=(64, 64))
    weights = (codes * numpy.float32(0.03125)).astype(numpy.float32)
    path = tmp_path / "m.bsl"
    backslash.save_file({"w": weights}, path, steps={"w": 0.03125})
    assert numpy.array_equal(backslash.load_file(path)["w"], weights)
    assert backslash.inspect(path).tensors[0].step == 0.03125


@pytest.mark.parametrize("bits", [1.0, 2.0, 4.0])
def test_sizes_are_kept_from_below_and_used(tmp_path, bits):
    tensors = {"a": matrix(256, 128), "b": matrix(128, 256, seed=1, scale=2.0)}
    parameters = 2 * 256 * 128
    by_bits, by_budget = tmp_path / "bits.bsl", tmp_path / "budget.bsl"
    split = backslash.save_file(tensors, by_bits, bits_per_weight=bits)
    budget = int(bits * parameters / 8)
    assert 0.99 * budget < by_bits.stat().st_size <= budget
    assert split.total == by_bits.stat().st_size
    backslash.save_file(tensors, by_budget, budget=budget)
    assert by_budget.read_bytes() == by_bits.read_bytes()


def test_given_steps_are_scaled_together_to_a_budget(tmp_path):
    tensors = {"a": matrix(256, 128), "b": matrix(128, 256, seed=1), "counts": numpy.arange(1000)}
    path, budget = tmp_path / "m.bsl", 28_000
    split = backslash.save_file(tensors, path, steps={"a": 0.1, "b": 0.3}, budget=budget)
    assert 0.99 * budget < split.total == path.stat().st_size <= budget
    first, second, _ = (report.step for report in backslash.inspect(path).tensors)
    assert second / first == pytest.approx(3, rel=1e-6)
    loaded = backslash.load_file(path)
    codes = loaded["a"] / numpy.float32(first)
    assert numpy.abs(codes - codes.round()).max() < 1e-3 and numpy.array_equal(loaded["counts"], tensors["counts"])
    with pytest.raises(backslash.BudgetError):
        backslash.save_file(tensors, tmp_path / "n.bsl", steps={"a": 0.1, "b": 0.3}, budget=50)
    with pytest.raises(backslash.ConfigurationError, match="only one can say"):
        backslash.save_file(tensors, tmp_path / "n.bsl", steps={"a": 0.1}, bits_per_weight=2)


@pytest.mark.parametrize(
    "dtype",
    ["float64", "int64", "int32", "int16", "int8", "uint64", "uint32", "uint16", "uint8", "bool", "complex64"],
)
@pytest.mark.parametrize("shape", [(), (0,), (0, 4), (5,), (64, 65)])
def test_other_types_come_back_bit_for_bit(tmp_path, dtype, shape):
    random = numpy.random.default_rng(2)
    values = random.normal(scale=50, size=shape)
    array = numpy.asarray(values > 0 if dtype == "bool" else values.astype(numpy.int8)).astype(dtype)
    path = tmp_path / "t.bsl"
    backslash.save_file({"t": array}, path)
    loaded = backslash.load_file(path)["t"]
    assert loaded.dtype == array.dtype and loaded.shape == array.shape
    assert numpy.array_equal(loaded, array)
    loaded = backslash.torch.load_file(path)["t"]
    assert tuple(loaded.shape) == array.shape
    assert numpy.array_equal(loaded.numpy(), array) and loaded.numpy().dtype == array.dtype


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_pytorch_tensors_make_the_file_of_the_same_values_in_numpy(tmp_path, dtype):
    tensor = torch.from_numpy(matrix()).to(dtype)
    vector = torch.linspace(-1, 1, 33).to(dtype)
    backslash.save_file({"w": tensor, "b": vector}, tmp_path / "torch.bsl")
    arrays = {"w": tensor.float().numpy(), "b": vector.float().numpy()}
    backslash.save_file(arrays, tmp_path / "numpy.bsl")
    assert (tmp_path / "torch.bsl").read_bytes() == (tmp_path / "numpy.bsl").read_bytes()
    loaded = backslash.torch.load_file(tmp_path / "torch.bsl")
    assert loaded["w"].dtype == torch.float32
    # A vector is rounded to bfloat16, for which NumPy has no type.
    assert loaded["b"].dtype == torch.bfloat16
    assert torch.equal(loaded["b"], vector.to(torch.bfloat16))
    widened = backslash.load_file(tmp_path / "torch.bsl")["b"]
    assert widened.dtype == numpy.float32
    assert numpy.array_equal(widened, vector.to(torch.bfloat16).float().numpy())


def test_float8_comes_back_in_pytorch_and_is_refused_by_numpy(tmp_path):
    path = tmp_path / "f8.bsl"
    tensor = torch.tensor([0.5, -2.0, 448.0]).to(torch.float8_e4m3fn)
    backslash.save_file({"f": tensor}, path)
    assert torch.equal(backslash.torch.load_file(path)["f"].float(), tensor.float())
    with pytest.raises(backslash.InvalidTensorError, match="`f`.*F8_E4M3"):
        backslash.load_file(path)


def test_strides_and_byte_order_do_not_show(tmp_path):
    plain = matrix(64, 128)
    views = {
        "transposed": plain.T.copy().T,
        "strided": numpy.repeat(plain, 2, axis=1)[:, ::2],
        "swapped": plain.astype(">f4"),
        "torch": torch.from_numpy(plain.T.copy()).T,
        "gradient": torch.from_numpy(plain).requires_grad_(),
    }
    backslash.save_file({"w": plain}, tmp_path / "plain.bsl")
    for name, view in views.items():
        backslash.save_file({"w": view}, tmp_path / f"{name}.bsl")
        assert (tmp_path / f"{name}.bsl").read_bytes() == (tmp_path / "plain.bsl").read_bytes(), name


def test_single_tensors_and_metadata(tmp_path):
    path = tmp_path / "m.bsl"
    tensors = {"b": matrix(seed=1), "a": matrix(seed=2), "c": numpy.arange(3)}
    backslash.save_file(tensors, path, metadata={"note": "größe", "raw": b"\x00\xff"})
    everything = backslash.load_file(path)
    assert list(everything) == ["a", "b", "c"]
    with backslash.safe_open(path) as file:
        assert file.keys() == ["a", "b", "c"]
        assert file.metadata() == {"note": "größe".encode(), "raw": b"\x00\xff"}
        assert file.get_shape("a") == (96, 80)
        for name, array in everything.items():
            assert numpy.array_equal(file.get_tensor(name), array)
        with pytest.raises(KeyError, match="no tensor `d`"):
            file.get_tensor("d")
    with pytest.raises(ValueError, match="closed"):
        file.get_tensor("a")
    with backslash.safe_open(path, framework="pt") as file:
        assert torch.equal(file.get_tensor("a"), torch.from_numpy(everything["a"]))


def test_the_inspection_adds_up(tmp_path):
    path = tmp_path / "m.bsl"
    split = backslash.save_file({"w": matrix(), "v": matrix(1, 7)[0]}, path, metadata={"k": "v"})
    inspection = backslash.inspect(path)
    assert inspection.split == split
    assert inspection.split.total == path.stat().st_size
    parts = sum(tensor.split.total for tensor in inspection.tensors)
    assert parts + inspection.metadata["k"][0] + inspection.split.directory == split.total
    assert [(tensor.name, tensor.shape) for tensor in inspection.tensors] == [("v", (7,)), ("w", (96, 80))]
    assert inspection.tensors[0].step is None and inspection.tensors[1].step > 0


@pytest.mark.parametrize("seed", range(6))
def test_random_files_are_what_the_reference_decoder_reads(tmp_path, seed):
    decoder = reference_decoder()
    random = numpy.random.default_rng(seed)
    tensors = {}
    for index in range(random.integers(1, 6)):
        shape = tuple(random.integers(0, 40, size=random.integers(0, 4)))
        tensors[f"t{index}"] = random.standard_t(3, size=shape).astype(numpy.float32)
    path = tmp_path / "m.bsl"
    effort = ["smallest", "fast"][seed % 2]
    backslash.save_file(tensors, path, steps=float(random.uniform(0.05, 2)), effort=effort)
    loaded = backslash.load_file(path)
    expected = decoder(path)
    assert loaded.keys() == expected.keys() == tensors.keys()
    for name, array in loaded.items():
        assert array.shape == tensors[name].shape
        assert numpy.array_equal(array, expected[name])


def test_an_existing_file_is_replaced_only_when_asked(tmp_path):
    path = tmp_path / "m.bsl"
    backslash.save_file({"w": matrix()}, path)
    before = path.read_bytes()
    for goal in [{}, {"steps": {"w": 0.1}}, {"budget": 3000}]:
        with pytest.raises(FileExistsError, match="m.bsl.*overwrite=True"):
            backslash.save_file({"w": matrix(seed=3)}, path, **goal)
    assert path.read_bytes() == before
    backslash.save_file({"w": matrix(seed=3)}, path, overwrite=True)
    assert path.read_bytes() != before


def test_the_interpreter_runs_while_tensors_are_coded(tmp_path):
    started, finished, ticks = threading.Event(), threading.Event(), []

    def tick():
        started.wait()
        while not finished.wait(0.002):
            ticks.append(1)

    thread = threading.Thread(target=tick)
    thread.start()
    weights = {"w": matrix(1024, 1024)}
    started.set()
    backslash.save_file(weights, tmp_path / "m.bsl")
    saving = len(ticks)
    backslash.load_file(tmp_path / "m.bsl")
    loading = len(ticks) - saving
    finished.set()
    thread.join()
    assert saving > 10 and loading > 10, (saving, loading)


def test_progress_is_told_and_can_end_the_work(tmp_path):
    told = []
    tensors = {"a": matrix(), "b": matrix(seed=1)}
    backslash.save_file(tensors, tmp_path / "m.bsl", progress=lambda *what: told.append(what))
    size = 96 * 80 * 4
    assert told == [(0, 2 * size, "a"), (size, 2 * size, "b"), (2 * size, 2 * size, "writing")]
    told.clear()
    backslash.load_file(tmp_path / "m.bsl", progress=lambda *what: told.append(what))
    assert sorted(what[2] for what in told) == ["a", "b"] and max(told)[0] == 2 * 96 * 80

    def stop(done, total, what):
        raise InterruptedError("enough")

    for goal in [{}, {"steps": {"a": 0.1, "b": 0.1}}, {"budget": 6000}]:
        with pytest.raises(InterruptedError, match="enough"):
            backslash.save_file(tensors, tmp_path / "stopped.bsl", progress=stop, **goal)
    with pytest.raises(InterruptedError, match="enough"):
        backslash.load_file(tmp_path / "m.bsl", progress=stop)
    assert os.listdir(tmp_path) == ["m.bsl"]


def reference_decoder():
    """The decoder of the documentation, which is Python and NumPy alone, as a function from a path to weights."""
    source = REPOSITORY / "docs" / "decoder" / "bsl_decode.py"
    specification = importlib.util.spec_from_file_location("bsl_decode", source)
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)

    def weights(tensor):
        if "codes" in tensor:
            return module.dequantise(tensor)
        halves = numpy.frombuffer(tensor["bytes"], "<u2").astype(numpy.uint32)
        return (halves << 16).view(numpy.float32).reshape(tensor["shape"])

    return lambda path: {name: weights(t) for name, t in module.decode(path.read_bytes()).items()}
