import inspect

import pytest

from brainstorm.handlers.base_handler import OPERATIONS, Handler
from brainstorm.handlers.operations.contract import operation


@pytest.mark.parametrize("name", OPERATIONS)
def test_documentation_has_all_arrays(name):
    documentation, spec = inspect.getdoc(getattr(Handler, name)), OPERATIONS[name]
    assert documentation.partition("\n")[0].strip()
    for argument in {**spec.read, **spec.write, **spec.add}:
        assert f"\n    {argument.partition('.')[0]}: " in documentation


def test_documentation_by_contracts():
    @operation("x:M,I a:*S v:1,N|M,1 t:*L,A+B", "y:M", "dx:M,I", "x", "a")
    def run(self, x, a, v, t, y, dx, low, fresh_dx=False):
        """Run.

        Args:
            t: Given here.
            low: A number.

        Raises:
            HandlerError: Always.
        """

    assert run.__doc__ == inspect.cleandoc(
        """Run.

        Args:
            x: (M, I).
            a: any shape, or None.
            v: (1, N) or (M, 1).
            y: (M,); overwritten; may be `x`.
            dx: (M, I); added to, or with `fresh_dx` overwritten.
            t: Given here.
            low: A number.

        Raises:
            HandlerError: Always.
        """
    )
