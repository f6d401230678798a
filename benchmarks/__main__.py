"""`make bench`: every benchmark of this folder, its ratios beside its aims, one table at the end."""

import importlib
import sys
from pathlib import Path

from segfolio.table import table


def main(names: list[str]) -> None:
    folder = Path(__file__).parent
    names = names or sorted(p.stem for p in folder.glob("*.py") if not p.stem.startswith("_"))
    rows = []
    for name in names:
        print(f"\n== {name}", flush=True)
        module = importlib.import_module(f"benchmarks.{name}")
        for ratio, value in module.main().items():
            rows.append((name, ratio, f"{value:.3g}", module.AIMS.get(ratio, "")))
    print("\n" + table(("benchmark", "ratio", "measured", "aim"), rows, right=(2, 3)))


if __name__ == "__main__":
    main(sys.argv[1:])
