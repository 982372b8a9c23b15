"""Recipes that a laptop can train: CamVid, your own folder, synthetic scenes."""

from dataclasses import replace

from danet.recipes.recipe import Criterion, Data, Loss, Network, Optim, Recipe

# align_corners=True is off by up to one stride at the right and bottom edges unless the size is a multiple of the
# stride plus 1. On small images this lowers the mIoU (docs/log.md).
_DECODER = Network("mobilenetv2_100", output_stride=16, width=128, align_corners=False, decoder=True, initial_scale=0.1)
_SUPERVISED = Loss(fused=1.0, position=0.4, channel=0.4, attention=0.4)
_ADAMW = Optim(algorithm="adamw", lr=3e-4, head_lr_factor=4.0, weight_decay=0.01, attention_weight_decay=0.0, ema=0.99)
_TOY = Network("test_resnet", width=64, align_corners=False, pretrained=False)

CAMVID = Recipe(
    about="CamVid street scenes, 11 classes; the recipe of the bundled weights",
    network=replace(_DECODER, decoder_width=128),
    # twice the original size: poles, signs and people are too small otherwise (docs/log.md)
    data=Data(
        "camvid",
        batch=2,
        crop=(576, 768),  # most of an image: half of it looks different (docs/log.md)
        scale=(1.2, 2.6),
        rare=0.3,
        jitter=0.3,
        photometric=True,
        degrade=0.2,
        size=960,
    ),
    optim=replace(_ADAMW, epochs=30, frozen_batch_norm=2, warmup=100),
    loss=_SUPERVISED,
    criterion=Criterion(lovasz=1.0),
    validate_every=5,
    calibrate=True,
)
FOLDER = Recipe(
    network=_DECODER,
    data=Data("folder", batch=4, crop=(384, 384), scale_from="size", jitter=0.3, size="auto"),
    optim=replace(_ADAMW, epochs=60, warmup=20),
    loss=_SUPERVISED,
    criterion=Criterion(lovasz=1.0),
    validate_every=3,  # after every epoch, validations would be half of a run on 20 images
    calibrate=True,
)
TOY = Recipe(
    about="synthetic street scenes; trains in two to three minutes on two cores, nothing to download",
    network=_TOY,
    data=Data("toy", batch=4, crop=(144, 192), scale=(1.0, 1.0), size=192),
    optim=Optim(epochs=1, lr=0.06, ema=0.98),
)
TOY_CONTEXT = replace(
    TOY,
    about="synthetic scenes in which an object at the far end of the street decides the class of a car",
    data=replace(TOY.data, dataset="toy-context", crop=(64, 320), flip=0.0, size=320),
    # alpha starts at 0, and long-range attention is learned only with a high learning rate of the head (docs/log.md)
    optim=Optim(epochs=2, lr=0.05, head_lr_factor=4.0, ema=0.98, warmup=100),
)
TOY_CONTEXT_FCN = replace(
    TOY_CONTEXT, about="toy-context without attention modules", network=replace(_TOY, position=False, channel=False)
)

SMALL = {
    "folder": FOLDER,
    "camvid": CAMVID,
    "toy": TOY,
    "toy-context": TOY_CONTEXT,
    "toy-context-fcn": TOY_CONTEXT_FCN,
}
