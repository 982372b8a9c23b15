"""The page of an evaluation. Command: `danet evaluate W ... --report FILE.html`."""

from dataclasses import asdict

from danet.data.samples import Samples
from danet.evaluate.boundary import TOLERANCES
from danet.evaluate.evaluation import Evaluation
from danet.evaluate.predicted_files import PredictedFiles
from danet.predict.predictor import Predictor
from danet.predict.protocols import find_protocol
from danet.visualize import sections, worst_images
from danet.visualize.html import Section, document, escape, pairs, percent


def page(evaluation: Evaluation, source: Predictor | PredictedFiles, samples: Samples, about: dict[str, str]) -> bytes:
    """Return the page of an evaluation.

    Args:
        evaluation: the scores.
        source: the network, or the files, that were evaluated.
        samples: the images on which it was evaluated.
        about: what was evaluated, to be listed: weights and protocol (a key of PROTOCOLS), or predictions; dataset,
            split and more.
    """
    scores = evaluation.confusion.scores()
    if isinstance(source, Predictor):
        name, by = about["weights"], f", by the protocol {escape(about['protocol'])}"
        protocol = source.resolve_protocol(find_protocol(about["protocol"]))
        details = {"sha256 of the tensors": source.card.sha256, "size": source.card.size} | asdict(protocol)
        drawings = worst_images.drawn(source, samples, evaluation.images, protocol)
        settings = [sections.settings(source.card.recipe)]
    else:
        name, by, details, settings = about["predictions"], "", {}, []
        drawings = worst_images.drawn(source, samples, evaluation.images)
    lead = f"{escape(name)} on {sections.validation_images(len(samples), about['dataset'], about['split'])}{by}."
    facts = [
        ("mIoU", percent(scores.miou, 2, "%")),
        ("pixel accuracy", percent(scores.pixel_accuracy, 2, "%")),
        ("mean accuracy", percent(scores.mean_accuracy, 2, "%")),
        *_boundary(evaluation),
        ("calibration error", percent(evaluation.calibration.error, 2, "%")),
    ]
    if (cityscapes := evaluation.cityscapes_scores) is not None:
        facts += [(name, percent(value, 2, "%")) for name, value in cityscapes.means().items()]
    parts = [
        sections.classes(evaluation.confusion, evaluation.classes, evaluation.boundary),
        sections.confusion(evaluation.confusion, evaluation.classes),
        *([] if evaluation.attention is None else [sections.attention(evaluation.attention)]),
        sections.trust(evaluation.calibration, evaluation.boundary),
        sections.images(evaluation.images, drawings),
        _method(about, details),
        *settings,
    ]
    return document(f"Evaluation of {name}", lead, facts, parts)


def _boundary(evaluation: Evaluation) -> list[tuple[str, str]]:
    tolerance = TOLERANCES[2]
    value = float(evaluation.boundary.scores().mean_f[2])
    return [(f"boundary F, {tolerance} pixels", percent(value, 2, "%"))]


def _method(about: dict[str, str], details: dict[str, object]) -> Section:
    entries = [(name.replace("_", " "), str(value)) for name, value in (about | details).items()]
    return Section("How it was evaluated", pairs(entries))
