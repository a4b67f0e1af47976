"""The model card: what an exported encoder is, for people and for the Hugging Face Hub."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from huggingface_hub import ModelCardData

from eosin.weights.markdown import code, fenced, table, text
from eosin.weights.origins import Ancestor, Inherited, ancestors, hub_id, inherited_licences

_METHODS = {
    "barlow_twins": ("Barlow Twins", "2103.03230"),
    "dino": ("DINO", "2104.14294"),
    "moco_v2": ("MoCo v2", "2003.04297"),
    "swav": ("SwAV", "2006.09882"),
}
_POOLINGS = {
    "cls": "the class token",
    "mean": "the mean over positions or patch tokens",
    "cls+mean": "the class token and the mean of the patch tokens, one after the other",
}
_SCORES = {"knn": "kNN accuracy", "knn_balanced": "kNN balanced accuracy", "linear": "linear probe"}

_IN_TIMM = """\
import timm, torch
from timm.data import create_transform, resolve_model_data_config

model = timm.create_model("local-dir:FOLDER", pretrained=True).eval()
transform = create_transform(**resolve_model_data_config(model))  # resizes and normalises
with torch.inference_mode():
    output = model(transform(image).unsqueeze(0))  # image: of PIL, RGB"""
_IN_EOSIN = """\
import eosin, torch

encoder = eosin.load_encoder("FOLDER")
with torch.inference_mode():
    embedding = encoder.embed(encoder.normalise(images))  # uint8 [B, 3, {side}, {side}], RGB"""


