"""What these pages add to Sphinx: entries for layers, and links from names.

``.. layer:: Lstm`` describes a layer: how it is called, then what its class computes.

A name of the library in literals, such as ``Lstm``, ``bs.Trainer`` or
``net.get(path)``, is a link to its entry in the reference. Words that are names by
chance, such as ``split``, need their module: ``tools.split``.
"""

from __future__ import annotations

import importlib
import inspect
import re
import sys
from collections import defaultdict

from docutils import nodes
from docutils.parsers.rst import directives
from sphinx import addnodes
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment
from sphinx.ext.napoleon import GoogleDocstring
from sphinx.transforms.post_transforms import SphinxPostTransform
from sphinx.util.docutils import SphinxDirective
from sphinx.util.nodes import make_refnode

from brainstorm.structure.layer import LAYER_TYPES

INSTANCES = {
    "net": "Network",
    "network": "Network",
    "trainer": "Trainer",
    "handler": "Handler",
    "bs": "brainstorm",
}
MEMBERS = {"method", "property", "attribute"}
CALL = r"\((?:[^()]|\([^()]*\))*\)"
NAME = re.compile(rf"(?P<path>[A-Za-z_][\w.]*)({CALL}|\[[^\]]*\])?")


class LayerEntry(SphinxDirective):
    """The function for wiring, with what the docstring of the class says."""

    required_arguments = 1
    option_spec = {"members": directives.unchanged}

    def run(self) -> list[nodes.Node]:
        """The nodes of the entry, at which references to the class arrive, too."""
        name = self.arguments[0]
        cls = LAYER_TYPES[name]
        path = f"{cls.__module__}.{cls.__qualname__}"
        text = GoogleDocstring(inspect.getdoc(cls), self.config, what="class").lines()
        lines = [f".. autofunction:: brainstorm.layers.{name}", ""]
        lines += [f"   {line}" for line in text]
        for member in self.options.get("members", "").split():
            lines += ["", f".. automethod:: {path}.{member}"]
        result = self.parse_text_to_nodes("\n".join(lines))
        for node in result:
            for signature in node.findall(addnodes.desc_signature):
                signature["_toc_name"] = ""  # the heading above is in the contents
        python = self.env.get_domain("py")
        place = python.objects[f"brainstorm.layers.{name}"].node_id
        python.note_object(path, "class", place, location=self.get_location())
        return result


class NamesAsLinks(SphinxPostTransform):
    """Makes links of literals that are names of the library."""

    default_priority = 5  # before references are resolved

    def run(self, **kwargs) -> None:
        """Put each literal that is a name into a reference to its entry."""
        by_name = entries_by_name(self.env)
        for literal in list(self.document.findall(nodes.literal)):
            if not _is_plain(literal):
                continue
            found = find(literal.astext(), by_name)
            if found:
                path, entry = found
                literal.replace_self(
                    make_refnode(
                        *(self.app.builder, self.env.docname, entry.docname),
                        *(entry.node_id, literal.deepcopy(), path),
                    )
                )


def entries_by_name(env: BuildEnvironment) -> dict[str, list]:
    """The entries of the reference, each with its path, by their last names."""
    by_name = defaultdict(list)
    for path, entry in env.get_domain("py").objects.items():
        by_name[path.rpartition(".")[2]].append((path, entry))
    return by_name


def resolve_short(app: Sphinx, env: BuildEnvironment, node, child) -> nodes.Node | None:
    """Find what a reference names by a path shorter than that of its module.

    What is not in the reference but exists, in another library or internally, stays
    without a link. So only wrong names are warned of.
    """
    if node["refdomain"] != "py":
        return None
    target = node["reftarget"]
    found = find(target.removeprefix("brainstorm."), entries_by_name(env))
    if found is not None:
        path, entry = found
        place = (node["refdoc"], entry.docname, entry.node_id)
        return make_refnode(app.builder, *place, child, path)
    module, cls = node.get("py:module"), node.get("py:class")
    places = [target, f"{module}.{target}", f"{module}.{cls}.{target}"]
    return child if any(map(_exists, places)) else None


def _exists(path: str) -> bool:
    """Whether there is something of this dotted path."""
    parts = path.split(".")
    for end in range(len(parts), 0, -1):
        try:
            value = importlib.import_module(".".join(parts[:end]))
            for name in parts[end:]:
                value = getattr(value, name)
        except (ImportError, AttributeError, ValueError):
            continue
        return True
    return False


def show_public_bases(app: Sphinx, name, cls, options, bases: list) -> None:
    """Replace base classes that are internal by those that users know."""
    bases[:] = dict.fromkeys(base for b in bases for base in _public(b)) or [object]


def _public(base: type) -> list[type]:
    """A class, or its nearest public ancestors."""
    offered = getattr(sys.modules[base.__module__], "__all__", ())
    if not base.__module__.startswith("brainstorm.") or base.__name__ in offered:
        return [base]
    return [b for parent in base.__bases__ for b in _public(parent) if b is not object]


def _is_plain(literal: nodes.Node) -> bool:
    """Whether a literal is neither a link, nor part of a heading."""
    node = literal.parent
    while node is not None:
        if isinstance(node, nodes.reference | nodes.title):
            return False
        if node.tagname in ("pending_xref", "desc_signature"):
            return False
        node = node.parent
    return True


def find(text: str, by_name: dict[str, list]) -> tuple | None:
    """The entry that a literal names: its path, and what the domain knows of it."""
    match = NAME.fullmatch(text)
    if match is None:
        return None
    *owners, name = match["path"].split(".")
    if not owners and re.fullmatch("[a-z]+", name):
        return None
    owners = [INSTANCES.get(owner, owner) for owner in owners]
    fitting = []
    for path, entry in by_name[name]:
        parts = path.split(".")[:-1]
        if entry.objtype in MEMBERS and owners[-1:] != parts[-1:]:
            continue
        if entry.objtype == "module" and owners[:1] != ["brainstorm"]:
            continue
        if set(owners) <= set(parts):
            fitting.append((path, entry))
    # A layer and a modifier may have one name: `bs` has only the modifier.
    fitting.sort(
        key=lambda found: (".layers." in found[0]) == (owners != ["brainstorm"])
    )
    return fitting[-1] if fitting else None


def setup(app: Sphinx) -> dict:
    """Register with Sphinx."""
    app.add_directive("layer", LayerEntry)
    app.add_post_transform(NamesAsLinks)
    app.connect("missing-reference", resolve_short)
    app.connect("autodoc-process-bases", show_public_bases)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
