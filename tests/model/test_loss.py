"""The multi-loss: valid pixels only, split steps add up, batches without labels."""

import pytest
import torch
import torch.nn.functional as F

from danet import Outputs
from danet.model import attention_kernels
from danet.model.attention_kernels import attention_weights
from danet.model.danet import AttentionRows, TrainingOutputs
from danet.model.loss import attention_loss, multi_loss


def outputs_and_labels(batch: int = 4) -> tuple[TrainingOutputs, torch.Tensor]:
    torch.manual_seed(0)
    outputs = TrainingOutputs(*(torch.randn(batch, 3, 6, 5, dtype=torch.float64, requires_grad=True) for _ in range(4)))
    labels = torch.randint(0, 3, (batch, 6, 5))
    labels[0, :, :3] = 255
    return outputs, labels


def test_loss_is_the_weighted_sum_of_mean_cross_entropies():
    outputs, labels = outputs_and_labels()
    total, parts = multi_loss(outputs, labels, {"fused": 1.0, "position": 0.5, "channel": 0.25, "auxiliary": 0.1})
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
        multi_loss(TrainingOutputs(*(o[part] for o in outputs[:4])), labels[part], valid_pixels=valid)[0]
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
    torch.testing.assert_close(multi_loss(Outputs(outputs.fused), labels, class_weights=weights.float())[0], total)


def rows_and_labels(batch: int = 2) -> tuple[AttentionRows, torch.Tensor]:
    query, key = (torch.randn(batch, 30, 4, dtype=torch.float64, requires_grad=True) for _ in range(2))
    labels = torch.randint(0, 3, (batch, 10, 24))
    labels[:, 4:8, 8:] = 255
    return AttentionRows(query, key, (5, 6)), labels


def dense_attention_loss(rows: AttentionRows, labels: torch.Tensor) -> torch.Tensor:
    """Sum the divergences of whole rows of S from rows uniform over the own class, times the pixels of a position."""
    small = labels[:, 1::2, 2::4].flatten(1)
    target = (small[:, :, None] == small[:, None]).double()
    target = target / target.sum(2, keepdim=True)
    divergence = F.kl_div(attention_weights(rows.query, rows.key).log(), target, reduction="none").sum(2)
    return 8 * divergence[small != 255].sum()


@pytest.mark.parametrize("largest", [0, 1 << 20], ids=["tiled", "dense"])
def test_attention_loss_and_gradients_equal_the_dense_form(largest, monkeypatch):
    monkeypatch.setattr(attention_kernels, "SMALL_MAP", largest)
    rows, labels = rows_and_labels()
    ours, dense = attention_loss(rows, labels, 3), dense_attention_loss(rows, labels)
    torch.testing.assert_close(ours, dense)
    gradients = [torch.autograd.grad(loss, (rows.query, rows.key)) for loss in (ours, dense)]
    torch.testing.assert_close(*gradients)


def test_attention_loss_is_zero_for_even_attention_to_the_own_class():
    labels = torch.randint(0, 3, (1, 5, 6))
    classes = 40 * F.one_hot(labels.flatten(1), 3).double()
    rows = AttentionRows(classes, classes, (5, 6))
    assert attention_loss(rows, labels, 3) < 1e-9
    assert attention_loss(rows._replace(key=-classes), labels, 3) > 30 * 40


def test_attention_losses_of_a_split_step_add_up():
    rows, labels = rows_and_labels(4)
    halves = [
        attention_loss(AttentionRows(rows.query[part], rows.key[part], rows.grid), labels[part], 3)
        for part in (slice(None, 1), slice(1, None))
    ]
    torch.testing.assert_close(halves[0] + halves[1], attention_loss(rows, labels, 3))


def test_attention_loss_without_labels_is_zero_with_zero_gradient():
    rows, labels = rows_and_labels()
    loss = attention_loss(rows, torch.full_like(labels, 255), 3)
    assert loss.item() == 0
    assert not any(gradient.any() for gradient in torch.autograd.grad(loss, (rows.query, rows.key)))
