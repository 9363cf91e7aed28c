"""`lightball convert`: the same optimizer in another convention, or its momentum-free match."""

from __future__ import annotations

import json
import textwrap
from dataclasses import asdict
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from lightball.rules.conventions import Conversion, Setting

WIDTH = 80


@click.command(short_help="Convert momentum settings between libraries, or to plain SGD.")
@click.option("--lr", type=float, required=True, help="Learning rate.")
@click.option("--momentum", type=float, default=0.0, show_default=True)
@click.option("--dampening", type=float, default=0.0, show_default=True, help="torch only.")
@click.option("--nesterov", is_flag=True, help="Nesterov momentum.")
@click.option("--weight-decay", type=float, default=0.0, show_default=True)
@click.option("--debias", is_flag=True, help="optax-ema only.")
@click.option("--clip", type=float, default=None, help="Gradient norm at which the run clips.")
@click.option("--from", "source", default="torch", show_default=True, help="Convention of the input.")
@click.option("--to", default="sgd", show_default=True, help="Convention wanted.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def convert(
    lr: float,
    momentum: float,
    dampening: float,
    nesterov: bool,
    weight_decay: float,
    debias: bool,
    clip: float | None,
    source: str,
    to: str,
    as_json: bool,
) -> None:
    """Convert momentum settings between libraries, or to plain SGD at the matched rate.

    Conventions: torch, keras, optax-sgd, optax-trace, ema, optax-ema, sgd.

    \b
    Example:
      lightball convert --lr 0.1 --momentum 0.9 --from torch --to sgd
    """
    from lightball.rules.conventions import Setting
    from lightball.rules.conventions import convert as convert_setting

    setting = Setting(source, lr, momentum, dampening, nesterov, weight_decay, debias)
    conversion = convert_setting(setting, to, clip)
    click.echo(_as_json(setting, conversion) if as_json else _as_text(setting, conversion))


def _as_json(setting: Setting, conversion: Conversion) -> str:
    facts = {"from": asdict(setting), "to": asdict(conversion.setting)} | {
        name: value for name, value in asdict(conversion).items() if name != "setting"
    }
    return json.dumps(facts, indent=2, ensure_ascii=False)


def _as_text(setting: Setting, conversion: Conversion) -> str:
    entries = [
        ("from", _in_words(setting)),
        ("to", _in_words(conversion.setting)),
        ("effective lr", f"{conversion.effective_lr:g}"),
        ("exact", "yes" if conversion.exact else "no"),
        ("schedule", conversion.schedule_rule),
    ]
    entries += [("caveat", f"{caveat.name}: {caveat.sentence}") for caveat in conversion.caveats]
    return "\n".join(_entry(name, text) for name, text in entries)


def _in_words(setting: Setting) -> str:
    """The convention, the rate, and whatever is not zero."""
    facts = asdict(setting)
    words = [facts.pop("convention"), f"lr {facts.pop('lr'):g}"]
    words += [name if value is True else f"{name} {value:g}" for name, value in facts.items() if value]
    return "  ".join(words)


def _entry(name: str, text: str) -> str:
    head = f"{name:<14}"
    return textwrap.fill(text, WIDTH, initial_indent=head, subsequent_indent=" " * len(head))
