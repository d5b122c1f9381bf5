"""The boundary to libraries that raise anything, print and warn: onnxsim, onnx2torch and such."""

from __future__ import annotations

import contextlib
import io
import warnings
from collections.abc import Iterator

from runner.contract.errors import InstanceError
from runner.contract.vocabulary import Cause


@contextlib.contextmanager
def foreign(cause: Cause, message: str) -> Iterator[None]:
    """Silences what runs inside; what it raises becomes an InstanceError `message: error`.

    Out of memory stays what it is: it has its own cause, decided elsewhere.
    """
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    except (InstanceError, MemoryError):
        raise
    except Exception as error:  # the documented boundary: these libraries have no error types
        if _is_out_of_memory(error):
            raise
        reason = str(error).strip() or "no message"
        raise InstanceError(cause, f"{message}: {type(error).__name__}: {reason}") from error


def _is_out_of_memory(error: Exception) -> bool:
    """torch has a type for it on a GPU only; its CPU allocator raises RuntimeError."""
    text = str(error)
    return type(error).__name__ == "OutOfMemoryError" or "can't allocate memory" in text
