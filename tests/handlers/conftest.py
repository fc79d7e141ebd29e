import pytest

from tests.handlers.handler_cases import HANDLERS, REPLAYING, handler_params


@pytest.fixture(params=[*handler_params(), *REPLAYING], scope="module")
def handler(request):
    """Each handler in turn."""
    return {**HANDLERS, **REPLAYING}[request.param]()
