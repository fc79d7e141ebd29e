import pytest
from handler_cases import HANDLERS


@pytest.fixture(params=HANDLERS, scope="module")
def handler(request):
    """Each handler in turn."""
    return HANDLERS[request.param]()
