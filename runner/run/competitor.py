"""This verifier as a competitor: prepares and answers one question, with what others left it."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path

from runner.contract.errors import UsageError
from runner.contract.vocabulary import Cause, Device, Method, Verdict
from runner.execute import warm
from runner.execute.executor import Executor
from runner.execute.gang import PRELOAD, RankServer
from runner.execute.link import attached
from runner.problem.files import find_maybe_gz, read_bytes
from runner.run.judge import Answer
from runner.run.kept import Kept
from runner.run.prepare import Preparation, Preparer
from runner.run.single import Posed, answer, counterexample_in, posed

# Of these an absent one is imported when it is needed, so a cold start need not wait for it.
COLD = ("runner.engine.programs.verify",)
IDLE_S = 300.0  # of a warm server, until it goes away
PREPARE_S = 290.0  # as a row's limit: converting may take twice that, and VNN-COMP gives 600 s
WARM_WITHIN_S = 60.0
_POLL_S = 0.02
_ONLY_2_0 = b"declare-network"


@dataclass(frozen=True)
class Options:
    """How to answer; every field has a variable of the environment, VNNCOMP_RUNNER_<FIELD>.

    `strategy`, `ranks`, `method`, `device`: as of `vnncomp-runner run`. `warm`: seconds that a
    warm server waits for the next question; 0: there is none.
    """

    strategy: str = "baseline"
    ranks: int = 2
    method: str = Method.COMPLETE
    device: str = Device.AUTO
    warm: float = IDLE_S

    @staticmethod
    def of_environment() -> Options:
        """Raises UsageError that names the variable."""
        return Options(
            strategy=os.environ.get(_variable("strategy"), Options.strategy),
            ranks=int(_number("ranks", Options.ranks, least=1)),
            method=os.environ.get(_variable("method"), Options.method),
            device=os.environ.get(_variable("device"), Options.device),
            warm=_number("warm", Options.warm, least=0),
        )

    def question(self, network: Path, property: Path, timeout_s: float) -> Posed:
        """Raises UsageError for words that mean nothing. Either file may be packed or not."""
        return posed(
            find_maybe_gz(network) or network,
            find_maybe_gz(property) or property,
            timeout=timeout_s,
            strategy=self.strategy,
            ranks=self.ranks,
            method=self.method,
            device=self.device,
        )


@dataclass(frozen=True)
class Reply:
    """`counterexample`: of a `sat`, as VNN-LIB 1.0 writes it. `message`: for people."""

    verdict: Verdict
    cause: Cause = Cause.NONE
    message: str = ""
    counterexample: str = ""


def prepare(network: Path, property: Path, options: Options) -> Answer | None:
    """Converts the network, for the question that follows; why it cannot be asked, if it cannot.

    Starts a warm server where none is, and `options` want one.
    """
    kept = Kept()
    kept.tidy()
    asked = options.question(network, property, PREPARE_S)
    door = _warmed(kept.door, options.warm)
    with kept.scratch() as scratch, RankServer(scratch / "server.log", PRELOAD, door) as server:
        done = _prepared(asked, server, scratch)
        if done.failure is None:
            kept.keep(done, asked.instance.network, asked.instance.property)
    return done.failure


def ask(asked: Posed, until: float, options: Options, kept: Kept) -> Reply:
    """What ranks find before the time `until` (of `time.monotonic`), which may still be missed."""
    said = Reply(Verdict.TIMEOUT, Cause.DEADLINE, "there was no time for it")
    for door in (kept.door, None) if options.warm else (None,):
        if time.monotonic() >= until:
            break
        with kept.scratch() as scratch, RankServer(scratch / "log", COLD, door) as server:
            said = _answered(asked, until, server, scratch, kept)
        if said.cause is not Cause.RANK_DIED:
            break  # else a warm server may have died with its ranks: once more, without it
    return said


def printed(said: Reply, asked: Posed) -> str:
    """The counterexample in the form of the property's own version of VNN-LIB."""
    content = read_bytes(asked.instance.property, Cause.MALFORMED_PROPERTY)
    if _ONLY_2_0 not in content:
        return said.counterexample
    # Importing these, and numpy with them, takes a while.
    from runner.problem.assignment import format_assignment
    from runner.problem.property.counterexample import read_assignment
    from runner.problem.property.read_property import read_networks

    declared = read_networks(asked.instance.property)
    if not declared:
        return said.counterexample
    ((network,), assigned) = declared, read_assignment(said.counterexample)
    return format_assignment(network.inputs, network.outputs, assigned)


def _answered(asked: Posed, until: float, executor: Executor, scratch: Path, kept: Kept) -> Reply:
    done = kept.take(asked.instance.network, asked.instance.property, scratch)
    if done is None:
        done = _prepared(asked, executor, scratch)
    left = until - time.monotonic()
    if left <= 0:
        return Reply(Verdict.TIMEOUT, Cause.DEADLINE, "converting the network took all the time")
    outcome, _ = answer(asked.within(left), done, executor, scratch)
    text = ""
    if outcome.verdict is Verdict.SAT:
        file = counterexample_in(scratch)
        text = read_bytes(file, Cause.INVALID_COUNTEREXAMPLE).decode()
    return Reply(outcome.verdict, outcome.cause, outcome.message, text)


def _prepared(asked: Posed, executor: Executor, scratch: Path) -> Preparation:
    return Preparer(executor, scratch, None).prepare(asked.instance, scratch / "prepare")


def _warmed(door: Path | None, idle_s: float) -> Path | None:
    """The door, behind which a server was started where none answered."""
    if door is None or not idle_s:
        return None
    link = attached(door)
    if link is not None:
        link.end()
        return door
    before = door.stat().st_mtime_ns if door.exists() else None
    warm.start(door, idle_s, PRELOAD)
    give_up = time.monotonic() + WARM_WITHIN_S
    while time.monotonic() < give_up:
        if door.exists() and door.stat().st_mtime_ns != before:
            return door
        time.sleep(_POLL_S)
    return None


def _variable(field: str) -> str:
    return f"VNNCOMP_RUNNER_{field.upper()}"


def _number(field: str, default: float, least: float) -> float:
    name = _variable(field)
    text = os.environ.get(name, str(default))
    try:
        number = float(text)
    except ValueError as error:
        raise UsageError(f"{name}={text}: a number is needed") from error
    if not least <= number < float("inf"):
        raise UsageError(f"{name}={text}: a number of at least {least:g} is needed")
    return number
