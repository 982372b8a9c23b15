"""The multi-loss: valid pixels only, split steps add up, batches without labels."""

import pytest
import torch
import torch.nn.functional as F

from danet import Outputs
from danet.model.danet import AuxiliaryOutputs
from danet.model.loss import multi_loss


def outputs_and_labels(batch: int = 4) -> tuple[AuxiliaryOutputs, torch.Tensor]:
    torch.manual_seed(0)
    outputs = AuxiliaryOutputs(
        *(torch.randn(batch, 3, 6, 5, dtype=torch.float64, requires_grad=True) for _ in range(4))
    )
    labels = torch.randint(0, 3, (batch, 6, 5))
    labels[0, :, :3] = 255
    return outputs, labels


def test_loss_is_the_weighted_sum_of_mean_cross_entropies():
    outputs, labels = outputs_and_labels()
    total, parts = multi_loss(outputs, labels, (1.0, 0.5, 0.25, 0.1))
    means = [F.cross_entropy(logits, labels, ignore_index=255) for logits in outputs if logits is not None]
    torch.testing.assert_close(total, means[0] + 0.5 * means[1] + 0.25 * means[2] + 0.1 * means[3])
    torch.testing.assert_close(list(parts.values()), means)


def test_default_factors_are_the_released_and_mmsegmentation_ones():
    outputs, labels = outputs_and_labels()
    total, parts = multi_loss(outputs, labels)
    torch.testing.assert_close(total, parts["fused"] + parts["position"] + parts["channel"] + 0.4 * parts["auxiliary"])


def test_batch_without_labels_has_zero_loss_and_gradient():
    outputs, labels = outputs_and_labels()
    total, _ = multi_loss(outputs, torch.full_like(labels, 255))
    total.backward()
    assert total.item() == 0
    assert outputs.fused.grad is not None
    assert not outputs.fused.grad.any()


@pytest.mark.parametrize("cut", [1, 2, 3])
def test_losses_of_a_split_step_add_up(cut):
    outputs, labels = outputs_and_labels()
    whole, _ = multi_loss(outputs, labels)
    valid = (labels != 255).sum()
    halves = [
        multi_loss(AuxiliaryOutputs(*(o[part] for o in outputs)), labels[part], valid_pixels=valid)[0]
        for part in (slice(None, cut), slice(cut, None))
    ]
    torch.testing.assert_close(halves[0] + halves[1], whole)


def test_one_output_has_one_loss():
    outputs, labels = outputs_and_labels()
    total, parts = multi_loss(Outputs(outputs.fused), labels)
    assert list(parts) == ["fused"]
    torch.testing.assert_close(total, F.cross_entropy(outputs.fused, labels, ignore_index=255))


def test_class_weights_scale_pixels_but_not_the_divisor():
    outputs, labels = outputs_and_labels()
    weights = torch.tensor([2.0, 0.5, 0.0], dtype=torch.float64)
    total, _ = multi_loss(Outputs(outputs.fused), labels, class_weights=weights)
    by_pixel = F.cross_entropy(outputs.fused, labels, ignore_index=255, reduction="none")
    factor = torch.cat([weights, torch.zeros(253, dtype=torch.float64)])[labels]
    torch.testing.assert_close(total, (by_pixel * factor).sum() / (labels != 255).sum())
