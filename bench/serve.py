"""Tokens a second that 8 clients get: of 8 slots against one, and against transformers' own server and Flask with generate.

    python -m bench serve [--size gpt2] [--clients 8] [--requests 2] [--prompt 64] [--tokens 96] [--rounds 5] [--parts slots peers]

Every server is a process of its own on 2 cores, in float32 with the same random weights, and stands still while another one is measured.
slots: 8 clients of 8 slots against one client of an engine with one slot, drawn with seeds; the texts must be identical. Bar: 2.5 ×.
peers: 8 clients of each, greedily, the cheapest there is for the others. Bar: 2 × the faster of transformers and Flask. Needs torch,
transformers[serving] and flask; one that cannot be run is told with its error. first s: until the first piece of text, of a round that is
streamed; Flask streams nothing.
"""

import argparse
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile

import numpy as np
import report
import rounds
import serve_clients
import serve_sides
import subjects

import flaxgen
from flaxgen.models import presets

SAMPLED = {"temperature": 1.0, "top_k": 40}  # top_k: a random model finds all tokens alike, a trained one keeps few
PACKAGES = {"slots": ["jax", "jaxlib", "flax", "starlette", "uvicorn"], "peers": ["torch", "transformers", "flask"]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", default="gpt2", choices=presets.PRESETS)
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--requests", type=int, default=2, help="of each client in a round")
    parser.add_argument("--prompt", type=int, default=64)
    parser.add_argument("--tokens", type=int, default=96)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--parts", nargs="+", default=list(PACKAGES), choices=PACKAGES)
    options = parser.parse_args()
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: serve_sides.THREADS])
    rows, failed = [], {}
    with tempfile.TemporaryDirectory() as folder:
        for part in options.parts:
            more, problems = {"slots": slots, "peers": peers}[part](pathlib.Path(folder), options)
            rows, failed = rows + more, failed | problems
    packages = [name for part in options.parts for name in PACKAGES[part]]
    facts = {name: getattr(options, name) for name in ("size", "clients", "requests", "prompt", "tokens", "rounds")}
    report.finish("serve", rows, packages, **facts, failed=failed)


def slots(folder: pathlib.Path, options) -> tuple[list[dict], dict]:
    """One slot comes first: it is what the ratios are of."""
    flaxgen.save(folder / "ours", *subjects.gpt2(options.size), subjects.text())
    wishes = SAMPLED | {"min_tokens": options.tokens}
    started = {
        "one client, one slot": serve_sides.ours("one client, one slot", folder / "ours", 1, **wishes),
        f"{options.clients} clients": serve_sides.ours(f"{options.clients} clients", folder / "ours", options.clients, **wishes),
    }
    return compared("slots", started, {"one client, one slot": 1}, options)


def peers(folder: pathlib.Path, options) -> tuple[list[dict], dict]:
    theirs = saved_by_transformers(folder / "theirs", options.size)
    subprocess.run([sys.executable, "-m", "convert", theirs, folder / "same"], cwd=serve_sides.ROOT, check=True, capture_output=True)
    started = {
        "flaxgen": serve_sides.ours("flaxgen", folder / "same", options.clients, temperature=0, min_tokens=options.tokens),
        "transformers serve": serve_sides.transformers("transformers serve", theirs),
        "transformers batching": serve_sides.batching("transformers batching", theirs),
        "flask locked": serve_sides.flask("flask locked", theirs, "locked"),
        "flask unlocked": serve_sides.flask("flask unlocked", theirs, "unlocked"),
    }
    return compared("peers", started, {}, options)


def saved_by_transformers(folder: pathlib.Path, size: str) -> pathlib.Path:
    """A random model that ends at no token, and a vocabulary, as transformers keeps them."""
    import torch
    import transformers

    c = presets.PRESETS[size]
    folder.mkdir()
    subjects.text().save(folder)
    transformers.GPT2TokenizerFast(str(folder / "vocab.json"), str(folder / "merges.txt")).save_pretrained(folder)
    torch.manual_seed(0)
    config = transformers.GPT2Config(vocab_size=c.vocab, n_positions=c.positions, n_embd=c.width, n_layer=c.layers, n_head=c.heads)
    model = transformers.GPT2LMHeadModel(config)
    model.generation_config.eos_token_id = None
    model.save_pretrained(folder)
    return folder


def compared(part: str, started: dict[str, serve_sides.Side], clients: dict[str, int], options) -> tuple[list[dict], dict]:
    """A row for each side, and the errors of those that cannot be run. clients: of the sides that do not have options.clients."""
    prompts = prompts_of(options)
    sides, failed = {}, {}
    try:
        for name, side in started.items():
            try:
                with side.awake():
                    side.wait(side.body(prompts[0], options.tokens))
                sides[name] = side
            except RuntimeError as error:
                failed[name] = str(error)
                print(f"{name} cannot be run: {error}")
        return measured(part, sides, clients, prompts, options), failed
    finally:
        for side in started.values():
            side.stop()


def measured(part: str, sides: dict[str, serve_sides.Side], clients: dict[str, int], prompts: list[str], options) -> list[dict]:
    loads: dict[str, list[serve_clients.Load]] = {name: [] for name in sides}

    def loaded(name: str, **more) -> serve_clients.Load:
        side, count = sides[name], clients.get(name, options.clients)
        bodies = [side.body(prompt, options.tokens, **more) for prompt in prompts]
        if part == "slots":
            bodies = [body | {"seed": number} for number, body in enumerate(bodies)]
        with side.awake():
            serve_clients.ask(side.port, bodies[0])  # not measured: the first after standing still may be slow
            return serve_clients.load(side.port, bodies, count)

    def speed(name: str) -> float:
        found = loaded(name)
        if {one.tokens for one in found.answers} != {options.tokens}:
            raise RuntimeError(f"{name} gave {sorted({one.tokens for one in found.answers})} tokens, wanted {options.tokens}")
        loads[name].append(found)
        return len(prompts) * options.tokens / found.seconds

    figures = rounds.interleaved({name: (lambda name=name: speed(name)) for name in sides}, options.rounds)
    streamed = {name: loaded(name, stream=True) for name, side in sides.items() if side.streams}
    base = next(iter(sides))
    texts = {name: [one.text for one in found[-1].answers] for name, found in loads.items()}
    return [
        {"part": part, "server": name, "tokens/s": statistics.median(values)}
        | rounds.ratio(figures, *((name, base) if part == "slots" else (base, name)))
        | {
            "first s": statistics.median(one.first for one in streamed[name].answers) if name in streamed else None,
            "p50 s": statistics.median(one.percentile(0.5) for one in loads[name][-options.rounds :]),
            "p99 s": statistics.median(one.percentile(0.99) for one in loads[name][-options.rounds :]),
            "same texts": float(np.mean([one == other for one, other in zip(texts[name], texts[base], strict=True)])),
        }
        for name, values in figures.items()
    ]


def prompts_of(options) -> list[str]:
    """A prompt for each request of a round, all of one length."""
    text, noise = subjects.text(), np.random.default_rng(0)
    words = np.array(subjects.words(text, 400))
    return [text.decode(noise.choice(words, options.prompt).tolist()) for _ in range(options.clients * options.requests)]


if __name__ == "__main__":
    main()
