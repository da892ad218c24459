"""The blocks of the pages in docs/: every block of Python runs, in order, one namespace a page; every command of a bash block is read by
its program's own parser, and the quick ones run. Only ```console blocks, which want an accelerator, a cluster, a published checkpoint or
another address, cannot run here: their commands are parsed all the same, and the blocks counted."""

import argparse
import configparser
import functools
import json
import pathlib
import re
import shlex
import subprocess
import sys
import urllib.parse
from collections.abc import Mapping
from operator import attrgetter
from types import MappingProxyType

import pytest
import tyro

from convert import command as conversion
from flaxgen import cli
from flaxgen.serve import limits, refusal, routes

ROOT = pathlib.Path(__file__).parent.parent
PAGES = sorted((ROOT / "docs").rglob("*.md"))
README = ROOT / "README.md"
NAME = attrgetter("stem")
PAGE_OF_THE_SERVER = ROOT / "docs" / "serve.md"  # run in tests/serve, where there is a server
BLOCK = re.compile(r"^```([^\n]*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
FENCES = {"python", "bash", "console", "bibtex", "json", "text", "ini", "nginx", ""}
# Programs that are not ours; what is behind them is not looked at.
OTHERS = {"apt-get", "dpkg", "echo", "export", "gcloud", "kubectl", "npm", "pytest", "sbatch"}
MOST_NOT_RUN = 12  # console blocks of all pages together
QUICK = (
    "flaxgen couplet 晚风摇树树还挺 --best 5",
    *(
        pytest.param(line, marks=pytest.mark.nightly)
        for line in (
            "flaxgen write 床前明月光 --samples 3 --seed 7",
            "flaxgen score 床前明月光，疑是地上霜。 床前明月光，疑是地下铁。",
            "flaxgen couplet 晚风摇树树还挺 --png couplet.png",
            "flaxgen paint --samples 16 --png clothes.png",
            "python -m train gpt2-ml-mega-lora --plan",
            "python -m train gpt2-ml-mega --plan mesh=data=4,fsdp=8",
        )
    ),
)


def blocks(page: pathlib.Path, *kinds: str) -> list[tuple[int, str]]:
    """(line before the block, its text) of the blocks of a page that are of these kinds."""
    text = page.read_text(encoding="utf-8")
    return [(text.count("\n", 0, found.start(2)), found[2]) for found in BLOCK.finditer(text) if found[1] in kinds]


def commands(block: str) -> list[list[str]]:
    """The words of every command: without comments, prompts and variables set in front, one for each part of a pipe or list."""
    found = []
    for line in block.replace("\\\n", " ").splitlines():
        words = shlex.split(line.removeprefix("$ "), comments=True)
        while words:
            cut = next((place for place, word in enumerate(words) if word in ("|", "&&", ";", "&", ">", "<")), len(words))
            head, rest = words[:cut], words[cut:]
            while head and re.fullmatch(r"[A-Z][A-Z_0-9]*=.*", head[0]):
                head = head[1:]
            if head:
                found.append(head)
            # What follows > or < is a file, not a command.
            words = rest[2:] if rest[:1] in ([">"], ["<"]) else rest[1:]
    return found


def run(page: pathlib.Path, instead: Mapping[str, str] = MappingProxyType({})) -> dict:
    """Runs the Python of a page, with some of its texts replaced; its namespace."""
    namespace = {"__name__": page.stem}
    for before, block in blocks(page, "python"):
        for one, other in instead.items():
            block = block.replace(one, other)
        # Empty lines before the block give its errors the line numbers of the page.
        exec(compile("\n" * before + block, str(page), "exec"), namespace)
    return namespace


@pytest.mark.parametrize("page", [page for page in PAGES if blocks(page, "python") and page != PAGE_OF_THE_SERVER], ids=NAME)
def test_the_blocks_of_a_page_run(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run(page)


@pytest.mark.parametrize("page", [page for page in (README, *PAGES) if blocks(page, "bash", "console")], ids=NAME)
def test_the_commands_of_a_page_are_those_that_the_programs_take(page, monkeypatch):
    monkeypatch.chdir(ROOT)
    for before, block in blocks(page, "bash", "console"):
        for words in commands(block):
            try:
                parse(words)
            except (SystemExit, ValueError, AssertionError, refusal.Refusal) as error:
                pytest.fail(f"{page.name}, the block after line {before}: {shlex.join(words)}: {error!r}")


def test_fences_are_of_known_kinds_and_few_blocks_are_not_run():
    found = [(page.name, kind) for page in PAGES for kind, _ in BLOCK.findall(page.read_text(encoding="utf-8"))]
    assert {kind for _, kind in found if not kind.startswith("{")} <= FENCES  # {toctree} and its like are the builder's
    not_run = [name for name, kind in found if kind == "console"]
    assert len(not_run) <= MOST_NOT_RUN, not_run


@pytest.mark.parametrize("line", QUICK)
def test_a_quick_command_of_the_pages_runs(line, tmp_path):
    there = {shlex.join(words) for page in PAGES for _, block in blocks(page, "bash") for words in commands(block)}
    assert any(one.startswith(shlex.join(shlex.split(line))) for one in there), f"no page says {line!r} any more"
    words = shlex.split(line)
    # flaxgen is installed; the others are programs of the repository.
    program, folder = (["-m", "flaxgen.cli"], tmp_path) if words[0] == "flaxgen" else ([], ROOT)
    done = subprocess.run([sys.executable, *program, *words[1:]], cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    for target in (word for word in words if word.endswith(".png")):
        assert (tmp_path / target).read_bytes().startswith(b"\x89PNG")


def parse(words: list[str]) -> None:
    """Raises unless the program takes these words. Nothing is done."""
    if words[0] == "flaxgen":
        names = {name: functools.wraps(function)(lambda *given, **named: None) for name, function in cli.COMMANDS.items()}
        tyro.extras.subcommand_cli_from_dict(names, prog="flaxgen", args=words[1:])
    elif words[:2] == ["python", "-m"]:
        {"convert": converts, "train": trains, "bench": benches}.get(words[2], module)(words[2:])
    elif words[0] == "curl":
        asks(words)
    elif words[:2] == ["pip", "install"]:
        extras = set(re.findall(r"\w+", "".join(re.findall(r"\[(.*?)\]", " ".join(words)))))
        config = configparser.ConfigParser()
        config.read(ROOT / "setup.cfg", encoding="utf-8")
        assert extras <= {*config["options.extras_require"]}, f"extras {extras}"
    elif words[0] == "python":
        assert (ROOT / words[1]).is_file(), f"no file {words[1]}"
    else:
        assert words[0] in OTHERS, f"{words[0]} is no program that the pages may name; see OTHERS"


def converts(words: list[str]) -> None:
    tyro.cli(conversion.Options, args=words[1:])


def asks(words: list[str]) -> None:
    """What curl sends is what the route takes."""
    (address,) = [word for word in words if word.startswith("http")]
    limits.checked(routes.WORK[urllib.parse.urlsplit(address).path].takes, json.loads(words[words.index("-d") + 1]))


def benches(words: list[str]) -> None:
    assert (ROOT / "bench" / f"{words[1]}.py").is_file(), f"no bench {words[1]}"


def module(words: list[str]) -> None:
    assert words[0] in ("sphinx", "http.server"), f"no module {words[0]} in the pages"


class Parsed(Exception):
    """A parser has read its words."""


def trains(words: list[str]) -> None:
    from train import __main__ as trainer
    from train import recipes, settings

    name, *rest = words[1:]
    if name not in recipes.RECIPES:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(argparse.ArgumentParser, "parse_args", functools.partialmethod(_read))
            with pytest.raises(Parsed):
                trainer.command(name, rest)
    elif rest != ["--help"]:
        given = settings.pairs([word for word in rest if word != "--plan"])
        given.pop("out", None)
        chosen = recipes.RECIPES[name](settings.size(given.pop("tiny", "false")))
        settings.joining(given)
        settings.override(chosen, given)


def _read(parser: argparse.ArgumentParser, words: list[str]) -> None:
    parser.parse_known_args(words)
    raise Parsed
