"""The command engine: every run is a script of the user's, in any framework, that prints one JSON object.

Its keys are described in :mod:`lightball.studies.engines.script_result`.
"""

from __future__ import annotations

import hashlib
import math
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import IO, Any

from lightball.errors import InputError, reason_of
from lightball.studies.engines import guard
from lightball.studies.engines.devices import num_cores
from lightball.studies.engines.job import Finished, Job
from lightball.studies.engines.script_result import ScriptError, as_result, excerpt, lines, read_outcome, tail
from lightball.studies.engines.template import FROM_SETTINGS, Template, parse, script_seed, values_of
from lightball.studies.plan import one_by_one
from lightball.studies.runs import Chunk, Outcome, Run, crashed
from lightball.studies.settings import Settings

_HASHED_BYTES = 2**26  # a larger file is data; its size and time stand for it


def prepare(command: str, settings: Settings, num_workers: int, timeout: float | None = None) -> Job:
    """The job of a command with placeholders, of which ``num_workers`` run at once, for ``timeout`` seconds at most.

    Raises:
        InputError: a command that cannot be used (:func:`lightball.studies.engines.template.parse`), no such program,
            or a timeout that is not above 0.
    """
    template = parse(command, settings)
    program = template.words[0]
    if shutil.which(program) is None:
        raise InputError(
            f"the command begins with {program!r}, which is no program on the PATH and no executable file "
            "(no shell is involved: for one, write bash -c '...')"
        )
    if timeout is not None and not 0 < timeout < math.inf:
        raise InputError(f"timeout is {timeout:g}, but must be a number of seconds above 0")
    files = list(_files(template.words))
    scripts = [word for word in files if re.search(r"\.[A-Za-z]+$", word)]  # train.py rather than .venv/bin/python
    task = Path([*scripts, *files, program][0]).name
    basis = {
        "engine": "command",
        "task": task,
        "command": list(template.words),
        "files": {word: _hash_of_file(word) for word in files},
        "settings": {name: getattr(settings, name) for name in FROM_SETTINGS if name in template.names},
    }
    return Job(
        task,
        basis,
        make_plan=lambda compositions: one_by_one(settings, None, num_workers),
        start=lambda folder: CommandEngine(template, settings, num_workers, timeout, folder / "logs"),
    )


def _files(words: Sequence[str]) -> Iterator[str]:
    """The files that a command names: as a word, after an equals sign, or as a Python module."""
    for before, word in pairwise(("", *words)):
        module = word.replace(".", "/")
        candidates = [word, word.rpartition("=")[2]]
        if before == "-m":
            candidates += [f"{module}.py", f"{module}/__main__.py"]
        yield from (path for path in dict.fromkeys(candidates) if os.path.isfile(path))


