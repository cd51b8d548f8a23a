"""Trains a small network for a small file, its parameters sharded over all ranks, and saves it from rank 0.

On two processes of one machine, on the CPU:

    torchrun --nproc-per-node 2 train_sharded.py trained.bsl

On two machines, once on each:

    torchrun --nnodes 2 --nproc-per-node 8 --rdzv-backend c10d --rdzv-endpoint HOST:29500 train_sharded.py trained.bsl
"""

import sys

import torch
import torch.distributed as dist
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard

import backslash
from backslash.torch import RateRegularizer


def main(output: str) -> None:
    device = torch.device("cpu")
    dist.init_process_group()
    if torch.accelerator.is_available():
        device = torch.accelerator.current_accelerator()
        torch.accelerator.set_device_index(dist.get_node_local_rank())
    torch.manual_seed(0)
    model = torch.nn.Sequential(
        torch.nn.Embedding(256, 128),
        torch.nn.Linear(128, 512),
        torch.nn.GELU(),
        torch.nn.Linear(512, 256),
    ).to(device)
    fully_shard(model, mesh=init_device_mesh(device.type, (dist.get_world_size(),)))

    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=0.0)
    # After wrapping, since that makes other parameters of those there are.
    regularizer = RateRegularizer(model.named_parameters(), weight=1e-4).attach(optimizer)

    generator = torch.Generator().manual_seed(dist.get_rank())
    for step in range(200):
        inputs = torch.randint(256, (64,), generator=generator).to(device)
        loss = torch.nn.functional.cross_entropy(model(inputs), (3 * inputs + 1) % 256)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if step % 50 == 0:
            bits, shape = regularizer.bits(), regularizer.shape()
            if dist.get_rank() == 0:
                print(f"step {step}: loss {loss.item():.3f}, shape {shape:.2f}, about {bits:.2f} bits per weight")

    options = StateDictOptions(full_state_dict=True, cpu_offload=True)
    weights = get_model_state_dict(model, options=options)
    if dist.get_rank() == 0:
        size = backslash.save_file(weights, output, bits_per_weight=2, overwrite=True)
        print(f"{output}: {size.total} bytes")
    dist.destroy_process_group()


if __name__ == "__main__":
    main(*sys.argv[1:])
