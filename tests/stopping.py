"""Programs that are stopped at a step of their own choosing, so that no test depends on how fast the computer is.

A program counts what it changes below a folder (files opened for writing, renamed, removed; folders made), and sends itself a
signal just before one of these changes. If it ends by itself after that, it prints how many seconds that took.
"""
import os, subprocess, sys
from pathlib import Path

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
