"""Words that sentences of all rooms share."""


def counted(number: int, noun: str) -> str:
    """`1 mask`, `2 masks`."""
    return f"{number} {noun}{'' if number == 1 else 's'}"
