"""The how-to pages and CONTRIBUTING.md: one screen each, links that lead somewhere, commands that the programs take."""
import json, re, shlex
from configparser import ConfigParser
from pathlib import Path

import pytest

from inpaint_nb import cli
from inpaint_nb.program import Parser

ROOT = Path(__file__).parents[1]
PAGES = sorted((ROOT/'nbs').glob('*_howto_*.ipynb'))
CONTRIBUTING = ROOT/'CONTRIBUTING.md'
SCREEN = 250  # words
SETTINGS = ConfigParser(delimiters=['='])
SETTINGS.read(ROOT/'settings.ini', encoding='utf-8')
SCRIPTS = dict(line.split('=') for line in SETTINGS['DEFAULT']['console_scripts'].split('\n'))
FENCE = r'^```(\w*)\n(.*?)^```$'


def text_of(path: Path) -> str:
    "A page as Markdown."
    if path.suffix == '.md': return path.read_text(encoding='utf-8')
    return '\n\n'.join(''.join(cell['source']) for cell in json.loads(path.read_text(encoding='utf-8'))['cells'])


def lines_of(path: Path) -> list[str]:
    "What is to be typed into a shell."
    blocks = [code for language, code in re.findall(FENCE, text_of(path), flags=re.MULTILINE | re.DOTALL) if language == 'bash']
    return [line for block in blocks for line in block.replace('\\\n', ' ').splitlines() if line.strip()]


def program_lines(path: Path) -> list[list[str]]:
    "The lines of a page that call a program of this package, each from the program's name on, also behind a launcher."
    lines = []
    for line in lines_of(path):
        words = shlex.split(re.sub(r'\$\(which (\w+)\)', r'\1', line), comments=True)
        first = next((n for n, word in enumerate(words) if word.startswith('inpaint_') and not word.startswith('inpaint_nb')), None)
        if first is not None: lines.append(words[first:])
    return lines


COMMANDS = [(path.stem, line) for path in (*PAGES, CONTRIBUTING) for line in program_lines(path)]


class Understood(BaseException):
    "What stops a program that has read its command line."


def is_understood(program: str, arguments: list[str], monkeypatch) -> bool:
    "Let the program's own parser read a command line, and do nothing of it."
    parse = Parser.parse_args
    def parse_only(self, args=None, namespace=None):
        parse(self, args, namespace)
        raise Understood
    monkeypatch.setattr(Parser, 'parse_args', parse_only)
    with pytest.raises((Understood, SystemExit)) as end: getattr(cli, SCRIPTS[program].partition(':')[2])(arguments)
    return end.type is Understood


@pytest.mark.parametrize('page, words', COMMANDS, ids=[f'{page}-{n}' for n, (page, _) in enumerate(COMMANDS)])
def test_commands_are_understood(page, words, monkeypatch, capsys):
    program, *arguments = words
    assert program in SCRIPTS, f'{page}: there is no program {program}'
    assert is_understood(program, arguments, monkeypatch), f'{page}: {shlex.join(words)}\n{capsys.readouterr().err}'


@pytest.mark.parametrize('page, words', [(page, words) for page, words in COMMANDS if words[0] in ('inpaint_train', 'inpaint_stereo')])
def test_values_are_accepted(page, words, monkeypatch, tmp_path, capsys):
    "In an empty folder a good command line fails because nothing is there (1), a bad value before that (2)."
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv('HF_HUB_OFFLINE', '1')
    program, *arguments = words
    try: status = getattr(cli, SCRIPTS[program].partition(':')[2])(arguments)
    except SystemExit as end: status = end.code
    assert status == 1, f'{page}: {shlex.join(words)}\n{capsys.readouterr().err}'


def test_a_bad_line_is_noticed(monkeypatch, capsys):
    assert not is_understood('inpaint_train', ['inpaint', '-i', 'data', '--model-dir', 'model', '--epochs', '3'], monkeypatch)
    assert '--epochs' in capsys.readouterr().err


def test_there_are_pages_and_commands():
    assert len(PAGES) == 8
    for path in PAGES: assert lines_of(path), path.name


@pytest.mark.parametrize('path', PAGES, ids=lambda path: path.stem)
def test_page_is_one_screen(path):
    text = text_of(path)
    assert re.match(r'# \S.*\n\n> \S.*\n', text), 'a title, then what the page is for'
    assert '## Where to go next' in text
    words = re.sub(FENCE, '', text, flags=re.MULTILINE | re.DOTALL).split()
    assert len(words) <= SCREEN, len(words)


def test_sections_of_contributing_are_one_screen():
    for section in re.split(r'^## ', text_of(CONTRIBUTING), flags=re.MULTILINE):
        words = re.sub(FENCE, '', section, flags=re.MULTILINE | re.DOTALL).split()
        assert len(words) <= SCREEN, section.splitlines()[0]


@pytest.mark.parametrize('path', [*PAGES, CONTRIBUTING], ids=lambda path: path.stem)
def test_links_lead_to_pages(path):
    targets = re.findall(r'\]\(([^)#]+)(?:#[^)]*)?\)', text_of(path))
    missing = [target for target in targets if not target.startswith('https://') and not (path.parent/target).is_file()]
    assert not missing, missing


def test_issue_form():
    yaml = pytest.importorskip('yaml')
    form = yaml.safe_load((ROOT/'.github/ISSUE_TEMPLATE/bug.yml').read_text(encoding='utf-8'))
    assert form['name'] and form['description']
    fields = {field['id']: field for field in form['body'] if field['type'] != 'markdown'}
    assert {'command', 'output', 'versions'} <= set(fields)
    assert all(fields[name]['validations']['required'] for name in ('command', 'output', 'versions'))
    assert '--debug' in str(fields['output']) and 'inpaint_nb.versions' in str(fields['versions'])
