"""The process that libFuzzer runs in. Started by `tests.property.fuzz_wire`, with libFuzzer's own arguments."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path


def main() -> None:
    # By name: it is there only where it could be installed, and has no types.
    atheris = importlib.import_module("atheris")
    with atheris.instrument_imports(include=["fanfold_schemas"]):
        importlib.import_module("fanfold_schemas")
    from tests.property.fuzz_wire import note
    from tests.property.wire_properties import check

    kinds: dict[str, Path] = {}

    def one_input(data: bytes) -> None:
        try:
            check(data)
        except Exception as error:
            note(error, data, kinds)  # and go on: there may be more

    atheris.Setup(sys.argv, one_input)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
