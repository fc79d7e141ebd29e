import sys
from importlib.util import find_spec
from pathlib import Path

from sphinx.errors import ConfigError

NEEDED = ["pydata_sphinx_theme", "sphinx_copybutton", "sphinx_design"]
NEEDED += ["sphinx_gallery", "matplotlib", "sklearn", "onnxruntime"]
missing = [name for name in NEEDED if find_spec(name) is None]
if missing:
    raise ConfigError(
        f"the documentation needs {', '.join(missing)}: pip install '.[docs]'"
    )

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "docs")]

import runs  # noqa: E402

import brainstorm  # noqa: E402

project = "brainstorm"
author = "The brainstorm developers"
copyright = "The brainstorm developers"
version = release = brainstorm.__version__

extensions = [
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
    "sphinx_copybutton",
    "sphinx_design",
    "runs",
    "sphinx_gallery.gen_gallery",
    "names",
]
exclude_patterns = ["_build", "examples/index.rst"]  # in its place: gallery.rst
default_role = "literal"

nitpicky = True
nitpick_ignore_regex = [("py:class", r".* .*|\w+")]  # texts taken for types

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_default_options = {"members": True, "show-inheritance": True}
python_maximum_signature_line_length = 70
toc_object_entries_show_parents = "hide"
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_ivar = True
napoleon_use_rtype = False

copybutton_prompt_text = r">>> |\.\.\. |\$ "
copybutton_prompt_is_regexp = True

runs.gather()
suppress_warnings = ["sphinx_gallery.config"]  # there are no back references
sphinx_gallery_conf = {
    "examples_dirs": [str(runs.SCRIPTS)],
    "gallery_dirs": ["examples"],
    "filename_pattern": runs.RUN,
    "ignore_pattern": r"common\.py",
    "reset_argv": "runs.arguments",
    "doc_module": ("brainstorm",),
    "copyfile_regex": r"common\.py",
    "image_scrapers": ("matplotlib",),
    "image_srcset": ["2x"],
    "remove_config_comments": True,
    "capture_repr": (),
    "show_memory": False,
    "min_reported_time": 1000,
    "write_computation_times": False,
    "show_signature": False,
    "download_all_examples": False,
    "nested_sections": False,
}

html_theme = "pydata_sphinx_theme"
html_title = "brainstorm"
html_theme_options = {
    "logo": {"text": "brainstorm"},
    "header_links_before_dropdown": 6,
    "navigation_with_keys": False,
    "show_toc_level": 2,
    "show_nav_level": 1,
    "search_bar_text": "Search, as in: dropout",
    "secondary_sidebar_items": ["page-toc"],
    "footer_start": ["copyright"],
    "footer_end": [],
}
html_static_path = ["static"]
html_css_files = ["brainstorm.css"]
html_show_sourcelink = False
html_copy_source = False
