"""What several tests share. Tests that read the reference outputs or CamVid find them beside the checkout and are
skipped where they are not.
"""

import os
from pathlib import Path

import pytest

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
