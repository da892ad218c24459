"""The recipes by name."""

import dataclasses

from train import image_recipes
from train.settings import OPENINGS, Language, Reading, Tagging

POETRY_PROMPTS = "床前明月光|今天天气不错|春江花月夜|《登高》|七绝《秋思》"
COUPLET_PROMPTS = "晚风摇树树还挺|今天天气不错|鱼跃此时海|只有香如故|科学空间"


def poetry(size: str = "full") -> Language:
    """Verse of Tang and Song, prepared by `python -m train prepare-poetry`: the bundled model."""
    full = Language(data="runs/verse/train.jsonl", dev="runs/verse/dev.jsonl", neighbours="seen", steps=8000, prompts=POETRY_PROMPTS)
    return full if size == "full" else tiny(full, rate=3e-3)


def own(size: str = "full") -> Language:
    """Your own text, Chinese or English: the bundled model goes on with it, or a small new one is made; ten minutes on two cores."""
    full = Language(
        start="flaxgen/bundled/poetry", foreign="rebuild", vocab=0, prompts=OPENINGS,
        batch=4, steps=1500, rate=1.5e-3, warmup=50, every=250, look=250,
    )  # fmt: skip
    return full if size == "full" else dataclasses.replace(full, data="train/tiny.jsonl", batch=4, steps=20, every=10, look=20)


def mega(size: str = "full") -> Language:
    """GPT2_ML mega from the beginning as published: batch 512, the AdaFactor of imcaspar/gpt2-ml (train/train_tpu_adafactor.sh)."""
    full = Language(
        length=1024, vocab=8021, width=1536, layers=48, heads=24, init_range=0.014142135623731, dropout=0.1,
        rows="single", shortest=64, ends="none", batch=512, steps=800_000, optimizer="adafactor-gpt2-ml", rate=1e-4,
        schedule="gpt2-ml", warmup=10_000, decay=0.01, clip=0.0, dtype="bfloat16", loop="scan", remat="full", every=1000, look=5000,
    )  # fmt: skip
    return full if size == "full" else tiny(full, vocab=6200, rows="packed", shortest=0)


def mega_finetune(size: str = "full") -> Language:
    """A converted GPT2_ML goes on with your text, all weights trained; 27 GiB, or a mesh."""
    full = Language(
        start="weights/gpt2-ml", length=1024, vocab=21130, width=1536, layers=48, heads=24, dropout=0.1,
        batch=8, accumulate=4, steps=2000, rate=1e-5, warmup=100, decay=0.01,
        dtype="bfloat16", loop="scan", remat="full", every=200, look=200,
    )  # fmt: skip
    return full if size == "full" else tiny(full, start="flaxgen/bundled/poetry", accumulate=2, loop="scan")


def mega_lean(size: str = "full") -> Language:
    """The same within one 24 GB card: factored moments, every layer computed again, the loss in chunks, a row at a time."""
    full = dataclasses.replace(mega_finetune(), accumulate=8, optimizer="adafactor-gpt2-ml", rate=5e-5, clip=0.0, chunks=8)
    return full if size == "full" else tiny(full, start="flaxgen/bundled/poetry", accumulate=2, chunks=3, loop="scan")


def mega_lora(size: str = "full") -> Language:
    """The same by low-rank updates: the base frozen in bfloat16, a few thousandths of the weights trained; about 4 GiB."""
    full = dataclasses.replace(mega_finetune(), lora=16, rate=2e-4, decay=0.0)
    return full if size == "full" else tiny(full, start="flaxgen/bundled/poetry", accumulate=2, lora=3, loop="scan")


def gpt2_124m(size: str = "full") -> Language:
    """GPT-2's smallest from the beginning: half a million tokens an update, 10 billion in all, as nanoGPT and llm.c train it."""
    full = Language(
        length=1024, vocab=50257, width=768, layers=12, heads=12, wiring="pre",
        batch=512, accumulate=16, steps=19_000, rate=6e-4, warmup=700, dtype="bfloat16", every=500, look=500,
    )  # fmt: skip
    return full if size == "full" else tiny(full, vocab=6200, accumulate=2)


