"""What Colab brings along stays as it is: our requirements accept it, and its first cell calls pip only where the package is missing."""
import subprocess, sys
from configparser import ConfigParser
from shlex import split

from colab import INSTALL, ROOT
from packaging.requirements import Requirement

COLAB = {  # of autumn 2025, with Python 3.12; newer ones are newer
    'torch': '2.8.0', 'torchvision': '0.23.0', 'numpy': '2.0.2', 'ipywidgets': '7.7.1', 'matplotlib': '3.10.0', 'opencv-python': '4.12.0.88',
    'pillow': '11.3.0', 'scikit-image': '0.25.2', 'tqdm': '4.67.1', 'psutil': '5.9.5', 'accelerate': '1.10.1', 'timm': '1.0.20',
    'transformers': '4.56.2', 'huggingface_hub': '0.35.1', 'safetensors': '0.6.2', 'pyyaml': '6.0.3', 'tensorboard': '2.19.0'}
SETTINGS = ConfigParser(delimiters=['='])
SETTINGS.read(ROOT/'settings.ini', encoding='utf-8')
REQUIREMENTS = split(SETTINGS['DEFAULT']['requirements'])


def test_requirements_accept_what_is_there():
    "Else pip would put another version in its place, and another torch is 6 GB."
    found = {requirement.name: requirement for requirement in map(Requirement, REQUIREMENTS)}
    assert set(COLAB) <= set(found)
    refused = {name: str(found[name].specifier) for name, version in COLAB.items() if not found[name].specifier.contains(version)}
    assert not refused


def test_first_cell_does_nothing_where_the_package_is():
    "It is run as nbdev_test runs it; pip is not to be called."
    code = '''
from IPython.core.interactiveshell import InteractiveShell
shell = InteractiveShell.instance()
called = []
shell.register_magic_function(lambda line: called.append(line), magic_name='pip')
for cell in (CELL, CELL.replace("'inpaint_nb'", "'a_package_that_nobody_wrote'")): shell.run_cell(cell).raise_error()
print(called)'''
    done = subprocess.run([sys.executable, '-c', code.replace('CELL', repr(INSTALL))], capture_output=True, text=True, timeout=120)
    assert done.stdout.splitlines()[-1] == "['install -q git+https://github.com/inpaint-nb/inpaint_nb']", done.stderr
