"""The command line: `python -m convert SOURCE TARGET`."""

import contextlib
import dataclasses
import pathlib
import signal
import sys
import time
from collections.abc import Callable, Iterator
from typing import Annotated, Literal

import tyro

from flaxgen import errors

# The names of convert.formats and of flaxgen.models.presets, written out so that --help shows them without loading either.
To = Literal[
    "flaxgen", "gpt2-ml", "gpt2-tf", "gpt2-hf", "gpt2-bert4keras", "bert", "albert", "nezha", "roformer", "roformer-v2",
    "electra", "gpt", "bert-hf", "albert-hf", "nezha-hf", "roformer-hf", "electra-hf", "t5", "t5.1.1", "mt5", "t5-hf", "t5.1.1-hf",
]  # fmt: skip
INTERRUPTED, FAILED = 130, 1


@dataclasses.dataclass(frozen=True)
class Options:
    """Convert a checkpoint of GPT2_ML, GPT-2, BERT and its kin or T5 to a flaxgen folder, or back to where it came from.

    Prints what it will do, then does it: one tensor in memory at a time, into a temporary folder that becomes TARGET at the end.
    Nothing that can run code (pickle) is read. Exit codes: 0 done, 3 other refusal, 4 corrupt, 5 incomplete, 6 does not fit, 7 unsafe,
    8 too large, 1 the system failed, 2 wrong usage, 130 interrupted.
    """

    source: Annotated[pathlib.Path, tyro.conf.Positional, tyro.conf.arg(metavar="SOURCE")]
    """A TensorFlow checkpoint's prefix (model.ckpt-100000), one of its files or its folder; a .safetensors file or its folder; Keras's
    weights in a .h5 file (needs h5py); a flaxgen folder. JSON with the sizes (config.json, bert_config.json, hparams.json) and the
    vocabulary are looked for beside it."""

    target: Annotated[pathlib.Path, tyro.conf.Positional, tyro.conf.arg(metavar="TARGET")]
    """The folder to write; it must not exist, unless --force is said."""

    to: To = "flaxgen"
    """flaxgen: a flaxgen folder. gpt2-ml: GPT2_ML's TensorFlow checkpoint. gpt2-tf: OpenAI's TensorFlow checkpoint. gpt2-hf:
    transformers' safetensors. gpt2-bert4keras: bert4keras's TensorFlow checkpoint of GPT-2. bert, albert, nezha, roformer, roformer-v2,
    electra, gpt: TensorFlow checkpoints of Google's code and bert4keras; albert takes a model whose layers have parameters of their own
    while they are equal. bert-hf, albert-hf, nezha-hf, roformer-hf, electra-hf: transformers' safetensors. t5, t5.1.1, mt5:
    Google's TensorFlow checkpoints of T5. t5-hf, t5.1.1-hf: transformers' safetensors of T5 1.0, and of T5 1.1 and mT5."""

    model: Annotated[str | None, tyro.conf.arg(metavar="NAME")] = None
    """Which model SOURCE holds, where several fit (nezha and roformer have the same tensors): a format as in --to; albert-unshared reads
    ALBERT into layers of their own, each a copy; bert-h5, albert-h5, nezha-h5, roformer-h5, roformer-v2-h5, gpt-h5,
    gpt2-ml-h5, gpt2-bert4keras-h5 are what bert4keras gives Keras's HDF5 files. Or the name of a published size, where no JSON says the
    number of heads: gpt2, gpt2-medium, gpt2-large, gpt2-xl, gpt2-ml-base, gpt2-ml-large, gpt2-ml-mega, gpt2-ml-mega-21130,
    bert-base-chinese, bert-base-uncased, bert-large-uncased, roberta-wwm-ext-large, albert-base, albert-large, albert-xlarge,
    albert-xxlarge, nezha-base, nezha-large, roformer-base, roformer-v2-small, roformer-v2-base, roformer-v2-large, electra-small,
    electra-base, electra-large, t5-small, t5-base, t5-large, t5-3b, t5-11b, t5.1.1-small, t5.1.1-base, t5.1.1-large, t5.1.1-xl,
    t5.1.1-xxl, mt5-small, mt5-base, mt5-large, mt5-xl, mt5-xxl."""

    vocab: Annotated[pathlib.Path | None, tyro.conf.arg(metavar="FILE")] = None
    """The vocabulary: vocab.txt, or encoder.json or vocab.json with its merges beside it."""

    keep: Annotated[pathlib.Path | None, tyro.conf.arg(metavar="FILE|simplified")] = None
    """Keep these tokens only: ids or entries of the vocabulary, one a line, in their new order; or JSON, {"ids": [...], "compounds":
    [{"ids": [...], "weights": [...], "token": "..."}]}, where a compound's row is the mean of tokens by their new places. `simplified`: no
    token of several characters that holds an ideograph or punctuation, as bert4keras has it. kept.json in TARGET is the way back."""

    restore: Annotated[pathlib.Path | None, tyro.conf.arg(metavar="FULL")] = None
    """SOURCE was made with --keep: write it over its whole vocabulary again, the rows it lacks from FULL, the model it was made of."""

    dtype: Literal["float32", "bfloat16", "float16", "int8"] | None = None
    """The type to store; by default that of SOURCE, or float32 where SOURCE is int8. Rounding is to the nearest, ties to even. int8, for
    flaxgen folders alone: kernels and token embedding in a byte each with a scale a row, all else in float32."""

    dry_run: bool = False
    """Print the plan and stop."""

    force: bool = False
    """Replace an existing TARGET; the old one stands until the new one is whole."""

    verify: bool = False
    """Read TARGET again before it gets its name, and compare the sha256 of every tensor."""

    debug: bool = False
    """Show the traceback of an error."""


