"""The losses of an output against forms written pixel by pixel from their papers."""

import numpy as np
import pytest
import torch

from danet.model.criterion import IGNORE, dice_loss, lovasz_loss, near_boundary, output_loss
from danet.model.danet import TrainingOutputs
from danet.model.loss import multi_loss

K = 4


@pytest.fixture
def batch() -> tuple[torch.Tensor, torch.Tensor]:
    """Return logits and labels of three images: one without class 3, one with a single class, one ignored."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(0, K, (3, 9, 7), generator=generator)
    labels[0][labels[0] == 3] = 0
    labels[0, :2] = IGNORE
    labels[1] = 2
    labels[2] = IGNORE
    return 2 * torch.randn(3, K, 9, 7, generator=generator, dtype=torch.float64), labels


def valid_pixels(logits, labels):
    """Yield (image, probabilities K, label) of each valid pixel."""
    for b, image in enumerate(logits.softmax(1).numpy()):
        for (y, x), label in np.ndenumerate(labels[b].numpy()):
            if label != IGNORE:
                yield b, (y, x), image[:, y, x], int(label)


def test_focal_loss_is_cross_entropy_times_power_of_the_error(batch):
    logits, labels = batch
    weights = torch.tensor([1.0, 2.0, 0.5, 3.0], dtype=torch.float64)
    expected = sum(-weights[k] * (1 - p[k]) ** 2 * np.log(p[k]) for _, _, p, k in valid_pixels(logits, labels))
    assert output_loss(logits, labels, weights, "focal").item() == pytest.approx(float(expected))


def test_ohem_keeps_hard_pixels_and_the_weight_of_the_image(batch):
    logits, labels = batch
    expected = 0.0
    for image in range(3):
        true = [p[k] for b, _, p, k in valid_pixels(logits, labels) if b == image]
        if true:
            hard = [p for p in true if p < 0.7]
            expected += len(true) * np.mean(-np.log(hard))
    assert output_loss(logits, labels, pixel="ohem").item() == pytest.approx(expected)


def test_ohem_keeps_a_sixteenth_if_all_pixels_are_easy():
    labels = torch.zeros(1, 8, 8, dtype=torch.long)
    logits = torch.zeros(1, 2, 8, 8, dtype=torch.float64)
    logits[0, 0] = torch.linspace(3, 9, 64, dtype=torch.float64).view(8, 8)
    hardest = torch.nn.functional.softplus(-logits[0, 0].flatten()[:4])
    assert output_loss(logits, labels, pixel="ohem").item() == pytest.approx(64 * hardest.mean().item())


def test_pixels_near_another_class_count_five_times(batch):
    logits, labels = batch
    near = np.zeros(labels.shape, bool)
    for b, (y, x), _, _ in valid_pixels(logits, labels):
        window = labels[b, max(0, y - 3) : y + 4, max(0, x - 3) : x + 4].numpy()
        near[b, y, x] = len(set(window[window != IGNORE].tolist())) > 1
    assert np.array_equal(near_boundary(labels).numpy(), near)
    expected = 0.0
    for image in range(3):
        pixels = [
            (1 + 4 * near[b, y, x], -np.log(p[k])) for b, (y, x), p, k in valid_pixels(logits, labels) if b == image
        ]
        if pixels:
            factors, losses = map(np.array, zip(*pixels, strict=True))
            expected += len(pixels) * (factors * losses).sum() / factors.sum()
    assert output_loss(logits, labels, pixel="boundary").item() == pytest.approx(expected)


def test_dice_is_one_minus_twice_the_overlap_over_the_sizes(batch):
    logits, labels = batch
    expected = 0.0
    for image in range(2):
        pixels = [(p, k) for b, _, p, k in valid_pixels(logits, labels) if b == image]
        classes = {k for _, k in pixels}
        losses = []
        for c in classes:
            overlap, sizes = sum(p[c] for p, k in pixels if k == c), sum(p[c] + (k == c) for p, k in pixels)
            losses.append(1 - 2 * overlap / sizes)
        expected += len(pixels) * np.mean(losses)
    entropy = output_loss(logits, labels)
    assert (output_loss(logits, labels, dice=0.5) - entropy).item() == pytest.approx(0.5 * expected)


def test_lovasz_is_the_area_under_one_minus_iou_of_the_largest_errors(batch):
    """Berman et al., Eq. 9: with errors in decreasing order, each one times the change of 1 - IoU by its pixel."""
    logits, labels = batch
    probabilities = logits[0].softmax(0).flatten(1)[:, labels[0].flatten() != IGNORE]
    target = labels[0].flatten()[labels[0].flatten() != IGNORE]
    losses = []
    for c in target.unique().tolist():
        truth = (target == c).numpy()
        errors = np.abs(truth - probabilities[c].numpy())
        order, total, before = np.argsort(-errors), 0.0, 0.0
        for n in range(1, len(order) + 1):
            wrong = np.zeros(len(order), bool)
            wrong[order[:n]] = True
            jaccard = 1 - (truth & ~wrong).sum() / (truth | wrong).sum()
            total, before = total + errors[order[n - 1]] * (jaccard - before), jaccard
        losses.append(total)
    assert lovasz_loss(probabilities, target).item() == pytest.approx(np.mean(losses))


@pytest.mark.parametrize(("pixels", "tolerance"), [(60, 1e-12), (250_000, 1e-6)])
def test_lovasz_by_bins_has_the_value_of_the_sorted_errors(pixels, tolerance):
    """Of 60 pixels none share a bin; of 250,000 most do."""
    scores, target = random_pixels(pixels)
    assert (
        abs((lovasz_loss(scores.softmax(0), target) - lovasz_by_sorting(scores.softmax(0), target)).item()) < tolerance
    )


def test_lovasz_by_bins_has_the_gradient_of_the_sorted_errors():
    scores, target = random_pixels(60)
    losses = (loss(scores.softmax(0), target) for loss in (lovasz_loss, lovasz_by_sorting))
    binned, expected = (torch.autograd.grad(loss, scores)[0] for loss in losses)
    torch.testing.assert_close(binned, expected)


def test_lovasz_of_a_diverged_network_is_nan():
    scores, target = random_pixels(60)
    assert lovasz_loss((scores * torch.nan).softmax(0), target).isnan()


def random_pixels(count):
    generator = torch.Generator().manual_seed(0)
    target = torch.randint(0, K, (count,), generator=generator)
    return torch.randn(K, count, generator=generator, dtype=torch.float64).requires_grad_(), target


def lovasz_by_sorting(probabilities, target):
    """Return the loss as Berman et al. compute it in Algorithm 1."""
    losses = []
    for c in range(K):
        truth = (target == c).double()
        errors, order = (truth - probabilities[c]).abs().sort(descending=True)
        truth = truth[order]
        jaccard = 1 - (truth.sum() - truth.cumsum(0)) / (truth.sum() + (1 - truth).cumsum(0))
        losses.append(errors @ jaccard.diff(prepend=jaccard.new_zeros(1)))
    return torch.stack(losses).mean()


def test_perfect_and_opposite_predictions_have_the_ends_of_the_range():
    target = torch.tensor([0, 0, 1, 1, 1])
    perfect = torch.nn.functional.one_hot(target, 2).T.double()
    for loss in (dice_loss, lovasz_loss):
        assert loss(perfect, target).item() == pytest.approx(0)
        assert loss(1 - perfect, target).item() == pytest.approx(1)


@pytest.mark.parametrize(
    "options",
    [
        {"pixel": "focal"},
        {"pixel": "ohem"},
        {"pixel": "boundary"},
        {"dice": 1.0},
        {"lovasz": 1.0},
        {"label_smoothing": 0.1},
    ],
)
def test_an_image_has_the_same_gradient_alone_and_in_a_batch(batch, options):
    logits, labels = (tensor.clone() for tensor in batch)
    whole = torch.autograd.grad(output_loss(logits.requires_grad_(), labels, **options), logits)[0]
    for b in range(3):
        alone = logits[b : b + 1].detach().requires_grad_()
        loss = output_loss(alone, labels[b : b + 1], **options)
        torch.testing.assert_close(torch.autograd.grad(loss, alone)[0][0], whole[b])
    assert whole[:2].abs().sum() > 0
    assert whole[2].abs().sum() == 0


def test_only_the_fused_output_has_region_losses(batch):
    logits, labels = batch
    outputs = TrainingOutputs(logits, logits.flip(1), logits.flip(0))
    _, without = multi_loss(outputs, labels)
    _, parts = multi_loss(outputs, labels, criterion={"dice": 1.0, "lovasz": 1.0})
    assert parts["fused"] > without["fused"]
    assert (parts["position"], parts["channel"]) == (without["position"], without["channel"])
    _, smooth = multi_loss(outputs, labels, criterion={"label_smoothing": 0.1})
    assert smooth["position"] != without["position"]
