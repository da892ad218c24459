"""The command serve: all models over HTTP, and a page to try them on."""

import os
import pathlib
import sys
from typing import Annotated

import tyro

Folder = Annotated[pathlib.Path | None, tyro.conf.arg(metavar="FOLDER")]
Names = Annotated[tuple[str, ...], tyro.conf.arg(metavar="NAME")]
Origins = Annotated[tuple[str, ...], tyro.conf.arg(metavar="URL")]
Switch = tyro.conf.FlagCreatePairsOff[bool]


def serve(
    *,
    model: Folder = None,
    couplets: Folder = None,
    reader: Folder = None,
    painter: Folder = None,
    encoder: Folder = None,
    host: str = "127.0.0.1",
    port: int = 8000,
    key: Annotated[str | None, tyro.conf.arg(metavar="KEY")] = None,
    allow_host: Names = (),
    allow_origin: Origins = (),
    slots: int = 8,
    queue: int = 64,
    timeout: float = 120.0,
    drain: float = 30.0,
    debug: Switch = False,
) -> None:
    """Serve the models over HTTP, as OpenAI's API and with a page to try them on.

    Examples:  flaxgen serve                                        then open http://127.0.0.1:8000/
               FLAXGEN_KEY=... flaxgen serve --host 0.0.0.0 --allow-host models.example.org

    Any OpenAI client speaks to it, with base_url="http://127.0.0.1:8000/v1". Ctrl-C, or SIGTERM, ends it once the requests that it has
    accepted are answered.

    Args:
        model: The language model of completions, a flaxgen folder; by default the bundled poetry model.
        couplets: The model of couplets; by default the bundled one.
        reader: The model that answers questions from passages; without it that route says so.
        painter: The model of images; by default the bundled one.
        encoder: The model of embeddings; by default the language model's own states are averaged.
        host: The address to listen on. 0.0.0.0 is every address of the machine; any but this machine's own wants a key.
        port: The port to listen on; 0 takes a free one.
        key: Clients have to send it as a bearer token. The variable FLAXGEN_KEY sets it without showing it to other users of the machine.
        allow_host: Names under which clients may ask for the server, besides localhost and --host.
        allow_origin: Web pages of these origins, such as https://example.org, may use the server (CORS); by default its own page alone.
        slots: How many texts of up to 256 tokens are written at once, and how many longer ones besides.
        queue: How many texts beyond the slots, or requests of other tasks, may wait; those beyond are refused with 429.
        timeout: Seconds that a request may take.
        drain: Seconds that accepted requests have once the server was told to stop.
        debug: Show the whole trace of an error.
    """
    from flaxgen import terminal

    with terminal.waiting("starting"):
        try:
            from flaxgen.serve import run, settings
        except ImportError as error:
            if (error.name or "").split(".")[0] == "flaxgen":
                raise
            raise ImportError(f'flaxgen serve needs {error.name}; install it with pip install "flaxgen[serve]"') from None
    folders = {"model": model, "couplets": couplets, "reader": reader, "painter": painter, "encoder": encoder}
    told = settings.Settings(
        **{name: None if folder is None else str(folder) for name, folder in folders.items()},
        host=host,
        port=port,
        key=key or os.environ.get("FLAXGEN_KEY") or None,
        allow_hosts=allow_host,
        allow_origins=allow_origin,
        slots=slots,
        queue=queue,
        timeout=timeout,
        drain=drain,
    )
    if code := run.serve(told):
        sys.exit(code)
