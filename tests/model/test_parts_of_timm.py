"""A network imports no compiler and only the parts of timm that it needs; the rest is imported when it is asked for."""

import subprocess
import sys

PROGRAM = """
import sys
import danet.model.backbone as backbone
assert not {"torchvision", "huggingface_hub", "timm.models.vision_transformer"} & {*sys.modules}
import danet, importlib.util
danet.load()
assert not any(name.startswith("torch._dynamo") for name in sys.modules)
assert importlib.util.find_spec("torch._dynamo").origin
import torchvision
import torchvision.models.feature_extraction as features
assert features.create_feature_extractor and torchvision.ops.nms and torchvision.ops.misc.FrozenBatchNorm2d
import timm
assert timm.create_model("vit_tiny_patch16_224", num_classes=2).num_classes == 2
assert timm.models.resnet.BasicBlock is backbone.BasicBlock
assert timm.data.create_transform and timm.models.is_model("resnet50")
from timm.models._builder import has_hf_hub
assert has_hf_hub()
net, channels = backbone.build_backbone("regnetx_002", output_stride=8)
assert channels
"""


def test_unused_parts_are_imported_only_when_they_are_asked_for():
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
