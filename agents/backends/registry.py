"""From settings to a backend. Each kind's module, and what it needs, is imported only when that kind is asked for."""

from pydantic import SecretStr

from ...schemas.backend_settings import BackendKind, BackendSettings
from ...schemas.errors import ConfigurationError
from .base import Backend
from .options import check_options


def create_backend(settings: BackendSettings, *, name: str, cerebras_api_key: SecretStr | None = None) -> Backend:
    """Return the backend that `settings` describe; nothing is connected or loaded yet.

    `name` is the kind, or the key in K2THINK_BACKENDS. `cerebras_api_key` serves a cerebras backend whose own key is unset.
    A role whose `backend` refers to K2THINK_BACKENDS must be resolved first (`Settings.resolve`). Raises ConfigurationError
    for a missing package, model folder, key or model name.
    """
    if settings.backend not in BackendKind.__members__:
        kinds = ", ".join(BackendKind.__members__)
        raise ConfigurationError(
            f"{settings.backend!r} is no kind of backend; choose one of {kinds}, or define it in K2THINK_BACKENDS"
        )
    check_options(settings, name=name)
    match BackendKind(settings.backend):
        case BackendKind.openai:
            from .openai import OpenAIBackend

            return OpenAIBackend(settings, name=name)
        case BackendKind.vllm:
            from .vllm import VllmBackend

            return VllmBackend(settings, name=name)
        case BackendKind.vllm_engine:
            from .vllm_engine import VllmEngineBackend

            return VllmEngineBackend(settings, name=name)
        case BackendKind.cerebras:
            from .cerebras import CerebrasBackend

            if settings.api_key is None:
                settings = settings.model_copy(update={"api_key": cerebras_api_key})
            return CerebrasBackend(settings, name=name)
        case BackendKind.openvino:
            from .openvino import OpenVINOBackend

            return OpenVINOBackend(settings, name=name)
