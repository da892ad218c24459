"""The command flaxgen serve, without serving."""

import re
import subprocess
import sys

import pytest

from flaxgen import cli, cli_serve
from flaxgen.serve import run


@pytest.fixture
def told(monkeypatch):
    """The settings that the command makes of its words."""

    def words(*given: str):
        monkeypatch.setattr(sys, "argv", ["flaxgen", "serve", *given])
        found = []
        monkeypatch.setattr(run, "serve", lambda settings: found.append(settings) or 0)
        cli.main()
        return found[0]

    return words


def test_options_become_settings(told):
    made = told(
        "--model", "a", "--port", "0", "--allow-host", "one", "two", "--allow-origin", "https://x.example", "--slots", "3", "--drain", "5"
    )
    assert (made.model, made.port, made.allow_hosts, made.allow_origins) == ("a", 0, ("one", "two"), ("https://x.example",))
    assert (made.slots, made.drain, made.host, made.key, made.reader) == (3, 5, "127.0.0.1", None, None)


def test_the_key_comes_from_the_environment_or_an_option(told, monkeypatch):
    monkeypatch.setenv("FLAXGEN_KEY", "a-key-of-tests")
    assert told().key == "a-key-of-tests" and told("--key", "another-key").key == "another-key"
    monkeypatch.setenv("FLAXGEN_KEY", "")
    assert told().key is None


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--host", "0.0.0.0"], "without a key"),
        (["--port", "70000"], "wanted 0 \\(any free one\\) to 65535"),
        (["--slots", "0"], "slots=0: wanted at least 1"),
        (["--timeout", "-1"], "timeout=-1.0: wanted a number of seconds above 0"),
        (["--allow-host", "example.org:80"], "wanted a name without a scheme and a port"),
        (["--allow-origin", "https://example.org/"], "wanted a scheme and a host without a path"),
        (["--key", "short"], "the key has 5 characters"),
    ],
)
def test_what_cannot_be_is_told_in_a_line(told, capsys, words, said):
    with pytest.raises(SystemExit) as end:
        told(*words)
    err = capsys.readouterr().err
    assert end.value.code == 2 and err.count("\n") == 1 and re.search(said, err)


def test_an_exit_code_of_the_server_is_that_of_the_command(monkeypatch):
    monkeypatch.setattr(run, "serve", lambda settings: 130)
    with pytest.raises(SystemExit) as end:
        cli_serve.serve()
    assert end.value.code == 130


def test_without_the_extra_the_command_tells_how_to_install_it(monkeypatch):
    for name in [name for name in sys.modules if name.startswith(("flaxgen.serve", "uvicorn"))]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.delattr(sys.modules["flaxgen"], "serve")
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    with pytest.raises(ImportError, match=r'flaxgen serve needs uvicorn; install it with pip install "flaxgen\[serve\]"'):
        cli_serve.serve()


def test_the_command_line_starts_without_what_a_server_needs():
    code = "import sys; from flaxgen import cli_serve; print([name for name in ('jax', 'starlette', 'uvicorn') if name in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"
