"""Command lines for tests: each is a process of its own, forked from one that has PyTorch loaded already.

A fresh Python spends seconds on importing PyTorch; two hundred command lines would spend most of an hour.
`script` starts the installed program instead, exactly as a user does.
"""
import contextlib, gc, io, multiprocessing, os, subprocess, sys, tempfile
from pathlib import Path
from typing import Callable, NamedTuple

os.environ['OMP_NUM_THREADS'] = '1'  # before PyTorch is loaded, here and in what is started from here
ENV = dict(os.environ, PYTHONUNBUFFERED='1')
METHOD = 'forkserver' if 'forkserver' in multiprocessing.get_all_start_methods() else 'spawn'
PROCESSES = multiprocessing.get_context(METHOD)
LOADED = '''inpaint_nb.cli inpaint_nb.run inpaint_nb.benchmark inpaint_nb.operations inpaint_nb.keeping inpaint_nb.stereo_program
    inpaint_nb.export inpaint_nb.video torch._dynamo torch.utils.tensorboard matplotlib.backends.backend_agg
    '''.split()  # what each would load for itself: training alone another thousand modules
if METHOD == 'forkserver': PROCESSES.set_forkserver_preload(LOADED)


class Done(NamedTuple):
    "What a command line came to."
    returncode: int  # exit status; negative: the signal that ended it
    stdout: str
    stderr: str


def enter(program: str | Callable, arguments: list[str], folder: str, output: tuple[str, str], env: dict[str, str]):
    "In the new process: what the installed script does, with the outputs in files."
    os.environ.update(env)
    gc.freeze()  # what is there already is no garbage
    os.chdir(folder)
    for number, path in enumerate(output, 1): os.dup2(os.open(path, os.O_WRONLY), number)
    for name in ('stdout', 'stderr'): setattr(sys, name, open({'stdout': 1, 'stderr': 2}[name], 'w', buffering=1, closefd=False))
    from inpaint_nb import cli
    sys.exit((program if callable(program) else getattr(cli, program))(arguments))


class Running:
    "A command line at work, or a function of a list of words; `env`: what else its environment holds."
    def __init__(self, program: str | Callable, *arguments, cwd: str | Path = '.', env: dict[str, str] = {}):
        self.folder = tempfile.TemporaryDirectory()
        self.output = tuple(str(Path(self.folder.name)/name) for name in ('stdout', 'stderr'))
        for path in self.output: open(path, 'w').close()
        given = program, [str(argument) for argument in arguments], os.path.abspath(cwd), self.output, dict(env)
        self.process = PROCESSES.Process(target=enter, args=given)
        self.process.start()
        self.pid = self.process.pid

    def poll(self) -> int | None: return self.process.exitcode

    def wait(self, timeout: float = 240) -> Done:
        "Wait for the end."
        self.process.join(timeout)
        if self.process.exitcode is None: self.process.kill(); self.process.join()
        with self.folder: return Done(self.process.exitcode, *(Path(path).read_text() for path in self.output))


def run(program: str | Callable, *arguments, **settings) -> Done:
    "Run a command line to its end."
    return Running(program, *arguments, **settings).wait()


def here(program: str, *arguments, cwd: str | Path = '.') -> Done:
    "Run a command line in this process: where nothing depends on one of its own."
    from inpaint_nb import cli
    before, output = os.getcwd(), (io.StringIO(), io.StringIO())
    with contextlib.redirect_stdout(output[0]), contextlib.redirect_stderr(output[1]):
        os.chdir(cwd)
        try: status = getattr(cli, program)([str(argument) for argument in arguments])
        except SystemExit as end: status = end.code
        finally: os.chdir(before)
    return Done(status or 0, *(text.getvalue() for text in output))


def script(program: str, *arguments) -> Done:
    "Run the installed program to its end."
    done = subprocess.run([Path(sys.executable).parent/program, *map(str, arguments)], env=ENV, capture_output=True, text=True, timeout=240)
    return Done(done.returncode, done.stdout, done.stderr)
