"""Settings that are sent along with every request, to the kinds of server that know the field."""

from ...schemas.backend_settings import BackendKind, BackendSettings
from ...schemas.errors import ConfigurationError

OPTIONS = ("reasoning_effort", "reasoning_format", "service_tier")
"""Their names, in the settings and on the wire."""

KNOWN: dict[BackendKind, tuple[str, ...]] = {
    BackendKind.cerebras: OPTIONS,
    BackendKind.openai: ("reasoning_effort", "service_tier"),
    BackendKind.vllm: ("reasoning_effort",),
    BackendKind.openvino: (),
}
"""Which of them a kind knows: the API references of Cerebras and OpenAI, and vLLM's `ChatCompletionRequest`."""


def sent_options(settings: BackendSettings) -> dict[str, str]:
    """Return what is set, by the name of its field."""
    values = {name: getattr(settings, name) for name in OPTIONS}
    return {name: value for name, value in values.items() if value is not None}


def check_options(settings: BackendSettings, *, name: str) -> None:
    """Refuse an option that the kind does not know: it would be refused by the server, or do nothing. Raises ConfigurationError."""
    kind = BackendKind(settings.backend)
    for option in sent_options(settings):
        if option not in KNOWN.get(kind, ()):
            known = " and ".join(str(one) for one in BackendKind if option in KNOWN.get(one, ()))
            raise ConfigurationError(
                f"backend {name!r}: {option} is for {known}; unset it, a {kind} backend has no such field"
            )
