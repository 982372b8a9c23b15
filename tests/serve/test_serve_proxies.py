"""danet/serve behind a reverse proxy: forwarded headers, prefixes, allowed origins, ids of requests, HEAD, the log."""

import fcntl
import json
import logging
import os

import pytest
from serve_client import error_of, image, send_all
from starlette.datastructures import Headers

from danet.cli import main
from danet.errors import InputError
from danet.serve import access, log
from danet.serve.limits import Limits

PROXIES = access.parse_proxies(["127.0.0.1", "10.0.0.0/8", "::1"])
FORWARDED = {"X-Forwarded-Host": "lab.example", "X-Forwarded-Proto": "https", "X-Forwarded-For": "203.0.113.9"}


def sender(peer: str, *lines: tuple[str, str], proxies=PROXIES) -> access.Sender:
    raw = [(name.lower().encode(), value.encode()) for name, value in (("host", "127.0.0.1:8000"), *lines)]
    return access.sender({"type": "http", "client": (peer, 1234)}, Headers(raw=raw), proxies)


def test_forwarded_headers_of_a_trusted_proxy_count():
    found = sender("127.0.0.1", *FORWARDED.items(), ("X-Request-ID", "abc-1"))
    assert found == access.Sender("203.0.113.9", "https", "lab.example", "abc-1", False)


def test_forwarded_headers_of_others_are_ignored():
    found = sender("203.0.113.7", *FORWARDED.items(), ("X-Request-ID", "abc-1"))
    assert found[:3] == ("203.0.113.7", None, "127.0.0.1:8000")
    assert found.request_id != "abc-1"
    assert found.hidden


@pytest.mark.parametrize(
    ("forwarded", "address"),
    [
        ("6.6.6.6, 203.0.113.9", "203.0.113.9"),
        ("203.0.113.9, 10.1.2.3, 10.9.9.9", "203.0.113.9"),
        ("203.0.113.9:4711", "203.0.113.9"),
        ("[2001:db8::1]:4711, ::ffff:10.1.1.1", "2001:db8::1"),
        ("evil, unknown, 10.1.1.1", "10.1.1.1"),
        ("", "127.0.0.1"),
    ],
)
def test_the_client_is_the_last_address_that_is_no_trusted_proxy(forwarded, address):
    assert sender("127.0.0.1", ("X-Forwarded-For", forwarded)).address == address


def test_headers_that_the_client_sent_before_those_of_the_proxy_are_ignored():
    lines = [(name, value) for value in ("evil.example", "lab.example") for name in ("X-Forwarded-Host",)]
    assert sender("127.0.0.1", *lines).host == "lab.example"
    assert sender("127.0.0.1", ("X-Forwarded-Host", "evil.example, lab.example")).host == "lab.example"
    assert sender("127.0.0.1", ("X-Forwarded-Proto", "javascript")).scheme is None


@pytest.mark.parametrize("identifier", ["", "a b", "x" * 129, "a\tb", "é"])
def test_invalid_request_ids_are_replaced(identifier):
    assert sender("127.0.0.1", ("X-Request-ID", identifier)).request_id not in ("", identifier)


def post(**headers: str):
    return send_all(("POST", "/v1/segment", {"content": image(), "headers": headers}))


@pytest.mark.parametrize(
    ("origin", "trusted", "status"),
    [
        ("https://lab.example", True, 200),
        ("https://lab.example:443", True, 200),
        ("http://lab.example", True, 403),
        ("https://evil.example", True, 403),
        ("https://lab.example", False, 403),
    ],
)
def test_a_page_behind_a_trusted_proxy_may_send_requests(ask, origin, trusted, status):
    limits = Limits(hosts=frozenset({"lab.example"}), proxies=PROXIES if trusted else ())
    (response,) = ask(post(Origin=origin, **FORWARDED), limits)
    assert response.status_code == status


def test_the_host_that_a_trusted_proxy_forwards_must_be_allowed(ask):
    (response,) = ask(post(**FORWARDED), Limits(proxies=PROXIES))
    assert response.status_code == 400
    assert "--allow-host" in error_of(response)


def test_a_refused_origin_is_told_how_to_be_allowed(ask):
    (response,) = ask(post(Origin="https://app.example", **FORWARDED))
    assert error_of(response) == (
        "pages of this origin may not send requests to this server; to allow them, start it with danet serve "
        "--allow-origin https://app.example; behind a proxy, also with --trusted-proxy 127.0.0.1"
    )
    (response,) = ask(post(Origin="<script>"))
    assert error_of(response).endswith("--allow-origin ORIGIN")


