"""moto's S3 server on 127.0.0.1, whose requests can be made to fail."""

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from moto.server import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import WSGIRequestHandler, make_server

CREDENTIALS = {
    "AWS_ACCESS_KEY_ID": "x",
    "AWS_SECRET_ACCESS_KEY": "y",
    "AWS_DEFAULT_REGION": "us-east-1",
    "AWS_EC2_METADATA_DISABLED": "true",
}


class _Silent(WSGIRequestHandler):
    def log(self, *_: object) -> None:
        pass


class ObjectStore:
    """A running server.

    `fails` takes method, path and how often the same request came, and returns the status to answer with: True for 503,
    False for none. `delays` takes the same, and returns for how many seconds the answer waits.
    """

    def __init__(self) -> None:
        self._store = DomainDispatcherApplication(create_backend_app)
        self._server = make_server("127.0.0.1", 0, self._answer, threaded=True, request_handler=_Silent)
        self.address = f"http://127.0.0.1:{self._server.server_port}"
        self.requests: Counter[tuple[str, str]] = Counter()
        self.fails: Callable[[str, str, int], int] = lambda *_: False
        self.delays: Callable[[str, str, int], float] = lambda *_: 0
        self._thread = threading.Thread(target=self._server.serve_forever)

    def _answer(self, environ, start_response):
        request = environ["REQUEST_METHOD"], environ["PATH_INFO"]
        self.requests[request] += 1
        time.sleep(self.delays(*request, self.requests[request]))
        if status := self.fails(*request, self.requests[request]):
            environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
            text, code = ("500 Internal Error", "InternalError") if status == 500 else ("503 Slow Down", "SlowDown")
            start_response(text, [("Content-Type", "application/xml")])
            return [f"<Error><Code>{code}</Code><Message>Please try again.</Message></Error>".encode()]
        return self._store(environ, start_response)

    @contextmanager
    def running(self) -> Iterator["ObjectStore"]:
        self._thread.start()
        try:
            yield self
        finally:
            self._server.shutdown()
            self._thread.join()
            self._server.server_close()
