"""The guide: `python -m sphinx -W -b html docs site` writes it, without the network; site/index.html opens from the disk."""

import pathlib
import sys

HERE = pathlib.Path(__file__).parent
# The tables of the reference are made from the programs of a clone, which are not installed.
sys.path[:0] = [str(HERE / "extensions"), str(HERE.parent)]

import flaxgen  # noqa: E402

project = "flaxgen"
author = "the flaxgen authors"
copyright = f"2026 {author}, Apache License 2.0"
version = release = flaxgen.__version__
language = "en"

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.mathjax",
    "sphinx_copybutton",
    "plain_docstrings",
    "full_text",
    "chinese",
    "mathematics",
    "changelog_feed",
    "outline",
    "repository_files",
    "tags",
    "code_tables",
]
exclude_patterns = ["extensions", "pictures"]
templates_path = ["_templates"]

myst_enable_extensions = ["amsmath", "attrs_inline", "attrs_block", "colon_fence", "deflist", "dollarmath"]
myst_heading_anchors = 4
# [feed](built:changelog.xml) links to what only the build makes.
myst_url_schemes = {"http": None, "https": None, "mailto": None, "built": "{{path}}"}

autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
autodoc_preserve_defaults = True
python_use_unqualified_type_names = True
python_maximum_signature_line_length = 60
toc_object_entries_show_parents = "hide"

html_theme = "furo"
html_title = "flaxgen"
html_static_path = ["_static"]
html_css_files = ["style.css", ("print.css", {"media": "print"})]
html_js_files = ["accessible.js"]
html_copy_source = False
html_show_sourcelink = False
html_theme_options = {
    "light_css_variables": {"color-brand-primary": "#a3221b", "color-brand-content": "#a3221b"},
    "dark_css_variables": {"color-brand-primary": "#ff9d8f", "color-brand-content": "#ff9d8f"},
}
copybutton_prompt_text = r">>> |\.\.\. |\$ "
copybutton_prompt_is_regexp = True
