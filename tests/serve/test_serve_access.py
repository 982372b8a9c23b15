"""danet/web: who may ask, by which methods, hosts and tokens; and mistakes on the command line."""

import asyncio
import re
import socket

import httpx
import pytest
from web_client import HOST, Client, all_of, error, image

from danet.cli import main
from danet.errors import InputError
from danet.serve import run_server
from danet.serve.guard import Limits


@pytest.mark.parametrize("method", ["OPTIONS", "PUT", "DELETE", "PATCH", "TRACE", "GET"])
def test_other_methods_are_405_without_leave_for_other_sites(ask, method):
    (answer,) = ask(all_of((method, "/v1/segment", {"headers": {"Access-Control-Request-Method": "POST"}})))
    assert answer.status_code == 405
    assert not [name for name in answer.headers if name.startswith("access-control")]
    error(answer)


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
def test_the_host_must_be_ours(ask, host, status):
    limits = Limits(hosts=frozenset({"lab.example"}))
    (answer,) = ask(all_of(("GET", "/v1/model", {"headers": {"Host": host}})), limits)
    assert answer.status_code == status


@pytest.mark.parametrize(
    ("origin", "status"),
    [("http://evil.example", 403), ("null", 403), ("http://127.0.0.1:9", 403), (HOST, 200), (None, 200)],
)
def test_another_sites_page_cannot_send(ask, origin, status):
    headers = {"Origin": origin} if origin else {}
    (answer,) = ask(all_of(("POST", "/v1/segment", {"content": image(), "headers": headers})))
    assert answer.status_code == status
    assert "access-control-allow-origin" not in answer.headers


def test_a_token_is_needed_where_one_is_set(ask):
    limits = Limits(token="correct-horse-battery")

    def request(path, token=None):
        return ("GET", path, {"headers": {} if token is None else {"Authorization": token}})

    answers = ask(
        all_of(
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
        ),
        limits,
    )
    assert [answer.status_code for answer in answers] == [401] * 6 + [200] * 4
    assert "correct" not in "".join(answer.text for answer in answers[:6])


def test_addresses_and_tokens():
    for host in ("127.0.0.1", "localhost", "::1", "127.0.0.9"):
        run_server.check_token(host, None)
    for host in ("0.0.0.0", "::", "192.168.0.1", "lab.example"):
        with pytest.raises(InputError, match="DANET_TOKEN"):
            run_server.check_token(host, None)
        run_server.check_token(host, "sixteen-letters-")
    for weak in ("short", "", "x" * 15, "sixteen letters  ", "é" * 16):
        with pytest.raises(InputError, match="token"):
            run_server.check_token("127.0.0.1", weak)
    with run_server.listen("127.0.0.1", 0) as taken:
        port = taken.getsockname()[1]
        assert run_server.address(taken, "0.0.0.0") == f"http://127.0.0.1:{port}"
        with pytest.raises(InputError, match=f"127.0.0.1:{port}: cannot be listened at .*--port 0"):
            run_server.listen("127.0.0.1", port)
        assert taken.proto == socket.IPPROTO_TCP, "asyncio sets TCP_NODELAY only then"
    for host, port in (("no such host", 0), ("127.0.0.1", 70_000)):
        with pytest.raises(InputError):
            run_server.listen(host, port)


def test_mistakes_on_the_command_line_exit_with_2(capsys, monkeypatch):
    monkeypatch.delenv("DANET_TOKEN", raising=False)
    with run_server.listen("127.0.0.1", 0) as taken:
        wrong = {
            "DANET_TOKEN": ["--host", "0.0.0.0"],
            "cannot be listened at": ["--port", str(taken.getsockname()[1])],
            "--max-mb 0": ["--max-mb", "0", "--port", "0"],
            "no such file": ["--weights", "nowhere.safetensors", "--port", "0"],
        }
        for says, args in wrong.items():
            assert main(["serve", *args]) == 2
            told = capsys.readouterr().err
            assert says in told
            assert told.count("\n") == 1


def test_the_token_comes_from_the_environment(tiny_weights, monkeypatch, capsys):
    monkeypatch.setenv("DANET_TOKEN", "from-the-environment")
    served = []
    monkeypatch.setattr(run_server, "serve", lambda app, _: served.append(app))
    assert main(["serve", "--weights", str(tiny_weights), "--port", "0", "--device", "cpu"]) == 0
    assert re.fullmatch(r"http://127\.0\.0\.1:\d+\n", capsys.readouterr().out)

    async def run():
        async with Client(transport=httpx.ASGITransport(served[0]), base_url=HOST) as client:
            token = {"Authorization": "Bearer from-the-environment"}
            return await client.get("/v1/model"), await client.get("/v1/model", headers=token)

    without, with_token = asyncio.run(run())
    assert (without.status_code, with_token.status_code) == (401, 200)


def test_what_serving_needs_is_named_where_it_is_missing(monkeypatch):
    monkeypatch.setattr(run_server, "find_spec", lambda name: None if name == "uvicorn" else object())
    with pytest.raises(InputError, match=r"uvicorn is not installed; pip install 'danet\[serve\]'"):
        run_server.require_packages()
