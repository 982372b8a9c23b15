"""What several tests share. Tests that read the reference outputs or CamVid find them beside the checkout and are
skipped where they are not.
"""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from killed import Warm

settings.register_profile("quick", max_examples=50, deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("stress", settings.get_profile("quick"), max_examples=2000)
settings.load_profile("quick")

SHARED = Path(os.environ.get("DANET_SHARED", Path(__file__).parents[2] / "shared"))


@pytest.fixture(scope="session")
def golden_folder() -> Path:
    """Outputs of the released code; see golden/README.md there."""
    folder = SHARED / "golden"
    if not folder.is_dir():
        pytest.skip("the released code's outputs are not beside the checkout")
    return folder


@pytest.fixture(scope="session")
def camvid_folder() -> Path:
    folder = SHARED / "camvid"
    if not folder.is_dir():
        pytest.skip("CamVid is not beside the checkout")
    return folder


@pytest.fixture(scope="session")
def tiny_weights(tmp_path_factory) -> Path:
    """A weights file of an untrained little network for the six classes of `toy`."""
    import torch

    from danet import DANet
    from danet.data.registry import CLASSES
    from danet.weights import file as weights_file

    torch.manual_seed(0)
    arguments = {"num_classes": 6, "backbone": "test_resnet", "width": 16}
    card = weights_file.Card(arguments, CLASSES["toy"], (0.5,) * 3, (0.5,) * 3, size=128, dataset="toy")
    path = tmp_path_factory.mktemp("weights") / "tiny.safetensors"
    weights_file.save(path, DANet(**arguments), card)
    return path


@pytest.fixture(scope="session")
def warm() -> Iterator[Warm]:
    """Starts programs that are killed, see killed.py."""
    process = Warm()
    yield process
    process.close()


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup() -> None:
    """Every test draws the same numbers, whatever ran before it: the fixtures it is the first to ask for, too."""
    import torch

    torch.manual_seed(0)


def pytest_configure(config: pytest.Config) -> None:
    if config.option.markexpr == "stress":
        settings.load_profile("stress")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """With -m stress the property tests run too, on 2,000 examples each.

    Tests that load ONNX and OpenVINO come last: a library that harms the process harms no other test (docs/log.md).
    """
    if config.option.markexpr == "stress":
        for item in items:
            if getattr(getattr(item, "obj", None), "is_hypothesis_test", False):
                item.add_marker("stress")
    items.sort(key=lambda item: item.path.name in ("test_docs.py", "weights/test_export.py"))
