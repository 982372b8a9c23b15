"""Metrics. `danet.evaluate(weights, root, ...)` calls `danet.evaluate.start.evaluate`, which has its documentation."""

from danet.callable_package import make_callable

make_callable(__name__, "danet.evaluate.start")
