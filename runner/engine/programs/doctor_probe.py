"""`python -m runner.engine.programs.doctor_probe MODULE…`: imports modules, maybe to crash.

One line of JSON per module, written before the next import starts; then, if torch is among them,
one line about its devices and backends.
"""

from __future__ import annotations

import importlib
import json
import sys
from typing import Any


def _import_error(module: str) -> str:
    try:
        importlib.import_module(module)
    except Exception as error:  # noqa: BLE001 - the boundary: an import may raise anything
        return f"{type(error).__name__}: {error}"
    return ""


def _torch() -> dict[str, Any]:
    import torch
    import torch.distributed as distributed

    from runner.engine.measure.library import tensor_meter

    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    return {
        "cuda_build": torch.version.cuda or "",
        "devices": [torch.cuda.get_device_name(index) for index in range(count)],
        "meter": tensor_meter().name,
        "gloo": distributed.is_available() and distributed.is_gloo_available(),
        "nccl": distributed.is_available() and distributed.is_nccl_available(),
    }


def _tell(line: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(line) + "\n")
    sys.stdout.flush()


def main(modules: list[str]) -> None:
    for module in modules:
        _tell({"module": module, "error": _import_error(module)})
    if "torch" in modules and "torch" in sys.modules:
        _tell({"torch": _torch()})


if __name__ == "__main__":
    main(sys.argv[1:])
