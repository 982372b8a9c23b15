"""danet/serve: allowed methods, hosts, origins and tokens; and invalid options of the command."""

import asyncio
import re
import socket

import httpx
import pytest
from serve_client import HOST, Client, error_of, image, send_all

from danet.cli import main
from danet.errors import InputError
from danet.serve import run_server
from danet.serve.access import parse_hosts
from danet.serve.limits import Limits


@pytest.mark.parametrize("method", ["OPTIONS", "PUT", "DELETE", "PATCH", "TRACE", "GET"])
def test_other_methods_get_405_without_cors_headers(ask, method):
    (response,) = ask(send_all((method, "/v1/segment", {"headers": {"Access-Control-Request-Method": "POST"}})))
    assert response.status_code == 405
    assert not [name for name in response.headers if name.startswith("access-control")]
    error_of(response)


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("evil.example", 400),
        ("evil.example:8000", 400),
        ("localhost.evil.example", 400),
        ("127.0.0.1.evil.example", 400),
        ("", 400),
        ("[::1", 400),
        ("localhost:9000", 200),
        ("[::1]:8000", 200),
        ("192.168.1.7", 200),
        ("Lab.example:8000", 200),
    ],
)
def test_host_header_must_name_this_server(ask, host, status):
    limits = Limits(hosts=frozenset({"lab.example"}))
    (response,) = ask(send_all(("GET", "/v1/model", {"headers": {"Host": host}})), limits)
    assert response.status_code == status


@pytest.mark.parametrize(
    ("origin", "status"),
    [
        *((origin, 403) for origin in ("http://evil.example", "null", "http://127.0.0.1:9", "http://[x", "//]", "[")),
        *((origin, 200) for origin in (HOST, None)),
    ],
)
def test_pages_of_other_sites_cannot_send_requests(ask, origin, status):
    headers = {"Origin": origin} if origin else {}
    (response,) = ask(send_all(("POST", "/v1/segment", {"content": image(), "headers": headers})))
    assert response.status_code == status
    assert "access-control-allow-origin" not in response.headers


def test_allowed_hosts_may_have_a_port_and_must_be_names():
    assert parse_hosts(["Lab.example:8736", "a", "[::1]:80"]) == {"lab.example", "a", "::1"}
    for name in ("http://lab.example:8736", "lab.example/danet", "lab.example:x", ""):
        with pytest.raises(InputError, match=rf"^allow_host: '{name}' is not a host name; give one such as"):
            parse_hosts([name])


def test_an_invalid_origin_is_rejected_before_the_token_is_checked(ask):
    (response,) = ask(send_all(("POST", "/v1/segment", {"headers": {"Origin": "http://[x"}})), Limits(token="x" * 16))
    assert response.status_code == 403


def test_a_token_is_required_if_set(ask):
    limits = Limits(token="correct-horse-battery")

    def request(path, token=None):
        return ("GET", path, {"headers": {} if token is None else {"Authorization": token}})

    responses = ask(
        send_all(
            request("/v1/model"),
            request("/v1/model", "Bearer wrong"),
            request("/v1/model", "correct-horse-battery"),
            request("/metrics"),
            request("/openapi.json"),
            request("/nothing"),
            request("/v1/model", "Bearer correct-horse-battery"),
            request("/"),
            request("/page/page.js"),
            request("/health"),
            request("/ready"),
        ),
        limits,
    )
    assert [response.status_code for response in responses] == [401] * 6 + [200] * 5
    assert "correct" not in "".join(response.text for response in responses[:6])


def test_hosts_ports_and_tokens_are_checked():
    for host in ("127.0.0.1", "localhost", "::1", "127.0.0.9"):
        run_server.check_token(host, None)
    for host in ("0.0.0.0", "::", "192.168.0.1", "lab.example"):
        with pytest.raises(InputError, match=r"^host: .* is reachable from other machines, .*DANET_TOKEN"):
            run_server.check_token(host, None)
        run_server.check_token(host, "sixteen-letters-")
    for weak in ("short", "", "x" * 15, "sixteen letters  ", "é" * 16):
        with pytest.raises(InputError, match=r"^token: must be at least 16 printable"):
            run_server.check_token("127.0.0.1", weak)
    with run_server.listen("127.0.0.1", 0) as taken:
        port = taken.getsockname()[1]
        assert run_server.url(taken, "0.0.0.0") == f"http://127.0.0.1:{port}"
        with pytest.raises(InputError, match=f"^port: {port} is already in use; choose another `port`"):
            run_server.listen("127.0.0.1", port)
        assert taken.proto == socket.IPPROTO_TCP, "otherwise asyncio does not set TCP_NODELAY"
    with pytest.raises(InputError, match=r"^host: 'no such host' is not an address of this machine"):
        run_server.listen("no such host", 0)
    with pytest.raises(InputError, match=r"^port: must be from 0 to 65535, got 70000"):
        run_server.listen("127.0.0.1", 70_000)


def test_invalid_options_exit_with_2_and_one_line(capsys, monkeypatch):
    monkeypatch.delenv("DANET_TOKEN", raising=False)
    with run_server.listen("127.0.0.1", 0) as taken:
        invalid = {
            "--host: 0.0.0.0 is reachable from other machines": ["--host", "0.0.0.0"],
            "set DANET_TOKEN, or use --host 127.0.0.1": ["--host", "0.0.0.0"],
            "is already in use": ["--port", str(taken.getsockname()[1])],
            "another --port, or 0": ["--port", str(taken.getsockname()[1])],
            "--max-mb: must be above 0 and at most 1024, got 0": ["--max-mb", "0", "--port", "0"],
            "--max-mb: must be at least 1 byte, got 1e-09 MB": ["--max-mb", "1e-9", "--port", "0"],
            "--allow-host: 'http://lab.example' is not a host": ["--allow-host", "http://lab.example", "--port", "0"],
            "--drain: must be from 0 to 3600, got -1": ["--drain", "-1", "--port", "0"],
            "--workers: must be from 1 to 64, got 0": ["--workers", "0", "--port", "0"],
            "--root-path: 'danet' is not a path": ["--root-path", "danet", "--port", "0"],
            "no such file": ["--weights", "nowhere.safetensors", "--port", "0"],
        }
        for message, args in invalid.items():
            assert main(["serve", *args]) == 2
            stderr = capsys.readouterr().err
            assert message in stderr
            assert stderr.count("\n") == 1


def test_the_token_is_read_from_the_environment(tiny_weights, monkeypatch, capsys):
    monkeypatch.setenv("DANET_TOKEN", "from-the-environment")
    served = []
    monkeypatch.setattr(run_server, "serve", lambda app, *_: served.append(app))
    monkeypatch.setattr(run_server, "start_log", lambda _: None)
    assert main(["serve", "--weights", str(tiny_weights), "--port", "0", "--device", "cpu"]) == 0
    assert re.fullmatch(r"http://127\.0\.0\.1:\d+\n", capsys.readouterr().out)

    async def run():
        async with Client(transport=httpx.ASGITransport(served[0]), base_url=HOST) as client:
            token = {"Authorization": "Bearer from-the-environment"}
            return await client.get("/v1/model"), await client.get("/v1/model", headers=token)

    without, with_token = asyncio.run(run())
    assert (without.status_code, with_token.status_code) == (401, 200)


def test_a_missing_package_is_named(monkeypatch):
    monkeypatch.setattr(run_server, "find_spec", lambda name: None if name == "uvicorn" else object())
    with pytest.raises(InputError, match=r"uvicorn is not installed; in a clone of danet, run: uv sync --extra serve"):
        run_server.require_packages()
