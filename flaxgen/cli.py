"""The command `flaxgen`: its commands by name, and errors in one line."""

import io
import os
import sys
from collections.abc import Callable

import tyro

from flaxgen import cli_couplet, cli_paint, cli_read, cli_serve, cli_write

DESCRIPTION = """Generative models in JAX: continue a text, answer a couplet, read answers out of passages, paint images,
and serve all of it over HTTP.

Try:  flaxgen write 床前明月光
      flaxgen write 今天天气不错 --samples 3 --seed 7
      echo 春江花月夜 | flaxgen write --json
      flaxgen write 床前明月光 --regex '，[^，。]{5}。'
      flaxgen many prompts.txt texts.jsonl
      flaxgen score 床前明月光，疑是地上霜。
      flaxgen couplet 晚风摇树树还挺 --best 3
      flaxgen read 谁写了红楼梦？ --model weights/reader --file passages.txt
      flaxgen paint --samples 64 --png clothes.png --gif chain.gif
      flaxgen serve

Without --model the small models that come with flaxgen answer, of poetry, couplets and clothes. Training (python -m train)
and checkpoint conversion (python -m convert) run from a clone of the repository.
"""
FAILED, USAGE, INTERRUPTED = 1, 2, 130

COMMANDS: dict[str, Callable[..., None]] = {
    "write": cli_write.write,
    "many": cli_write.many,
    "score": cli_write.score,
    "couplet": cli_couplet.couplet,
    "read": cli_read.read,
    "paint": cli_paint.paint,
    "serve": cli_serve.serve,
}


def main() -> None:
    """Runs a command; every foreseeable error is one line on standard error and an exit code, without a trace."""
    words = sys.argv[1:]
    for name in ("stdout", "stderr"):  # None where whoever started us closed it
        if getattr(sys, name) is None:
            setattr(sys, name, io.StringIO())
    try:
        tyro.extras.subcommand_cli_from_dict(COMMANDS, prog="flaxgen", description=DESCRIPTION, args=words or ["--help"])
        sys.stdout.flush()
    except KeyboardInterrupt:
        print("\nstopped", file=sys.stderr)
        sys.exit(INTERRUPTED)
    except BrokenPipeError:
        # Whoever read our output has left. Point the stream elsewhere, or the interpreter complains while it closes.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except (ValueError, OSError, ArithmeticError, ImportError) as error:
        if "--debug" in words:
            raise
        print(f"flaxgen: {error}", file=sys.stderr)
        sys.exit(getattr(error, "exit_code", USAGE))
    except (MemoryError, RuntimeError) as error:  # jax says with a RuntimeError that memory ran out
        if "--debug" in words:
            raise
        what = f"{type(error).__name__} {error}".strip().split("\n")[0]
        print(f"flaxgen: {what}; where memory ran out, ask for fewer samples, slots or tokens; --debug shows more", file=sys.stderr)
        sys.exit(FAILED)


if __name__ == "__main__":
    main()
