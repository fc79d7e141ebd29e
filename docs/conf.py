import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "docs")]

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
    "sphinx_gallery.gen_gallery",
    "names",
]
exclude_patterns = ["_build"]
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

sphinx_gallery_conf = {
    "examples_dirs": str(ROOT / "examples" / "gallery"),
    "gallery_dirs": "gallery",
    "filename_pattern": r"\.py$",
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
