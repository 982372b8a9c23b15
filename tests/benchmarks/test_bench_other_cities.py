"""The benchmark of other cities: classes that agree by name, and scores over them."""

import numpy as np
import pytest
from miniature import image, save

import danet
from benchmarks.other_cities import SAME_CLASSES, class_iou, confusion_matrices, mean_class_iou
from danet import DANet, InputError
from danet.data.classes import Classes
from danet.data.datasets.camvid import CLASSES
from danet.weights import file as weights_file


def network(path, classes: Classes) -> danet.Predictor:
    arguments = {"num_classes": len(classes), "backbone": "test_resnet", "width": 16}
    card = weights_file.Card(arguments, classes, (0.5,) * 3, (0.5,) * 3, size=64)
    weights_file.save(path, DANet(**arguments), card)
    return danet.load(path)


def test_pixels_are_counted_in_the_classes_that_agree(tmp_path):
    image(tmp_path / "images/val/a.jpg", 48, 64)
    labels = np.zeros((48, 64), np.uint8)
    labels[:8], labels[8:12] = 1, 2
    save(tmp_path / "labels/val/a.png", labels)
    (tmp_path / "classes.txt").write_text("drivable\nsky\nelephant\n")
    predictor = network(tmp_path / "w.safetensors", CLASSES)
    labels = predictor(tmp_path / "images/val/a.jpg").labels
    same = {"road": (["drivable"], ["road"]), "sky": (["sky"], ["sky"])}
    (matrix,) = confusion_matrices(predictor, tmp_path, same)
    assert matrix.sum() == 44 * 64, "no elephants"
    road = predictor.classes.names.index("road")
    assert matrix[0, 0] == (np.asarray(labels)[12:] == road).sum()
    assert matrix[0].sum() == 36 * 64
    with pytest.raises(InputError, match="weights: have no class road"):
        confusion_matrices(network(tmp_path / "v.safetensors", Classes.named(("sky",))), tmp_path, same)


def test_predictions_of_other_classes_are_wrong():
    matrix = np.array([[6, 0, 4], [0, 5, 0], [0, 0, 0]])
    assert class_iou(matrix).tolist() == [0.6, 1.0]
    assert mean_class_iou(matrix, np.zeros(3, bool)) == 0.8
    assert mean_class_iou(matrix, np.array([True, False, False])) == 1.0


def test_classes_of_camvid_are_named_once():
    for same in SAME_CLASSES.values():
        names = [name for _, ours in same.values() for name in ours]
        assert len(names) == len(set(names))
        assert set(names) <= set(CLASSES.names)
