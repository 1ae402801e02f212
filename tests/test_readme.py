"""README.md is what index.ipynb says, and what it promises can be done."""
import re, shlex, subprocess

import cv2
from commands import run
from readme import ROOT, readme

from inpaint_nb.depth import write_depth
from inpaint_nb.scenes import random_clip, random_scene
from inpaint_nb.stereo import save_picture

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


def write_clip(path, seed):
    "Thirty-two frames of a moving scene."
    film = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*'mp4v'), 30, (320, 240))
    for scene in random_clip(seed, 32, size=(240, 320)): film.write(scene.image[0].permute(1, 2, 0).mul(255).byte().numpy()[..., ::-1].copy())
    film.release()


SMALL = {  # what makes a command of README.md short enough for a test
    'inpaint_create_training_data': '--size 128',
    'inpaint_train': '--size 72 --num-samples 8 --batch-size 4 --backward-step 1 --max-epoch 1 --learning-rate-cycles 1 --num-workers 0 --gpu -1',
    'inpaint_stereo': '--view right',
}


def test_the_other_commands_work(tmp_path):
    "Records, training and use, word for word and one after the other, with a few options more."
    for number, name in enumerate(('photos/train/0.png', 'photos/train/1.png', 'photos/eval/2.png', 'photo.jpg')):
        scene = random_scene(number, size=(240, 320))
        (tmp_path/name).parent.mkdir(parents=True, exist_ok=True)
        save_picture(scene.image, tmp_path/name)
    write_depth(scene.depth, tmp_path/'depth.png')
    for seed, name in enumerate(('clip.mp4', 'other.mp4')): write_clip(tmp_path/name, seed)
    lines = [line for block in BLOCKS[2:] for line in block.splitlines()]
    assert {line.split()[0] for line in lines} == set(SMALL)
    for line in lines:
        program, *arguments = shlex.split(line)
        done = run(program, *arguments, *SMALL[program].split(), cwd=tmp_path)
        assert done.returncode == 0, done.stderr
    assert sorted(path.name for path in (tmp_path/'photo_3d').iterdir()) == ['photo_LRF_Full_SBS.png', 'photo_redcyan.png']
    film = cv2.VideoCapture(str(tmp_path/'clip_3d.mp4'))
    assert (film.get(cv2.CAP_PROP_FRAME_COUNT), film.get(cv2.CAP_PROP_FRAME_WIDTH)) == (32, 640)


def test_python_example_is_run_by_the_notebook():
    "Its cells are those of index.ipynb, which nbdev_test runs."
    assert len(re.findall(r'^```python$', TEXT, flags=re.MULTILINE)) == 2
