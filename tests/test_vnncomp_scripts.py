"""This verifier as a competitor: its three scripts, called as VNN-COMP calls them."""

from __future__ import annotations

import gzip
import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from competitor import (
    SAT,
    SCRIPTS,
    UNSAT,
    command,
    environment,
    instances,
    private_folder,
    save_hard,
    save_network,
    save_property,
    save_query,
    wait_for,
    warm_servers,
)

from runner import verify
from runner.execute.gang import RankServer
from runner.problem.replay import Validity, replay

pytestmark = pytest.mark.slow

METER = "runner/engine/measure/allocator.cpp"  # what set-up builds


@dataclass
class Scripts:
    """Called with a private folder of their own; `settings`: variables of the environment."""

    folder: Path
    private: Path
    settings: dict[str, str] = field(default_factory=dict)

    def call(
        self, script: str, *arguments: object, cwd: Path | None = None
    ) -> subprocess.CompletedProcess[str]:
        process = self.start(script, *arguments, cwd=cwd)
        out, err = process.communicate(timeout=120)
        return subprocess.CompletedProcess(process.args, process.returncode, out, err)

    def start(
        self, script: str, *arguments: object, cwd: Path | None = None
    ) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [SCRIPTS / f"{script}.sh", *map(str, arguments)],
            env=environment(self.private, **self.settings),
            cwd=cwd or self.folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def prepare(self, network: Path, prop: Path) -> subprocess.CompletedProcess[str]:
        return self.call("prepare_instance", "v1", "small", network, prop)

    def run(self, network: Path, prop: Path, timeout_s: float = 60) -> list[str]:
        """Lines of the results."""
        results = self.folder / "results.txt"
        results.unlink(missing_ok=True)
        done = self.call("run_instance", "v1", "small", network, prop, results, timeout_s)
        assert done.stdout == ""
        return results.read_text().splitlines()

    def runs_warm(self, network: Path, prop: Path) -> bool:
        """Whether the warm server of the folder has a gang when a question is asked."""
        results = self.folder / "warm.txt"
        asked = self.start("run_instance", "v1", "small", network, prop, results, 60)
        forked = False
        while asked.poll() is None:
            forked |= len(warm_servers(self.private)) > 1
            time.sleep(0.002)
        asked.communicate()
        assert results.read_text().splitlines()[0] in ("sat", "unsat")
        return forked


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "a folder"
    path.mkdir()
    return path


@pytest.fixture
def scripts(folder: Path) -> Iterator[Scripts]:
    """Without anything that others left."""
    with private_folder() as private:
        yield Scripts(folder, private)


@pytest.fixture
def cold(scripts: Scripts) -> Scripts:
    """Without a warm server too."""
    scripts.settings["VNNCOMP_RUNNER_WARM"] = "0"
    return scripts


