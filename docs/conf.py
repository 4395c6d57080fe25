"""How `make docs` builds the site: Sphinx, pages in Markdown (MyST), the API from docstrings, commands from the application."""

import sys
from pathlib import Path

from gradscore.version import __version__

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE / "_ext"))

project = "gradscore"
author = "the gradscore authors"
release = __version__
extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "commands",
    "docstrings",
    "rules",
    "tree",
]
exclude_patterns = ["_ext"]
nitpicky = True

myst_heading_anchors = 3

default_role = "code"  # docstrings put names between single backticks, as Markdown does
autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
autodoc_preserve_defaults = True
napoleon_google_docstring = False
napoleon_use_ivar = True  # attributes that have docstrings of their own are described once
napoleon_use_rtype = False

html_theme = "furo"
html_title = "gradscore"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_show_sphinx = False
html_copy_source = False
linkcheck_anchors = False
linkcheck_ignore = [r"http://localhost.*"]
