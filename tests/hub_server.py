"""A stand-in for the Hugging Face Hub on 127.0.0.1: repositories in memory, as its client needs them."""

import base64
import hashlib
import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread


class HubServer:
    """Repositories by name, each with its files by path, and what was asked for.

    Attributes:
        files: "user/repo" -> path -> content.
        revisions: those that exist.
        gated: repositories that need access.
        refuse: the status of each answer to an upload, if not 200.
        requests: method and path of each request.
    """

    def __init__(self) -> None:
        self.files: dict[str, dict[str, bytes]] = {}
        self.revisions = {"main", "v1"}
        self.gated: set[str] = set()
        self.refuse = 0
        self.private: dict[str, bool] = {}
        self.requests: list[str] = []
        self.tokens: set[str | None] = set()
        self.endpoint = ""

    def commit(self) -> str:
        """Return a commit that changes with the files."""
        return hashlib.sha1(repr(sorted(self.files.items())).encode(), usedforsecurity=False).hexdigest()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: HubServer

    def log_message(self, *_: object) -> None:
        pass

    def _answer(self, status: int, body: bytes = b"{}", **headers: str) -> None:
        self.send_response(status)
        for name, value in {"X-Repo-Commit": self.hub.commit(), "Content-Length": str(len(body)), **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def _error(self, status: int, code: str) -> None:
        self._answer(status, b"{}", X_Error_Code=code, X_Error_Message=code)

    def _note(self) -> None:
        self.hub.requests.append(f"{self.command} {self.path}")
        self.hub.tokens.add(self.headers.get("Authorization"))

    def do_GET(self) -> None:
        self._note()
        found = re.fullmatch(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", self.path)
        if not found or found[1] not in self.hub.files:
            return self._error(404, "RepoNotFound")
        repository, revision, path = found.groups()
        if repository in self.hub.gated:
            return self._error(403, "GatedRepo")
        if revision not in self.hub.revisions:
            return self._error(404, "RevisionNotFound")
        if path not in self.hub.files[repository]:
            return self._error(404, "EntryNotFound")
        content = self.hub.files[repository][path]
        return self._answer(200, content, ETag=f'"{hashlib.sha256(content).hexdigest()}"')

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_POST(self) -> None:
        self._note()
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if self.hub.refuse:
            return self._error(self.hub.refuse, "Forbidden")
        if self.path == "/api/repos/create":
            return self._create(json.loads(body))
        if self.path == "/api/validate-yaml":
            return self._answer(200)
        if found := re.fullmatch(r"/api/models/(.+)/preupload/main", self.path):
            names = [entry["path"] for entry in json.loads(body)["files"]]
            files = [{"path": name, "uploadMode": "regular", "shouldIgnore": False} for name in names]
            return self._answer(200, json.dumps({"files": files}).encode())
        if found := re.fullmatch(r"/api/models/(.+)/commit/main", self.path):
            for line in map(json.loads, body.splitlines()):
                if line["key"] == "file":
                    content = base64.b64decode(line["value"]["content"])
                    self.hub.files[found[1]][line["value"]["path"]] = content
            commit = self.hub.commit()
            url = f"{self.hub.endpoint}/{found[1]}/commit/{commit}"
            return self._answer(200, json.dumps({"success": True, "commitUrl": url, "commitOid": commit}).encode())
        return self._error(404, "RepoNotFound")

    def _create(self, options: dict) -> None:
        repository = f"{options['organization']}/{options['name']}"
        self.hub.files.setdefault(repository, {})
        self.hub.private[repository] = options.get("visibility") == "private"
        self._answer(200, json.dumps({"url": f"{self.hub.endpoint}/{repository}"}).encode())


@contextmanager
def serving() -> Iterator[HubServer]:
    """Serve a Hub without repositories on a free port."""
    hub = HubServer()
    handler = type("Handler", (_Handler,), {"hub": hub})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        hub.endpoint = f"http://127.0.0.1:{server.server_port}"
        thread = Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield hub
        finally:
            server.shutdown()
            thread.join()
