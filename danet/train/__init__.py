"""Training. `danet.train(recipe, data, ...)` calls `danet.train.start.train`, which documents the arguments."""

from danet.callable_package import make_callable

make_callable(__name__, "danet.train.start")
