"""README.md is what index.ipynb says, and what it promises can be done."""
import json, re, shlex, subprocess

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


def write_clip(path, seed, width=240, height=176):
    "Some frames of a moving scene."
    film = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*'mp4v'), 30, (width, height))
    for scene in random_clip(seed, 20, size=(height, width)): film.write(scene.image[0].permute(1, 2, 0).mul(255).byte().numpy()[..., ::-1].copy())
    film.release()


SMALL = {  # what makes a command of README.md or of a how-to page short enough for a test
    'inpaint_create_training_data': '--size 128',
    'inpaint_train': '--size 72 --num-samples 4 --batch-size 2 --backward-step 1 --max-epoch 1 --learning-rate-cycles 1 --num-workers 0 --gpu -1',
    'inpaint_stereo': '--view right',
}


def lines_of(page: str) -> list[str]:
    "What a how-to page gives to those three programs, on whole records; judging is tested elsewhere."
    cells = json.loads((ROOT/f'nbs/{page}.ipynb').read_text(encoding='utf-8'))['cells']
    text = '\n'.join(''.join(cell['source']) for cell in cells)
    lines = '\n'.join(re.findall(r'^```bash\n(.*?)^```$', text, flags=re.MULTILINE | re.DOTALL)).splitlines()
    return [line for line in lines if line.partition(' ')[0] in SMALL and ' verify ' not in line and 'iw3_light' not in line]


def folder_of_photos(folder):
    "Three photos, one of them to be judged by, and one more with its depth."
    for number, name in enumerate(('photos/train/0.png', 'photos/train/1.png', 'photos/eval/2.png', 'photo.jpg')):
        scene = random_scene(number, size=(240, 320))
        (folder/name).parent.mkdir(parents=True, exist_ok=True)
        save_picture(scene.image, folder/name)
    write_depth(scene.depth, folder/'depth.png')


def all_work(lines: list[str], folder):
    "Command lines word for word and one after the other, with a few options more."
    for line in dict.fromkeys(lines):
        program, *arguments = shlex.split(line)
        an_hour = ['--max-minutes', '0.02'] if 'small-machine' in line or '--max-minutes' in line else []
        done = run(program, *arguments, *SMALL[program].split(), *an_hour, cwd=folder)
        assert done.returncode == 0, f'{line}\n{done.stderr}'


def test_the_other_commands_work(tmp_path):
    folder_of_photos(tmp_path)
    lines = [line for block in BLOCKS[2:] for line in block.splitlines()]
    assert {line.split()[0] for line in lines} == set(SMALL)
    all_work(lines, tmp_path)
    assert sorted(path.name for path in (tmp_path/'photo_3d').iterdir()) == ['photo_LRF_Full_SBS.png', 'photo_redcyan.png']


def test_photos_through_iw3_and_a_gan(tmp_path):
    "What the pages for users of iw3 and of a GAN say, one after the other."
    folder_of_photos(tmp_path)
    all_work([*lines_of('23_howto_iw3'), lines_of('22_howto_gan')[0]], tmp_path)
    assert (tmp_path/'models/inpaint_gan_v1/1/inpaint.light_inpaint_v1.pth').is_file()


def test_clips(tmp_path):
    write_clip(tmp_path/'clip.mp4', 0, 120, 88)
    for seed, name in enumerate(('clips/train/walk.mp4', 'clips/eval/other.mp4'), 1):
        (tmp_path/name).parent.mkdir(parents=True, exist_ok=True)
        write_clip(tmp_path/name, seed)
    (tmp_path/'frames').mkdir()
    for number in range(3): save_picture(random_scene(number, size=(48, 64)).image, tmp_path/f'frames/{number}.png')
    all_work(lines_of('21_howto_videos'), tmp_path)
    assert [path.name for path in (tmp_path/'frames_3d').iterdir()] == ['frames_LRF_Full_SBS.mp4']
    film = cv2.VideoCapture(str(tmp_path/'clip_3d.mp4'))
    assert (film.get(cv2.CAP_PROP_FRAME_COUNT), film.get(cv2.CAP_PROP_FRAME_WIDTH)) == (20, 240)


def test_short():
    "All of it, commands and tables included, is read in three minutes."
    assert len(TEXT.split()) <= 700


def test_python_example_is_run_by_the_notebook():
    "Its cells are those of index.ipynb, which nbdev_test runs."
    assert len(re.findall(r'^```python$', TEXT, flags=re.MULTILINE)) == 2
