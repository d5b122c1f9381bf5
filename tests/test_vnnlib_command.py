"""`vnncomp-runner verify` and `supports`, as chapter 5 of the VNN-LIB 2.0 standard has them."""

from __future__ import annotations

import re
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from competitor import (
    SAT,
    SAT_QUERY,
    SCRIPTS,
    UNSAT,
    UNSAT_QUERY,
    command,
    environment,
    private_folder,
    save_hard,
    save_network,
    save_property,
    save_query,
)
from onnx import TensorProto, numpy_helper
from typer.testing import CliRunner

import runner
from runner.cli.app import app
from runner.engine.network.translation import TRANSLATIONS
from runner.problem.replay import Validity, replay

pytestmark = pytest.mark.slow

Ask = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture(scope="module")
def warmed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A private folder with a warm server: a start takes seconds."""
    with private_folder() as private:
        made = tmp_path_factory.mktemp("made")
        files = save_network(made / "net.onnx"), save_property(made / "p.vnnlib", SAT)
        prepare = [*map(str, (SCRIPTS / "prepare_instance.sh", "v1", "c", *files))]
        subprocess.run(prepare, env=environment(private), check=True)
        yield private


@pytest.fixture
def ask(warmed: Path) -> Ask:
    return lambda *arguments: command("verify", *arguments, env=environment(warmed))


def refused(done: subprocess.CompletedProcess[str], code: int, words: str) -> bool:
    """Whether nothing is answered, and standard error says why."""
    found = re.search(words, " ".join(done.stderr.split()))
    return (done.returncode, done.stdout) == (code, "") and bool(found)


@pytest.mark.parametrize("element", ["float32", "real"])
def test_a_satisfied_query_is_followed_by_its_assignment_alone(
    element: str, tmp_path: Path, ask: Ask
) -> None:
    network = save_network(tmp_path / "net.onnx")
    query = save_query(tmp_path / "q.vnnlib", SAT_QUERY, element)
    done = ask(query, "--network", f"f={network}", "--timeout", 60)
    assert done.returncode == 0
    lines = done.stdout.splitlines()
    heads = {0: "sat", 1: f"A {element} [1,2]", 4: f"B {element} [1,2]"}
    assert {place: lines[place] for place in heads} == heads
    assert len(lines) == 7
    assignment = tmp_path / "assignment"
    assignment.write_text(done.stdout)
    assert replay(network, query, assignment).validity is Validity.VALID


def test_an_unsatisfiable_query_is_one_word_without_a_warm_server_too(tmp_path: Path) -> None:
    network = save_network(tmp_path / "net.onnx")
    query = save_query(tmp_path / "q.vnnlib", UNSAT_QUERY)
    with private_folder() as private:
        done = command("verify", query, "--network", f"f={network}", env=environment(private))
    assert (done.returncode, done.stdout) == (0, "unsat\n")


def test_a_query_of_the_old_version_has_flat_variables(tmp_path: Path, ask: Ask) -> None:
    network = save_network(tmp_path / "net.onnx", element=TensorProto.DOUBLE)
    prop = save_property(tmp_path / "p.vnnlib", SAT)
    lines = ask(prop, "--network", f"anything={network}").stdout.splitlines()
    assert (lines[0], lines[1], lines[4]) == ("sat", "X float64 [2]", "Y float64 [2]")
    unsat = save_property(tmp_path / "u.vnnlib", UNSAT)
    assert ask(unsat, "--network", f"anything={network}").stdout == "unsat\n"


@pytest.mark.parametrize(("element", "stored"), [("float32", np.float32), ("real", np.float64)])
def test_assignments_are_serialised_on_demand(
    element: str, stored: type[np.floating], tmp_path: Path, ask: Ask
) -> None:
    network = save_network(tmp_path / "net.onnx")
    query = save_query(tmp_path / "q.vnnlib", SAT_QUERY, element)
    folder = tmp_path / "new" / "folder"
    done = ask(query, "--network", f"f={network}", "--serialise-assignments", folder)
    assert (done.returncode, done.stdout) == (0, "sat\n")
    tensors = {}
    for name in ("A", "B"):
        proto = onnx.TensorProto.FromString((folder / f"{name}.pb").read_bytes())
        tensors[name] = numpy_helper.to_array(proto)
        assert tensors[name].dtype == np.dtype(stored)
        assert tensors[name].shape == (1, 2)
    session = onnxruntime.InferenceSession(network)
    (outputs,) = session.run(None, {"x": tensors["A"].astype(np.float32)})
    assert np.allclose(outputs, tensors["B"])
    assert outputs[0, 0] >= 1.5


@pytest.mark.alone
def test_time_that_is_over_is_timed_out(tmp_path: Path, ask: Ask) -> None:
    network, prop = save_hard(tmp_path)
    start = time.monotonic()
    done = ask(prop, "--network", f"f={network}", "--timeout", 5)
    assert (done.returncode, done.stdout) == (0, "timed-out\n")
    assert time.monotonic() - start < 5 + 2  # the interpreter's own start is not its own to limit


def test_a_method_that_decides_nothing_is_unknown(tmp_path: Path, ask: Ask) -> None:
    network = save_network(tmp_path / "net.onnx")
    query = save_query(tmp_path / "q.vnnlib", "(>= (+ B[0,0] B[0,1]) 3.0)")
    done = ask(query, "--network", f"f={network}", "--method", "ibp")
    assert (done.returncode, done.stdout) == (0, "unknown\n")


def test_models_must_be_those_that_the_query_declares(tmp_path: Path, ask: Ask) -> None:
    network = save_network(tmp_path / "net.onnx")
    query = save_query(tmp_path / "q.vnnlib", UNSAT_QUERY)
    model, other = f"f={network}", f"g={network}"
    assert refused(ask(query), 2, "network f has no model; add --network f=MODEL")
    assert refused(ask(query, "--network", other), 2, "network f has no model")
    assert refused(ask(query, "--network", model, "--network", other), 2, "needs models for f")
    assert refused(ask(query, "--network", model, "--network", model), 2, "has a model already")
    assert refused(ask(query, "--network", str(network)), 2, "NAME=MODEL is needed")


def test_types_must_be_those_of_the_model(tmp_path: Path, ask: Ask) -> None:
    double = save_network(tmp_path / "double.onnx", element=TensorProto.DOUBLE)
    query = save_query(tmp_path / "q.vnnlib", UNSAT_QUERY)
    words = "A is declared float32, but .*double.onnx has float64"
    assert refused(ask(query, "--network", f"f={double}"), 2, words)
    same = save_query(tmp_path / "same.vnnlib", UNSAT_QUERY, "float64")
    assert ask(same, "--network", f"f={double}").stdout == "unsat\n"
    real = save_query(tmp_path / "real.vnnlib", UNSAT_QUERY, "real")
    assert ask(real, "--network", f"f={double}").stdout == "unsat\n"


def test_types_that_nothing_is_proved_of_are_refused_with_the_remedy(
    tmp_path: Path, ask: Ask
) -> None:
    half = save_network(tmp_path / "half.onnx", element=TensorProto.FLOAT16)
    query = save_query(tmp_path / "q.vnnlib", UNSAT_QUERY, "float16")
    assert refused(ask(query, "--network", f"f={half}"), 2, "declare it real")


def test_what_cannot_be_answered_is_an_error_and_no_verdict(tmp_path: Path, ask: Ask) -> None:
    odd = save_network(tmp_path / "odd.onnx", activation="Tan")
    query = save_query(tmp_path / "q.vnnlib", UNSAT_QUERY)
    assert refused(ask(query, "--network", f"f={odd}"), 1, "unsupported_operator.* Tan ")
    assert refused(ask(query, "--network", f"f={tmp_path / 'none'}"), 1, "missing_file")
    broken = tmp_path / "broken.vnnlib"
    broken.write_text(query.read_text()[:120])
    assert refused(ask(broken, "--network", f"f={odd}"), 1, "malformed_property")
    assert refused(ask(query, "--network", f"f={odd}", "--timeout", 0), 2, "positive number")


def told(*arguments: str) -> list[str]:
    done = CliRunner().invoke(app, list(arguments))
    assert done.exit_code == 0, done.output
    return done.stdout.splitlines()


def test_every_capability_of_the_standard_is_told() -> None:
    one_of = {
        "--onnx-element-types": {"real", "float32", "float64"},
        "--hidden-node-theories": {"NH", "H"},
        "--multiple-input-output-theories": {"SIO", "MIO"},
        "--multiple-network-theories": {"SNET", "MENET", "MINET", "MNET"},
        "--multiple-node-comparison-theories": {"SNC", "MNC"},
        "--arithmetic-complexity-theories": {"BND", "OUTC", "LIN", "POLY"},
        "--optimised-disjunctive-reasoning": {"true", "false"},
        "--serialise-assignments": {"true", "false"},
    }
    for capability, words in one_of.items():
        lines = told("supports", capability)
        assert lines
        assert set(lines) <= words
    assert told("supports", "--vnnlib-versions") == ["1.0", "2.0"]
    assert told("--name") == ["vnncomp-runner"]
    assert told("--version") == [runner.__version__]


def test_operators_and_opsets_are_those_of_the_verifier() -> None:
    assert set(told("supports", "--onnx-operators")) == set(TRANSLATIONS)
    least, most = map(int, told("supports", "--onnx-opset-versions"))
    assert least == 7 < most <= onnx.defs.onnx_opset_version()


def test_a_capability_that_nobody_knows_is_refused() -> None:
    done = CliRunner().invoke(app, ["supports", "--mind-reading"])
    assert done.exit_code == 2
    assert "--onnx-operators" in done.stderr