def tiny(full: Language, **more) -> Language:
    """The recipe on a small file of this checkout, ending within a minute on one core."""
    small = {"data": "train/tiny.jsonl", "dev": "", "length": 64, "batch": 8, "accumulate": 1, "width": 48, "layers": 2, "heads": 4}
    brief = {"steps": 100, "warmup": 10, "every": 50, "look": 50, "rate": 1e-3, "dtype": "float32", "dropout": 0.0}
    return dataclasses.replace(full, **(small | brief | more))


def couplet(size: str = "full") -> Tagging:
    """Lower lines for upper ones, by gated convolutions (kexue.fm 6270): couplets of verse from `prepare-couplets`, or your own."""
    full = Tagging(
        data="runs/couplets/train.tsv", dev="runs/couplets/dev.tsv", prompts=COUPLET_PROMPTS, batch=64, steps=100_000,
        optimizer="adam", rate=1e-3, schedule="constant", warmup=0, decay=0.0, clip=0.0, look=1000, every=1000,
    )  # fmt: skip
    return full if size == "full" else brief(full)


def couplet_bilstm(size: str = "full") -> Tagging:
    """The same by the baseline of the article, a BiLSTM of equal size."""
    full = dataclasses.replace(couplet(), model="bilstm")
    return full if size == "full" else brief(full)


def brief(full: Tagging) -> Tagging:
    """The recipe on a small file of this checkout, ending within a minute on one core."""
    small = {"data": "train/couplets.tsv", "dev": "", "batch": 16, "width": 32, "layers": 2, "dropout": 0.0}
    return dataclasses.replace(full, **small, steps=200, rate=3e-3, every=100, look=100)


def reading(size: str = "full") -> Reading:
    """Answers out of passages by a BERT (converted with --keep simplified) as UniLM, published: 8 epochs of some 60,000, Adam at 1e-5."""
    full = Reading(
        data="runs/reading/train.json", dev="runs/reading/dev.json", start="weights/bert-base-chinese", batch=32, steps=15_000,
        optimizer="adam", rate=1e-5, schedule="constant", warmup=0, decay=0.0, clip=0.0, every=500, look=500,
    )  # fmt: skip
    small = {"data": "train/questions.json", "dev": "", "start": "", "passage": 48, "question": 16, "answer": 8}
    brief = {"width": 48, "layers": 2, "dropout": 0.0, "batch": 16, "steps": 200, "rate": 3e-3, "every": 100, "look": 100}
    return full if size == "full" else dataclasses.replace(full, **small, **brief)


def reading_verse(size: str = "full") -> Reading:
    """Answers about poems and poets, by a small model from nothing: questions of `prepare-verse-reading`, in three stages (NOTES.md)."""
    full = Reading(
        data="runs/verse-reading/whole.json", dev="runs/verse-reading/dev.json", text="runs/verse-reading/vocab.txt",
        passage=128, question=24, answer=36, width=192, wiring="pre", attention="induction", position="rotary", head="tied",
        init_range=0.05, dropout=0.0, batch=16, steps=300, rate=1.5e-3, schedule="constant", warmup=40, decay=0.01,
        every=100, look=500, best="dev",
    )  # fmt: skip
    small = {"data": "train/questions.json", "dev": "", "text": "", "best": "train", "passage": 48, "question": 16, "answer": 8}
    brief = {"width": 48, "layers": 2, "steps": 100, "every": 50, "look": 50}
    return full if size == "full" else dataclasses.replace(full, **small, **brief)


RECIPES = {
    "own": own,
    "poetry": poetry,
    "gpt2-ml-mega": mega,
    "gpt2-ml-mega-finetune": mega_finetune,
    "gpt2-ml-mega-lean": mega_lean,
    "gpt2-ml-mega-lora": mega_lora,
    "gpt2-124m": gpt2_124m,
    "couplet": couplet,
    "couplet-bilstm": couplet_bilstm,
    "reading": reading,
    "reading-verse": reading_verse,
} | image_recipes.RECIPES
