"""What must hold among the named backends: names that differ, and stand-ins that exist and can be given the same prompts."""

from collections.abc import Mapping

from .backend_settings import BackendKind, BackendSettings

VARIABLE = "K2THINK_BACKENDS"


def check_pool(backends: Mapping[str, BackendSettings]) -> None:
    """Raise ValueError that names the variable and says what is wrong."""
    for name, backend in backends.items():
        if name in BackendKind.__members__:
            raise ValueError(f"{VARIABLE}: {name!r} is a kind of backend; give it another name")
        for word in backend.classes:
            if word in backends or word in BackendKind.__members__:
                raise ValueError(
                    f"{VARIABLE}: {name}.classes: {word!r} is the name of a backend or a kind of them already"
                )
        if name in backend.fallback or name == backend.hedge:
            raise ValueError(f"{VARIABLE}: {name}: a backend cannot stand in for itself")
        check_stand_ins(f"{VARIABLE}: {name}", backend, backends)


def check_stand_ins(place: str, backend: BackendSettings, backends: Mapping[str, BackendSettings]) -> None:
    """Check fallback and hedge of a backend that is set at `place`. Raises ValueError."""
    named = [("fallback", name) for name in backend.fallback] + ([("hedge", backend.hedge)] if backend.hedge else [])
    for field, name in named:
        if name not in backends:
            known = ", ".join(sorted(backends)) or "none"
            raise ValueError(f"{place}: {field}: unknown backend {name!r}; {VARIABLE} has {known}")
        own, other = backend.template_set, backends[name].template_set
        if own != other:
            raise ValueError(
                f"{place}: {field}: {name!r} has the prompt template set {other or 'of the request'!r}, this one "
                f"{own or 'of the request'!r}; a prompt is made once for both, so set the same `templates`"
            )
