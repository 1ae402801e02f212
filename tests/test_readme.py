"""README.md is what index.ipynb says, and what it promises can be done."""
import re, subprocess, sys

import pytest
from readme import ROOT, readme

TEXT = (ROOT/'README.md').read_text(encoding='utf-8') if (ROOT/'README.md').exists() else ''
BLOCKS = re.findall(r'^```bash\n(.*?)^```$', TEXT, flags=re.MULTILINE | re.DOTALL)


def test_in_step_with_index():
    assert TEXT == readme(), 'run `python tests/readme.py`'


def test_two_commands_come_first():
    "The ones that .ci/run takes from here: one installs and runs the demo, one installs and runs all tests."
    demo, tests = BLOCKS[:2]
    assert 'pip install .' in demo and 'inpaint_demo' in demo
    assert "pip install -e '.[dev]'" in tests and 'nbdev_test' in tests and 'pytest' in tests


def test_links_and_images_are_there():
    targets = re.findall(r'\]\(([^)#]+?)(?:#[^)]*)?\)', TEXT) + re.findall(r'src="([^"]+)"', TEXT)
    local = [target for target in targets if not target.startswith('http')]
    assert local
    for target in local: assert (ROOT/target).is_file(), target


def test_ci_reads_the_same_blocks():
    script = (ROOT/'.ci/run').read_text()
    awk = re.search(r"awk -v wanted=\"\$1\" ('.*?')", script).group(1)
    for n, block in enumerate(BLOCKS[:2], 1):
        found = subprocess.run(f"awk -v wanted={n} {awk} README.md", shell=True, cwd=ROOT, capture_output=True, text=True)
        assert found.stdout == block
