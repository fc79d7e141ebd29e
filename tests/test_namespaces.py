import brainstorm as bs
import brainstorm.all
from brainstorm import value_modifiers


def test_names_of_the_manuals_examples_are_at_the_top():
    assert bs.Minibatches is bs.data_iterators.Minibatches
    assert bs.Online is bs.data_iterators.Online
    assert bs.Gaussian is bs.initializers.Gaussian
    assert bs.ClipValues is bs.value_modifiers.ClipValues


def test_everything_is_in_the_flat_namespace():
    modules = [bs.layers, bs.hooks, bs.training, bs.scorers, bs.tools, bs.handlers]
    modules += [bs.initializers, bs.data_iterators, bs.describable]
    decays = {"L1Decay", "L2Decay"}  # layers and modifiers: the modifiers win
    for module in modules:
        for name in set(module.__all__) - decays:
            assert getattr(brainstorm.all, name) is getattr(module, name)
    for name in bs.utils.__all__:  # the exceptions, but no helpers
        assert hasattr(brainstorm.all, name) == name.endswith("Error")
    for name in value_modifiers.__all__:
        assert getattr(brainstorm.all, name) is getattr(value_modifiers, name)


def test_import_paths_of_handlers():
    from brainstorm import handlers
    from brainstorm.handlers.debug_handler import DebugHandler
    from brainstorm.handlers.numpy_handler import NumpyHandler
    from brainstorm.handlers.onednn import OneDnnHandler
    from brainstorm.handlers.pycuda_handler import PyCudaHandler

    for cls in (DebugHandler, NumpyHandler, OneDnnHandler, PyCudaHandler):
        assert getattr(handlers, cls.__name__) is cls


def test_import_paths_that_code_relies_on():
    from brainstorm.handlers.base_handler import Handler
    from brainstorm.layers.base_layer import Layer
    from brainstorm.structure.architecture import (
        Connection,
        generate_architecture,
        instantiate_layers_from_architecture,
    )
    from brainstorm.structure.buffer_structure import BufferStructure, StructureTemplate
    from brainstorm.structure.buffer_views import BufferView
    from brainstorm.structure.buffers import BufferManager
    from brainstorm.structure.construction import ConstructionWrapper
    from brainstorm.structure.layout import create_layout
    from brainstorm.structure.network import Network
    from brainstorm.training import schedules, steppers, trainer

    assert all(
        [
            *(Handler, Layer, Connection, generate_architecture, BufferManager),
            *(instantiate_layers_from_architecture, BufferStructure, BufferView),
            *(StructureTemplate, ConstructionWrapper, create_layout, Network),
            *(schedules.Linear, steppers.SgdStepper, trainer.Trainer),
        ]
    )