@dataclass
class CommandEngine:
    """Runs ``num_workers`` scripts at once, each with a log of its own in ``logs``."""

    template: Template
    settings: Settings
    num_workers: int
    timeout: float | None
    logs: Path

    def __post_init__(self) -> None:
        self._processes = Processes()

    def compute(self, chunks: Iterable[Chunk]) -> Iterator[Finished]:
        self.logs.mkdir(parents=True, exist_ok=True)
        self._processes = Processes()
        waiting = iter(chunks)
        running: dict[Future[list[Outcome]], Chunk] = {}
        pool = ThreadPoolExecutor(self.num_workers)
        try:
            while True:
                while len(running) < self.num_workers and (chunk := next(waiting, None)) is not None:
                    running[pool.submit(self._run_chunk, chunk)] = chunk
                if not running:
                    return
                future = next(iter(wait(running, return_when=FIRST_COMPLETED).done))
                yield running.pop(future), future.result()
        except StoppedError:
            return
        finally:
            self._processes.stop()
            pool.shutdown()

    def close(self) -> None:
        self._processes.stop()

    def _run_chunk(self, chunk: Chunk) -> list[Outcome]:
        return [self._run(run) for run in chunk.runs]

    def _run(self, run: Run) -> Outcome:
        name = f"batch-{run.batch_size}_lr-{run.effective_lr!r}_momentum-{run.momentum!r}_seed-{script_seed(run)}"
        log, out = self.logs / f"{name}.log", self.logs / f"{name}.{os.getpid()}.json"
        words = self.template.fill(values_of(run, self.settings, out.absolute()))
        out.unlink(missing_ok=True)
        printed = ""
        try:
            with log.open("wb") as stream:
                stream.write(f"$ {shlex.join(words)}\n".encode(errors="surrogateescape"))
                stream.flush()
                start = stream.tell()
                status = self._processes.run(words, stream, self._environment(), self.timeout)
            printed = tail(log, start)
            _require_success(status, printed, self.timeout)
            outcome = read_outcome(run, self._result(printed, out))
            return self._with_whole_curve(outcome)
        except ScriptError as error:
            return crashed(run, f"{': '.join(filter(None, [str(error), excerpt(printed)]))} (log: {log})")
        except OSError as error:
            raise InputError(
                f"cannot write the log {str(log)!r}: {reason_of(error)}; make room and run the same command again"
            ) from error

    def _with_whole_curve(self, outcome: Outcome) -> Outcome:
        """A run that diverged may have a curve that ends early; the rest is NaN."""
        given, wanted = len(outcome.curve), self.settings.epochs + 1
        if not given or given == wanted or "epochs" not in self.template.names:
            return outcome
        if given > wanted or math.isfinite(outcome.final["train_loss"]):
            raise ScriptError(
                f"curve has {given} values, but must have {wanted}: the training loss before training and after each "
                f"of {self.settings.epochs} epochs"
            )
        return replace(outcome, curve=(*outcome.curve, *[math.nan] * (wanted - given)))

    def _environment(self) -> dict[str, str]:
        environment = dict(os.environ)
        if self.num_workers > 1:  # OpenMP pools that share cores slow each other down many times over
            environment.setdefault("OMP_NUM_THREADS", str(max(1, num_cores() // self.num_workers)))
        return environment

    def _result(self, printed: str, out: Path) -> dict[str, Any]:
        if "out" not in self.template.names:
            for line in reversed(lines(printed)):
                if result := as_result(line):
                    return result
            raise ScriptError("printed no JSON object with train_loss")
        try:
            result = as_result(out.read_text(encoding="utf-8", errors="replace"))
        except OSError:
            result = None
        if not result:
            raise ScriptError(f"wrote no JSON object with train_loss to {out}")
        return result


class StoppedError(Exception):
    """The engine was closed."""


class Processes:
    """The scripts that run; once they were stopped, none starts any more."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._running: set[subprocess.Popen[bytes]] = set()
        self._stopped = False

    def run(self, words: list[str], log: IO[bytes], environment: dict[str, str], timeout: float | None) -> int | None:
        """The exit code of a script, or −signal; None if its time was over. It leaves no process behind.

        Raises:
            ScriptError: it cannot be started.
            StoppedError: it was stopped, or may not start any more.
        """
        guarded = [sys.executable, "-I", "-S", guard.__file__, str(os.getpid())] if os.name == "posix" else []
        with self._lock:
            if self._stopped:
                raise StoppedError
            try:
                process = subprocess.Popen(
                    [*guarded, *words],
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    env=environment,
                    start_new_session=True,  # Ctrl-C is for lightball, which stops its scripts
                )
            except (OSError, ValueError) as error:
                raise ScriptError(f"{guard.CANNOT_START}{reason_of(error)}") from error
            self._running.add(process)
        status: int | None
        try:
            status = process.wait(timeout)
        except subprocess.TimeoutExpired:
            process.terminate()
            process.wait()
            status = None
        with self._lock:
            self._running.discard(process)
            if self._stopped:
                raise StoppedError
        return status

    def stop(self) -> None:
        with self._lock:
            self._stopped = True
            running = list(self._running)
        for process in running:
            process.terminate()  # the guard ends the script and its children
        for process in running:
            process.wait()


def _require_success(status: int | None, printed: str, timeout: float | None) -> None:
    if status is None:
        raise ScriptError(f"timed out after {timeout:g} s")
    if status < 0:
        names = {number.value: f" ({number.name})" for number in signal.Signals}
        raise ScriptError(f"killed by signal {-status}{names.get(-status, '')}")
    if status > 0:  # a guard that cannot start the script has said so
        raise ScriptError("" if printed.startswith(guard.CANNOT_START) else f"exit code {status}")


def _hash_of_file(path: str) -> str:
    try:
        facts = os.stat(path)
        if facts.st_size > _HASHED_BYTES:
            return f"{facts.st_size} bytes of {facts.st_mtime_ns}"
        with open(path, "rb") as stream:
            return hashlib.file_digest(stream, lambda: hashlib.blake2b(digest_size=16)).hexdigest()
    except OSError as error:
        raise InputError(f"cannot read {path!r}, a file of the command: {error.strerror}") from error
