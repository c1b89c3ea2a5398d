"""The text that a hub shows of a model: README.md with a head in YAML, made of the model's card.

https://huggingface.co/docs/hub/model-cards describes the head. This module imports no torch.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import yaml

from tilepipe.models.card import ModelCard
from tilepipe.text import JSON, clean_line

LICENCES = {
    "apache-2.0": r"apache[- ]2(\.0)?",
    "bsd-3-clause": r"bsd-3-clause",
    "cc0-1.0": r"cc0(-1\.0)?",
    "cc-by-4.0": r"cc[- ]by[- ]4(\.0)?",
    "cc-by-nc-4.0": r"cc[- ]by-nc[- ]4(\.0)?",
    "cc-by-nc-sa-4.0": r"cc[- ]by-nc-sa[- ]4(\.0)?",
    "cc-by-sa-4.0": r"cc[- ]by-sa[- ]4(\.0)?",
    "mit": r"mit",
    "odbl": r"odbl(-1\.0)?",
}
"""The hub's names of licences, and how people write them."""


def hub_text(card: ModelCard, title: str) -> str:
    """Return the text of README.md for a model's card; `title` is the name of its folder."""
    head = yaml.safe_dump(_head(card), sort_keys=False, allow_unicode=True, width=1000)
    name = clean_line(card.name)
    size = f"{card.resolution:g} {card.unit} per pixel" if card.resolution else "any"
    bands = ", ".join(card.band_names) or str(card.bands)
    rows = {
        "image": f"bands: {bands}{f', {card.dtype}' if card.dtype else ''}; pixel size: {size}",
        "network sees": f"(pixel - mean) / std, mean {_numbers(card.mean, 0)}, std {_numbers(card.std, 1)}",
        "classes": ", ".join(f"{k} {clean_line(label)}" for k, label in enumerate(card.classes)),
        "licence": clean_line(card.license) or "not stated",
        "tiles": f"sides are multiples of {card.stride} px",
    }
    table = "\n".join(f"| {key} | {value.replace('|', '/')} |" for key, value in rows.items())
    training = _trained(card)
    scores = "\n".join(f"| {label} | {value:.3f} |" for label, value in _scores(card).items())
    measured = f"\n## Scores\n\nIoU on {_scored_on(card)}:\n\n| class | IoU |\n|---|---:|\n{scores}\n" if scores else ""
    return f"""---
{head}---

# {name}

{clean_line(card.description)}

| | |
|---|---|
{table}
{measured}
## How to use

`weights.onnx` holds this card in its metadata, so it can be used alone.

```sh
pip install 'tilepipe[onnx]'
tilepipe segment image.tif labels.tif -m {title}
```

```python
import tilepipe as tp

labels = tp.predict("image.tif", "{title}/weights.onnx", tp.Box(0, 0, 512, 512))
```

Other programs give the network tiles (batch, {card.bands}, height, width) in float32, scaled as the table says, and
take the class with the largest of the scores (batch, {len(card.classes)}, height, width).
{training}"""


def _head(card: ModelCard) -> JSON:
    subject = "pathology" if card.unit == "um" else "remote-sensing"
    scores, training = _scores(card), card.training or {}
    head: JSON = {
        **_licence(card.license),
        "library_name": "tilepipe",
        "pipeline_tag": "image-segmentation",
        "tags": ["tilepipe", "onnx", "semantic-segmentation", subject],
    }
    if scores:
        mean = training["scores"]["model"].get("mean_iou", sum(scores.values()) / len(scores))
        found = [{"type": "mean_iou", "name": "mean IoU", "value": float(mean)}]
        found += [{"type": "iou", "name": f"IoU of {clean_line(k)}", "value": float(v)} for k, v in scores.items()]
        result = {
            "task": {"type": "image-segmentation", "name": "semantic segmentation"},
            "dataset": {"type": "custom", "name": _scored_on(card)},
            "metrics": found,
        }
        head |= {"metrics": ["mean_iou"], "model-index": [{"name": clean_line(card.name), "results": [result]}]}
    return head


def _licence(text: str) -> JSON:
    found = {name for name, words in LICENCES.items() if re.search(rf"(?<![\w-]){words}(?![\w-])", text, re.IGNORECASE)}
    if len(found) == 1:
        return {"license": found.pop()}
    return {"license": "other", "license_name": clean_line(text) or "not stated"}


def _scores(card: ModelCard) -> Mapping[str, float]:
    iou: Any = ((card.training or {}).get("scores") or {}).get("model", {}).get("iou", {})
    return {label: float(iou[label]) for label in card.classes if label in iou}


def _scored_on(card: ModelCard) -> str:
    named = [clean_line(name) for name in (card.training or {}).get("scored_images", ())]
    return ", ".join(named[:5]) + (f" and {len(named) - 5} more" if len(named) > 5 else "") or "images not trained on"


def _trained(card: ModelCard) -> str:
    images = [clean_line(name) for name in (card.training or {}).get("images", ())]
    if not images:
        return ""
    listed = ", ".join(images[:5]) + (f" and {len(images) - 5} more" if len(images) > 5 else "")
    return f"\n## Training\n\nTrained with tilepipe on {listed}. `model.json` holds the configuration and the scores.\n"


def _numbers(values: tuple[float, ...], default: int) -> str:
    return ", ".join(f"{value:g}" for value in values) or str(default)