def test_pages_of_an_allowed_origin_may_send_requests_and_read_answers(ask):
    limits = Limits(token="correct-horse-battery", origins=access.parse_origins(["https://app.example/"]))
    own, other = {"Origin": "https://app.example"}, {"Origin": "https://evil.example"}
    asks = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "authorization"}
    token = {"Authorization": "Bearer correct-horse-battery"}
    allowed, refused, answer, unauthorized, evil = ask(
        send_all(
            ("OPTIONS", "/v1/segment", {"headers": own | asks}),
            ("OPTIONS", "/v1/segment", {"headers": other | asks}),
            ("POST", "/v1/segment", {"content": image(), "headers": own | token}),
            ("GET", "/v1/model", {"headers": own}),
            ("GET", "/v1/model", {"headers": other | token}),
        ),
        limits,
    )
    assert (allowed.status_code, allowed.content) == (204, b"")
    assert "POST" in allowed.headers["access-control-allow-methods"]
    assert "Authorization" in allowed.headers["access-control-allow-headers"]
    assert (answer.status_code, unauthorized.status_code, refused.status_code) == (200, 401, 403)
    for response in (allowed, answer, unauthorized):
        assert response.headers["access-control-allow-origin"] == "https://app.example"
        assert response.headers["vary"] == "Origin"
    for response in (refused, evil):
        assert "access-control-allow-origin" not in response.headers


def test_every_get_route_answers_head_without_a_body(ask):
    async def talk(client):
        image_id = (await client.post("/v1/segment?keep=true", content=image())).json()["image"]
        app = client._transport.app
        paths = [route.path for route in app.routes if "GET" in (route.methods or ())]
        paths = [path.format(image=image_id, name="page.js") for path in paths]
        paths = [f"{path}?class_id=0" if path.endswith("channels") else path for path in paths]
        return [(path, await client.get(path), await client.head(path)) for path in paths]

    answers = ask(talk)
    assert len(answers) >= 15
    for path, get, head in answers:
        assert head.status_code == get.status_code, path
        assert head.content == b""
        if path != "/metrics":
            assert head.headers["content-length"] == str(len(get.content)) or "content-encoding" in get.headers
    (post_only,) = ask(send_all(("HEAD", "/v1/segment", {})))
    assert (post_only.status_code, post_only.headers["allow"]) == (405, "POST")
    (get_only,) = ask(send_all(("PUT", "/health/live", {})))
    assert get_only.headers["allow"] == "GET, HEAD"


def test_a_prefix_may_be_removed_by_the_proxy_or_not(ask):
    limits = Limits(root_path="/tools/danet", token="correct-horse-battery")
    token = {"headers": {"Authorization": "Bearer correct-horse-battery"}}
    paths = ["/v1/model", "/", "/docs", "/page/page.js", "/health/ready"]
    plain = ask(send_all(*(("GET", path, token) for path in paths)), limits)
    below = ask(send_all(*(("GET", f"/tools/danet{path}", token) for path in paths)), limits)
    for path, one, other in zip(paths, plain, below, strict=True):
        assert one.status_code == other.status_code == 200, path
        assert one.content == other.content
    without_token = ask(send_all(*(("GET", f"/tools/danet{path}", {}) for path in paths)), limits)
    assert [response.status_code for response in without_token] == [401, 200, 200, 200, 200]
    root, interface, other = ask(
        send_all(("GET", "/tools/danet", {}), ("GET", "/openapi.json", token), ("GET", "/tools/danetx", token)), limits
    )
    assert (root.status_code, root.headers["location"]) == (308, "/tools/danet/")
    assert interface.json()["servers"] == [{"url": "/tools/danet"}]
    assert other.status_code == 404


def test_the_page_has_only_relative_urls(ask):
    for response in ask(send_all(("GET", "/", {}), ("GET", "/docs", {}))):
        assert 'href="/' not in response.text
        assert 'src="/' not in response.text


@pytest.mark.parametrize("path", ["danet", "/a b", "/x/%2e", "/v1", "/health/x", "/a//b"])
def test_invalid_prefixes_are_refused(path):
    with pytest.raises(InputError, match=r"^root_path: .*give one such as /danet"):
        access.parse_root_path(path)


def test_invalid_origins_and_proxies_are_refused(capsys):
    for origin in ("*", "null", "app.example", "https://app.example/path", "ftp://app.example"):
        with pytest.raises(InputError, match=r"^allow_origin: .* is not an origin"):
            access.parse_origins([origin])
    for proxy in ("nginx", "10.0.0.1/8", ""):
        with pytest.raises(InputError, match=r"^trusted_proxy: "):
            access.parse_proxies([proxy])
    assert main(["serve", "--port", "0", "--trusted-proxy", "nginx"]) == 2
    assert "--trusted-proxy: 'nginx' does not appear to be" in capsys.readouterr().err


