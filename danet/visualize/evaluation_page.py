"""The page of an evaluation. Command: `danet evaluate W ... --report FILE.html`."""

from dataclasses import asdict

from danet.data.samples import Samples
from danet.evaluate.boundary import TOLERANCES
from danet.evaluate.evaluation import Evaluation
from danet.predict.predictor import Predictor
from danet.predict.protocols import find_protocol
from danet.visualize import scores, worst_images
from danet.visualize.html import Section, document, escape, pairs, percent


def page(measured: Evaluation, predictor: Predictor, samples: Samples, about: dict[str, str]) -> bytes:
    """The page of an evaluation over these samples.

    Args:
        about: what was evaluated, by name: weights, dataset, split, protocol (one of `danet.inference.PROTOCOLS`).
    """
    found, card = measured.confusion.scores(), predictor.card
    protocol = predictor.resolve_protocol(find_protocol(about["protocol"]))
    lead = (
        f"{escape(about['weights'])} on the {len(samples)} full images of {escape(about['dataset'])} "
        f"{escape(about['split'])}, shown by the protocol {escape(about['protocol'])}."
    )
    facts = [
        ("mIoU", f"{percent(found.miou, 2)} %"),
        ("pixel accuracy", f"{percent(found.pixel_accuracy, 2)} %"),
        ("mean accuracy", f"{percent(found.mean_accuracy, 2)} %"),
        *_boundary(measured),
        ("calibration error", f"{percent(measured.calibration.error, 2)} %"),
    ]
    if (special := measured.cityscapes_scores) is not None:
        facts += [(name, f"{percent(value, 2)} %") for name, value in special.means().items()]
    sections = [
        scores.classes(measured.confusion, measured.classes, measured.boundary),
        scores.confusion(measured.confusion, measured.classes.names),
        scores.trust(measured.calibration, measured.boundary),
        scores.images(measured.images, worst_images.drawn(predictor, samples, measured.images, protocol)),
        _how(about, {"sha256 of the tensors": card.sha256, "size shown": card.size} | asdict(protocol)),
        scores.settings(card.recipe),
    ]
    return document(f"Evaluation of {about['weights']}", lead, facts, sections)


def _boundary(measured: Evaluation) -> list[tuple[str, str]]:
    within = TOLERANCES[2]
    return [(f"boundary F, {within} pixels", f"{percent(float(measured.boundary.scores().mean_f[2]), 2)} %")]


def _how(about: dict[str, str], details: dict[str, object]) -> Section:
    entries = [(name.replace("_", " "), str(value)) for name, value in (about | details).items()]
    return Section("How it was measured", pairs(entries))
