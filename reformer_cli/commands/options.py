"""Options that several commands have."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_type_hints

import typer

from reformer_cli.utils.errors import UserError

if TYPE_CHECKING:
    from pydantic import ValidationError

RunOption = Annotated[
    Path | None,
    typer.Option("--run", metavar="DIR", help="Run directory, or starter; default: the newest in runs/."),
]
SetOption = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Change one setting, such as data.context=4096; repeatable."),
]
BucketsOption = Annotated[
    int | None,
    typer.Option(
        min=0,
        max=65_536,
        help="Buckets of the hash round that looks far back (about buckets x window tokens), also for a model without "
        "one: an even multiple of the other rounds'; 0: none.",
    ),
]
OverwriteOption = Annotated[bool, typer.Option("--overwrite", help="Replace what is there already.")]
DeviceOption = Annotated[
    str,
    typer.Option(
        "--device",
        help="auto, cpu, cuda, cuda:N or mps; auto takes a GPU if there is one, but never mps.",
    ),
]


def from_fields(kind: type, name: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Decorates a command: its parameter `name`, a pydantic dataclass of this kind, becomes an option for each field,
    with the field's type, default and description. What is out of range is told in one line."""

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        hints, parameters = get_type_hints(command, include_extras=True), []
        fields = vars(kind)["__pydantic_fields__"]
        types = get_type_hints(kind)
        for parameter in inspect.signature(command).parameters.values():
            if parameter.name != name:
                parameters.append(parameter.replace(annotation=hints[parameter.name]))
                continue
            for field, about in fields.items():
                shown = str(about.default) if about.default is not None else False
                option = typer.Option(help=about.description, show_default=shown)
                kind_of = Annotated[types[field] | None, option]  # type: ignore[valid-type]
                parameters.append(parameter.replace(name=field, annotation=kind_of, default=None))

        @functools.wraps(command)
        def called(**given: Any) -> None:
            from pydantic import ValidationError

            values = {field: given.pop(field) for field in fields}
            try:  # what was not given is left to the kind, which may have several sets of defaults
                made = kind(**{field: value for field, value in values.items() if value is not None})
            except ValidationError as error:
                raise option_faults(error) from None
            command(**given, **{name: made})

        del called.__wrapped__  # where the signature would be looked for
        called.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        called.__annotations__ = {p.name: p.annotation for p in parameters}
        return called

    return decorate


def option_faults(error: ValidationError) -> UserError:
    """What is wrong with command line options, all in one line."""
    faults: list[str] = []
    for item in error.errors(include_url=False):
        name: Any = item["loc"][0] if item["loc"] else "?"
        what = item["msg"].removeprefix("Value error, ").replace("Input should", "should")
        faults.append(f"--{str(name).replace('_', '-')} {item['input']}: {what}" if item["loc"] else what)
    return UserError("; ".join(faults))
