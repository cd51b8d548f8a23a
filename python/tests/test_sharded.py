"""Files of sharded tensors are those of whole ones, and shards are filled from them, with one whole tensor at a time."""

import pathlib

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as multiprocessing
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import DTensor, Replicate, Shard, distribute_tensor

from ranks import process_group, whole

import backslash
from backslash.torch import load_file, load_sharded, save_file, save_sharded

STEPS = {"b.weight": 0.25, "a.weight": 0.125}


def plain_tensors():
    generator = torch.Generator().manual_seed(2)
    return {
        "b.weight": torch.randn(97, 64, generator=generator),
        "a.weight": torch.randn(64, 65, generator=generator) ** 3,
        "bias": torch.randn(3, generator=generator),
        "count": torch.tensor([5]),
    }


def placed(mesh, placements):
    """The tensors over a mesh; whole numbers stay as they are on each rank."""
    tensors = plain_tensors()
    return {
        name: distribute_tensor(tensor, mesh, placements) if tensor.is_floating_point() else tensor
        for name, tensor in tensors.items()
    }


def check_saved(sharded, folder, reference):
    for steps in (None, 0.3, STEPS):
        path = folder / "ranks.bsl"
        split = save_sharded(sharded, path, steps=steps, metadata={"note": "x"}, overwrite=True)
        dist.barrier()
        expected = reference / f"{'names' if steps is STEPS else steps}.bsl"
        assert path.read_bytes() == expected.read_bytes()
        assert split.total == path.stat().st_size
        dist.barrier()


def check_loaded(mesh, placements, folder, reference):
    path = reference / "names.bsl"
    empty = {name: tensor.clone().zero_() for name, tensor in placed(mesh, placements).items()}
    load_sharded(empty, path)
    expected = load_file(path)
    for name, tensor in empty.items():
        assert torch.equal(whole(tensor), expected[name].to(tensor.dtype)), name
    # One more of them than the file has, and one of another shape: nothing is changed.
    for name, other, error in [("more", torch.zeros(2), KeyError), ("bias", torch.zeros(2), backslash.InvalidTensorError)]:
        fresh = {name: tensor.clone().zero_() for name, tensor in placed(mesh, placements).items()}
        with pytest.raises(error, match=name):
            load_sharded({**fresh, name: other}, path)
        assert all(not whole(tensor).any() for tensor in fresh.values())


def check_failures(sharded, folder):
    """What goes wrong on the first rank is raised on all of them, and leaves nothing."""
    present = folder / "present.bsl"
    present.write_bytes(b"x")
    dist.barrier()
    with pytest.raises(FileExistsError, match="overwrite=True"):
        save_sharded(sharded, present)
    with pytest.raises(backslash.InvalidTensorError, match="`other`"):
        save_sharded(sharded, folder / "new.bsl", steps={"other": 1.0})
    with pytest.raises(backslash.InvalidTensorError, match="b.weight"):
        save_sharded(sharded, folder / "new.bsl", steps={"a.weight": 1.0})
    with pytest.raises(backslash.ConfigurationError, match="effort"):
        save_sharded(sharded, folder / "new.bsl", effort="slow")

    def stop(done, total, name):
        if done == 2:
            raise ValueError("that is enough")

    with pytest.raises(ValueError, match="that is enough"):
        save_sharded(sharded, folder / "new.bsl", progress=stop)
    assert [entry.name for entry in folder.iterdir() if "new" in entry.name] == []
    dist.barrier()


def run(rank, ranks, folder):
    folder = pathlib.Path(folder)
    with process_group(rank, ranks, folder / "rendezvous"):
        line = init_device_mesh("cpu", (ranks,))
        layouts = [(line, [Shard(0)]), (line, [Shard(1)]), (line, [Replicate()])]
        if ranks == 4:
            square = init_device_mesh("cpu", (2, 2), mesh_dim_names=("replicas", "shards"))
            layouts += [(square, [Replicate(), Shard(0)]), (square, [Shard(0), Shard(0)])]
        for mesh, placements in layouts:
            if placements == [Shard(1)]:
                # The bias has no second dimension.
                sharded = placed(mesh, [Replicate()])
                sharded |= {name: distribute_tensor(plain_tensors()[name], mesh, placements) for name in STEPS}
                check_saved(sharded, folder, folder / "reference")
                continue
            sharded = placed(mesh, placements)
            assert isinstance(sharded["bias"], DTensor)
            check_saved(sharded, folder, folder / "reference")
            check_loaded(mesh, placements, folder, folder / "reference")
        check_failures(placed(line, [Shard(0)]), folder)


@pytest.mark.parametrize("ranks", [2, 4])
def test_ranks_write_and_read_the_file_of_one_process(tmp_path, ranks):
    reference = tmp_path / "reference"
    reference.mkdir()
    for steps in (None, 0.3, STEPS):
        name = "names" if steps is STEPS else steps
        save_file(plain_tensors(), reference / f"{name}.bsl", steps=steps, metadata={"note": "x"})
    multiprocessing.spawn(run, args=(ranks, str(tmp_path)), nprocs=ranks, join=True)


def test_one_process_needs_no_group(tmp_path):
    path, other = tmp_path / "one.bsl", tmp_path / "other.bsl"
    calls = []
    split = save_sharded(plain_tensors(), path, steps=0.5, progress=lambda *told: calls.append(told))
    assert split == save_file(plain_tensors(), other, steps=0.5)
    assert path.read_bytes() == other.read_bytes()
    assert calls == [(0, 4, "a.weight"), (1, 4, "b.weight"), (2, 4, "bias"), (3, 4, "count")]
    module = torch.nn.Linear(64, 97, bias=False)
    load_sharded({"b.weight": module.weight}, path)
    assert torch.equal(module.weight, load_file(path)["b.weight"]) and module.weight.requires_grad
