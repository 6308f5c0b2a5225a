"""Settings reach the objects that they are about."""

from __future__ import annotations

from pathlib import Path

import pytest

from experiments.build import build_model
from experiments.config import AdapterSettings, BackboneSettings, HeadSettings
from meta_models.errors import ModelError
from meta_models.store import Keep


def test_the_limits_of_what_is_kept(tmp_path: Path) -> None:
    backbone = BackboneSettings(
        name="tiny-bert", trunk_memory=0, trunk_disk=0.5, trunk_folder=str(tmp_path)
    )
    model = build_model(backbone, AdapterSettings(layers=(1,)), HeadSettings())
    assert model.trunk and model.trunk.store.keep == Keep(0, 0.5, tmp_path)

    default = build_model(BackboneSettings(name="tiny-bert"), AdapterSettings(), HeadSettings())
    assert default.adapter.keep == Keep()


@pytest.mark.parametrize("kind", ["8bit", "4bit"])
def test_quantized_weights(kind: str) -> None:
    pytest.importorskip("bitsandbytes", reason="needs the extra 'quantized'")
    backbone = BackboneSettings.model_validate({"name": "tiny-bert", "quantize": kind})
    model = build_model(backbone, AdapterSettings(), HeadSettings())
    assert getattr(model.adapter.backbone.model, f"is_loaded_in_{kind}")


def test_quantized_layers_are_not_divided() -> None:
    backbone = BackboneSettings(name="tiny-bert", quantize="8bit", shard=True)
    with pytest.raises(ModelError, match=r"^quantized layers cannot be divided; drop"):
        build_model(backbone, AdapterSettings(), HeadSettings())
