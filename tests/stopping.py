"""Programs that are stopped at a step of their own choosing, so that no test depends on how fast the computer is.

A program counts what it changes below a folder (files opened for writing, renamed, removed; folders made), and sends itself a
signal just before one of these changes. If it ends by itself after that, it prints how many seconds that took.
"""
import gc, itertools, os, subprocess, sys
from pathlib import Path

from commands import PROCESSES

COUNT = '''
import atexit, itertools, os, sys, time
folder, number, at = os.path.realpath(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
steps = itertools.count(1)
def watch(event, given):
    if event not in ('open', 'os.rename', 'os.mkdir', 'os.remove', 'os.rmdir', 'os.link') or not isinstance(given[0], (str, bytes, os.PathLike)): return
    if event == 'open' and not given[2] & (os.O_WRONLY | os.O_RDWR): return
    if os.path.realpath(os.fsdecode(given[0])).startswith(folder + os.sep) and next(steps) == at:
        start = time.monotonic()
        atexit.register(lambda: print(time.monotonic() - start))
        os.kill(os.getpid(), number)
sys.addaudithook(watch)
'''


def run_and_stop(code: str, folder: str | Path, number: int = 0, at: int = 0) -> subprocess.CompletedProcess:
    "Run a program that changes files below `folder`; it gets signal `number` just before its change number `at`. 0: never."
    return subprocess.run([sys.executable, '-c', COUNT + code, str(folder), str(int(number)), str(at)], capture_output=True, text=True, timeout=240,
                          cwd=Path(__file__).parents[1], env=dict(os.environ, OMP_NUM_THREADS='1'))


def count_changes(code: str, folder: str | Path) -> int:
    "How often the program, not stopped, changes a file below `folder`."
    done = run_and_stop(code + '\nprint(next(steps) - 1)', folder)
    assert done.returncode == 0, done.stderr
    return int(done.stdout)


# --- command lines, each in a process of its own that has PyTorch loaded already

def _enter(program: str, line: list[str], folder: str, number: int, at: int, report: str):
    "In the new process: do what the installed program does, and count steps: files that change below `folder`, and frames of clips that are written."
    gc.freeze()
    from inpaint_nb import cli, writing
    folder, steps = os.path.realpath(folder), itertools.count(1)
    def step():
        if next(steps) == at: os.kill(os.getpid(), number)
    def watch(event, given):
        if event not in ('open', 'os.rename', 'os.mkdir', 'os.remove', 'os.rmdir', 'os.link') or not isinstance(given[0], (str, bytes, os.PathLike)): return
        if event == 'open' and not (given[2] or 0) & (os.O_WRONLY | os.O_RDWR): return
        if os.path.realpath(os.fsdecode(given[0])).startswith(folder + os.sep): step()
    for kind in (writing.ClipWriter, writing.PartsWriter):
        kind.write = lambda *given, write=kind.write: step() or write(*given)
    said = os.open(report + '.txt', os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    for output in (1, 2): os.dup2(said, output)
    sys.addaudithook(watch)
    try: status = getattr(cli, program)(line)
    except SystemExit as end: status = end.code
    Path(report).write_text(f'{next(steps) - 1}')
    os._exit(status or 0)


def line_stopped(program: str, line: list, folder: str | Path, report: str | Path, number: int = 0, at: int = 0) -> tuple[int, int, str]:
    "Run a command line that gets signal `number` just before its step number `at` below `folder`; its status, its number of steps if it came to its end, and what it said. 0: never. `report` is a file outside."
    Path(report).unlink(missing_ok=True)
    process = PROCESSES.Process(target=_enter, args=(program, [str(part) for part in line], str(folder), int(number), at, str(report)))
    process.start()
    process.join(240)
    if process.exitcode is None: process.kill(), process.join()
    return process.exitcode, int(Path(report).read_text()) if Path(report).exists() else 0, Path(f'{report}.txt').read_text()
