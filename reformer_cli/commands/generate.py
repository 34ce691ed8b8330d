"""`reformer generate`: text after a prompt, shown as it is made; or images."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, cast, get_args

import typer

from reformer_cli.commands.novelty import AgainstOption
from reformer_cli.commands.options import BucketsOption, DeviceOption, OverwriteOption, RunOption, from_fields
from reformer_cli.sampling.config import SamplingConfig
from reformer_cli.utils.console import say
from reformer_cli.utils.errors import UserError
from reformer_cli.utils.files import ADDRESS

LogitBiasOption = Annotated[
    list[str] | None,
    typer.Option(
        metavar="TEXT=NUMBER",
        help="Add NUMBER to the score of tokens that would complete TEXT (-100: it never appears); repeatable.",
    ),
]
StopOption = Annotated[
    list[str] | None, typer.Option(metavar="TEXT", help="Stop before this text appears; repeatable.")
]
UntilOption = Annotated[
    list[str] | None, typer.Option(metavar="TEXT", help="Stop after this text has appeared; repeatable.")
]
OutputOption = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="Write to a file: text as it is made, or images, with a contact sheet."),
]
ImageOption = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="Of a run of images: the upper part of one, whose lower part is drawn."),
]
KeepRowsOption = Annotated[
    int | None,
    typer.Option(metavar="N", help="Take --image for a whole image, cropped as in training, and keep N rows."),
]
SessionOption = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE", help="Keep what is needed to go on in FILE; where it exists, go on from it as if never stopped."
    ),
]
EchoOption = Annotated[
    bool | None,
    typer.Option(
        "--echo/--no-echo", help="Write the prompt before what follows it; if not said, only that of --prompt."
    ),
]
AsTypedOption = Annotated[
    bool,
    typer.Option(
        "--as-typed", help="Leave the prompt's quotation marks and line ends, and the tokens of its last word, alone."
    ),
]
JsonOption = Annotated[
    bool, typer.Option("--json", help="One JSON object a line and sample: text, tokens, log-probabilities, timing.")
]
NoveltyOption = Annotated[
    bool, typer.Option("--novelty", help="Say what of the text stands in the training text (reformer novelty).")
]
CandidatesOption = Annotated[
    int,
    typer.Option(min=0, max=4096, metavar="N", help="Draw N texts and keep the best one, see --keep; 0: no choice."),
]
KeepOption = Annotated[
    str,
    typer.Option(metavar="likelihood|novelty", help="Which candidate is best: the likeliest, or the least copied one."),
]
InfillOption = Annotated[
    tuple[str, str] | None,
    typer.Option(
        metavar="BEFORE AFTER",
        help="Write what comes between: of 16 --candidates the one that AFTER follows best.",
    ),
]
ContextOption = Annotated[
    list[str] | None,
    typer.Option(metavar="FILE", help="Read this text first, which need not be the run's; repeatable."),
]
ExplainOption = Annotated[
    bool, typer.Option("--explain", help="With --json: which earlier places each token's hashed heads have read.")
]
DashArgument = Annotated[str | None, typer.Argument(metavar="[-]", help="`-` reads the prompt from standard input.")]
PromptOption = Annotated[str | None, typer.Option("--prompt", help="Text to go on from; none: a text of its own.")]
PromptFileOption = Annotated[
    str | None, typer.Option(metavar="FILE", help="Read the prompt from a file of any known format.")
]


@from_fields(SamplingConfig, "config")
def generate(
    prompt_: DashArgument = None,
    run: RunOption = None,
    prompt: PromptOption = None,
    prompt_file: PromptFileOption = None,
    echo: EchoOption = None,
    as_typed: AsTypedOption = False,
    config: SamplingConfig = SamplingConfig(),  # noqa: B008  (frozen)
    logit_bias: LogitBiasOption = None,
    stop: StopOption = None,
    until: UntilOption = None,
    output: OutputOption = None,
    overwrite: OverwriteOption = False,
    image: ImageOption = None,
    keep_rows: KeepRowsOption = None,
    session: SessionOption = None,
    far_buckets: BucketsOption = None,
    json: JsonOption = False,
    novelty: NoveltyOption = False,
    against: AgainstOption = None,
    candidates: CandidatesOption = 0,
    keep: KeepOption = "likelihood",
    infill: InfillOption = None,
    context: ContextOption = None,
    explain: ExplainOption = False,
    device: DeviceOption = "auto",
) -> None:
    """Go on from a prompt, or complete an image.

    Text goes to standard output as it is made, everything else to standard error.
    """
    from reformer_cli.runs.run import Run

    opened = Run.open(run)
    if opened.config.data.image_size is not None:
        from reformer_cli.workflows.generate_images import check_options, generate_images

        texts: dict[str, object] = {"--prompt": prompt, "--prompt-file": prompt_file, "-": prompt_, "--stop": stop}
        texts |= {"--logit-bias": logit_bias, "--json": json, "--session": session, "--far-buckets": far_buckets}
        texts |= {"--until": until, "--as-typed": as_typed, "--echo": echo, "--novelty": novelty}
        texts |= {"--candidates": candidates, "--infill": infill, "--context": context, "--explain": explain}
        check_options(config, texts)
        generate_images(opened, image, keep_rows, output, config, device, overwrite)
        return
    if image is not None or keep_rows is not None:
        raise UserError(f"{opened.path} was trained on text", "--image and --keep-rows are for runs of images")
    from reformer_cli.commands.output import Writer
    from reformer_cli.workflows.generate import generate as workflow
    from reformer_cli.workflows.request import Request

    _check(explain and not json, infill is not None and (prompt, prompt_file, prompt_) != (None,) * 3, keep)
    biases, text = _biases(logit_bias or []), _prompt(prompt_, prompt, prompt_file, opened.config.data.unwrap == "join")
    before, after = infill if infill is not None else (text, None)
    request = Request(
        before, stop or (), biases, session, far_buckets, output, overwrite, as_typed, until or (), novelty,
        against or (), candidates, cast(Any, keep), after, context or (), explain,
    )  # fmt: skip
    shown = echo if echo is not None else prompt is not None
    with Writer(output, json, config.num_samples, shown, go_on=session is not None) as writer:
        workflow(opened, config, request, writer, device)


def _check(untold: bool, prompted: bool, keep: str) -> None:
    """untold: --explain without --json; prompted: --infill and a prompt."""
    from reformer_cli.workflows.request import By

    if untold:
        raise UserError("--explain tells of each token", "add --json")
    if prompted:
        raise UserError("--infill names the text before itself", "leave the other prompt out")
    if keep not in get_args(By):
        raise UserError(f"--keep {keep!r} is not known", f"use {' or '.join(get_args(By))}")


def _biases(given: list[str]) -> list[tuple[str, float]]:
    """TEXT=NUMBER; the text may contain `=` too. All faults at once."""
    found, faults = [], []
    for one in given:
        text, _, number = one.rpartition("=")
        try:
            value = float(number)
        except ValueError:
            value = float("nan")
        if not text or not abs(value) <= 1e4:
            faults.append(f"--logit-bias {one!r} is not TEXT=NUMBER with a number from -10000 to 10000")
        found.append((text, value))
    if faults:
        raise UserError("; ".join(faults), "for example --logit-bias 'cat=-100'")
    return found


def _prompt(dash: str | None, text: str | None, file: str | None, join: bool) -> str:
    from reformer_cli.data.text_chunks import read_text

    given = [name for name, value in (("-", dash), ("--prompt", text), ("--prompt-file", file)) if value is not None]
    if len(given) > 1:
        raise UserError(f"{' and '.join(given)} exclude each other", "give the prompt once")
    if dash is not None and dash != "-":
        raise UserError(f"unexpected argument {dash!r}", f"did you mean --prompt {dash!r}?")
    if text is not None:
        if ADDRESS.match(text):
            say(f"note: {text} is a web address; to go on from the page, save it and name it with --prompt-file")
        try:
            text.encode()
        except UnicodeEncodeError:
            raise UserError("the prompt is not UTF-8", "use --prompt-file with a UTF-8 file") from None
        return text
    return read_text(dash or file or "", join) if dash or file else ""
