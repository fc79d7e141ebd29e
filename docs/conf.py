import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import brainstorm  # noqa: E402

project = "brainstorm"
author = "The brainstorm developers"
copyright = "The brainstorm developers"
version = release = brainstorm.__version__

extensions = ["sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.viewcode"]
exclude_patterns = ["_build"]
default_role = "literal"

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_default_options = {"members": True, "show-inheritance": True}
python_maximum_signature_line_length = 70
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_ivar = True
napoleon_use_rtype = False

html_theme = "alabaster"
html_theme_options = {
    "description": "Fast, flexible and fun neural networks",
    "fixed_sidebar": True,
    "page_width": "1180px",
    "sidebar_width": "230px",
    "font_family": "Helvetica, Arial, sans-serif",
    "code_font_size": "0.82em",
    "body_max_width": "900px",
}
html_show_sourcelink = False
html_copy_source = False
