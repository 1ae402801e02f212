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
        code += [re.sub(r'^(\s*)[%!].*', r'\1pass', cell, flags=re.MULTILINE) for cell in cells]
    brought_along = {'ipython', 'matplotlib-inline', 'nbclient', 'nbformat', 'packaging', 'pyyaml'}  # by nbdev, nbconvert, jupyterlab and pytest
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


def exported_cells() -> list[tuple[str, str]]:
    "Page and source of each cell that is exported."
    return [(name, source) for name, source in code_cells() if re.match(r'#\|\s*export\b', source)]


def test_nothing_is_too_long():
    "A cell fits a screen, a module and a page can be held in the head."
    cells = exported_cells()
    assert len(cells) > 300
    assert [(name, source.splitlines()[1]) for name, source in cells if len(source.splitlines()) > 40] == []
    lengths = {path.name: len(path.read_text(encoding='utf-8').splitlines()) for path in (ROOT/'inpaint_nb').glob('[a-z]*.py')}
    assert {name: length for name, length in lengths.items() if length > 750} == {}
    pages = {path.name: len(json.loads(path.read_text(encoding='utf-8'))['cells']) for path in (ROOT/'nbs').glob('*.ipynb')}
    assert {name: cells for name, cells in pages.items() if cells > 130} == {}


def public_names(source: str) -> list[str]:
    "What a piece of code defines for others, methods that are added later left out."
    names = []
    for node in ast.parse(source).body:
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            if not any(isinstance(part, ast.Name) and part.id.startswith('patch') for mark in node.decorator_list for part in ast.walk(mark)): names.append(node.name)
        elif isinstance(node, ast.Assign): names += [target.id for target in node.targets if isinstance(target, ast.Name)]
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name): names.append(node.target.id)
    return [name for name in names if not name.startswith('_')]


def test_one_name_for_one_thing():
    "No two rooms define the same public name."
    homes = {}
    for path in (ROOT/'inpaint_nb').glob('[a-z]*.py'):
        for name in public_names(path.read_text(encoding='utf-8')): homes.setdefault(name, set()).add(path.stem)
    assert len(homes) > 500
    assert {name: rooms for name, rooms in homes.items() if len(rooms) > 1} == {}


def test_types_are_for_others_too():
    "A type checker of another project looks into this package only if it says so."
    assert (ROOT/'inpaint_nb/py.typed').exists() and 'py.typed' in (ROOT/'setup.py').read_text(encoding='utf-8')


def page_cells(path: Path) -> list[tuple[str, str]]:
    "Each cell of a page: `export`, `code` or `markdown`, and its source."
    cells = [(cell['cell_type'], ''.join(cell['source'])) for cell in json.loads(path.read_text(encoding='utf-8'))['cells']]
    return [('export' if kind == 'code' and re.search(r'^#\|\s*export\b', source, re.M) else kind, source) for kind, source in cells]


def test_names_stand_near_their_lesson():
    "Each public name is said in words, or used in an example, within three cells of where it is defined."
    far, names = [], 0
    for path in sorted((ROOT/'nbs').glob('*.ipynb')):
        cells = page_cells(path)
        for i, (kind, source) in enumerate(cells):
            if kind != 'export': continue
            near = '\n'.join(text for other, text in cells[max(0, i - 3):i + 4] if other != 'export')
            for name in public_names(source):
                names += 1
                if not re.search(rf'\b{re.escape(name)}\b', near): far.append(f'{path.stem}: {name}')
    assert names > 500 and far == []
