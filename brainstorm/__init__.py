"""Brainstorm: fast, flexible and fun neural networks."""

# First of all: trainers make some hooks, which take parts of training.
from brainstorm import training  # isort: split

from brainstorm import (
    data_iterators,
    datasets,
    describable,
    handlers,
    hooks,
    initializers,
    layers,
    parallel,
    randomness,
    scorers,
    structure,
    tools,
    utils,
    value_modifiers,
)
from brainstorm.__about__ import __version__
from brainstorm.data_iterators import *  # noqa: F403
from brainstorm.describable import create_from_description, get_description
from brainstorm.initializers import *  # noqa: F403
from brainstorm.randomness import global_rnd
from brainstorm.structure.architecture import generate_architecture
from brainstorm.structure.network import Network
from brainstorm.training.trainer import Trainer
from brainstorm.value_modifiers import *  # noqa: F403

# Names of version 0.5. Layers import parts of structure, which can not import them.
vars(structure).update(Network=Network, generate_architecture=generate_architecture)

__all__ = [
    "Network",
    "Trainer",
    "__version__",
    "create_from_description",
    "data_iterators",
    "datasets",
    "describable",
    "generate_architecture",
    "get_description",
    "global_rnd",
    "handlers",
    "hooks",
    "initializers",
    "layers",
    "parallel",
    "randomness",
    "scorers",
    "structure",
    "tools",
    "training",
    "utils",
    "value_modifiers",
    *vars(data_iterators)["__all__"],
    *vars(initializers)["__all__"],
    *vars(value_modifiers)["__all__"],
]
