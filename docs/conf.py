"""Sphinx configuration of the documentation: `make docs`."""

import importlib.metadata
import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).parent / "_ext"))

project = "svilm"
author = "the authors of svilm"
version = release = importlib.metadata.version("svilm")

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "mathml",
    "reference",
]
exclude_patterns = ["build", "generated", "figures", "_ext"]

myst_enable_extensions = ["deflist", "dollarmath"]
myst_heading_anchors = 3

smartquotes = False  # they make a dash of the two hyphens of options

html_math_renderer = "mathml"
html_theme = "furo"
html_title = f"svilm {version}"
html_show_copyright = False
html_copy_source = False
# Pages must be readable without a network. Furo uses the system's fonts.
