"""The site without Quarto: nbdev's processing, nbconvert's Markdown, and a look at all that a reader could click on."""
import base64, binascii, filecmp, json, os, re, shutil, subprocess, sys
from collections.abc import Iterator
from html import escape
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote

import pytest, yaml
from execnb.nbio import read_nb
from nbconvert.filters import markdown2html
from nbdev.config import get_config
from colab import INSTALL, links, source, wants_them, with_colab
from readme import ROOT, plain

NOTEBOOKS = sorted(path.name for path in (ROOT/'nbs').glob('*.ipynb'))
CONFIG = get_config(path=ROOT)
SITE = f"{CONFIG.doc_host}{CONFIG.doc_baseurl}/"
CODE = f"{CONFIG.git_url}/blob/{CONFIG.branch}/"
HEAVY = 300_000  # bytes of an image
RICHEST = 'text/html', 'text/markdown', 'image/png', 'image/jpeg', 'text/plain'  # what is shown of an output, best first
ENV = dict(os.environ, OMP_NUM_THREADS='1', MPLBACKEND='agg')


def sidebar() -> list[str]:
    "The pages of the sidebar in reading order."
    def pages(entries):
        for entry in entries:
            if isinstance(entry, str): yield entry
            else: yield from pages(entry['contents'])
    return list(pages(yaml.safe_load((ROOT/'_quarto.yml').read_text())['website']['sidebar']['contents']))


@pytest.fixture(scope='session')
def copy(tmp_path_factory) -> Path:
    "A copy of the project to work on."
    target = tmp_path_factory.mktemp('docs')/'project'
    leave = shutil.ignore_patterns('__pycache__', '.ipynb_checkpoints', '_proc')
    for name in ('nbs', 'inpaint_nb'): shutil.copytree(ROOT/name, target/name, ignore=leave)
    for name in ('settings.ini', '_quarto.yml'): shutil.copy2(ROOT/name, target/name)
    return target


