"""Arguments of a wrong type or shape are one line, as in a user's program: without the type checker of the tests."""

import subprocess
import sys

import pytest

PROGRAM = """
import sys
import numpy as np
import danet
from danet.evaluate.corruptions import corrupt

def loaded():
    return danet.load(device="cpu")

def inspected():
    return loaded().inspect(np.zeros((96, 96, 3), np.uint8))

image = np.zeros((8, 8, 3), np.uint8)
for call in sys.argv[1:]:
    try:
        eval(call)
        print("nothing")
    except danet.InputError as error:
        print(error)
    except Exception as error:
        print(type(error).__name__, error)
"""
CALLS = {
    "corrupt(image, 'fog', 0)": "severity: must be from 1 to 5, got 0; for example, use 3",
    "corrupt(image, 'fog', -1)": "severity: must be from 1 to 5, got -1; for example, use 3",
    "corrupt(image, 'fgo', 1)": "name: 'fgo' is unknown; did you mean fog?",
    "corrupt(image[..., 0], 'fog', 1)": "image: must be H,W,3 uint8, got 8x8 uint8; for example, ",
    "corrupt(image / 255, 'fog', 1)": "image: must be H,W,3 uint8, got 8x8x3 float64; for example, ",
    "danet.train('toy', settings=None)": "settings: must be a dictionary from names to values, got None; for example, ",
    "danet.train('toy', settings=[1])": "settings: must be a dictionary from names to values, got [1]; for example, ",
    "danet.train('toy', settings={1: 2})": "settings: must be a dictionary from names to values, got {1: 2}; ",
    "danet.train('folder', 'a', settings={'data.root': 'b'})": "data: is also given as `data.root` in `settings`; ",
    "danet.train('toy', transform=3)": "transform: must be a function, got 3; ",
    "danet.evaluate('default', '.', fold=(1, 2))": "data.fold: must be I/K, with K at least 2 and I from 1 to K, got ",
    "danet.evaluate(loaded(), '.')": "weights: is a Predictor, not a file; specify the weights file ",
    "loaded()(image).with_unknown('a')": "min_confidence: must be from 0 to 1, got 'a'; for example, use 0.5",
    "inspected().classes_attended(np.ones((3, 3)))": "attention: needs a value for each of ",
    "inspected().strongest(np.ones((3, 3)))": "attention: needs a value for each of ",
    "inspected().spread(np.ones((3, 3)))": "attention: needs a value for each of ",
    "inspected().interpolate(np.ones((3, 3), np.float32))": "attention: needs a value for each of ",
}


@pytest.fixture(scope="module")
def lines(tmp_path_factory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("program")
    command = [sys.executable, "-c", PROGRAM, *CALLS]
    result = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=300)
    return dict(zip(CALLS, result.stdout.splitlines(), strict=True))


@pytest.mark.parametrize("call", CALLS)
def test_wrong_argument_is_one_line(call, lines):
    assert lines[call].startswith(CALLS[call])
