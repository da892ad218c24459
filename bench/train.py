"""A training step of GPT-2 in float32 against torch eager and transformers: the same weights and batch, interleaved rounds, medians.

    python bench/train.py [--size gpt2] [--layers 6 --width 512] [--rows 4] [--length 256] [--rounds 5] [--updates 2] [--sides torch scan …]

Needs torch and transformers. Forward, backward, a clip by global norm and AdamW; no dropout. Every side is a process of its own with two
threads that waits while the others run; its peak memory is the most it ever held. "torch" is the GPT-2 that one would write with
F.scaled_dot_product_attention and the fused AdamW. The losses after each round must agree, or the sides do not do the same.
`--sides` of ours are named LOOP or LOOP+REMAT, with +chunksN for the loss in N pieces.
"""

import argparse
import contextlib
import json
import os
import pathlib
import resource
import statistics
import subprocess
import sys
import tempfile
import time

import numpy as np

ROOT = pathlib.Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))  # `train` is the trainer, not this file

from flaxgen.models import config, presets  # noqa: E402

THREADS = 2
SIDES = ["torch", "transformers", "unroll", "scan", "scan+full", "scan+dots"]
RATE, DECAY, CLIP = 1e-4, 0.1, 1.0


def weights(c: config.Config) -> dict[str, np.ndarray]:
    """Random parameters by path, of the size that training begins with."""
    rng = np.random.default_rng(0)
    fixed = {"bias": np.zeros, "scale": np.ones}
    return {
        path: fixed[path.rsplit("/")[-1]](shape, np.float32)
        if path.endswith(tuple(fixed))
        else rng.standard_normal(shape, np.float32) * np.float32(0.02)
        for path, shape in config.shapes(c).items()
    }


def ours(c: config.Config, side: str, token_BT: np.ndarray):
    """update() -> loss, by the trainer's own step."""
    import jax

    from flaxgen import weights as folders
    from flaxgen.models import transformer
    from flaxgen.tasks import language
    from train import optimizers, step

    loop, *more = side.split("+")
    chunks = next((int(word.removeprefix("chunks")) for word in more if word.startswith("chunks")), 1)
    remat = next((word for word in more if not word.startswith("chunks")), "none")
    task = language.Language(transformer.Transformer(c), loop=loop, remat=remat, chunks=chunks)
    optimizer = optimizers.build("adamw", steps=1000, rate=RATE, schedule="constant", decay=DECAY, clip=CLIP)
    params = folders.nest(weights(c))
    state = step.start(task, optimizer, jax.random.key(0), (transformer.stack(params) if loop == "scan" else params, {}))
    batch = {"token_BT": token_BT[:, :-1], "target_BT": token_BT[:, 1:], "weight_BT": np.ones(token_BT[:, 1:].shape, np.float32)}

    def update() -> float:
        nonlocal state
        state, facts = step.update(task, optimizer, state, jax.random.key(1), batch)
        return float(facts["loss"])

    return update


def torches(c: config.Config, side: str, token_BT: np.ndarray):
    """update() -> loss, by torch eager."""
    import torch

    torch.set_num_threads(THREADS)
    model = gpt2(c, weights(c)) if side == "torch" else transformers_gpt2(c, weights(c))
    named = list(model.named_parameters())
    groups = [{"params": [p for _, p in named if p.ndim > 1], "weight_decay": DECAY}]
    groups.append({"params": [p for _, p in named if p.ndim == 1], "weight_decay": 0.0})
    optimizer = torch.optim.AdamW(groups, lr=RATE, betas=(0.9, 0.98), eps=1e-8, fused=True)
    given, wanted = torch.from_numpy(token_BT[:, :-1].astype(np.int64)), torch.from_numpy(token_BT[:, 1:].astype(np.int64))

    def update() -> float:
        optimizer.zero_grad(set_to_none=True)
        made = model(given)
        logits = made if side == "torch" else made.logits
        loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), wanted.flatten())
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), CLIP)
        optimizer.step()
        return float(loss.detach())

    return update


