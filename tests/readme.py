"""README.md from nbs/index.ipynb, without Quarto: nbdev's own processing, then nbconvert's Markdown.

`python tests/readme.py` writes README.md; `test_readme.py` keeps the two in step.
"""
import json, re
from pathlib import Path

import nbformat, yaml
from execnb.nbio import read_nb
from nbconvert import MarkdownExporter
from nbdev.processors import FilterDefaults

ROOT = Path(__file__).parents[1]
NOTICE = '<!-- Made from nbs/index.ipynb by `python tests/readme.py`: edit the notebook. -->'
RELATIVE_LINK = re.compile(r'(\]\(|src=")(?!https?:|#|data:|mailto:)([^)"]+)')


def processed(path: Path) -> nbformat.NotebookNode:
    "The notebook at `path` as nbdev hands it to the site: hidden cells gone, names linked, front matter first."
    notebook = read_nb(path)
    FilterDefaults()(notebook)
    return plain(notebook)


def plain(notebook) -> nbformat.NotebookNode:
    "`notebook` without the working fields that nbdev's processors leave in it."
    cells = [{key: cell[key] for key in ('cell_type', 'id', 'metadata', 'source', 'outputs', 'execution_count') if key in cell}
             for cell in notebook.cells if cell.get('source') is not None]
    for cell in cells:
        if cell['cell_type'] != 'code':
            for key in ('outputs', 'execution_count'): cell.pop(key, None)
    return nbformat.reads(json.dumps(dict(cells=cells, metadata=notebook.metadata, nbformat=4, nbformat_minor=5)), as_version=4)


def title(front_matter: str) -> str:
    "Title and subtitle as Markdown, from a page's front matter."
    fields = next(yaml.safe_load_all(front_matter.strip().removesuffix('---')))
    return f"# {fields['title']}\n\n{NOTICE}\n\n> {fields['description']}\n"


def readme() -> str:
    "The text of README.md."
    notebook = processed(ROOT/'nbs/index.ipynb')
    notebook.metadata['language_info'] = {'name': 'python'}  # for the fences of code
    head, notebook.cells = notebook.cells[0], [cell for cell in notebook.cells[1:] if 'WARNING: THIS FILE' not in cell.source]
    body, resources = MarkdownExporter().from_notebook_node(notebook)
    assert not resources['outputs'], 'index.ipynb stores pictures in its outputs: keep them in nbs/images and link them'
    body = RELATIVE_LINK.sub(r'\1nbs/\2', body)  # README.md lies one folder above the notebook
    body = re.sub(r'[ \t]+$', '', body, flags=re.MULTILINE)
    return re.sub(r'\n{3,}', '\n\n', f'{title(head.source)}\n{body.strip()}\n')


if __name__ == '__main__':
    (ROOT/'README.md').write_text(readme(), encoding='utf-8')
