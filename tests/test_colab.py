"""What Colab brings along stays as it is: our requirements accept it, and its first cell calls pip only where the package is missing."""
import subprocess, sys
from configparser import ConfigParser
from shlex import split

import nbformat
from colab import AROUND, EXTRAS, INSTALL, PACKAGES, ROOT, install, run
from packaging.requirements import Requirement

SETTINGS = ConfigParser(delimiters=['='])
SETTINGS.read(ROOT/'settings.ini', encoding='utf-8')
REQUIREMENTS = split(SETTINGS['DEFAULT']['requirements'])


def test_requirements_accept_what_is_there():
    "Else pip would put another version in its place, and another torch is 6 GB."
    found = {requirement.name: requirement for requirement in map(Requirement, REQUIREMENTS)}
    assert set(PACKAGES) <= set(found)
    refused = {name: str(found[name].specifier) for name, version in PACKAGES.items() if not found[name].specifier.contains(version)}
    assert not refused


def test_environment_can_be_named_to_pip():
    "What `pins` prints is what a person gives to pip before `run`."
    done = subprocess.run([sys.executable, ROOT/'tests'/'colab.py', 'pins'], capture_output=True, text=True, timeout=240, check=True)
    pins = dict(line.split('==') for line in done.stdout.splitlines())
    assert pins == PACKAGES | AROUND and pins['ipywidgets'].startswith('7.')


def test_a_page_is_run_as_colab_runs_it(tmp_path):
    "Alone in an empty folder, all cells, and the first error is told."
    page = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell('#| eval: false\nimport os; assert not os.listdir()')])
    nbformat.write(page, fine := tmp_path/'fine.ipynb')
    page.cells.append(nbformat.v4.new_code_cell('1/0'))
    nbformat.write(page, broken := tmp_path/'broken.ipynb')
    assert run(fine) is None
    assert 'ZeroDivisionError' in run(broken)


def test_first_cell_does_nothing_where_the_package_is():
    "It is run as nbdev_test runs it; pip is not to be called."
    code = '''
from IPython.core.interactiveshell import InteractiveShell
shell = InteractiveShell.instance()
called = []
shell.register_magic_function(lambda line: called.append(line), magic_name='pip')
for cell in (CELL, CELL.replace("'inpaint_nb'", "'a_package_that_nobody_wrote'")): shell.run_cell(cell).raise_error()
print(called)'''
    done = subprocess.run([sys.executable, '-c', code.replace('CELL', repr(INSTALL))], capture_output=True, text=True, timeout=240)
    assert done.stdout.splitlines()[-1] == "['install -q git+https://github.com/inpaint-nb/inpaint_nb']", done.stderr


def test_a_page_may_need_more():
    "ONNX does not come with Colab: the page about it asks for it, by a name that settings.ini knows."
    for name, extra in EXTRAS.items():
        assert (ROOT/'nbs'/name).is_file() and f'{extra}_requirements' in SETTINGS['DEFAULT']
        assert f'"inpaint_nb[{extra}] @ git+' in install(name)
