"""The page of all options is what the programs' parsers say now."""
import contextlib, io, json, re, subprocess, sys
from pathlib import Path

import pytest

from inpaint_nb import cli

ROOT = Path(__file__).parents[1]
CELLS = json.loads((ROOT/'nbs/30_reference.ipynb').read_text(encoding='utf-8'))['cells']
CODE = [cell for cell in CELLS if cell['cell_type'] == 'code']


def stored(cell: dict) -> list[str]:
    "The tables that a cell shows."
    return [''.join(output['data']['text/markdown']) for output in cell['outputs'] if 'data' in output]


RUN = '''
import json, sys
from unittest.mock import patch
names, found = {}, []
for cell in json.load(open(sys.argv[1])):
    found.append([])
    with patch('IPython.display.display', lambda shown: found[-1].append(shown.data)): exec(cell, names)
json.dump(found, open(sys.argv[2], 'w'))
'''


@pytest.fixture(scope='module')
def fresh(tmp_path_factory) -> list[list[str]]:
    "The tables that the page's cells show now, one list for each cell; in a process where no other test has added a name."
    cells, found = (tmp_path_factory.mktemp('fresh')/name for name in ('cells.json', 'found.json'))
    cells.write_text(json.dumps([''.join(cell['source']) for cell in CODE]))
    subprocess.run([sys.executable, '-c', RUN, str(cells), str(found)], cwd=ROOT, check=True, capture_output=True)
    return json.loads(found.read_text())


def test_in_step(fresh):
    assert sum(map(len, fresh)) > 20
    for cell, tables in zip(CODE, fresh):
        assert stored(cell) == tables, f"{''.join(cell['source'])}: execute nbs/30_reference.ipynb again"


def help_of(*line: str) -> str:
    "What a program prints when it is asked for help."
    program, *arguments = line
    with contextlib.redirect_stdout(io.StringIO()) as printed, pytest.raises(SystemExit): getattr(cli, program)([*arguments, '-h'])
    return printed.getvalue()


def test_every_command_is_there():
    "Programs are those that are installed, commands those that their help lists."
    settings = (ROOT/'settings.ini').read_text(encoding='utf-8')
    wanted = []
    for program in re.findall(r'inpaint_nb\.cli:(\w+)', settings):
        listed = re.search(r'^  \{?metavar\}?$|^  command\n((?:    .*\n)+)', help_of(program), flags=re.MULTILINE)
        commands = re.findall(r'^    (\w+)', listed.group(1), flags=re.MULTILINE) if listed else []
        wanted += [f'{program} {command}' for command in commands] or [program]
    shown = [found for cell in CODE for found in re.findall(r"^options\('(.+)'\)", ''.join(cell['source']), flags=re.MULTILINE)]
    assert sorted(shown) == sorted(wanted)
    headings = [''.join(cell['source']).lstrip('# ') for cell in CELLS if ''.join(cell['source']).startswith('##')]
    assert {line for line in wanted} <= set(headings)


@pytest.mark.parametrize('line', ['inpaint_train inpaint', 'inpaint_stereo', 'inpaint_benchmark stereo', 'inpaint_demo'])
def test_has_what_help_has(line):
    "Every option that help prints stands in the command's table, and no other."
    [cell] = [cell for cell in CODE if f"options('{line}')" in ''.join(cell['source'])]
    table = stored(cell)[0]
    printed = set(re.findall(r'^  (?:-\w(?: [^,\n]+)?, )*(--[\w-]+)', help_of(*line.split()), flags=re.MULTILINE))
    assert printed - {'--help', '--debug'} == {row for rows in re.findall(r'^\| (.*?)\|', table, flags=re.MULTILINE)
                                               for row in re.findall(r'`(--(?!no-)[\w-]+)`', rows)[:1]}
