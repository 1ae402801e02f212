"""The two cells by which a page opens in Colab: `python tests/colab.py` puts them after the title of every page with code."""
import hashlib, json
from pathlib import Path

ROOT = Path(__file__).parents[1]
REPOSITORY = 'inpaint-nb/inpaint_nb'
INSTALL = f'''#| hide
if not __import__('importlib.util').util.find_spec('inpaint_nb'):  # in Colab; PyTorch stays
    get_ipython().run_line_magic('pip', 'install -q git+https://github.com/{REPOSITORY}')'''


def links(name: str) -> str:
    "Where a page opens in Colab, and where its notebook lies."
    path = f'github.com/{REPOSITORY}/blob/main/nbs/{name}'
    return f"[Open in Colab](https://colab.research.google.com/{path.replace('.com', '', 1)}) · [source](https://{path})"


def wants_them(page: dict, name: str) -> bool:
    "Is there something to run? (The home page is README.md as well.)"
    return name != 'index.ipynb' and any(cell['cell_type'] == 'code' for cell in page['cells'])


def source(cell: dict) -> str: return ''.join(cell['source'])


def with_colab(page: dict, name: str) -> dict:
    "The page with both cells after its title, as they should be."
    def new(kind, text):
        return dict(cell_type=kind, id=hashlib.sha256(f'{name} {kind}'.encode()).hexdigest()[:8], metadata={}, source=text.splitlines(keepends=True),
                    **(dict(execution_count=None, outputs=[]) if kind == 'code' else {}))
    title, *others = page['cells']
    others = [cell for cell in others if not source(cell).startswith('[Open in Colab](') and "find_spec('inpaint_nb')" not in source(cell)]
    return page | dict(cells=[title, new('markdown', links(name)), new('code', INSTALL), *others])


if __name__ == '__main__':
    for path in sorted((ROOT/'nbs').glob('*.ipynb')):
        page = json.loads(path.read_text(encoding='utf-8'))
        if wants_them(page, path.name):
            path.write_text(json.dumps(with_colab(page, path.name), sort_keys=True, indent=1, ensure_ascii=False) + '\n', encoding='utf-8')
