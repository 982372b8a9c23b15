"""Shared fixtures. Tests that need reference outputs or CamVid look for them next to the checkout, or are skipped."""

import gc
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import typechecking  # noqa: F401  (before danet)
from hypothesis import HealthCheck, settings
from killed import Warm

if sys.dont_write_bytecode:  # otherwise each of hundreds of processes compiles torch anew, for seconds
    sys.dont_write_bytecode = False
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)

if "PYTEST_XDIST_WORKER" in os.environ:  # one process per core: more threads would only compete
    os.environ.setdefault("OMP_NUM_THREADS", "1")

settings.register_profile("quick", max_examples=50, deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("stress", settings.get_profile("quick"), max_examples=2000)
settings.load_profile("quick")

SHARED = Path(os.environ.get("DANET_SHARED", Path(__file__).parents[2] / "shared"))


@pytest.fixture(scope="session")
def golden_folder() -> Path:
    """Return the folder with outputs of the released code; its README.md describes them."""
    folder = SHARED / "golden"
    if not folder.is_dir():
        pytest.skip("the outputs of the released code are not next to the checkout")
    return folder


@pytest.fixture(scope="session")
def camvid_folder() -> Path:
    folder = SHARED / "camvid"
    if not folder.is_dir():
        pytest.skip("CamVid is not next to the checkout")
    return folder


@pytest.fixture(scope="session")
def tiny_weights(tmp_path_factory) -> Path:
    """Return a weights file of a small untrained network for the six classes of `toy`."""
    import torch

    from danet import DANet
    from danet.data.registry import DATASETS
    from danet.weights import file as weights_file

    torch.manual_seed(0)
    arguments = {"num_classes": 6, "backbone": "test_resnet", "width": 16}
    card = weights_file.Card(arguments, DATASETS["toy"].classes, (0.5,) * 3, (0.5,) * 3, size=128, dataset="toy")
    path = tmp_path_factory.mktemp("weights") / "tiny.safetensors"
    weights_file.save(path, DANet(**arguments), card)
    return path


@pytest.fixture(scope="session")
def warm() -> Iterator[Warm]:
    """Start programs that are to be killed; see killed.py."""
    process = Warm()
    yield process
    process.close()


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup() -> None:
    """Seed torch before each test and its fixtures, so that tests do not depend on their order."""
    import torch

    torch.manual_seed(0)


def pytest_configure(config: pytest.Config) -> None:
    if config.option.markexpr == "stress":
        settings.load_profile("stress")


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Iterator[None]:
    """Collect no garbage while all modules are imported, and do not search through them again in the tests."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


def pytest_unconfigure() -> None:
    """Search through all objects at the exit again: nanobind, of Triton and ONNX, would print what is left as leaks."""
    gc.unfreeze()


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Add the property tests to -m stress, and run tests that load ONNX and OpenVINO last.

    OpenVINO once crashed the process at its end (docs/log.md); run last, it cannot harm other tests.
    """
    if config.option.markexpr == "stress":
        for item in items:
            if getattr(getattr(item, "obj", None), "is_hypothesis_test", False):
                item.add_marker("stress")
    items.sort(key=lambda item: item.path.name in ("test_docs.py", "test_export.py"))
