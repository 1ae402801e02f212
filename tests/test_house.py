"""What the project is made of, and what it tells those who install it."""
import ast, json, os, re, subprocess, sys
from configparser import ConfigParser
from importlib.metadata import entry_points, requires
from pathlib import Path
from shlex import split

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).parents[1]
TOP = {'nbs', 'inpaint_nb', 'settings.ini', 'setup.py', '_quarto.yml', 'tests', 'README.md',
       '.ci', '.github', 'LICENSE', '.gitignore', 'CHANGELOG.md', 'CONTRIBUTING.md'}
SETTINGS = ConfigParser(delimiters=['='])
SETTINGS.read(ROOT/'settings.ini', encoding='utf-8')
SETTINGS = SETTINGS['DEFAULT']


@pytest.mark.skipif(not (ROOT/'.git').exists(), reason='not a checkout')
def test_top_level():
    files = subprocess.run(['git', '-c', 'safe.directory=*', 'ls-files', '--cached', '--others', '--exclude-standard'],
                           cwd=ROOT, capture_output=True, text=True, check=True).stdout.splitlines()
    assert {name.split('/')[0] for name in files if (ROOT/name).exists()} == TOP


def test_requirements_leave_room():
    "Colab brings its own torch: nothing that a user needs may be pinned."
    for text in split(SETTINGS['requirements']):
        assert not re.search('==|~=', str(Requirement(text).specifier)), text


def test_installed_as_declared():
    declared = split(SETTINGS['requirements']) + split(SETTINGS['dev_requirements'])
    names = {Requirement(text).name for text in declared}
    needed = {Requirement(text).name for text in requires('inpaint_nb')}
    assert needed - {'pillow-heif'} == names  # an extra of its own: inpaint_nb[heif]


def imported(*sources: str) -> set[str]:
    "The distributions that pieces of code import."
    modules = set()
    for source in sources:
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.Import): modules |= {alias.name.split('.')[0] for alias in node.names}
            if isinstance(node, ast.ImportFrom) and not node.level: modules.add(node.module.split('.')[0])
    own = {'inpaint_nb', 'recipe'} | {path.stem for path in (ROOT/'tests').glob('*.py')}
    named = {'cv2': 'opencv-python', 'PIL': 'pillow', 'skimage': 'scikit-image', 'IPython': 'ipython', 'yaml': 'pyyaml', 'matplotlib_inline': 'matplotlib-inline'}
    return {named.get(module, module) for module in modules - set(sys.stdlib_module_names) - own}


def distributions(option: str) -> set[str]:
    return {Requirement(text).name for text in split(SETTINGS[option])}


def test_requires_what_it_imports_and_nothing_else():
    code = [path.read_text(encoding='utf-8') for path in (ROOT/'inpaint_nb').glob('*.py')]
    unseen = {'lpips', 'tensorboard'}  # for its weights; by torch.utils.tensorboard
    needed = distributions('requirements') - unseen
    assert imported(*code) - {'ipython'} == needed  # IPython comes with ipywidgets


def test_notebooks_and_tests_import_what_comes_with_dev():
    code = [path.read_text(encoding='utf-8') for path in (ROOT/'tests').glob('*.py')]
    for path in (ROOT/'nbs').glob('*.ipynb'):
        cells = [''.join(cell['source']) for cell in json.loads(path.read_text(encoding='utf-8'))['cells'] if cell['cell_type'] == 'code']
        code += [re.sub(r'^\s*[%!].*', '', cell, flags=re.MULTILINE) for cell in cells]
    brought_along = {'ipython', 'matplotlib-inline', 'nbformat', 'packaging', 'pyyaml'}  # by nbdev, jupyterlab and pytest
    assert imported(*code) <= distributions('requirements') | distributions('dev_requirements') | brought_along


@pytest.mark.parametrize('script', SETTINGS['console_scripts'].split('\n'))
def test_console_scripts(script):
    name, function = script.split('=')
    [entry] = entry_points(group='console_scripts', name=name)
    assert entry.value == function and callable(entry.load())


def test_nbdev_index():
    [entry] = entry_points(group='nbdev', name='inpaint_nb')
    assert set(entry.load()) == {'settings', 'syms'}


def test_ci_script():
    assert os.access(ROOT/'.ci/run', os.X_OK)
    subprocess.run(['bash', '-n', ROOT/'.ci/run'], check=True)


def test_workflows_pin_what_must_be_pinned():
    docs = (ROOT/'.github/workflows/docs.yml').read_text()
    assert 'version: 1.7.34' in docs
    tests = (ROOT/'.github/workflows/ci.yml').read_text()
    for version in ('3.10', '3.11', '3.12', '3.13'): assert f"'{version}'" in tests


def code_cells() -> list[tuple[str, str]]:
    "Page and source of each cell of code in the notebooks."
    pages = [(path.name, json.loads(path.read_text(encoding='utf-8'))) for path in sorted((ROOT/'nbs').glob('*.ipynb'))]
    return [(name, ''.join(cell['source'])) for name, page in pages for cell in page['cells'] if cell['cell_type'] == 'code']


def test_lines_fit_the_window():
    "JupyterLab shows about 93 characters in a window of 1300 pixels."
    cells = code_cells()
    assert len(cells) > 1000
    assert [(name, line) for name, source in cells for line in source.splitlines() if len(line) > 100] == []


def test_rooms_use_only_rooms_below():
    "What a module imports when it is imported never leads back to it."
    below = {}
    for path in (ROOT/'inpaint_nb').glob('[a-z]*.py'):
        body = ast.parse(path.read_text(encoding='utf-8')).body
        below[path.stem] = {node.module for node in body if isinstance(node, ast.ImportFrom) and node.level and node.module}
    assert below['run'] > {'train', 'gan'} and 'run' not in below['gan']
    done = set()
    def climb(room, way):
        assert room not in way, [*way[way.index(room):], room]
        if room in done: return
        for under in below.get(room, ()): climb(under, [*way, room])
        done.add(room)
    for room in below: climb(room, [])
