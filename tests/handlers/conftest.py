import pytest

from tests.handlers.handler_cases import HANDLERS, handler_params


@pytest.fixture(params=handler_params(), scope="module")
def handler(request):
    """Each handler in turn."""
    return HANDLERS[request.param]()
