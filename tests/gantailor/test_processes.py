"""Search workers that are killed are replaced a few times, their subnets are tried again; none outlives its parent."""

import os
import signal
import subprocess
import sys
import time

import pytest

from gantailor.pipeline.search.processes import run_workers
from gantailor.search.conformance import StrategyConformance
from gantailor.search.errors import SearchError
from gantailor.search.storage import open_study

pytestmark = pytest.mark.long

# what a worker runs; its evaluator is killed wherever the file for it can still be taken away
WORK = """
import os, signal
from pathlib import Path
from gantailor.search.conformance import StrategyConformance
from gantailor.search.storage import open_study

class Killed(StrategyConformance):
    strategy = "random"
    def score(self, config):
        for file in Path({folder!r}).glob("kill*"):
            file.unlink()
            os.kill(os.getpid(), signal.SIGKILL)
        return super().score(config)

Killed().search(study=open_study({folder!r} + "/j", name="s")).run({trials})
"""


def search_of(folder):
    return StrategyConformance().search(study=open_study(folder / "j", name="s"))


def test_a_killed_worker_is_replaced_and_its_subnet_tried_again(tmp_path):
    for number in range(3):
        (tmp_path / f"kill{number}").touch()
    search = search_of(tmp_path)
    code = WORK.format(folder=str(tmp_path), trials=6)
    run_workers(exec, [code, {}], count=1, results=lambda: len(search.history().values))
    trials = search.study.trials
    done = [tuple(trial.params.values()) for trial in trials if trial.state.name == "COMPLETE"]
    lost = {tuple(trial.params.values()) for trial in trials if trial.state.name == "FAIL"}
    assert len(done) == len(set(done)) == 6 and len(trials) == 9
    assert lost <= set(done)


def test_two_workers_of_which_one_is_killed(tmp_path):
    (tmp_path / "kill").touch()
    search = search_of(tmp_path)
    code = WORK.format(folder=str(tmp_path), trials=8)
    run_workers(exec, [code, {}], count=2, results=lambda: len(search.history().values))
    trials = search.study.trials
    done = [tuple(trial.params.values()) for trial in trials if trial.state.name == "COMPLETE"]
    assert len(done) == len(set(done)) == 8
    lost = [trial for trial in trials if trial.state.name == "FAIL"]  # killed, or given way to the other worker
    assert lost and len(trials) == 8 + len(lost) and not any("reason" in trial.user_attrs for trial in lost)


@pytest.mark.parametrize(
    ("number", "message"),
    [
        (signal.SIGKILL, "killed by SIGKILL 4 times without a new result in between: most likely memory ran out"),
        (signal.SIGSEGV, "killed by SIGSEGV 4 times .* With search.workers 1"),
    ],
)
def test_always_killed(number, message):
    """As where memory runs out each time."""
    started = time.monotonic()
    with pytest.raises(SearchError, match=message):
        run_workers(signal.raise_signal, [number], count=1, results=lambda: 0)
    assert time.monotonic() - started < 120


def test_every_worker_fails():
    with pytest.raises(SearchError, match="every search worker failed"):
        run_workers(exec, ["raise SystemExit(1)"], count=2, results=lambda: 0)


PARENT = """
if __name__ == "__main__":
    import sys
    from gantailor.pipeline.search.processes import run_workers
    code = "import os, time; open({file!r} + str(os.getpid()), 'w').close(); time.sleep(300)"
    run_workers(exec, [code, {{}}], count=2, results=lambda: 0)
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_workers_end_with_their_parent(tmp_path, number):
    script = tmp_path / "parent.py"
    script.write_text(PARENT.format(file=str(tmp_path / "worker")))
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    parent = subprocess.Popen([sys.executable, str(script)], env=environment, stderr=subprocess.DEVNULL)
    wait_until(lambda: len([*tmp_path.glob("worker*")]) == 2)
    workers = [int(file.name.removeprefix("worker")) for file in tmp_path.glob("worker*")]
    parent.send_signal(number)
    parent.wait(60)
    wait_until(lambda: not any(map(runs, workers)))


def runs(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    state = subprocess.run(["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True, check=False)
    return bool(state.stdout.strip()) and not state.stdout.startswith("Z")


def wait_until(condition, seconds=60):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.1)
