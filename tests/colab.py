"""The two cells by which a page opens in Colab, and what Colab brings along.

`python tests/colab.py` puts the cells after the title of every page with code; `python tests/colab.py pins` prints
Colab's versions for pip; `python tests/colab.py run [PAGES]` runs all cells of pages in the environment it is called in."""
import hashlib, json, sys, tempfile, time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

ROOT = Path(__file__).parents[1]
REPOSITORY = 'inpaint-nb/inpaint_nb'
INSTALL = f'''#| hide
if not __import__('importlib.util').util.find_spec('inpaint_nb'):  # in Colab; PyTorch stays
    get_ipython().run_line_magic('pip', 'install -q git+https://github.com/{REPOSITORY}')'''
# Of Colab's GPU runtime in the first week of June 2026, with Python 3.12.13, as googlecolab/backend-info lists it in
# pip-freeze.gpu.txt at commit 03a89033b7dd; since 25 August 2026 it has Python 3.13 (googlecolab/colabtools issue 6081)
PACKAGES = {
    'torch': '2.11.0', 'torchvision': '0.26.0', 'numpy': '2.0.2', 'ipywidgets': '7.7.1', 'matplotlib': '3.10.0',
    'opencv-python': '4.13.0.92', 'pillow': '11.3.0', 'scikit-image': '0.25.2', 'scipy': '1.16.3', 'tqdm': '4.67.3', 'psutil': '5.9.5',
    'accelerate': '1.13.0', 'timm': '1.0.27', 'transformers': '5.9.0', 'huggingface_hub': '1.17.0', 'safetensors': '0.7.0',
    'pyyaml': '6.0.3', 'tensorboard': '2.20.0', 'fastcore': '1.13.2'}
AROUND = {  # what runs the cells there, and what the packages above stand on
    'ipython': '7.34.0', 'ipykernel': '6.17.1', 'traitlets': '5.7.1', 'jupyter_client': '7.4.9', 'jupyter_core': '5.9.1',
    'jupyterlab_widgets': '3.0.16', 'widgetsnbextension': '3.6.10', 'matplotlib-inline': '0.2.2', 'nbclient': '0.10.4',
    'nbconvert': '7.17.1', 'nbformat': '5.10.4', 'tornado': '6.5.1', 'pyzmq': '26.2.1', 'pandas': '2.2.2',
    'protobuf': '5.29.6', 'tokenizers': '0.22.2', 'fsspec': '2025.3.0', 'packaging': '26.2', 'setuptools': '75.2.0'}


EXTRAS = {'07b_export.ipynb': 'export'}  # what a page needs besides, of settings.ini


def install(name: str) -> str:
    "The first cell of a page."
    if name not in EXTRAS: return INSTALL
    line = f'git+https://github.com/{REPOSITORY}'
    package = f"    package = '\"inpaint_nb[{EXTRAS[name]}] @ {line}\"'\n"
    head, call = INSTALL.rsplit('\n', 1)
    return f'{head}\n{package}' + call.replace(f"'install -q {line}'", "f'install -q {package}'")


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
        return dict(cell_type=kind, id=hashlib.sha256(f'{name} {kind}'.encode()).hexdigest()[:8], metadata={},
                    source=text.splitlines(keepends=True), **(dict(execution_count=None, outputs=[]) if kind == 'code' else {}))
    title, *others = page['cells']
    others = [cell for cell in others if not source(cell).startswith('[Open in Colab](') and "find_spec('inpaint_nb')" not in source(cell)]
    return page | dict(cells=[title, new('markdown', links(name)), new('code', install(name)), *others])


def place():
    "Puts both cells into every page with something to run."
    for path in sorted((ROOT/'nbs').glob('*.ipynb')):
        page = json.loads(path.read_text(encoding='utf-8'))
        if wants_them(page, path.name):
            path.write_text(json.dumps(with_colab(page, path.name), sort_keys=True, indent=1, ensure_ascii=False) + '\n', encoding='utf-8')


def others() -> list[str]:
    "Where this environment is not Colab's: `name here (there)`."
    def here(name):
        try: return version(name).split('+')[0]
        except PackageNotFoundError: return 'missing'
    return [f'{name} {here(name)} ({there})' for name, there in (PACKAGES | AROUND).items() if here(name) != there]


def run(path: Path, timeout: int = 600) -> str | None:
    "All cells of a page, widgets and slow ones too, alone in an empty folder as Colab opens it: the first error, or None."
    import nbformat
    from nbconvert.preprocessors import ExecutePreprocessor
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        notebook = nbformat.read(path, as_version=4)
        try: ExecutePreprocessor(timeout=timeout, kernel_name='python3').preprocess(notebook, {'metadata': {'path': folder}})
        except Exception as error: return str(error) or type(error).__name__  # of a cell, or its kernel died


def run_all(names: list[str]) -> int:
    "Runs pages one after another and says which failed; all pages with code if none is named."
    print('python', sys.version.split()[0], '; not as in Colab:', ', '.join(others()) or 'nothing', flush=True)
    pages = [ROOT/'nbs'/name for name in names] or sorted((ROOT/'nbs').glob('*.ipynb'))
    failed = 0
    for path in pages:
        if not wants_them(json.loads(path.read_text(encoding='utf-8')), path.name): continue
        start = time.monotonic()
        error = run(path)
        failed += error is not None
        print(f'{path.name} {time.monotonic() - start:.0f} s', 'fine' if error is None else error, flush=True)
    print(f'{failed} failed')
    return min(failed, 1)


if __name__ == '__main__':
    match sys.argv[1:]:
        case []: place()
        case ['pins']: print('\n'.join(f'{name}=={there}' for name, there in (PACKAGES | AROUND).items()))
        case ['run', *names]: sys.exit(run_all(names))
        case unknown: sys.exit(f"{' '.join(unknown)}: the words are pins and run [PAGES]")
