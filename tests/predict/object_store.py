"""moto's S3 server on 127.0.0.1, whose requests can be made to fail."""

import threading
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
    """A running server. `fails` takes method, path and how often the same request came; True: answer 503."""

    def __init__(self) -> None:
        self._store = DomainDispatcherApplication(create_backend_app)
        self._server = make_server("127.0.0.1", 0, self._answer, threaded=True, request_handler=_Silent)
        self.address = f"http://127.0.0.1:{self._server.server_port}"
        self.requests: Counter[tuple[str, str]] = Counter()
        self.fails: Callable[[str, str, int], bool] = lambda *_: False
        self._thread = threading.Thread(target=self._server.serve_forever)

    def _answer(self, environ, start_response):
        request = environ["REQUEST_METHOD"], environ["PATH_INFO"]
        self.requests[request] += 1
        if self.fails(*request, self.requests[request]):
            environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
            start_response("503 Slow Down", [("Content-Type", "application/xml")])
            return [b"<Error><Code>SlowDown</Code><Message>Please reduce your request rate.</Message></Error>"]
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
