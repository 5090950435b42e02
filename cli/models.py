"""`k2think models …`: the embedded engine's models: what is here, download, conversion."""

import shutil
import sys
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from ..schemas.backend_settings import BUNDLED_MODEL
from ..schemas.completion import ChatMessage, CompletionRequest
from ..schemas.errors import BackendError, ConfigurationError, InvalidRequest, NotFound
from ..schemas.settings import load_settings
from .progress import Stages
from .terminal import cell, console, plain, print_json, table

DOWNLOADS = ".downloads"
"""Folder, among the models, of downloads that are not complete or not converted."""

models_app = typer.Typer(
    help="Models of the embedded engine: list, download, convert. K2THINK_GENERATOR__MODEL=NAME uses one.",
    no_args_is_help=True,
)

WeightFormat = Literal["int8", "int4", "fp16", "fp32"]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Format = Annotated[
    WeightFormat | None,
    typer.Option("--weight-format", help="How the weights are kept. Default: fp16 up to 2 GB of them, int8 beyond."),
]


@models_app.command("list")
def list_(as_json: AsJson = False) -> None:
    """List the bundled model and those in the data folder, with size, weights and context.

    Example:

      k2think models list --json | jq -r '.[] | select(.usable) | .name'
    """
    rows = [_row(name, folder) for name, folder in _found()]
    if as_json:
        print_json(rows)
        return
    shown = table("NAME", "SIZE", "PARAMETERS", "WEIGHTS", "CONTEXT", "TEMPLATES", "PATH", wide="PATH")
    for row in rows:
        context = f"{row['context_tokens']:,}" if row["context_tokens"] else "-"
        weights = (row["weights"] or "-") if row["usable"] else "not usable"
        known = (_size(row["bytes"]), _count(row["parameters"]), weights, context, row["templates"] or "default")
        shown.add_row(cell(row["name"]), *map(cell, known), cell(row["path"]))
    # A long path takes what is left, not what the others need.
    shown.expand = True
    console().print(shown)
    for row in rows:
        if not row["usable"]:
            print(plain(f"{row['name']}: {row['problem']}"))


@models_app.command("pull")
def pull(
    name: Annotated[str, typer.Argument(help="Repository on the Hugging Face hub, such as OWNER/NAME.")],
    revision: Annotated[str | None, typer.Option(help="Branch, tag or commit. Default: the main branch.")] = None,
    weight_format: Format = None,
) -> None:
    """Download a model from the Hugging Face hub into the data folder, and convert it where it is not OpenVINO's form.

    A download that broke goes on when it is asked for again. HF_ENDPOINT and HF_TOKEN are the library's own variables.

    Examples:

      k2think models pull OpenVINO/Qwen2.5-1.5B-Instruct-int8-ov

      k2think models pull Qwen/Qwen2.5-0.5B-Instruct --weight-format int8
    """
    from .model_hub import download, look_up

    models = _models_dir()
    out = models / name
    if out.is_dir() and models.resolve() in out.resolve().parents:
        _ready(out, name)
        return
    repository = look_up(name, revision=revision)
    if repository.openvino and weight_format is not None:
        raise InvalidRequest(f"{name} is in OpenVINO's form already: its weights are as they are, drop --weight-format")
    print(f"downloading {name}: {len(repository.sizes)} files, {_size(repository.bytes)}", file=sys.stderr)
    source = models / DOWNLOADS / name
    download(repository, source)
    if repository.openvino and (source / "openvino_tokenizer.xml").is_file():
        shutil.rmtree(source / ".cache", ignore_errors=True)
        out.parent.mkdir(parents=True, exist_ok=True)
        source.rename(out)
    else:
        _convert(source, out, weight_format)
        shutil.rmtree(source)
    _ready(out, name)


@models_app.command("convert")
def convert(
    model: Annotated[
        str, typer.Argument(metavar="FOLDER|NAME", help="A model folder, or the name of one in the data folder.")
    ],
    weight_format: Format = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder to write. Default: one named like the model, in the data folder.")
    ] = None,
) -> None:
    """Bring a Hugging Face or OpenVINO model folder to the embedded engine, and check that it loads and writes.

    The converters (torch, optimum-intel) are installed into the data folder when first needed: about 1.6 GB.

    Example:

      export $(k2think models convert ./Qwen2.5-0.5B-Instruct --weight-format int8)
    """
    models = _models_dir()
    source = _source(model, models)
    whole = all((source / file).is_file() for file in _needed())
    if whole and weight_format is not None:
        raise InvalidRequest(
            f"{source} is in OpenVINO's form already: its weights are as they are, drop --weight-format"
        )
    if whole and out is None:
        _ready(source, _name_of(source, models))
        return
    target = _target(source, models, weight_format) if out is None else out.expanduser().absolute()
    if target.exists():
        raise InvalidRequest(f"{target} exists already: name another folder with --out, or remove it")
    if whole:
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copytree(source, target)
    else:
        _convert(source, target, weight_format)
    _ready(target, _name_of(target, models))