@pytest.fixture(scope="module")
def warmed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A private folder with a warm server, for all tests that only want answers."""
    with private_folder() as private:
        made = tmp_path_factory.mktemp("made")
        network = save_network(made / "net.onnx")
        done = Scripts(made, private).prepare(network, save_property(made / "p.vnnlib", SAT))
        assert done.returncode == 0
        yield private


@pytest.fixture
def warm(folder: Path, warmed: Path) -> Scripts:
    return Scripts(folder, warmed)


def test_scripts_command_line_and_function_agree_and_counterexamples_hold(
    warm: Scripts, rank_server: RankServer
) -> None:
    for network, prop, verdict in instances(warm.folder):
        assert warm.prepare(network, prop).returncode == 0
        lines = warm.run(network, prop)
        assert lines[0] == verdict
        assert str(verify(network, prop, timeout=60, executor=rank_server).verdict) == verdict
        asked = ("verify", prop, "--network", f"f={network}", "--timeout", 60)
        told = command(*asked, env=environment(warm.private)).stdout.splitlines()
        assert told[0] == verdict
        for said in (lines[1:], told[1:]):
            assert bool(said) == (verdict == "sat")
            if said:
                counterexample = warm.folder / "counterexample"
                counterexample.write_text("\n".join(said))
                assert replay(network, prop, counterexample).validity is Validity.VALID


def test_a_counterexample_has_the_form_of_the_propertys_version(warm: Scripts) -> None:
    network = save_network(warm.folder / "net.onnx")
    old = warm.run(network, save_property(warm.folder / "old.vnnlib", SAT))
    assert [line.split()[0] for line in old] == ["sat", "((X_0", "(X_1", "(Y_0", "(Y_1"]
    assert old[-1].endswith("))")
    new = warm.run(network, save_query(warm.folder / "new.vnnlib", "(>= B[0,0] 1.5)"))
    assert (new[1], new[4], len(new)) == ("A float32 [1,2]", "B float32 [1,2]", 7)


def test_without_preparation_there_is_an_answer_too(scripts: Scripts) -> None:
    network = save_network(scripts.folder / "net.onnx")
    assert scripts.run(network, save_property(scripts.folder / "p.vnnlib", UNSAT)) == ["unsat"]
    assert not warm_servers(scripts.private)


@pytest.mark.parametrize("named_packed", [True, False])
def test_packed_files_are_read_whether_their_names_say_so_or_not(
    named_packed: bool, warm: Scripts
) -> None:
    network = save_network(warm.folder / "net.onnx")
    prop = save_property(warm.folder / "p.vnnlib", UNSAT)
    for path in (network, prop):
        path.with_name(path.name + ".gz").write_bytes(gzip.compress(path.read_bytes()))
        path.unlink()
    ending = ".gz" if named_packed else ""
    named = [path.with_name(path.name + ending) for path in (network, prop)]
    assert warm.run(named[0], named[1]) == ["unsat"]


def test_relative_paths_are_of_the_callers_folder_whose_modules_are_not_imported(
    cold: Scripts,
) -> None:
    save_network(cold.folder / "net.onnx")
    save_property(cold.folder / "p.vnnlib", UNSAT)
    for module in ("json.py", "runner.py", "torch.py"):
        (cold.folder / module).write_text("raise SystemExit('imported from the wrong folder')\n")
    files = ("net.onnx", "./p.vnnlib")
    prepared = cold.call("prepare_instance", "v1", "small", *files)
    assert (prepared.returncode, prepared.stderr) == (0, "")
    cold.call("run_instance", "v1", "small", *files, "out.txt", 60)
    assert (cold.folder / "out.txt").read_text() == "unsat\n"


def test_what_cannot_be_run_is_skipped_and_run_all_the_same_is_an_error(warm: Scripts) -> None:
    odd = save_network(warm.folder / "odd.onnx", activation="Tan")
    good = save_network(warm.folder / "net.onnx")
    broken = warm.folder / "broken.onnx"
    broken.write_bytes(good.read_bytes()[:100])
    prop = save_property(warm.folder / "p.vnnlib", UNSAT)
    half = warm.folder / "half.vnnlib"
    half.write_text(prop.read_text()[:150])
    for files, words in (
        ((odd, prop), "unsupported_operator: .*Tan"),
        ((broken, prop), "malformed_network"),
        ((good, half), "malformed_property"),
        ((good, warm.folder / "none.vnnlib"), "missing_file"),
    ):
        done = warm.prepare(*files)
        assert done.returncode != 0
        assert re.search(words, done.stderr)
        assert warm.run(*files) == ["error"]


@pytest.mark.alone
@pytest.mark.parametrize("idle", ["0", "300"])
def test_the_answer_is_in_time_where_there_is_none(idle: str, scripts: Scripts) -> None:
    scripts.settings["VNNCOMP_RUNNER_WARM"] = idle
    network, prop = save_hard(scripts.folder)
    if idle != "0":
        assert scripts.prepare(network, prop).returncode == 0
    start = time.time()
    assert scripts.run(network, prop, timeout_s=6) == ["timeout"]
    assert time.time() - start < 6
    wait_for(lambda: len(warm_servers(scripts.private)) <= 1)  # ranks are gone, or soon


@pytest.mark.alone
def test_a_limit_below_the_start_is_a_timeout_too(cold: Scripts) -> None:
    network, prop = save_hard(cold.folder)
    start = time.time()
    assert cold.run(network, prop, timeout_s=1) == ["timeout"]
    assert time.time() - start < 1


@pytest.mark.alone
def test_one_that_is_killed_leaves_a_word_and_no_process(scripts: Scripts) -> None:
    network, prop = save_hard(scripts.folder)
    assert scripts.prepare(network, prop).returncode == 0
    results = scripts.folder / "results.txt"
    asked = scripts.start("run_instance", "v1", "small", network, prop, results, 60)
    wait_for(lambda: len(warm_servers(scripts.private)) >= 3)  # the server, its fork and a rank
    os.kill(asked.pid, signal.SIGKILL)
    asked.communicate()
    assert results.read_text() == "unknown\n"
    wait_for(lambda: len(warm_servers(scripts.private)) == 1)


@pytest.mark.alone
@pytest.mark.exhaustive
def test_the_warm_server_answers_until_it_is_killed_and_then_a_cold_one_does(
    scripts: Scripts,
) -> None:
    network = save_network(scripts.folder / "net.onnx")
    prop = save_property(scripts.folder / "p.vnnlib", UNSAT)
    assert scripts.prepare(network, prop).returncode == 0
    (server,) = warm_servers(scripts.private)
    assert scripts.runs_warm(network, prop)
    server.kill()
    wait_for(lambda: not warm_servers(scripts.private))
    assert list(scripts.private.glob("*.sock"))
    assert not scripts.runs_warm(network, prop)
    assert scripts.prepare(network, prop).returncode == 0
    assert scripts.runs_warm(network, prop)


@pytest.mark.alone
def test_a_server_killed_under_a_question_is_replaced_and_the_question_answered(
    scripts: Scripts,
) -> None:
    network, prop = save_hard(scripts.folder)
    assert scripts.prepare(network, prop).returncode == 0
    (server,) = warm_servers(scripts.private)
    results = scripts.folder / "results.txt"
    asked = scripts.start("run_instance", "v1", "small", network, prop, results, 12)
    wait_for(lambda: len(warm_servers(scripts.private)) >= 3)
    server.kill()
    asked.communicate()
    assert results.read_text() == "timeout\n"  # of a rank that searched on, not `error`


def test_two_instances_at_once_are_both_answered(warm: Scripts) -> None:
    network = save_network(warm.folder / "net.onnx")
    files = [
        save_property(warm.folder / f"{word}.vnnlib", word_of)
        for word, word_of in (("sat", SAT), ("unsat", UNSAT))
    ]
    for prop in files:
        assert warm.prepare(network, prop).returncode == 0
    both = [
        warm.start("run_instance", "v1", "c", network, prop, prop.with_suffix(".txt"), 60)
        for prop in files
    ]
    for asked in both:
        asked.communicate()
    said = [prop.with_suffix(".txt").read_text().splitlines()[0] for prop in files]
    assert said == ["sat", "unsat"]


def test_a_server_of_other_settings_does_not_answer(scripts: Scripts) -> None:
    network = save_network(scripts.folder / "net.onnx")
    prop = save_property(scripts.folder / "p.vnnlib", UNSAT)
    assert scripts.prepare(network, prop).returncode == 0
    scripts.settings["CUDA_VISIBLE_DEVICES"] = "3"
    assert not scripts.runs_warm(network, prop)


def test_a_network_that_changed_since_it_was_prepared_is_converted_again(
    scripts: Scripts,
) -> None:
    network = save_network(scripts.folder / "net.onnx")
    prop = save_property(scripts.folder / "p.vnnlib", "(>= Y_0 1.9)")
    assert scripts.prepare(network, prop).returncode == 0
    assert scripts.run(network, prop)[0] == "sat"
    # No output reaches 1 now: an answer about the network that was would be a wrong one.
    save_network(network, activation="Sigmoid")
    assert scripts.run(network, prop) == ["unsat"]


def test_a_folder_that_others_can_write_to_is_refused(cold: Scripts) -> None:
    cold.private.mkdir(mode=0o777)
    cold.private.chmod(0o777)
    network = save_network(cold.folder / "net.onnx")
    prop = save_property(cold.folder / "p.vnnlib", UNSAT)
    done = cold.prepare(network, prop)
    assert done.returncode == 2
    assert "chmod 700" in done.stderr
    assert cold.run(network, prop) == ["error"]


@pytest.mark.parametrize(
    ("settings", "word"),
    [
        ({"VNNCOMP_RUNNER_STRATEGY": "fastest"}, "fastest"),
        ({"VNNCOMP_RUNNER_RANKS": "two"}, "VNNCOMP_RUNNER_RANKS=two"),
        ({"VNNCOMP_RUNNER_RANKS": "0"}, "at least 1"),
        ({"VNNCOMP_RUNNER_DEVICE": "abacus"}, "abacus"),
    ],
)
def test_settings_that_mean_nothing_are_named(
    settings: dict[str, str], word: str, warm: Scripts
) -> None:
    warm.settings |= settings
    done = warm.prepare(warm.folder / "net.onnx", warm.folder / "p.vnnlib")
    assert done.returncode == 2
    assert word in done.stderr


def test_a_strategy_on_several_ranks_answers_alike(warm: Scripts) -> None:
    warm.settings |= {"VNNCOMP_RUNNER_STRATEGY": "sp+dp", "VNNCOMP_RUNNER_RANKS": "2"}
    for network, prop, verdict in instances(warm.folder)[:2]:
        assert warm.prepare(network, prop).returncode == 0
        assert warm.run(network, prop)[0] == verdict


@pytest.mark.parametrize(
    "arguments",
    [
        ("prepare_instance", "v2", "c", "n", "p"),
        ("prepare_instance", "v1", "c", "n"),
        ("run_instance", "v1", "c", "n", "p", "r"),
        ("run_instance", "v1", "c", "n", "p", "r", "soon"),
        ("run_instance", "v1", "c", "n", "p", "r", "-1"),
        ("install_tool", "v2"),
    ],
)
def test_wrong_arguments_are_refused(arguments: tuple[str, ...], cold: Scripts) -> None:
    done = cold.call(*arguments)
    assert done.returncode == 2
    assert done.stderr


def test_without_an_environment_the_remedy_is_said(cold: Scripts, tmp_path: Path) -> None:
    cold.settings["VNNCOMP_RUNNER_PYTHON"] = str(tmp_path / "none")
    done = cold.call("prepare_instance", "v1", "c", "n", "p")
    assert done.returncode == 2
    assert "install_tool.sh v1" in done.stderr


def test_installing_makes_the_environment_of_this_checkout(tmp_path: Path) -> None:
    clone, tools = tmp_path / "clone", tmp_path / "tools"
    tools.mkdir()
    shutil.copytree(SCRIPTS, clone / "vnncomp_scripts")
    shutil.copytree(SCRIPTS.parent / "scripts", clone / "scripts")
    for name in ("pyproject.toml", "requirements.lock"):
        shutil.copy(SCRIPTS.parent / name, clone)
    (clone / METER).parent.mkdir(parents=True)
    shutil.copy(SCRIPTS.parent / METER, clone / METER)
    # Makes an environment of itself, and succeeds at whatever else it is asked.
    fake = '#!/usr/bin/env bash\n[[ "$1 $2" != "-m venv" ]] || { mkdir -p "$3/bin"; '
    fake += 'cp "$0" "$3/bin/python"; cp "$0" "$3/bin/vnncomp-runner"; }\n'
    for name in ("python3.12", "python3.11", "python3.10", "python3"):
        (tools / name).write_text(fake)
        (tools / name).chmod(0o755)
    done = subprocess.run(
        [clone / "vnncomp_scripts" / "install_tool.sh", "v1"],
        env={**os.environ, "PATH": f"{tools}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0
    assert (clone / ".venv" / "bin" / "python").exists()
