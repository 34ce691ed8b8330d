"""What clients may send, checked by pydantic: OpenAI's fields, and every field of SamplingConfig by its name."""

from __future__ import annotations

from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError, field_validator

from reformer_cli.sampling.config import SamplingConfig

SAMPLING = {*vars(SamplingConfig)["__pydantic_fields__"]} - {"num_samples", "num_beams"}
# What clients send that changes nothing here.
IGNORED = {"user", "store", "metadata", "service_tier", "parallel_tool_calls", "best_of", "safety_identifier"}
MOST_CHARACTERS = 12_000_000  # of a text: a shelf of novels
MOST_TOKENS = 100_000  # made at once

Name = Annotated[str, StringConstraints(pattern=r"^[\w.-]{1,100}$")]  # looked up in a list, never part of a path
Key = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_-]{1,64}$")]
LongText = Annotated[str, StringConstraints(max_length=MOST_CHARACTERS)]
Stops = Annotated[list[Annotated[str, StringConstraints(min_length=1, max_length=1000)]], Field(max_length=16)]


class BadRequest(ValueError):
    """A request that cannot be. param: which field of it; status: of HTTP; code: as OpenAI names it."""

    def __init__(self, message: str, param: str | None = None, status: int = 400, code: str | None = None) -> None:
        super().__init__(message)
        self.param, self.status, self.code = param, status, code


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)


class StreamOptions(BaseModel):
    include_usage: bool = False


class Drawn(BaseModel):
    """What requests that draw text share. document, at: the prompt is that document's text up to there."""

    model_config = ConfigDict(extra="allow", allow_inf_nan=False)

    model: str = Field(default="", max_length=100)
    document: Key | None = None
    at: int | None = Field(default=None, ge=0)
    stream: bool = False
    stream_options: StreamOptions | None = None
    stop: Stops | str | None = None
    until: Stops = []
    n: int = Field(default=1, ge=1, le=64)
    logit_bias: dict[str, Annotated[float, Field(ge=-1e4, le=1e4)]] = Field(default={}, max_length=4096)
    as_typed: bool = False
    session: Key | None = None

    @field_validator("stop")
    @classmethod
    def _no_empty_stop(cls, stop: Any) -> Any:
        return ([stop] if stop else None) if isinstance(stop, str) else stop

    def sampling(self) -> SamplingConfig:
        """Raises BadRequest for a field that is unknown or out of range."""
        given = {name: value for name, value in (self.model_extra or {}).items() if value is not None}
        for name in given:
            if name not in SAMPLING | IGNORED:
                raise BadRequest(f"Unrecognized request argument supplied: {name}", name, code="unknown_parameter")
        values = {name: value for name, value in given.items() if name in SAMPLING}
        if values.get("top_k") == -1:  # as other servers write "all"
            values["top_k"] = 0
        try:
            config = SamplingConfig(**values)
        except ValidationError as error:
            raise faults(error) from None
        if config.max_tokens > MOST_TOKENS:
            raise BadRequest(f"max_tokens {config.max_tokens:,} is above {MOST_TOKENS:,}", "max_tokens")
        return config


class Completion(Drawn):
    prompt: (
        LongText
        | Annotated[list[int], Field(max_length=MOST_CHARACTERS)]
        | Annotated[list[LongText], Field(max_length=64)]
        | Annotated[list[list[int]], Field(max_length=64)]
    ) = ""
    echo: bool = False
    logprobs: int | None = Field(default=None, ge=0, le=20)
    suffix: None = None


class Message(BaseModel):
    role: str = Field(default="user", max_length=100)
    content: LongText | list[dict[str, Any]] | None = ""

    @property
    def text(self) -> str:
        """Of parts, those that are text. Raises BadRequest for others."""
        if not isinstance(self.content, list):
            return self.content or ""
        if any(part.get("type") != "text" or not isinstance(part.get("text"), str) for part in self.content):
            raise BadRequest("parts of a message can only be text", "messages")
        return "".join(part["text"] for part in self.content)


class Chat(Drawn):
    messages: list[Message] = Field(min_length=1, max_length=10_000)
    logprobs: bool = False
    top_logprobs: int = Field(default=0, ge=0, le=20)
    max_completion_tokens: int | None = Field(default=None, ge=0)

    @property
    def prompt(self) -> str:
        """A base model knows no roles: the messages one after another, as paragraphs."""
        return "\n\n".join(message.text for message in self.messages)


class Alternatives(Drawn):
    prompt: LongText = ""
    n: int = Field(default=3, ge=1, le=8)


class OfText(Strict):
    model: str = Field(default="", max_length=100)
    text: LongText


class OfPlace(OfText):
    position: int = Field(ge=0)


class Edit(Strict):
    """Characters `from` to `to` (none: the end) of a document become `text`."""

    start: int = Field(default=0, ge=0, alias="from")
    to: int | None = Field(default=None, ge=0)
    text: LongText


class Export(Strict):
    text: LongText
    format: str = Field(pattern="^(txt|md|docx)$")
    title: str = Field(default="", max_length=200)


class Tokenize(Strict):
    model: str = Field(default="", max_length=100)
    prompt: LongText


class Detokenize(Strict):
    model: str = Field(default="", max_length=100)
    tokens: list[int] = Field(max_length=MOST_CHARACTERS)


M = TypeVar("M", bound=BaseModel)


def parsed(kind: type[M], body: bytes) -> M:
    """A request's body. Raises BadRequest."""
    try:
        return kind.model_validate_json(body)
    except ValidationError as error:
        raise faults(error) from None


def faults(error: ValidationError) -> BadRequest:
    """All that is wrong, in one line."""
    found = error.errors(include_url=False, include_context=False, include_input=False)
    names = [str(one["loc"][0]) if one["loc"] else None for one in found]
    told = dict.fromkeys(
        f"{name}: {what}" if name else what
        for name, what in zip(names, (one["msg"].removeprefix("Value error, ") for one in found), strict=True)
    )
    return BadRequest("; ".join(list(told)[:8]), next((name for name in names if name), None))
