import pytest

from tests.handlers.handler_cases import HANDLERS, REPLAYING, handler_params

SLOW = ("numpy32", "debug")
REPLAYED = ["replayed64", pytest.param("replayed-onednn", marks=pytest.mark.slow)]


@pytest.fixture(params=[*handler_params(slow=SLOW), *REPLAYED], scope="module")
def handler(request):
    """Each handler in turn."""
    return {**HANDLERS, **REPLAYING}[request.param]()
