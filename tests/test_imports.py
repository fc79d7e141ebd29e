"""Imports between the modules of the package go one way."""

import ast
import sys
from pathlib import Path

import brainstorm

ROOT = Path(brainstorm.__file__).resolve().parent

# A module imports what stands in its own line or above.
HOUSE = [
    ["__about__", "literals"],
    ["utils", "optional"],
    ["checks", "describable", "files"],
    ["randomness", "datasets"],
    ["handlers"],
    ["initializers", "value_modifiers", "data_iterators"],
    ["structure"],
    ["layers"],
    ["scorers", "viewer"],
    ["parallel"],
    ["training", "hooks"],
    ["tools", "_layer_bench"],
    ["testing", "estimators"],
    ["__init__", "all", "__main__", "tests"],
]
FLOOR = {name: number for number, names in enumerate(HOUSE) for name in names}


def name_of(path):
    parts = path.relative_to(ROOT.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {name_of(path): path for path in sorted(ROOT.rglob("*.py"))}
TREES = {name: ast.parse(path.read_bytes()) for name, path in MODULES.items()}


def imported_by(tree, modules=MODULES):
    """Full names of what a tree imports, of the package's modules if these are some."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            for alias in node.names:
                full = f"{node.module}.{alias.name}"
                found.add(full if full in modules else node.module)
    return found


IMPORTS = {name: imported_by(tree) & set(MODULES) for name, tree in TREES.items()}


def floor_of(module):
    return FLOOR[[*module.split("."), "__init__"][1]]


def circles(imports):
    """The modules that import each other, along whatever way."""

    def reached_from(module):
        found, pending = set(), [module]
        while pending:
            new = imports[pending.pop()] - found
            found |= new
            pending += new
        return found

    reached = {module: reached_from(module) for module in imports}
    return {m for m in imports if m in reached[m]}


def test_every_module_has_its_place():
    for module in MODULES:
        assert isinstance(floor_of(module), int)


def test_imports_go_down():
    upward = {
        (module, imported)
        for module, imports in IMPORTS.items()
        for imported in imports
        if floor_of(imported) > floor_of(module)
    }
    assert upward == set()


def test_there_are_no_circles():
    assert circles(IMPORTS) == set()


def test_circles_are_found():
    found = circles({"a": {"b"}, "b": {"c"}, "c": {"b", "d"}, "d": set(), "e": {"e"}})
    assert found == {"b", "c", "e"}


def imported_inside_functions(tree):
    functions = (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)
    inside = [imported_by(n) for n in ast.walk(tree) if isinstance(n, functions)]
    return set().union(*inside)


def test_only_optional_dependencies_are_imported_inside_functions():
    required = {*sys.stdlib_module_names, "numpy", "h5py", "tqdm", "brainstorm"}
    hidden = {
        (module, name)
        for module, tree in TREES.items()
        for name in imported_inside_functions(tree)
        if name.partition(".")[0] in required
    }
    assert hidden == set()


def test_imports_are_found_wherever_they_stand():
    tree = ast.parse("""
from brainstorm import layers, __version__
if TYPE_CHECKING:
    from brainstorm.hooks import Hook
def f():
    import numpy.linalg
    from brainstorm.training import trainer
""")
    inside = {"numpy.linalg", "brainstorm.training.trainer"}
    assert imported_inside_functions(tree) == inside
    assert imported_by(tree) == inside | {
        *("brainstorm", "brainstorm.layers", "brainstorm.hooks")
    }
    assert floor_of("brainstorm") > floor_of("brainstorm.tools.data")
    assert floor_of("brainstorm.handlers.cuda.arrays") < floor_of("brainstorm.layers")


# What the parts of handlers may import of each other.
PARTS = {
    "operations": {"operations", "programs"},
    "numpy": {"numpy", "operations", "programs"},
    "onednn": {"onednn", "numpy", "operations", "programs"},
    "cuda": {"cuda", "operations", "programs"},
}


def test_parts_of_handlers_go_one_way():
    beside = {
        (module, imported)
        for module, imports in IMPORTS.items()
        for imported in imports
        if module.startswith("brainstorm.handlers.")
        and imported.startswith("brainstorm.handlers.")
        and (part := module.split(".")[2]) in PARTS
        and imported.split(".")[2] not in PARTS[part]
    }
    assert beside == set()