def main(arguments: list[str] | None = None) -> int:
    """Exit code of a run; reasons go to standard error."""
    options = tyro.cli(Options, args=arguments, prog="python -m convert", config=(tyro.conf.FlagCreatePairsOff,))
    try:
        with _terminated_as_interrupt():
            run(options)
    except KeyboardInterrupt:
        print("interrupted: nothing was written", file=sys.stderr)
        return INTERRUPTED
    except errors.CheckpointError as error:
        return _failed(options, error, error.exit_code)
    except OSError as error:
        return _failed(options, error, FAILED)
    return 0


def run(options: Options) -> None:
    """Recognise, plan, print, and unless it is a dry run write."""
    from convert import describe, formats, matching, source, target, widened

    if options.keep is not None and options.restore is not None:
        raise errors.Mismatch("--keep and --restore: one makes a vocabulary smaller, the other whole again. Do one after the other")
    if not options.dry_run:
        target.check(options.target, options.source, options.force)
    opened = widened.widened(source.open_source(options.source))
    made = _plan(options, opened, matching.match(opened, options.model), formats.FORMATS[options.to])
    print(describe.text(made), flush=True)
    if options.dry_run:
        print("dry run: nothing was written")
        return
    start = time.monotonic()
    with _bar(made.bytes_out * (2 if options.verify else 1)) as progress:
        target.write(made, options.target, force=options.force, verify=options.verify, progress=progress)
    checked = ", read again and equal" if options.verify else ""
    print(f"written     {options.target} in {time.monotonic() - start:.1f} s{checked}")


def _plan(options: Options, opened, match, to):
    """The plan, over the vocabulary that is asked for."""
    from convert import matching, plan, source, trimming, widened

    if options.restore is not None:
        full = widened.widened(source.open_source(options.restore))
        full_match = matching.match(full, options.model)
        opened, match = trimming.whole(opened, match, full, full_match)
        return plan.make(opened, match, to, options.dtype, plan.words(full, full_match, options.vocab))
    found = plan.words(opened, match, options.vocab)
    if options.keep is None:
        return plan.make(opened, match, to, options.dtype, found, trimming.carried(opened.folder, match.card.config.vocab))
    kept = trimming.wish(options.keep, match.card.config.vocab, found)
    opened, match, found = trimming.trimmed(opened, match, found, kept)
    return plan.make(opened, match, to, options.dtype, found, kept)


def _failed(options: Options, error: Exception, code: int) -> int:
    if options.debug:
        raise error
    print(f"{type(error).__name__}: {error}", file=sys.stderr)
    return code


@contextlib.contextmanager
def _terminated_as_interrupt() -> Iterator[None]:
    """SIGTERM ends the program as Ctrl-C does, so that temporary folders go."""

    def stop(number, frame):
        raise KeyboardInterrupt

    try:
        before = signal.signal(signal.SIGTERM, stop)
    except ValueError:  # not the main thread
        yield
        return
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextlib.contextmanager
def _bar(total: int) -> Iterator[Callable[[int], None]]:
    """A progress bar on standard error that shows itself after two seconds, and only on a terminal."""
    from rich import console, progress

    columns = (progress.BarColumn(), progress.TaskProgressColumn(), progress.DownloadColumn(), progress.TransferSpeedColumn(),
               progress.TimeRemainingColumn())  # fmt: skip
    bar = progress.Progress(*columns, console=console.Console(stderr=True), transient=True)
    task, start, shown = bar.add_task("", total=total), time.monotonic(), False

    def tell(count: int) -> None:
        nonlocal shown
        bar.advance(task, count)
        if not shown and time.monotonic() - start > 2 and bar.console.is_terminal:
            shown = True
            bar.start()

    try:
        yield tell
    finally:
        if shown:
            bar.stop()
