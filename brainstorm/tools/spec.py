"""The language in which `create_net_from_spec` is told the layers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from brainstorm.utils import ValidationError

ACTIVATIONS = {"l": "linear", "r": "rel", "s": "sigmoid", "t": "tanh", "g": "gelu"}
POSITIONS = {"s": "sinusoidal", "l": "learned"}
POOLING_TYPES = {"m": "max", "a": "avg"}
DIGITS = "0123456789"

Arguments = dict[str, Any]


def parse_spec(spec: str) -> list[tuple[str, Arguments]]:
    """Parse a line such as ``'D.2 F1200 Cs32:3p1'``.

    >>> parse_spec('D.2 Fs1200')
    [('Dropout', {'drop_prob': 0.2}), ('FullyConnected', {'activation': 'sigmoid',
    'size': 1200})]

    Returns:
        For each layer the name of its type and its arguments.

    Raises:
        ValidationError: It is no such line. Shows where.
    """
    if not isinstance(spec, str):
        raise ValidationError(f"spec: expected a text, got {spec!r}")
    reader = _Reader(spec)
    layers = _parse_layers(reader)
    if not reader.at_end():
        raise reader.error(f"the letter of a layer ({', '.join(PARSERS)})")
    return layers


def _parse_layers(reader: _Reader) -> list[tuple[str, Arguments]]:
    """The layers up to the first character that no layer begins with."""
    layers = []
    while letter := reader.take("".join(PARSERS)):
        reader.layer, parse = PARSERS[letter]
        layers.append((reader.layer, parse(reader)))
        reader.layer = ""
        reader.take(",")
    return layers


class _Reader:
    """Goes through a text from left to right, past all whitespace."""

    def __init__(self, text: str):
        self.text = text
        self.places = [i for i, c in enumerate(text) if not c.isspace()]
        self.chars = "".join(text[i] for i in self.places)
        self.pos = 0
        self.layer = ""

    def at_end(self) -> bool:
        return self.pos == len(self.chars)

    def take(self, choices: str) -> str:
        """The next character, if it is one of these, else an empty text."""
        char = self.chars[self.pos : self.pos + 1]
        if not char or char not in choices:
            return ""
        self.pos += 1
        return char

    def take_all(self, choices: str) -> str:
        """All characters up to the first that is not one of these."""
        start = self.pos
        while self.take(choices):
            pass
        return self.chars[start : self.pos]

    def integer(self, what: str, minimum: int = 1) -> int:
        start = self.pos
        digits = self.take_all(DIGITS)
        if not digits or int(digits) < minimum:
            self.pos = start
            raise self.error(f"{what}, an integer >= {minimum},")
        return int(digits)

    def choice(self, names: dict[str, str], argument: str) -> Arguments:
        """An optional letter that stands for an argument."""
        letter = self.take("".join(names))
        return {argument: names[letter]} if letter else {}

    def error(self, expected: str) -> ValidationError:
        """An error that points at the current place."""
        place = self.places[self.pos] if not self.at_end() else len(self.text)
        of_layer = f" of {self.layer}" if self.layer else ""
        shown = "".join(" " if c.isspace() else c for c in self.text)
        return ValidationError(
            f"spec: expected {expected}{of_layer} at position {place}:\n"
            f"    {shown}\n    {' ' * place}^"
        )


def _parse_sized(reader: _Reader) -> Arguments:
    activation = reader.choice(ACTIVATIONS, "activation")
    return {**activation, "size": reader.integer("the size")}


def _parse_both_ways(reader: _Reader) -> Arguments:
    letter = reader.take("".join(RECURRENT))
    if not letter:
        raise reader.error(f"the letter of a recurrent layer ({', '.join(RECURRENT)})")
    return {"layer": (RECURRENT[letter], _parse_sized(reader))}


def _parse_dropout(reader: _Reader) -> Arguments:
    start = reader.pos
    number = reader.take_all(DIGITS + ".")
    if not number:
        return {}
    try:
        probability = float(number)
    except ValueError:
        probability = 1.0
    if probability >= 1:
        reader.pos = start
        raise reader.error("the probability, a number in [0, 1),")
    return {"drop_prob": probability}


def _parse_embedding(reader: _Reader) -> Arguments:
    words = reader.integer("the number of words")
    return {"vocabulary_size": words, **_parse_second(reader, "size", "the size")}


def _parse_attention(reader: _Reader) -> Arguments:
    causal = {"causal": True} if reader.take("c") else {}
    size = reader.integer("the size")
    heads = _parse_second(reader, "heads", "the number of heads")
    return {**causal, "size": size, **heads}


def _parse_second(reader: _Reader, argument: str, what: str) -> Arguments:
    if not reader.take(":/"):
        raise reader.error(f"':' and {what}")
    return {argument: reader.integer(what)}


def _parse_residual(reader: _Reader) -> Arguments:
    block = _parse_layers(reader)
    if not block:
        raise reader.error(f"the letter of a layer ({', '.join(PARSERS)})")
    if not reader.take(")"):
        raise reader.error(f"the letter of a layer ({', '.join(PARSERS)}) or ')'")
    return {"block": block}


def _parse_convolution(reader: _Reader) -> Arguments:
    activation = reader.choice(ACTIVATIONS, "activation")
    num_filters = reader.integer("the number of filters")
    if not reader.take(":/"):
        raise reader.error("':' and the size of the kernel")
    return {**activation, "num_filters": num_filters, **_parse_window(reader, "psdg")}


def _parse_pooling(reader: _Reader) -> Arguments:
    pooling_type = reader.choice(POOLING_TYPES, "type")
    return {**pooling_type, **_parse_window(reader)}


def _parse_window(reader: _Reader, letters: str = "ps") -> Arguments:
    """The size of a kernel, then padding, stride and the like in any order."""
    size = reader.integer("the size of the kernel")
    arguments: Arguments = {"kernel_size": (size, size)}
    while letter := reader.take(letters):
        argument = WINDOW[letter]
        if argument in arguments:
            reader.pos -= 1
            raise reader.error(f"just one {argument}")
        value = reader.integer(f"the {argument}", minimum=0 if letter == "p" else 1)
        arguments[argument] = (value, value) if letter in "sd" else value
    return arguments


def _parse_factor(reader: _Reader) -> Arguments:
    return {"factor": reader.integer("the factor")}


WINDOW = {"p": "padding", "s": "stride", "d": "dilation", "g": "groups"}
RECURRENT = {"R": "Recurrent", "L": "Lstm", "G": "Gru"}
PARSERS: dict[str, tuple[str, Callable[[_Reader], Any]]] = {
    "F": ("FullyConnected", _parse_sized),
    **{letter: (name, _parse_sized) for letter, name in RECURRENT.items()},
    "X": ("Bidirectional", _parse_both_ways),
    "B": ("BatchNorm", lambda reader: {}),
    "D": ("Dropout", _parse_dropout),
    "C": ("Convolution2D", _parse_convolution),
    "P": ("Pooling2D", _parse_pooling),
    "U": ("Upsample2D", _parse_factor),
    "E": ("Embedding", _parse_embedding),
    "W": ("PositionalEncoding", lambda reader: reader.choice(POSITIONS, "kind")),
    "A": ("Attention", _parse_attention),
    "N": ("LayerNorm", lambda reader: {}),
    "(": ("Add", _parse_residual),
}