def _models_dir() -> Path:
    from ..workers.stack import prepare_data_dir

    settings = load_settings()
    prepare_data_dir(settings)
    settings.models_dir.mkdir(exist_ok=True)
    return settings.models_dir


def _needed() -> tuple[str, ...]:
    from ..agents.backends.openvino_folder import FILES

    return FILES


def _found() -> list[tuple[str, Path]]:
    """The bundled model, then the folders of the data folder that hold a model in any form, by name."""
    from ..agents.backends.openvino_folder import MODELS_DIR

    models = load_settings().models_dir
    configured = [*models.glob("*/config.json"), *models.glob("*/*/config.json")]
    folders = {
        file.parent for file in configured if not any(part.startswith(".") for part in file.relative_to(models).parts)
    }
    own = sorted((folder.relative_to(models).as_posix(), folder) for folder in folders)
    return [(BUNDLED_MODEL, MODELS_DIR / BUNDLED_MODEL), *own]


def _row(name: str, folder: Path) -> dict[str, Any]:
    from ..agents.backends.openvino_folder import describe_folder

    row: dict[str, Any] = {"name": name, "path": str(folder), "bundled": name == BUNDLED_MODEL}
    unknown = {"bytes": 0, "parameters": 0, "weights": "", "context_tokens": None, "templates": None}
    try:
        held = describe_folder(folder)
    except ConfigurationError as exc:
        how = f"{exc}; `k2think models convert {name}` may bring it here"
        return row | unknown | {"usable": False, "problem": how}
    own = "mini" if row["bundled"] else held.templates
    known = {"bytes": held.bytes, "parameters": held.parameters, "weights": held.weights}
    return row | known | {"context_tokens": held.context_tokens, "templates": own, "usable": True, "problem": None}


def _source(model: str, models: Path) -> Path:
    for folder in (Path(model).expanduser(), models / model, models / DOWNLOADS / model):
        if folder.is_dir():
            return folder.resolve()
    raise NotFound(
        f"there is no folder {model}, nor a model of that name in {models}: `k2think models pull {model}` gets one"
    )


def _target(source: Path, models: Path, weight_format: WeightFormat | None) -> Path:
    """Where a converted model goes: under its own name, or one with the format where that is taken."""
    from .model_conversion import default_format

    named = models / _name_of(source, models)
    return named if not named.exists() else named.with_name(f"{named.name}-{weight_format or default_format(source)}")


def _name_of(folder: Path, models: Path) -> str:
    """What the setting calls a folder: its name in the data folder, else, for one that is elsewhere, the last part."""
    for place in (models / DOWNLOADS, models):
        if place.resolve() in folder.resolve().parents:
            return folder.resolve().relative_to(place.resolve()).as_posix()
    return folder.name


def _convert(source: Path, out: Path, weight_format: WeightFormat | None) -> None:
    from .model_conversion import Environment, convert

    with Stages(quiet=False) as stages:
        environment = Environment(load_settings().data_dir)
        convert(source, out, weight_format=weight_format, environment=environment, note=stages.note)


def _ready(folder: Path, name: str) -> None:
    """Load a model and let it write one token; print the setting that uses it."""
    import asyncio

    from ..agents.backends.openvino_folder import describe_folder

    with Stages(quiet=False) as stages:
        stages.note(f"checking that {name} loads and writes")
        asyncio.run(_write_a_token(folder))
    held = describe_folder(folder)
    about = [f"{_count(held.parameters)} parameters", held.weights, _size(held.bytes)]
    said = ", ".join(part for part in about if part)
    print(f"{name} is ready: {said}, in {folder}. To use it, set", file=sys.stderr)
    inside = load_settings().models_dir.resolve() in folder.resolve().parents
    print(f"K2THINK_GENERATOR__MODEL={name if inside else folder}")


async def _write_a_token(folder: Path) -> None:
    from ..agents.backends.openvino import OpenVINOBackend
    from ..schemas.backend_settings import BackendSettings

    backend = OpenVINOBackend(BackendSettings(model=str(folder)), name="openvino")
    request = CompletionRequest(messages=(ChatMessage(role="user", content="Say one word."),), max_tokens=1)
    try:
        async for _ in backend.stream(request):
            pass
    except BackendError as exc:
        raise ConfigurationError(f"{folder} loads, but writes nothing: {exc}") from exc
    finally:
        await backend.aclose()


def _size(bytes_: int) -> str:
    return f"{bytes_ / 1e9:.1f} GB" if bytes_ >= 1e9 else f"{bytes_ / 1e6:.1f} MB"


def _count(number: int) -> str:
    if not number:
        return "-"
    return f"{number / 1e9:.1f} B" if number >= 1e9 else f"{number / 1e6:.1f} M"