def gpt2(c: config.Config, tree: dict[str, np.ndarray]):
    """GPT-2 as one would write it in torch."""
    import torch
    from torch import nn
    from torch.nn import functional

    class Block(nn.Module):
        def __init__(self):
            super().__init__()
            self.norm_0, self.norm_1 = nn.LayerNorm(c.width, c.epsilon), nn.LayerNorm(c.width, c.epsilon)
            self.qkv, self.o = nn.Linear(c.width, 3 * c.width), nn.Linear(c.width, c.width)
            self.up, self.down = nn.Linear(c.width, c.hidden), nn.Linear(c.hidden, c.width)

        def forward(self, x):
            rows, length, width = x.shape
            q, k, v = (y.view(rows, length, c.heads, -1).transpose(1, 2) for y in self.qkv(self.norm_0(x)).split(width, dim=2))
            y = functional.scaled_dot_product_attention(q, k, v, is_causal=True)
            x = x + self.o(y.transpose(1, 2).reshape(rows, length, width))
            return x + self.down(functional.gelu(self.up(self.norm_1(x)), approximate="tanh"))

    class GPT2(nn.Module):
        def __init__(self):
            super().__init__()
            self.token, self.position = nn.Embedding(c.vocab, c.width), nn.Embedding(c.positions, c.width)
            self.blocks = nn.ModuleList(Block() for _ in range(c.layers))
            self.norm = nn.LayerNorm(c.width, c.epsilon)

        def forward(self, token):
            x = self.token(token) + self.position(torch.arange(token.shape[1]))[None]
            for block in self.blocks:
                x = block(x)
            return functional.linear(self.norm(x), self.token.weight)

    model = GPT2()
    with torch.no_grad():
        for name, ours in {"token": "embed/token", "position": "embed/position"}.items():
            getattr(model, name).weight.copy_(torch.from_numpy(tree[f"{ours}/embedding"]))
        for number, block in enumerate(model.blocks):
            path = config.block_name(number)
            for part, ours in {"o": "attend/o", "up": "mlp/up", "down": "mlp/down"}.items():
                getattr(block, part).weight.copy_(torch.from_numpy(tree[f"{path}/{ours}/kernel"]))
                getattr(block, part).bias.zero_()
            block.qkv.weight.copy_(torch.from_numpy(np.concatenate([tree[f"{path}/attend/{part}/kernel"] for part in "qkv"])))
            block.qkv.bias.zero_()
    return model


def transformers_gpt2(c: config.Config, tree: dict[str, np.ndarray]):
    """transformers' GPT-2 with the same weights."""
    import torch
    import transformers

    sizes = {"vocab_size": c.vocab, "n_positions": c.positions, "n_embd": c.width, "n_layer": c.layers, "n_head": c.heads}
    still = dict.fromkeys(("resid_pdrop", "embd_pdrop", "attn_pdrop"), 0.0) | {"use_cache": False}
    model = transformers.GPT2LMHeadModel(transformers.GPT2Config(**sizes, **still)).train()
    with torch.no_grad():
        model.transformer.wte.weight.copy_(torch.from_numpy(tree["embed/token/embedding"]))
        model.transformer.wpe.weight.copy_(torch.from_numpy(tree["embed/position/embedding"]))
        for number, block in enumerate(model.transformer.h):
            path = config.block_name(number)
            qkv = np.concatenate([tree[f"{path}/attend/{part}/kernel"] for part in "qkv"])
            block.attn.c_attn.weight.copy_(torch.from_numpy(qkv.T))
            for module, ours in ((block.attn.c_proj, "attend/o"), (block.mlp.c_fc, "mlp/up"), (block.mlp.c_proj, "mlp/down")):
                module.weight.copy_(torch.from_numpy(tree[f"{path}/{ours}/kernel"].T))
    return model


