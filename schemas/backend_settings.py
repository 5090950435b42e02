"""The settings of one model backend: kind, place, limits, and what stands in when it fails."""

from enum import StrEnum
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, SecretStr, model_validator

from .speculation import PATTERN

BUNDLED_MODEL = "k2think-mini"
BUNDLED_TEMPLATES = "mini"
CEREBRAS_URL = "https://api.cerebras.ai"
BackendName = Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{1,60}$")]
"""Name of a backend of the pool, or of a class of them."""


class BackendKind(StrEnum):
    """The kinds of backend that exist."""

    openvino = "openvino"
    """Embedded engine in the worker's own process, any CPU."""
    openai = "openai"
    """Any OpenAI-compatible server."""
    cerebras = "cerebras"
    """Cerebras Inference."""
    vllm = "vllm"
    """A vLLM server, with its speculation checked."""
    vllm_engine = "vllm_engine"
    """A vLLM engine in the worker's own process."""


class BackendSettings(BaseModel):
    """One model backend."""

    model_config = ConfigDict(
        extra="forbid",
        use_attribute_docstrings=True,
        frozen=True,
        allow_inf_nan=False,
        # A traceback must not hold keys and passwords.
        hide_input_in_errors=True,
    )

    backend: BackendKind = BackendKind.openvino
    """Kind of backend."""
    base_url: str | None = Field(default=None, pattern=r"^https?://\S+$")
    """Root of the server, such as http://127.0.0.1:8000/v1 (for cerebras without /v1). None = the kind's own default."""
    model: str | None = None
    """Model name as the server knows it; for openvino `k2think-mini` or a model folder. None = the bundled or only model."""
    api_key: SecretStr | None = None
    """Bearer key; None = none needed. For cerebras CEREBRAS_API_KEY serves when this is unset."""
    templates: str | None = Field(default=None, pattern=r"^[a-z0-9_-]{1,40}$")
    """Prompt template set; None = the model's own (bundled model) or `default`."""
    max_tokens: int = Field(default=4096, ge=1)
    """Completion tokens at most, where a request does not say."""
    context_tokens: int | None = Field(default=None, ge=1)
    """Context length; None = as the engine says."""
    connect_timeout_s: float = Field(default=5.0, gt=0)
    """Seconds to open a connection."""
    first_token_timeout_s: float = Field(default=120.0, gt=0)
    """Seconds from the request to the first token."""
    idle_timeout_s: float = Field(default=30.0, gt=0)
    """Seconds between two pieces of a stream after which it counts as stalled."""
    connect_retries: int = Field(default=2, ge=0, le=10)
    """Times that a call refused before its first token (429, 503, no connection) is tried again inside one attempt."""
    retry_after_max_s: float = Field(default=20.0, ge=0)
    """Longest Retry-After that is waited for inside an attempt; a longer one hands the step back."""
    reasoning_effort: Literal["none", "minimal", "low", "medium", "high", "xhigh"] | None = None
    """How long a reasoning model thinks (cerebras, openai, vllm); None = not sent, the model's own."""
    reasoning_format: Literal["none", "parsed", "text_parsed", "raw", "hidden"] | None = None
    """How cerebras gives the reasoning; None = not sent, the model's own."""
    service_tier: Literal["auto", "default", "flex", "priority"] | None = None
    """Priority of the calls at the server (cerebras, openai); None = not sent, the account's own."""
    requests_per_minute: int | None = Field(default=None, ge=1)
    """Calls per minute of all workers together; None = as the server's rate headers tell, if they do."""
    tokens_per_minute: int | None = Field(default=None, ge=1)
    """Tokens of prompts and completions per minute of all workers together; None = as the server's rate headers tell."""
    streams_max: int | None = Field(default=None, ge=1)
    """Streams in flight of all workers together; None = as many as the workers run."""
    adaptive: bool | None = None
    """Find by trial how many streams the server bears and heed its rate headers; None = on for cerebras, else off."""
    speculative: str | None = Field(default=None, pattern=PATTERN)
    """Speculation: ngram, draft:MODEL, eagle:MODEL or mtp. vllm_engine does it; of a vllm server it is expected. None = none."""
    tensor_parallel: int = Field(default=1, ge=1)
    """GPUs over which vllm_engine spreads its model."""
    engine_options: dict[str, Any] = {}
    """Further arguments of vllm_engine's engine, as JSON (vLLM's AsyncEngineArgs)."""
    speculative_tokens: int = Field(default=0, ge=0, le=16)
    """Embedded engine: prompt-lookup tokens per step; 0 = off (it costs on small models and many streams)."""
    speculative_streams_max: int = Field(default=1, ge=0)
    """Embedded engine: streams above which new requests are not speculated. 0 = all are, and the model is loaded once, not twice."""
    threads: int = Field(default=0, ge=0)
    """Embedded engine: inference threads; 0 = half of the cores, at least one."""
    precision: Literal["f32", "auto"] = "f32"
    """Embedded engine: arithmetic. With f32 a seed gives the same text alone, among others and speculated; auto = bf16 where there is."""
    classes: tuple[BackendName, ...] = ()
    """Names under which a request may ask for this backend among others, such as fast or cheap."""
    weight: float = Field(default=1.0, gt=0, le=100)
    """Multiplies the steps that a generator worker bound to it runs at once: its share of the common queue when all are busy."""
    fallback: tuple[BackendName, ...] = ()
    """Named backends that take its calls in turn while it fails. They must use the same prompt template set."""
    breaker_failures: int = Field(default=5, ge=1)
    """Failures in a row after which it is left alone for a while."""
    breaker_rest_s: float = Field(default=2.0, gt=0, le=3600)
    """Seconds that it is left alone, doubled each time that a trial call fails."""
    breaker_rest_max_s: float = Field(default=15.0, gt=0, le=3600)
    """Seconds that it is left alone at most: how late a backend that is back may be noticed."""
    hedge: str = Field(default="", pattern=r"^[A-Za-z0-9_-]{0,60}$")
    """Named backend that is asked as well when no token has come by the time in which 95 % of calls have one; empty = none."""
    hedge_share_max: float = Field(default=0.1, gt=0, le=1)
    """Calls that may be hedged at most, as a share of all."""
    price_prompt: float = Field(default=0.0, ge=0)
    """Price of a million prompt tokens in US dollars; it is counted as spend in the metrics."""
    price_completion: float = Field(default=0.0, ge=0)
    """Price of a million completion tokens in US dollars."""

    @property
    def adapts(self) -> bool:
        """Whether `adaptive` is on."""
        return self.backend == BackendKind.cerebras if self.adaptive is None else self.adaptive

    @property
    def limited(self) -> bool:
        """Whether calls are to wait for limits that all workers share."""
        known = (self.requests_per_minute, self.tokens_per_minute, self.streams_max)
        return self.adapts or any(limit is not None for limit in known)

    @property
    def template_set(self) -> str | None:
        """The prompt template set that the settings bind it to; None = whichever a request names, or the model folder's own."""
        bundled = self.backend == BackendKind.openvino and self.model in (None, BUNDLED_MODEL)
        return self.templates or (BUNDLED_TEMPLATES if bundled else None)

    @model_validator(mode="after")
    def _rest_grows(self) -> Self:
        if self.breaker_rest_s > self.breaker_rest_max_s:
            raise ValueError("breaker_rest_s must be at most breaker_rest_max_s")
        return self


class RoleSettings(BackendSettings):
    """The backend of one kind of agent."""

    backend: BackendKind | str = BackendKind.openvino  # pyright: ignore[reportIncompatibleVariableOverride]
    """Kind of backend, or the name of one from K2THINK_BACKENDS."""
    concurrency: int = Field(default=0, ge=0, le=10_000)
    """Steps in flight in one worker process; 0 = 8 for the embedded engine, else 100."""
