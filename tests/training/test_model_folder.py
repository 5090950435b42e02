"""Where the model of a run comes from: a folder, or a hub."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from harness.hub import Hub, serving_hub
from harness.training import mini_checkpoint, need
from k2think.schemas.errors import K2ThinkError, NotFound, Unauthorized
from k2think.training.config import Model
from k2think.training.model_folder import find_model


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    need("huggingface_hub", "safetensors", "openvino")
    from huggingface_hub import constants

    (tmp_path / "model").mkdir()
    model = mini_checkpoint(tmp_path / "model")
    with serving_hub(Hub({"me/mini": model})) as serving:
        monkeypatch.setattr(constants, "ENDPOINT", serving.url)
        template = serving.url + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_IMPLICIT_TOKEN", True)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
        yield serving


def test_a_model_on_the_hub_is_downloaded_once(hub: Hub) -> None:
    folder = find_model(Model(name="me/mini"))
    assert (folder / "model.safetensors").is_file()
    assert (folder / "tokenizer" / "tokenizer.json").is_file()
    downloads = len(hub.ranges)
    assert find_model(Model(name="me/mini")) == folder
    assert len(hub.ranges) == downloads


@pytest.mark.parametrize(
    ("name", "kind", "said"),
    [
        pytest.param("me/other", NotFound, "has no model 'me/other'", id="unknown"),
        pytest.param("me/mini", Unauthorized, "ask for access", id="gated"),
    ],
)
def test_what_the_hub_refuses_is_explained(name: str, kind: type[K2ThinkError], said: str, hub: Hub) -> None:
    hub.gated.add("me/mini")
    with pytest.raises(kind, match=said):
        find_model(Model(name=name))
