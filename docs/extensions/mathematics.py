"""Formulas without the network: one file of MathJax, from the package sphinx-mathjax-offline, goes into the built pages."""

import importlib.util
import pathlib
import shutil

FILE = "tex-svg-full.js"  # pictures in place of fonts, all of TeX's extensions: nothing is loaded afterwards


def point(app, config):
    config.mathjax_path = f"mathjax/{FILE}"
    # The menu could load more from elsewhere; wide formulas scroll inside themselves (style.css).
    config.mathjax3_config = {"options": {"enableMenu": False}, "svg": {"fontCache": "local"}}


def copy(app, error):
    if error is None and app.builder.format == "html":
        package = pathlib.Path(importlib.util.find_spec("sphinx-mathjax-offline").origin).parent
        target = pathlib.Path(app.outdir) / "_static" / "mathjax"
        target.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(package / "static" / "mathjax" / FILE, target / FILE)


def setup(app):
    app.connect("config-inited", point, priority=100)
    app.connect("build-finished", copy)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
