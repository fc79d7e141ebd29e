import http.client
import socket
from urllib.parse import urlsplit

import pytest

from brainstorm.viewer.server import PageServer


@pytest.fixture
def server():
    server = PageServer()
    server.publish("<html>", '{"a":1}')
    yield server
    server.close()


def ask(server, path="/", method="GET", **headers):
    connection = http.client.HTTPConnection(urlsplit(server.url).netloc, timeout=60)
    try:
        connection.request(method, path, headers=headers)
        answer = connection.getresponse()
        return answer.status, answer.read(), dict(answer.getheaders())
    finally:
        connection.close()


def test_page_and_data(server):
    status, body, headers = ask(server)
    assert (status, body) == (200, b"<html>")
    assert headers["Content-Type"] == "text/html; charset=utf-8"
    assert headers["Cache-Control"] == "no-store"
    assert "default-src 'none'" in headers["Content-Security-Policy"]
    assert "Access-Control-Allow-Origin" not in headers
    status, body, headers = ask(server, "/data.json?seen=0")
    assert (status, body, headers["X-Number"]) == (200, b'{"a":1}', "1")
    assert ask(server, "/data.json?seen=1")[:2] == (204, b"")
    server.publish("<html>", '{"a":2}')
    assert ask(server, "/data.json?seen=1")[:2] == (200, b'{"a":2}')


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1", "localhost:1", ""])
def test_other_hosts_are_refused(server, host):
    """Else a page elsewhere could rebind its name to this machine, and read it."""
    for path in ("/", "/data.json"):
        status, body, _ = ask(server, path, Host=host)
        assert (status, body) == (403, b"")


def test_both_names_of_this_machine(server):
    port = urlsplit(server.url).port
    assert ask(server, Host=f"localhost:{port}")[0] == 200
    assert ask(server, Host=f"127.0.0.1:{port}")[0] == 200


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "HEAD"])
def test_nothing_but_get(server, method):
    assert ask(server, method=method)[0] == 501


@pytest.mark.parametrize("path", ["/../setup.py", "/view.js", "/data.json/x", "/x?/"])
def test_there_is_nothing_else(server, path):
    assert ask(server, path)[:2] == (404, b"")


def test_it_listens_on_this_machine_alone(server):
    assert server._server.server_address[0] == "127.0.0.1"


def test_a_port_in_use_is_left_alone(server):
    port = urlsplit(server.url).port
    other = PageServer(port)
    try:
        assert urlsplit(other.url).port != port
    finally:
        other.close()


def test_close(server):
    address = urlsplit(server.url)
    server.close()
    server.close()
    assert not server._thread.is_alive()
    with (
        pytest.raises(ConnectionRefusedError),
        socket.create_connection((address.hostname, address.port), 1),
    ):
        pass