def test_answers_and_log_have_the_id_route_and_status_of_each_request(ask, caplog):
    caplog.set_level(logging.INFO, "danet.serve")
    limits = Limits(token="correct-horse-battery", proxies=PROXIES)
    ids = {"headers": {"X-Request-ID": "abc-1", "X-Forwarded-For": "203.0.113.9"}}
    requests = [
        ("GET", "/health/live"),
        ("HEAD", "/health/live"),
        ("POST", "/v1/segment"),
        ("GET", "/v1/images/SECRET/labels"),
    ]
    responses = ask(send_all(*((method, path, ids) for method, path in requests), ("BREW", "/tea", ids)), limits)
    assert [response.headers["x-request-id"] for response in responses] == ["abc-1"] * 5
    entries = [record.answered for record in caplog.records if hasattr(record, "answered")]
    assert [entry[:3] for entry in entries] == [
        ("GET", "/health/live", 200),
        ("HEAD", "/health/live", 200),
        ("POST", "/v1/segment", 401),
        ("GET", "/v1/images/{image}/labels", 401),
        ("-", "(no such path)", 401),
    ]
    assert {entry.client for entry in entries} == {"203.0.113.9"}


def record_of(text: str, **extra) -> logging.LogRecord:
    known = {"name": "danet.serve", "levelno": logging.INFO, "levelname": "INFO", "created": 0.0}
    return logging.makeLogRecord({**known, "msg": text, **extra})


def test_json_entries_are_one_object_per_line():
    answered = log.Answered("GET", "/health/live", 200, 1.23456, "203.0.113.9")
    log.request_id.set("abc-1")
    try:
        entry = json.loads(log.JsonFormatter().format(record_of("x", answered=answered)))
        text = log.TextFormatter().format(record_of("GET /health/live 200"))
    finally:
        log.request_id.set(None)
    assert entry == {
        "time": "1970-01-01T00:00:00.000Z",
        "level": "info",
        "method": "GET",
        "route": "/health/live",
        "status": 200,
        "milliseconds": 1.2,
        "client": "203.0.113.9",
        "request_id": "abc-1",
    }
    assert text == "GET /health/live 200 abc-1"
    try:
        raise ValueError("two\nlines")
    except ValueError as error:
        failed = record_of("it failed", exc_info=(ValueError, error, error.__traceback__))
    line = log.JsonFormatter().format(failed)
    assert "\n" not in line
    assert json.loads(line)["exception"].endswith("ValueError: two\nlines")


def test_dropped_entries_are_counted_in_the_format_of_the_log(monkeypatch):
    handler, written = log.StderrHandler("json"), []
    monkeypatch.setattr(handler, "_write", lambda text: written.append(text) or len(written) > 1)
    handler.emit(record_of("lost"))
    handler.emit(record_of("kept"))
    first, second = map(json.loads, written[1].splitlines())
    assert (first["message"], second["message"]) == ("1 log entries were dropped", "kept")


class Pipe:
    def __init__(self, descriptor: int):
        self.fileno = lambda: descriptor


def test_an_entry_after_one_that_was_cut_begins_a_line(monkeypatch):
    reader, writer = os.pipe()
    size = fcntl.fcntl(writer, fcntl.F_GETPIPE_SZ)
    os.write(writer, b"." * (size - 4096))
    monkeypatch.setattr("sys.stderr", Pipe(writer))
    handler = log.StderrHandler("json")
    handler.emit(record_of("A" * 9000))
    os.read(reader, size - 4096)
    handler.emit(record_of("second"))
    cut, dropped, second = os.read(reader, size).splitlines()
    assert cut.endswith(b"A")
    assert [json.loads(line)["message"] for line in (dropped, second)] == ["1 log entries were dropped", "second"]
    for end in (reader, writer):
        os.close(end)


def test_windows_cannot_ask_whether_standard_error_is_ready(monkeypatch, tmp_path):
    def select(*_):
        raise OSError(10038, "not a socket")

    monkeypatch.setattr(log.select, "select", select)
    monkeypatch.setattr(log.portability, "WINDOWS", True)
    with open(tmp_path / "log", "wb") as file:
        monkeypatch.setattr("sys.stderr", file)
        log.StderrHandler("text").emit(record_of("hello"))
    assert (tmp_path / "log").read_text().strip().endswith("hello")


def test_a_body_that_claims_to_be_too_large_is_refused_before_it_is_sent(ask):
    sent = []

    async def content():
        sent.append(1)
        yield image()

    headers = {"Content-Length": str(30 << 20), "Expect": "100-continue"}
    (response,) = ask(send_all(("POST", "/v1/segment", {"content": content(), "headers": headers})), Limits())
    assert response.status_code == 413
    assert "larger than 20 MB" in error_of(response)
