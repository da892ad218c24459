"""Our beam search beside transformers' own on random small GPT-2s, by hand: `python -m tests.chains.against_transformers [models]`.

Prints how many prompts got the same answers, all of them with scores within 1e-4. A case whose rival scores lie within 1e-5 is a tie, which
rounding decides, and is counted apart. The padding token is banned, since transformers' n-grams see the padding on the left.
"""

import contextlib
import io
import itertools
import sys
import tempfile

import jax
import numpy as np
import torch
import transformers

import flaxgen
from convert import command
from flaxgen import loop, rules
from flaxgen.chains import autoregressive, beam

STEPS, VOCAB, PAD = 12, 53, 0
PENALTIES = (1.0, 0.6, 0.0, -0.5, 2.0)


def make(seed: int):
    """A random GPT-2 as transformers has it, and ours with the same weights."""
    torch.manual_seed(seed)
    config = transformers.GPT2Config(
        vocab_size=VOCAB, n_positions=40, n_embd=24, n_layer=2, n_head=3, initializer_range=0.3, eos_token_id=1, bos_token_id=1
    )
    theirs = transformers.GPT2LMHeadModel(config).eval()
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
        theirs.save_pretrained(f"{folder}/theirs")
        assert command.main([f"{folder}/theirs", f"{folder}/ours"]) == 0
        model, params, _ = flaxgen.load(f"{folder}/ours")
    return theirs, model, params


def ask_theirs(theirs, prompts, search, rule):
    """[(tokens, score)] of every prompt's returned answers."""
    width = max(map(len, prompts))
    ids = torch.tensor([[PAD] * (width - len(p)) + p for p in prompts])
    mask = torch.tensor([[0] * (width - len(p)) + [1] * len(p) for p in prompts])
    named = {
        "repetition_penalty": rule.repetition_penalty,
        "no_repeat_ngram_size": rule.no_repeat_ngram,
        "min_new_tokens": rule.min_tokens,
        "suppress_tokens": [PAD],
    }
    out = theirs.generate(
        ids,
        attention_mask=mask,
        num_beams=search.beams,
        num_return_sequences=search.returned,
        length_penalty=search.length_penalty,
        early_stopping=search.early_stopping,
        max_new_tokens=STEPS,
        eos_token_id=list(rule.end) or None,
        pad_token_id=PAD,
        do_sample=False,
        output_scores=True,
        return_dict_in_generate=True,
        **named,
    )
    found = []
    for row, score in zip(out.sequences[:, width:].tolist(), out.sequences_scores.tolist(), strict=True):
        ends = [i for i, token in enumerate(row) if token in rule.end]
        found.append((row[: ends[0] + 1] if ends else row[:STEPS], score))
    return found


def ask_ours(model, params, prompts, search, rule):
    length_B = np.array([len(p) for p in prompts])
    token_BT = np.stack([np.pad(p, (0, 9 - len(p))) for p in prompts])
    chain, given = search.plan(model, autoregressive.prompt(token_BT, length_B, limit=STEPS, rule=rule), room=STEPS)
    found = loop.generate(chain, params, jax.random.key(0), given, steps=STEPS)
    return list(zip(found.rows(), found.score_B.tolist(), strict=True))


def main():
    models = int(sys.argv[1]) if len(sys.argv) > 1 else 10
    made = [make(seed) for seed in range(models)]
    total = same = ties = 0
    for beams, early in itertools.product((2, 4, 7), (False, True, "never")):
        for seed, (theirs, model, params) in enumerate(made):
            noise = np.random.default_rng([seed, beams])
            prompts = [noise.integers(1, VOCAB, noise.integers(1, 10)).tolist() for _ in range(3)]
            penalised = {"repetition_penalty": 1.2, "no_repeat_ngram": 3} if seed % 2 else {"repetition_penalty": 1.0, "no_repeat_ngram": 0}
            end = noise.choice(np.arange(1, VOCAB), int(noise.integers(0, 7)), replace=False).tolist()
            rule = rules.Rule(end=end, min_tokens=int(noise.integers(0, 4)) if end else 0, ban=[PAD], **penalised)
            search = beam.Search(beams=beams, early_stopping=early, length_penalty=PENALTIES[seed % 5], returned=beams)
            wanted, found = ask_theirs(theirs, prompts, search, rule), ask_ours(model, params, prompts, search, rule)
            for prompt in range(len(prompts)):
                own = slice(prompt * beams, (prompt + 1) * beams)
                agrees = all(w[0] == f[0] and abs(w[1] - f[1]) <= 1e-4 for w, f in zip(wanted[own], found[own], strict=True))
                scores = np.array([score for _, score in found[own]])
                tie = not agrees and np.abs(scores - [score for _, score in wanted[own]]).max() < 1e-4
                total, same, ties = total + 1, same + agrees, ties + tie
                if not agrees:
                    print(search, rule, "tie" if tie else "differs", wanted[own], found[own], sep="\n  ")
    print(f"{same} of {total} prompts alike, {ties} ties")


if __name__ == "__main__":
    main()
