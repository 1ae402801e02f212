"""Programs that are stopped at a step of their own choosing, so that no test depends on how fast the computer is.

A program counts what it changes below a folder (files opened for writing, renamed, removed; folders made), and sends itself a
signal just before one of these changes.
"""
import gc, itertools, os, sys, time
from functools import partial
from pathlib import Path
from typing import Callable, NamedTuple

from commands import PROCESSES

COUNT = '''
import itertools, os, sys
folder, number, at = os.path.realpath(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
steps = itertools.count(1)
def watch(event, given):
    if event not in ('open', 'os.rename', 'os.mkdir', 'os.remove', 'os.rmdir', 'os.link') or not isinstance(given[0], (str, bytes, os.PathLike)): return
    if event == 'open' and not given[2] & (os.O_WRONLY | os.O_RDWR): return
    if os.path.realpath(os.fsdecode(given[0])).startswith(folder + os.sep) and next(steps) == at:
        os.kill(os.getpid(), number)
sys.addaudithook(watch)
'''


# --- functions and command lines, each in a process of its own that has PyTorch loaded already

class Stopped(NamedTuple):
    "How a process ended."
    status: int | None  # exit status; negative: the signal that ended it
    steps: int  # how many it did, if it came to its end
    said: str
    seconds: float  # from the signal to the end


def _enter(work: Callable, folder: str, number: int, at: int, report: str):
    "In the new process: do the work, and count steps: files that change below `folder`, and frames of clips that are written."
    gc.freeze()  # what is there already is no garbage
    from inpaint_nb import writing
    folder, steps = os.path.realpath(folder), itertools.count(1)
    def step():
        if next(steps) != at: return
        Path(f'{report}.time').write_text(f'{time.monotonic()}')
        os.kill(os.getpid(), number)
    def watch(event, given):
        if event not in ('open', 'os.rename', 'os.mkdir', 'os.remove', 'os.rmdir', 'os.link') or not isinstance(given[0], (str, bytes, os.PathLike)): return
        if event == 'open' and not (given[2] or 0) & (os.O_WRONLY | os.O_RDWR): return
        if os.path.realpath(os.fsdecode(given[0])).startswith(folder + os.sep): step()
    for kind in (writing.ClipWriter, writing.PartsWriter):
        kind.write = lambda *given, write=kind.write: step() or write(*given)
    said = os.open(report + '.txt', os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    for output in (1, 2): os.dup2(said, output)
    sys.addaudithook(watch)
    try: status = work()
    except SystemExit as end: status = end.code
    Path(report).write_text(f'{next(steps) - 1}')
    os._exit(status or 0)


def stopped(work: Callable, folder: str | Path, report: str | Path, number: int = 0, at: int = 0) -> Stopped:
    "Run a function that gets signal `number` just before its step number `at` below `folder`. 0: never. `report` is a file outside."
    for ending in ('', '.time'): Path(f'{report}{ending}').unlink(missing_ok=True)
    process = PROCESSES.Process(target=_enter, args=(work, str(folder), int(number), at, str(report)))
    process.start()
    process.join(240)
    end = time.monotonic()
    if process.exitcode is None: process.kill(), process.join()
    steps, begin = (float(Path(f'{report}{ending}').read_text()) if Path(f'{report}{ending}').exists() else 0 for ending in ('', '.time'))
    return Stopped(process.exitcode, int(steps), Path(f'{report}.txt').read_text(), end - begin)


def _line(program: str, line: list[str]) -> int:
    from inpaint_nb import cli
    return getattr(cli, program)(line)


def line_stopped(program: str, line: list, folder: str | Path, report: str | Path, number: int = 0, at: int = 0) -> tuple[int, int, str]:
    "The same with a command line: its status, its number of steps if it came to its end, and what it said."
    return stopped(partial(_line, program, [str(part) for part in line]), folder, report, number, at)[:3]
