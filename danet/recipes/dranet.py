"""DRANet on Cityscapes, as its code was released in 2020.

Rates, momentum, weight decay, epochs and the weight of the auxiliary loss are that code's defaults for Cityscapes: a
learning rate of 0.004 for a batch of 16, so 0.002 for 8, and ten times that for the head. Crop and multi-grid are those
of its test command. It does not say the batch of the published weights; 8 is DANet's.

One thing differs on purpose: the released optimizer leaves out the two classifiers, `cls_seg` and `cls_aux`, which
therefore keep their random weights. Here they are trained with the head.
"""

from danet.recipes.recipe import Data, Loss, Network, Optim, Published, Recipe

_CITYSCAPES_101 = Recipe(
    about="Cityscapes, DRANet-101 as released, but its classifiers are trained too",
    network=Network("resnet101s", layer4_dilations=(4, 8, 16), auxiliary=True, architecture="dranet"),
    data=Data("cityscapes", batch=8, crop=(768, 768), scale=(0.5, 2.0)),
    optim=Optim(epochs=240, lr=0.002, head_lr_factor=10.0),
    loss=Loss(auxiliary=0.2),
    validate_every=10,
)

DRANET = {
    "cityscapes-dranet101": Published(
        "dranet", 81.63, "released-single-cityscapes", "82.9 on the test server", _CITYSCAPES_101
    )
}
"""Recipe name -> row; `miou` is as published with the code."""
