"""Trains in PyTorch what `backslash train` would (`pip install torch safetensors`): the same network, initial weights,
batches, optimizer and schedule, from a file of `cargo run --release -p backslash-train --example export_run`.

  train_pytorch.py RUN.safetensors [--device cuda] [--precision bf16] [--compile] [--steps N] [--log LOSSES.jsonl]

Prints the loss of every hundredth step, and tokens per second over all steps but the first ten."""
import argparse, json, sys, time
import torch
import torch.nn.functional as F
from safetensors import safe_open


def norm(x):
    return F.rms_norm(x, (x.shape[-1],), eps=torch.finfo(torch.float32).eps)


class Network(torch.nn.Module):
    """The decoder and the golf network; parameters by the names of the file, with `/` for `.`."""

    def __init__(self, config, weights):
        super().__init__()
        self.config, self.golf = config, config["architecture"] == "golf"
        for name, value in weights.items():
            self.register_parameter(name.replace(".", "/"), torch.nn.Parameter(value))

    def of(self, name):
        return getattr(self, name.replace(".", "/"))

    def heads(self, x, count, tables, gain=None):
        """Split into heads, normalise each, turn it by its position."""
        rows, tokens, width = x.shape
        x = norm(x.view(rows, tokens, count, width // count).transpose(1, 2))
        first, second = x.chunk(2, -1)
        cosines, sines = (table.to(x.dtype) for table in tables)
        x = torch.cat((first * cosines + second * sines, second * cosines - first * sines), -1)
        return x if gain is None else x * gain.to(x.dtype)[:, None, None]

    def attention(self, x, prefix, tables):
        heads, kv_heads = self.config["heads"], self.config["kv_heads"]
        rows, tokens, width = x.shape
        gain = self.of(prefix + "q_gain") if self.golf else None
        query = self.heads(F.linear(x, self.of(prefix + "c_q.weight")), heads, tables, gain)
        key = self.heads(F.linear(x, self.of(prefix + "c_k.weight")), kv_heads, tables)
        value = F.linear(x, self.of(prefix + "c_v.weight")).view(rows, tokens, kv_heads, width // heads).transpose(1, 2)
        mixed = F.scaled_dot_product_attention(query, key, value, is_causal=True, enable_gqa=kv_heads != heads)
        return F.linear(mixed.transpose(1, 2).reshape(rows, tokens, width), self.of(prefix + "proj.weight"))

    def block(self, x, start, layer, tables):
        prefix = f"blocks.{layer}."
        scale = lambda name: self.of(prefix + name).to(x.dtype) if self.golf else 1.0
        if self.golf:
            mix = self.of(prefix + "resid_mix").to(x.dtype)
            x = mix[0] * x + mix[1] * start
        x = x + scale("attn_scale") * self.attention(norm(x), prefix + "attn.", tables)
        hidden = F.relu(F.linear(norm(x), self.of(prefix + "mlp.fc.weight"))).square()
        return x + scale("mlp_scale") * F.linear(hidden, self.of(prefix + "mlp.proj.weight"))

    def forward(self, inputs, targets, tables):
        config, layers = self.config, self.config["layers"]
        embedding = self.of("tok_emb.weight")
        start = x = norm(F.embedding(inputs, embedding))
        stored, skips = [], layers // 2
        for layer in range(layers):
            if self.golf and layer >= skips and stored:
                x = x + self.of("skip_weights")[layer - skips].to(x.dtype) * stored.pop()
            x = self.block(x, start, layer, tables)
            if layer < skips:
                stored.append(x)
        logits = F.linear(norm(x), embedding)
        logits = config["logit_cap"] * torch.tanh(logits / config["logit_cap"])
        return F.cross_entropy(logits.float().flatten(0, 1), targets.flatten())


def rotary(config, device):
    half = config["width"] // config["heads"] // 2
    frequencies = config["rope_base"] ** (-torch.arange(half, dtype=torch.float64) / half)
    angles = torch.outer(torch.arange(config["context"], dtype=torch.float64), frequencies)
    return [table.float().to(device) for table in (angles.cos(), angles.sin())]


def orthogonal(gradient, dtype):
    """Newton and Schulz's five steps of Muon."""
    x = gradient.to(dtype)
    x = x / (x.norm() + 1e-7)
    wide = x.T if x.shape[0] > x.shape[1] else x
    for _ in range(5):
        square = wide @ wide.T
        wide = 3.4445 * wide + (-4.7750 * square + 2.0315 * square @ square) @ wide
    return wide.T if x.shape[0] > x.shape[1] else wide


class Optimizer:
    """Muon or AdamW for the matrices, AdamW for the rest, with the groups of the configuration."""

    def __init__(self, network, config, precision):
        self.train, self.options = config["train"], config["optimizer"]
        self.dtype = torch.bfloat16 if precision == "bf16" else torch.float32
        named = [(name.replace("/", "."), p) for name, p in network.named_parameters()]
        self.matrices, groups = [], []
        for name, parameter in named:
            kind = "embedding" if name == "tok_emb.weight" else "matrix" if name.endswith(".weight") else "vector"
            own = self.options[kind]
            pick = lambda key, inherited: inherited if own[key] == "train" else own[key]
            rate = pick("learning_rate", self.train["learning_rate"])
            decay = pick("weight_decay", self.train["weight_decay"] if parameter.dim() > 1 else 0.0)
            if kind == "matrix" and self.options["method"] == "muon":
                assert decay == 0 and self.options["update_scale"] == "aspect-ratio", "not the golf preset"
                self.matrices.append((parameter, rate, torch.zeros_like(parameter)))
            else:
                groups.append({"params": [parameter], "lr": rate, "peak": rate, "weight_decay": decay})
        betas = (self.train["beta1"], self.train["beta2"])
        cuda = next(network.parameters()).is_cuda
        self.adam = torch.optim.AdamW(groups, betas=betas, eps=self.train["epsilon"], fused=cuda)

    @torch.no_grad()
    def step(self, step):
        train, options = self.train, self.options
        left = (train["steps"] - step) / max(train["warmdown"] * train["steps"], 1.0)
        multiplier = min((step + 1) / max(train["warmup_steps"], 1), left, 1.0)
        for group in self.adam.param_groups:
            group["lr"] = multiplier * group["peak"]
        self.adam.step()
        way = min(step / options["momentum_warmup_steps"], 1.0) if options["momentum_warmup_steps"] else 1.0
        momentum = options["momentum_start"] + way * (options["momentum"] - options["momentum_start"])
        for parameter, rate, total in self.matrices:
            total.mul_(momentum).add_(parameter.grad)
            update = orthogonal(parameter.grad + momentum * total, self.dtype)
            scale = max(1.0, parameter.shape[0] / parameter.shape[1]) ** 0.5
            parameter.add_(update.to(parameter.dtype), alpha=-multiplier * rate * scale)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--precision", choices=["fp32", "bf16"], default="fp32")
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--steps", type=int)
    parser.add_argument("--threads", type=int)
    parser.add_argument("--log")
    options = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
    with safe_open(options.run, "pt") as file:
        config = json.loads(file.metadata()["config"])
        tensors = {name: file.get_tensor(name) for name in file.keys()}
    batches = tensors.pop("batches").long().to(options.device)
    network = Network(config["model"], tensors).to(options.device)
    optimizer = Optimizer(network, config, options.precision)
    tables = rotary(config["model"], options.device)
    forward = torch.compile(network) if options.compile else network
    wait = torch.cuda.synchronize if options.device.startswith("cuda") else lambda: None
    losses, steps = [], min(options.steps or len(batches), len(batches))
    for step in range(steps):
        if step == min(10, steps - 1):
            wait()
            start = time.perf_counter()
        batch = batches[step]
        with torch.autocast(options.device.split(":")[0], torch.bfloat16, enabled=options.precision == "bf16"):
            loss = forward(batch[:, :-1], batch[:, 1:], tables)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), config["train"]["clip_norm"])
        optimizer.step(step)
        network.zero_grad(set_to_none=True)
        losses.append(loss.detach())
        if (step + 1) % 100 == 0:
            print(f"step {step + 1}: loss {loss.item():.4f}", file=sys.stderr, flush=True)
    wait()
    seconds = time.perf_counter() - start
    tokens = (steps - min(10, steps - 1)) * batches[0, :, 1:].numel()
    peak = torch.cuda.max_memory_allocated() / 1e6 if options.device.startswith("cuda") else None
    print(json.dumps({"steps": steps, "tokens_per_second": round(tokens / seconds), "peak_memory_mb": peak,
                      "precision": options.precision, "compiled": options.compile, "torch": torch.__version__}))
    if options.log:
        with open(options.log, "w") as file:
            file.writelines(json.dumps({"step": i + 1, "loss": x.item()}) + "\n" for i, x in enumerate(losses))


if __name__ == "__main__":
    main()
