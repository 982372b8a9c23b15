"""Run `danet` as where torch is not installed: python without_torch.py COMMAND ...

Importing any of the packages below raises ImportError, in the processes that danet starts too.
"""

import sys
from importlib.abc import MetaPathFinder

MISSING = ("torch", "torchvision", "timm", "safetensors", "onnx")


class NotInstalled(MetaPathFinder):
    def find_spec(self, fullname, path=None, target=None):
        name = fullname.partition(".")[0]
        if name in MISSING:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)


sys.meta_path.insert(0, NotInstalled())

if __name__ == "__main__":
    from danet.cli import main

    sys.exit(main())