def write_card(config: Mapping[str, Any], files: Mapping[str, str], *, timm_note: str = "") -> str:
    """Writes the card of an exported encoder as Markdown, with the Hub's metadata before it.

    Args:
        config: what its `config.json` holds.
        files: sha256 of its files, by name.
        timm_note: how bare timm's output relates to the embedding, if it is not the same.
    """
    own: Mapping[str, Any] = config["eosin"]
    line = ancestors(str(own["name"]), own)
    licences = inherited_licences(str(own["name"]), own)
    parts = [
        f"---\n{_metadata(config, line, licences)}\n---",
        f"# {text(own['name'])}",
        _summary(config, line),
        _facts(config),
        _loading(config, timm_note, has_onnx="model.onnx" in files),
        _training(line),
        _evaluation(own),
        _licence(line, licences),
        _citation(line),
        _provenance(own, files),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _metadata(
    config: Mapping[str, Any], line: Sequence[Ancestor], licences: Sequence[Inherited]
) -> str:
    method = line[0].provenance.get("method")
    tags = ["timm", "pathology", "histopathology", "self-supervised-learning", "eosin"]
    tags += [str(method).replace("_", "-")] if method else []
    other = [each for each in licences if each.hub_id == "other" or len(licences) > 1]
    card = ModelCardData(
        license=hub_id(licences) if licences else None,
        license_name=" and ".join(each.hub_name or each.hub_id for each in other) or None,
        license_link=next((each.link for each in other if each.link), None),
        library_name="timm",
        pipeline_tag="image-feature-extraction",
        tags=[*tags, str(config["architecture"])],
    )
    return card.to_yaml(line_break="\n")


def _summary(config: Mapping[str, Any], line: Sequence[Ancestor]) -> str:
    newest = line[0]
    what = f"An encoder of histopathology images: {text(config['architecture'])}"
    if newest.was_trained_here:
        what += f", pre-trained with {_method(newest)} by Eosin"
        seen = newest.provenance.get("tiles_seen")
        what += f" on {seen:,} tiles (with repetition)" if isinstance(seen, int) else ""
    elif newest.is_random:
        what += " with random weights, for comparison"
    before = f", starting from {text(line[1].name)}" if len(line) > 1 else ""
    return f"{what}{before}. It gives a vector for each image; it has no classifier."


def _facts(config: Mapping[str, Any]) -> str:
    data, own = config["pretrained_cfg"], config["eosin"]
    side = data["input_size"][-1]
    pooling = _POOLINGS.get(str(own["pooling"]), "as the architecture does it")
    mpps = {mpp for source in _sources(own) for mpp in source.get("mpp", ())}
    rows = [
        ("architecture (timm)", code(config["architecture"])),
        ("arguments", code(json.dumps(config["model_args"]))),
        ("input", f"RGB, {side} x {side} px, other sizes resized ({text(data['interpolation'])})"),
        ("resolution of training tiles", ", ".join(f"{mpp:g} mpp" for mpp in sorted(mpps))),
        ("mean of pixels in [0, 1]", _listed(data["mean"])),
        ("standard deviation", _listed(data["std"])),
        ("pooling", f"{code(own['pooling'])}: {pooling}"),
        ("embedding", f"{own['embed_dim']} values"),
    ]
    return table(("", ""), [row for row in rows if row[1]])


def _loading(config: Mapping[str, Any], timm_note: str, *, has_onnx: bool) -> str:
    side = config["pretrained_cfg"]["input_size"][-1]
    lines = [
        "## Loading",
        "`FOLDER` is where this card lies; on the Hugging Face Hub, give `hf-hub:OWNER/NAME` "
        "instead. With [timm](https://github.com/huggingface/pytorch-image-models) alone:",
        fenced("python", _IN_TIMM),
        timm_note or "The output is the embedding.",
        "With Eosin, which keeps the pooling and what else timm's format has no place for:",
        fenced("python", _IN_EOSIN.format(side=side)),
    ]
    if has_onnx:
        lines += [
            f"`model.onnx` takes `images`, uint8 `[B, 3, {side}, {side}]`, RGB as they are: it "
            "normalises them itself. It gives `embedding`, the same vector as Eosin's."
        ]
    return "\n\n".join(lines)


def _training(line: Sequence[Ancestor]) -> str:
    trained = [each for each in line if each.was_trained_here]
    parts = [_one_training(each) for each in trained]
    if len(line) > len(trained) and not line[-1].is_random:
        parts.append(f"The first weights were those of {_origin(line[-1])}.")
    return "\n\n".join(["## Training", *parts]) if parts else ""


def _one_training(ancestor: Ancestor) -> str:
    told = ancestor.provenance
    sources = [
        (
            text(source.get("name", "unnamed")),
            _count(source.get("tiles")),
            ", ".join(f"{mpp:g}" for mpp in source.get("mpp", ())),
            code(str(source.get("sha256", ""))[:16]),
        )
        for source in _sources(told)
    ]
    facts = [
        f"updates: {_count(told.get('updates'))}",
        f"tiles seen: {_count(told.get('tiles_seen'))}",
        f"processes: {_count(told.get('processes'))}",
        f"hardware: {text(told.get('hardware', 'not recorded'))}",
        f"versions: {_versions(told)}",
        f"date: {text(told.get('created', 'not recorded'))}",
    ]
    name = f"{text(ancestor.name)}: {_method(ancestor)}"
    settings = json.dumps(told["config"], indent=2, ensure_ascii=False)
    return "\n\n".join(
        [
            name,
            table(("tiles of", "number", "mpp", "fingerprint"), sources),
            "\n".join(f"- {fact}" for fact in facts),
            f"<details><summary>All settings</summary>\n\n{fenced('json', settings)}\n\n</details>",
        ]
    )


def _sources(told: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The tiles that an encoder was trained on; exports of other tools name none."""
    data = told.get("data")
    sources = data if isinstance(data, list) else []
    return [source for source in sources if isinstance(source, Mapping)]


def _evaluation(own: Mapping[str, Any]) -> str:
    found = own.get("evaluation")
    if not isinstance(found, Mapping) or not found:
        return ""
    rows = [
        (title, f"{100 * found[name]:.1f} %") for name, title in _SCORES.items() if name in found
    ]
    images = f" on {text(found['images'])}" if found.get("images") else ""
    where = f"Measured during training, after update {_count(found.get('update'))}{images}. "
    caution = "A run's best encoder is chosen by these figures, so they are no test result."
    return "\n\n".join(["## Evaluation", where + caution, table(("score", ""), rows)])


def _licence(line: Sequence[Ancestor], licences: Sequence[Inherited]) -> str:
    if not licences:
        if line[-1].is_random:
            words = "Nothing was learnt by these weights; none is stated."
        elif line[-1].is_own:
            words = (
                "These weights were trained from random ones, so their licence is for those who "
                "trained them to decide, as far as the licence of the training images allows. None "
                "is stated here: add `license:` to the metadata above when you share them."
            )
        else:
            words = (
                "The licence of the weights that these come from is not known to Eosin. Find it "
                "out before you share them."
            )
        return f"## Licence\n\n{words}"
    return "\n\n".join(["## Licence", *(_one_licence(each, line[0].name) for each in licences)])


def _one_licence(licence: Inherited, name: str) -> str:
    link = f" ({licence.link})" if licence.link else ""
    what = "These weights" if licence.encoder == name else "These weights derive from it and"
    lines = [f"{text(licence.encoder)}: {text(licence.text)}{link}. {what} are under its terms."]
    return "\n".join([*lines, "", *(f"- {text(term)}" for term in licence.terms)]).rstrip()


def _citation(line: Sequence[Ancestor]) -> str:
    found = [
        f"- {title}: https://arxiv.org/abs/{paper}"
        for each in line
        for title, paper in [_METHODS.get(str(each.provenance.get("method")), ("", ""))]
        if paper
    ]
    found += [
        f"- {text(each.name)}: {text(each.provenance['citation'])}"
        for each in line
        if each.provenance.get("citation")
    ]
    return "\n".join(["## Citation", "", *dict.fromkeys(found)]) if found else ""


def _provenance(own: Mapping[str, Any], files: Mapping[str, str]) -> str:
    rows = [(text(name), code(sha256)) for name, sha256 in files.items()]
    rows += [
        (title, code(own[key]))
        for title, key in {
            "weights (names, shapes and values)": "weights_sha256",
            "settings of the run": "config_sha256",
            "file of the first weights": "file_sha256",
        }.items()
        if own.get(key)
    ]
    return "\n\n".join(
        [
            "## Provenance",
            "`config.json` has all of it under `eosin`, also that of earlier weights."
            + _exported(own),
            table(("what", "sha256"), rows),
        ]
    )


def _exported(own: Mapping[str, Any]) -> str:
    stamp = own.get("exported")
    if not isinstance(stamp, Mapping):
        return ""
    return f" Exported on {text(stamp.get('created', 'an unknown date'))} with {_versions(stamp)}."


def _origin(ancestor: Ancestor) -> str:
    told = ancestor.provenance
    known = [str(told[key]) for key in ("file", "source", "repo", "url") if told.get(key)]
    return text(ancestor.name) + (f" ({text(', '.join(known))})" if known else "")


def _method(ancestor: Ancestor) -> str:
    method = str(ancestor.provenance.get("method", ""))
    return _METHODS[method][0] if method in _METHODS else text(method)


def _versions(told: Mapping[str, Any]) -> str:
    versions = told.get("versions")
    if not isinstance(versions, Mapping):
        return "not recorded"
    return text(", ".join(f"{package} {version}" for package, version in versions.items()))


def _count(value: Any) -> str:
    return f"{value:,}" if isinstance(value, int) else "not recorded"


def _listed(values: Sequence[float]) -> str:
    return code(", ".join(f"{value:.8g}" for value in values))