def work(side: str, sizes: dict, rows: int, length: int) -> None:
    """A side's process: for each number that comes in, so many updates; seconds, loss and peak memory go out."""
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:THREADS])
    c = config.Config(**sizes)
    token_BT = np.random.default_rng(1).integers(0, c.vocab, (rows, length + 1), np.int32)
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what a library prints does not come between
    update = (torches if side in ("torch", "transformers") else ours)(c, side, token_BT)
    for line in sys.stdin:
        start = time.perf_counter()
        losses = [update() for _ in range(int(line))]
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
        print(json.dumps({"seconds": time.perf_counter() - start, "loss": losses[-1], "peak": peak}), file=out, flush=True)


def ask(process: subprocess.Popen, updates: int) -> dict:
    with contextlib.suppress(BrokenPipeError):  # it has ended, and its error is shown
        process.stdin.write(f"{updates}\n")
        process.stdin.flush()
    answer = process.stdout.readline()
    if not answer:
        raise RuntimeError(f"a side ended with code {process.wait()}; its error stands above")
    return json.loads(answer)


def main() -> None:
    import report

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", default="gpt2", choices=presets.PRESETS)
    for name, default in (("layers", 0), ("width", 0), ("vocab", 0), ("rows", 4), ("length", 256), ("rounds", 5), ("updates", 2)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--sides", nargs="+", default=SIDES)
    parser.add_argument("--name", default="train")
    parser.add_argument("--work", help=argparse.SUPPRESS)
    options = parser.parse_args()
    sizes = vars(presets.PRESETS[options.size]) | {"dropout": 0.0}
    width = options.width or sizes["width"]
    sizes |= {"width": width, "hidden": 4 * width, "heads": width // 64, "layers": options.layers or sizes["layers"]}
    sizes |= {"vocab": options.vocab or sizes["vocab"]}
    if options.work:
        return work(options.work, sizes, options.rows, options.length)
    environment = os.environ | dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS"), str(THREADS))
    with tempfile.TemporaryFile("w+") as errors:
        started = {}
        for side in options.sides:
            command = [sys.executable, __file__, *sys.argv[1:], "--work", side]
            pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": errors}
            started[side] = subprocess.Popen(command, text=True, env=environment, **pipes)
        try:
            rows = measure(started, options)
        except RuntimeError:
            errors.seek(0)
            sys.stderr.write(errors.read()[-4000:])
            raise
        finally:
            for process in started.values():
                process.kill()
                process.communicate()
    count = sum(int(np.prod(shape)) for shape in config.shapes(config.Config(**sizes)).values())
    facts = {"parameters": count, "rows": options.rows, "length": options.length, "tunables": os.environ.get("GLIBC_TUNABLES", "")}
    print(f"{count / 1e6:.0f} M parameters, {options.rows} × {options.length} tokens, float32, {THREADS} threads")
    packages = ["jax", "jaxlib", "flax", "optax", "torch", "transformers"]
    report.finish(options.name, rows, packages, **{"batch" if name == "rows" else name: value for name, value in facts.items()})


def measure(started: dict[str, subprocess.Popen], options) -> list[dict]:
    """A row a side, after a warm-up of two updates each."""
    first = {side: ask(process, 1) for side, process in started.items()}
    for process in started.values():
        ask(process, 1)
    seconds, last = {side: [] for side in started}, {}
    for _ in range(options.rounds):
        for side, process in started.items():
            last[side] = ask(process, options.updates)
            seconds[side].append(last[side]["seconds"] / options.updates)
    rows, tokens = [], options.rows * options.length
    for side in started:
        ratios = [peer / mine for peer, mine in zip(seconds[next(iter(started))], seconds[side], strict=True)]
        rows.append(
            {
                "side": side,
                "tokens/s": tokens / statistics.median(seconds[side]),
                f"ratio to {next(iter(started))}": statistics.median(ratios),
                "from": min(ratios),
                "to": max(ratios),
                "peak GB": last[side]["peak"],
                "first call s": first[side]["seconds"],
                "first loss": round(first[side]["loss"], 4),
                "last loss": f"{last[side]['loss']:.5f}",
            }
        )
    return rows


if __name__ == "__main__":
    main()