def nbdev(copy: Path, code: str):
    "Run `code` with the nbdev of this environment in `copy`."
    done = subprocess.run([sys.executable, '-c', code], cwd=copy, env=ENV, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr[-3000:]


@pytest.fixture(scope='session')
def site(copy) -> dict[str, 'Page']:
    "Every page by the name that it gets on the site."
    nbdev(copy, 'from nbdev.serve import proc_nbs; proc_nbs(n_workers=0, force=True)')
    pages = [Page(copy/'_proc'/name) for name in NOTEBOOKS]
    return {page.name: page for page in pages}


class Page(HTMLParser):
    "One page: its text, what it links to, what can be linked to."
    def __init__(self, path: Path):
        super().__init__()
        self.source, self.links, self.images, self.ids = path, [], [], set()
        notebook = plain(read_nb(path))
        self.front_matter = next(yaml.safe_load_all(notebook.cells[0].source.strip().removesuffix('---')))
        self.name = self.front_matter['output-file']
        notebook.cells = notebook.cells[1:]
        shown = [part for cell in notebook.cells for part in shown_in(cell)]
        for kind, text in shown:
            if kind == 'text/markdown': self.ids |= set(anchors(text))
        self.html = '\n'.join(as_html(*part) for part in shown)
        self.feed(self.html)

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        if tag == 'a' and attributes.get('href'): self.links.append(attributes['href'])
        if tag == 'img': self.images.append(attributes)
        if attributes.get('id'): self.ids.add(attributes['id'])


def shown_in(cell) -> Iterator[tuple[str, str]]:
    "What a reader sees of a cell: the kind of each part, and its text."
    if cell.cell_type == 'markdown': yield 'text/markdown', cell.source
    else: yield 'text/plain', cell.source
    for output in cell.get('outputs', []):
        if 'text' in output: yield 'text/plain', ''.join(output['text'])
        if 'traceback' in output: yield 'text/plain', '\n'.join(output['traceback'])
        data = output.get('data', {})
        richest = next((kind for kind in RICHEST if kind in data), None)
        if richest: yield richest, ''.join(data[richest])


def as_html(kind: str, text: str) -> str:
    if kind == 'text/html': return text
    if kind == 'text/markdown': return markdown2html(text)
    if kind == 'text/plain': return f'<pre>{escape(text)}</pre>'
    return f'<img src="data:{kind};base64,{text}">'


def anchors(text: str):
    "The anchors that Quarto gives to the headings in `text`: lower case, hyphens for blanks, no other punctuation."
    for heading in re.findall(r'^#{1,6} +(.+?) *$', ''.join(text), flags=re.MULTILINE):
        given = re.search(r'\{#([\w.-]+)[^}]*\}$', heading)
        words = re.sub(r'\[([^\]]*)\]\([^)]*\)(\{[^}]*\})?', r'\1', heading).lower()
        yield given.group(1) if given else re.sub(r'^[^a-z]+', '', re.sub(r'[^\w\s.-]', '', words).strip().replace(' ', '-'))


def test_sidebar_holds_every_page_once():
    assert sorted(sidebar()) == NOTEBOOKS


def test_sidebar_is_in_reading_order():
    "Within each section; how-to pages come before the ground that nobody reads first."
    first, *sections = yaml.safe_load((ROOT/'_quarto.yml').read_text())['website']['sidebar']['contents']
    assert first == 'index.ipynb'
    for section in sections: assert section['contents'] == sorted(section['contents']), section['section']


def test_site_settings():
    "What a reader expects of a site: search, a dark form, where a page comes from, the sections that were promised."
    settings = yaml.safe_load((ROOT/'_quarto.yml').read_text())
    website, theme = settings['website'], settings['format']['html']['theme']
    assert website['navbar']['search'] and set(theme) == {'light', 'dark'}
    assert 'source' in website['repo-actions'] and website['repo-subdir'] == 'nbs'
    sections = [section['section'] for section in website['sidebar']['contents'][1:]]
    assert sections == ['The method', 'Training', 'Use', 'How to', 'Operations', 'Reference']


def test_quarto_stub():
    assert yaml.safe_load((ROOT/'nbs/_quarto.yml').read_text())['metadata-files'] == ['nbdev.yml', '../_quarto.yml']
    nbdev_yml = yaml.safe_load((ROOT/'nbs/nbdev.yml').read_text())
    assert nbdev_yml['website']['title'] == CONFIG.title
    assert nbdev_yml['website']['site-url'] == SITE.rstrip('/')


def test_pages_have_title_and_subtitle(site):
    assert len(site) == len(NOTEBOOKS)
    for page in site.values():
        assert page.front_matter.get('title'), page.source.name
        assert page.front_matter.get('description'), page.source.name


def test_links(site):
    missing = []
    for page in site.values():
        for link in page.links:
            link = link.removeprefix(SITE)
            target, _, anchor = unquote(link).partition('#')
            if target.startswith(CODE): there = (ROOT/target.removeprefix(CODE)).is_file()
            elif re.match(r'[a-z]+:', target): continue
            else:
                name = target.removesuffix('.ipynb')
                name = re.sub(r'^\d+[a-zA-Z0-9]*_', '', name) + '.html' if target.endswith('.ipynb') else target or page.name
                there = name in site and (not anchor or anchor in site[name].ids)
            if not there: missing.append(f'{page.source.name}: {link}')
    assert not missing, missing


def test_images(site):
    for page in site.values():
        for image in page.images:
            source = image.get('src')
            if source is None: assert 'id' in image, page.source.name  # a script fills it: the player of an animation
            elif source.startswith('data:image/'):
                try: size = len(base64.b64decode(source.partition('base64,')[2], validate=True))
                except binascii.Error: pytest.fail(f'{page.source.name}: an image that is none')
                assert 100 < size < HEAVY, f'{page.source.name}: an image of {size} bytes'
            else:
                path = ROOT/'nbs'/unquote(source)
                assert path.is_file() and path.stat().st_size < HEAVY, f'{page.source.name}: {source}'
                assert image.get('alt'), f'{page.source.name}: {source} has no description'


WIDGET = re.compile(r'^(?:\w+ = )?(?:explore|interact|watch_run|browse_records)\(', flags=re.MULTILINE)


def is_picture(output: dict) -> bool:
    "Is it to be seen without a kernel?"
    data = output.get('data', {})
    return any(kind.startswith('image/') for kind in data) or '<img' in ''.join(data.get('text/html', ''))


def without_static_form(cells: list[dict]) -> list[str]:
    "Widgets that a reader of the site would not see anything of: there is no stored picture within four cells."
    found = []
    for number, cell in enumerate(cells):
        if cell['cell_type'] != 'code' or not WIDGET.search(source(cell)): continue
        near = cells[max(0, number - 4):number + 5]
        if not any(is_picture(output) for other in near for output in other.get('outputs', [])): found.append(source(cell))
    return found


def test_widgets_have_a_static_form():
    pages = {name: json.loads((ROOT/'nbs'/name).read_text())['cells'] for name in NOTEBOOKS}
    with_widget = [name for name, cells in pages.items() if any(cell['cell_type'] == 'code' and WIDGET.search(source(cell)) for cell in cells)]
    assert len(with_widget) >= 7
    for name, cells in pages.items(): assert not without_static_form(cells), name
    alone = [dict(cell_type='code', source='explore(draw, number=slider)', outputs=[])]
    assert without_static_form(alone)


@pytest.mark.parametrize('name', NOTEBOOKS)
def test_opens_in_colab(name):
    "Links to Colab and to the source stand under the title, then the cell that installs what is missing."
    page = json.loads((ROOT/'nbs'/name).read_text(encoding='utf-8'))
    if wants_them(page, name): assert page == with_colab(page, name), 'run `python tests/colab.py`'


def test_every_page_of_the_card_opens_in_colab(site):
    for stem in ('00_warp', '01_masks', '02_datasets', '03_models', '04_train', '05_gan', '06_stereo'):
        cells = json.loads((ROOT/f'nbs/{stem}.ipynb').read_text(encoding='utf-8'))['cells']
        assert [source(cell) for cell in cells[1:3]] == [links(f'{stem}.ipynb'), INSTALL]
        shown = next(page for page in site.values() if page.source.name == f'{stem}.ipynb')
        assert any(link.startswith('https://colab.research.google.com/github/') for link in shown.links)
        assert 'run_line_magic' not in shown.html


def test_no_traceback(site):
    for page in site.values(): assert 'Traceback (most recent call last)' not in page.html, page.source.name


@pytest.mark.parametrize('name', NOTEBOOKS)
def test_stored_outputs(name):
    "No error, no warning, no widget state, no path of the machine that ran it, and light enough for a reader."
    text = (ROOT/'nbs'/name).read_text(encoding='utf-8')
    notebook = json.loads(text)
    outputs = [output for cell in notebook['cells'] for output in cell.get('outputs', [])]
    assert 'widgets' not in notebook['metadata']
    assert not [output for output in outputs if output['output_type'] == 'error']
    assert not [output for output in outputs if output.get('name') == 'stderr' and 'Warning' in ''.join(output['text'])]
    assert not re.search(r'/(work|home|root|Users)/', text)
    assert len(text) < 1_000_000


@pytest.mark.parametrize('name', [name for name in NOTEBOOKS if name != 'index.ipynb'])
def test_executed(name):
    "A page shows the outputs that its notebook stores."
    code = [cell for cell in json.loads((ROOT/'nbs'/name).read_text())['cells'] if cell['cell_type'] == 'code']
    assert not code or any(cell['outputs'] for cell in code), 'execute it and store its outputs'


def changed(folder: Path, other: Path, names: list[str]) -> list[str]:
    "Files that are not the same in both folders."
    _, different, missing = filecmp.cmpfiles(folder, other, names, shallow=False)
    return different + missing


def test_notebooks_are_clean(copy):
    nbdev(copy, 'from nbdev.clean import nbdev_clean; nbdev_clean()')
    assert not changed(ROOT/'nbs', copy/'nbs', NOTEBOOKS), 'run nbdev_clean'


def test_package_is_what_the_notebooks_say(copy):
    modules = {path.name for path in (ROOT/'inpaint_nb').glob('*.py')}
    for name in modules - {'__init__.py'}: (copy/'inpaint_nb'/name).unlink()
    nbdev(copy, 'from nbdev.doclinks import nbdev_export; nbdev_export()')
    exported = {path.name for path in (copy/'inpaint_nb').glob('*.py')}
    assert not changed(ROOT/'inpaint_nb', copy/'inpaint_nb', sorted(modules | exported)), 'run nbdev_export'
