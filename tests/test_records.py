"Looking after records: damage, cleaning, splitting, shards, jobs, packs."
import json, os, re, shutil, struct, subprocess, sys, tracemalloc, zlib
from dataclasses import asdict
from functools import partial
from pathlib import Path
from unittest import mock

import av
import cv2
import numpy as np
import pytest
import torch
from commands import ENV, METHOD, Running, here, run
from PIL import Image

from inpaint_nb import cli, crops, datasets, keeping, operations, records, video
from inpaint_nb.depth import DepthModel, write_depth
from inpaint_nb.datasets import InpaintDataset, list_records
from inpaint_nb.records import encode_png
from inpaint_nb.keeping import RecordFolder, data_folders, data_status, png_chunks, verify_records
from inpaint_nb.operations import (
    clean_records, job_lines, pack_records, run_jobs, split_records, undo_split
)
from inpaint_nb.scenes import random_clip, random_scene
from inpaint_nb.sequences import VideoDataset, list_clip_records
from making import contents, make_image_records, make_video_records, options_of, small_line, to_pixels, worked_small


def save_scene(path: Path, image: torch.Tensor):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(to_pixels(image)).save(path)


@pytest.fixture(scope='module', autouse=True)
def small():
    with worked_small(): yield


@pytest.fixture(scope='module')
def photos(tmp_path_factory):
    folder = tmp_path_factory.mktemp('photos')
    for number, seed in enumerate((1, 3, 5, 6, 11, 12, 13)):  # each with four records
        save_scene(folder/('eval' if number == 6 else 'train')/f'{number}.png', random_scene(seed, size=(200, 260)).image)
    shutil.copy(folder/'train/2.png', folder/'train/copy of 2.png')
    return folder


@pytest.fixture(scope='module')
def clips(tmp_path_factory):
    folder = tmp_path_factory.mktemp('clips')
    for clip in range(3):
        for number, scene in enumerate(random_clip(clip, 8, (150, 200))): save_scene(folder/f'{clip}/{number:02}.png', scene.image)
    return folder


def make(photos, out, prefix='one', **options):
    return make_image_records(photos, out, prefix, 'Pseudo', **dict(dict(size=128, divergence_level=3, progress=False), **options))


def film(clips, out, prefix='film', **options):
    return make_video_records(clips, out, prefix, 'Pseudo', **dict(dict(size=128, divergence_level=3, seq=4, skip_interval=0, progress=False), **options))


@pytest.fixture(scope='module')
def images(photos, tmp_path_factory):
    folder = tmp_path_factory.mktemp('images')
    make(photos, folder)
    make(photos, folder, 'one_more', seed=3)
    return folder


@pytest.fixture(scope='module')
def films(clips, tmp_path_factory):
    folder = tmp_path_factory.mktemp('films')
    film(clips, folder/'train')
    return folder


# The journal

def test_journal_knows_every_record(images, films):
    for folder in data_folders(images) + data_folders(films):
        promised = {}
        for _, entry in folder.journal():
            assert {'name', 'source', 'options', 'depth_model', 'licence', 'version', 'records'} <= entry.keys()
            promised |= entry['records']
        assert sorted(promised) == folder.names and folder.names


@pytest.mark.parametrize('workers', [1, 3])
def test_journal_of_any_number_of_workers(photos, images, tmp_path, workers):
    make(photos, tmp_path, max_workers=workers)
    assert contents(tmp_path) == {name: data for name, data in contents(images).items() if 'one_more' not in name}


def test_photos_without_holes_are_not_tried_again(photos, tmp_path, monkeypatch):
    monkeypatch.setattr(crops, 'LEAST_HOLE', 10 ** 9)
    assert make(photos, tmp_path).rejected == 28
    monkeypatch.setattr(records.RecordMaker, 'make', None)
    assert make(photos, tmp_path).rejected == 0


def test_conflict_is_one_line(photos, clips, images, films):
    before = contents(images), contents(films)
    for work in (lambda: make(photos, images, size=96), lambda: film(clips, films/'train', seq=3)):
        with pytest.raises(ValueError, match='give another prefix') as refusal: work()
        assert '\n' not in str(refusal.value)
    assert (contents(images), contents(films)) == before


@pytest.fixture(scope='module')
def two_networks(tmp_path_factory):
    "Two folders with weights for one name that differ in one number."
    from safetensors.torch import load_file, save_file
    from standins import write_weights
    one = write_weights('Any_S', tmp_path_factory.mktemp('weights')/'one')
    other = shutil.copytree(one, one.parent/'other')
    tensors = load_file(one/'model.safetensors')
    next(iter(tensors.values())).view(-1)[0] += 1
    save_file(tensors, other/'model.safetensors', metadata={'format': 'pt'})
    return one, other


@pytest.mark.parametrize('video', [False, True])
def test_other_weights_are_refused(photos, clips, two_networks, tmp_path, video):
    one, other = two_networks
    def work(weights, **options):
        if video: return make_video_records(clips, tmp_path/'train', 'p', 'Any_S', 98, seq=4, skip_interval=0, size=128, divergence_level=3, depth_weights=weights, progress=False, **options)
        return make_image_records(photos, tmp_path, 'p', 'Any_S', 98, size=128, divergence_level=3, depth_weights=weights, progress=False, **options)
    made = work(one).made
    before = contents(tmp_path)
    assert made and work(shutil.copytree(one, tmp_path.parent/f'{tmp_path.name} elsewhere')).reused == made and not faults(tmp_path)
    for change in (dict(weights=other), dict(weights=one, tta=True)):
        with pytest.raises(ValueError, match='other weights of Any_S: give another prefix' if change['weights'] == other else 'made with tta False, not True'): work(**change)
    assert contents(tmp_path) == before


@pytest.mark.parametrize('video', [False, True])
def test_other_depth_maps_are_refused(photos, clips, tmp_path, video):
    "One picture's map is another: its records are not continued, those of the others are."
    sources = sorted(path for path in (clips if video else photos).rglob('*.png') if path.parent.name != '1')
    for place in ('one', 'other'):
        for number, path in enumerate(sources):
            (tmp_path/place/path.parent.name).mkdir(parents=True, exist_ok=True)
            depth = random_scene(number + 100 * (place == 'other' and path == sources[0]), size=Image.open(path).size[::-1]).depth
            write_depth(depth, tmp_path/place/path.parent.name/f'{path.stem}.png')
    def work(place):
        options = dict(prefix='p', model_type=f'Files:{tmp_path/place}', size=128, divergence_level=3, progress=False, max_workers=1)
        return make_video_records(clips, tmp_path/'out/train', seq=4, skip_interval=0, **options) if video else make_image_records(photos, tmp_path/'out', **options)
    first = work('one')
    assert first.made and bool(first.failed) == video  # a clip has no maps
    before = contents(tmp_path/'out')
    assert work('one').reused == first.made
    assert not faults(tmp_path/'out') and all('licence of the maps unknown' in str(batch) for batch in data_status(tmp_path/'out'))
    with pytest.raises(ValueError, match='made with another depth map: give another prefix, or remove'): work('other')
    assert contents(tmp_path/'out') == before


def test_records_of_an_older_version_go_on(photos, tmp_path, monkeypatch):
    "One that knew neither `tta` nor where depth came from."
    with monkeypatch.context() as then:
        flat = crops.flat_options
        then.setattr(crops, 'flat_options', lambda options: {name: value for name, value in flat(options).items() if name != 'tta'})
        then.setattr(DepthModel, 'origin', lambda *_: '')
        made = make(photos, tmp_path).made
    assert made and make(photos, tmp_path).reused == made and not faults(tmp_path)
    with pytest.raises(ValueError, match='made with tta False, not True'): records.check_records(tmp_path/'train', options_of(crops.RecordOptions, 'one', 'Pseudo', size=128, divergence_level=3, tta=True))


def test_looking_twice(photos, two_networks, tmp_path):
    "Depth of the mirrored picture has a say: other records, and a model without a network refuses."
    for tta in (False, True):
        make_image_records(photos, tmp_path/str(tta), 'p', 'Any_S', 98, size=128, divergence_level=3, depth_weights=two_networks[0], tta=tta, progress=False)
    once, twice = ({name: data for name, data in contents(tmp_path/str(tta)).items() if name.endswith('_M.png')} for tta in (False, True))
    assert once and twice and once != twice
    for model_type in ('Pseudo', 'Files'):
        with pytest.raises(ValueError, match=f'{model_type} has no network that could look twice'): make_image_records(photos, tmp_path/'out', 'p', model_type, tta=True)


# Damage

def png(array): return encode_png(np.ascontiguousarray(array))

def other(mode): return lambda data: as_mode(data, mode)

def as_mode(data, mode):
    from io import BytesIO
    file = BytesIO()
    Image.open(BytesIO(data)).convert(mode).save(file, 'PNG')
    return file.getvalue()

def flip_bit(data): return data[:len(data) // 2] + bytes([data[len(data) // 2] ^ 8]) + data[len(data) // 2 + 1:]

def rewrite(part, change):
    def work(folder, name): (folder/f'{name}_{part}.png').write_bytes(change((folder/f'{name}_{part}.png').read_bytes()))
    return work

def mask_of(values):
    def change(data):
        mask = cv2.imdecode(np.frombuffer(data, np.uint8), 0)
        return png(values(mask))
    return change

def remove(*parts): return lambda folder, name: [(folder/f'{name}_{part}.png').unlink() for part in parts]

def swap_pictures(folder, name):
    neighbour = next(n for n in list_records(folder) if n != name)
    shutil.copy(folder/f'{neighbour}_C.png', folder/f'{name}_C.png')

def rename_record(folder, name):
    for part in 'CM': os.rename(folder/f'{name}_{part}.png', folder/f"{name.replace('one_', 'two_')}_{part}.png")

def sealed(chunks): return b'\x89PNG\r\n\x1a\n' + b''.join(struct.pack('>I', len(content)) + kind + content + struct.pack('>I', zlib.crc32(kind + content)) for kind, content in chunks.items())

def header(place, value):
    "Another byte in the header, with the right checksum."
    def change(data):
        chunks = png_chunks(data)
        chunks[b'IHDR'] = chunks[b'IHDR'][:place] + bytes([value]) + chunks[b'IHDR'][place + 1:]
        return sealed(chunks)
    return change

def bad_filter(data):
    chunks = png_chunks(data)
    rows = bytearray(zlib.decompress(chunks[b'IDAT'])); rows[10 * (1 + 3 * 128)] = 9
    return sealed(chunks | {b'IDAT': zlib.compress(rows)})

def renote(change):
    "Another note, by someone who knows PNG."
    def work(folder, name):
        for line in folder.glob(f".{name.rsplit('_', 2)[0]}*.json"): line.unlink()
        data = (folder/f'{name}_M.png').read_bytes()
        note = change(records.record_note(folder/f'{name}_M.png'))
        (folder/f'{name}_M.png').write_bytes(sealed({kind: content if kind != b'tEXt' else b'inpaint_nb\0' + json.dumps(note).encode() for kind, content in png_chunks(data).items()}))
    return work

def reline(change):
    "Another line in the journal."
    def work(folder, name):
        line = name.rsplit('_', 2)[0]
        entry = records.read_journal(folder, line)
        change(entry, name)
        records.write_journal(folder, line, entry)
    return work

def copy_record(number, sample, journal=True):
    def work(folder, name):
        group = name.rsplit('_', 2)[0]
        for part in 'CM': shutil.copy(folder/f'{name}_{part}.png', folder/f'{group}_{number}_{sample}_{part}.png')
        if not journal: (folder/f'.{group}.json').unlink()
    return work

def make_folder_of(folder, name):
    (folder/f'{name}_C.png').unlink(); (folder/f'{name}_C.png').symlink_to('nowhere')

IMAGE_DAMAGES = {
    'no mask': (remove('M'), 'is missing'),
    'no picture': (remove('C'), 'is missing'),
    'no record': (remove('C', 'M'), 'is missing: the journal'),
    'empty file': (rewrite('C', lambda data: b''), 'is empty'),
    'text': (rewrite('M', lambda data: b'not found'), 'is no PNG'),
    'JPEG': (rewrite('C', lambda data: cv2.imencode('.jpg', cv2.imdecode(np.frombuffer(data, np.uint8), 1))[1].tobytes()), 'is no PNG'),
    'truncated picture': (rewrite('C', lambda data: data[:len(data) // 2]), 'is cut off'),
    'truncated mask': (rewrite('M', lambda data: data[:-5]), 'is cut off'),
    'one bit': (rewrite('C', flip_bit), 'checksum'),
    'trailing bytes': (rewrite('C', lambda data: data + b'xx'), 'after its end'),
    'wrong size': (rewrite('C', lambda data: png(cv2.imdecode(np.frombuffer(data, np.uint8), 1)[:64])), '128 x 128, the picture 128 x 64'),
    'grey as colour': (rewrite('C', other('L')), 'is grey, not RGB'),
    'palette': (rewrite('C', other('P')), 'is a palette, not RGB'),
    'transparent': (rewrite('C', other('RGBA')), 'is RGB with transparency'),
    'colour as mask': (rewrite('M', other('RGB')), 'is RGB, not grey'),
    '16 bits': (rewrite('C', lambda data: png(cv2.imdecode(np.frombuffer(data, np.uint8), 1)[..., ::-1].astype(np.uint16) * 256)), '16 bits'),
    'other values': (rewrite('M', mask_of(lambda mask: mask // 255 * 200)), 'value'),
    'half a hole': (rewrite('M', mask_of(lambda mask: np.where(mask > 0, 64, 0).astype(np.uint8))), 'value 64'),
    'no hole': (rewrite('M', mask_of(lambda mask: mask * 0)), 'no hole'),
    'all hole': (rewrite('M', mask_of(lambda mask: mask * 0 + 255)), 'nothing but hole'),
    'exchanged picture': (swap_pictures, 'its checksum is another'),
    'renamed': (rename_record, 'not under this name'),
    'dangling link': (make_folder_of, 'is missing'),
    'stray file': (lambda folder, name: (folder/'notes.txt').write_text('?'), 'does not belong'),
    'filter byte': (rewrite('C', bad_filter), 'cannot be decoded'),
    'interlaced': (rewrite('C', header(12, 1)), 'cannot be decoded'),
    'compression method': (rewrite('C', header(10, 3)), 'cannot be decoded'),
    'list as note': (renote(lambda note: [1]), 'has a note that cannot be read'),
    'list as options': (renote(lambda note: note | {'options': [1]}), 'has a note that cannot be read'),
    'note without size': (renote(lambda note: note | {'options': {'prefix': 'one', 'model_type': 'Pseudo', 'num_samples': 2}}), 'has a note that cannot be read'),
    'note without source': (renote(lambda note: note | {'source': None}), 'has a note that cannot be read'),
    'frames in a note': (renote(lambda note: note | {'frames': 4}), 'has a note that cannot be read'),
    'no seq': (renote(lambda note: note | {'frames': [4]}), 'has a note that cannot be read'),
    'kept': (renote(lambda note: note | {'kept': 5}), 'has a note that cannot be read'),
    'copy under another number': (copy_record(1, 7), 'a copy under a wrong number'),
    'copy without a journal': (copy_record(2, 7, journal=False), 'a copy under a wrong number'),
    'third number': (copy_record(9, 0), 'not under this name'),
    'source of a line': (reline(lambda entry, name: entry.update(source='0' * 64)), 'is about one_Pseudo_00000000, by its content'),
    'end of a source': (reline(lambda entry, name: entry.update(source=entry['source'][:8] + '0' * 56)), 'what the record itself says'),
    'options of a line': (reline(lambda entry, name: entry['options'].update(seed=5)), 'what the record itself says'),
    'model of a line': (reline(lambda entry, name: entry.update(depth_model='Any_B')), 'names Any_B as its depth model'),
    'line without records': (reline(lambda entry, name: entry.update(records={})), 'leaves out'),
    'line without a record': (reline(lambda entry, name: entry['records'].pop(name)), 'leaves out'),
    'list of records': (reline(lambda entry, name: entry.update(records=[name])), 'is damaged'),
    'journal': (lambda folder, name: (folder/f".{name.rsplit('_', 2)[0]}.json").write_bytes(b'{"half'), 'is damaged'),
}


def faults(folder, **options): return verify_records(folder, progress=False, max_workers=1, **options).faults


@pytest.mark.parametrize('kind', IMAGE_DAMAGES)
def test_damaged_images(images, tmp_path, kind):
    damage, says = IMAGE_DAMAGES[kind]
    shutil.copytree(images/'train', tmp_path/'train')
    name = [name for name in list_records(tmp_path/'train') if name.startswith('one_Pseudo')][3]
    damage(tmp_path/'train', name)
    found = faults(tmp_path)
    assert found and any(says in fault.fault for fault in found), found
    group = name.rsplit('_', 2)[0]
    stems = {'notes.txt', f'.{group}.json', name, name.replace('one_', 'two_'), f'{group}_1_7', f'{group}_2_7', f'{group}_9_0'}
    assert {re.sub(r'_([CM]|\{C,M\})\.png$', '', fault.path.name) for fault in found} <= stems, found
    if kind not in ('stray file', 'renamed'): assert not faults(tmp_path, prefix='one_more')


def frame(number, part, change): return lambda folder: (folder/f'{number:04}_{part}.png').write_bytes(change((folder/f'{number:04}_{part}.png').read_bytes()))

def cut_short(folder): [(folder/f'0003_{part}.png').unlink() for part in 'CM']

def shift(folder):
    for part in 'CM': (folder/f'0002_{part}.png').rename(folder/f'0004_{part}.png')

def all_smaller(folder, frames):
    for t in frames:
        for part, flags in (('C', 1), ('M', 0)):
            pixels = cv2.imread(str(folder/f'{t:04}_{part}.png'), flags)[:96, :96]
            cv2.imwrite(str(folder/f'{t:04}_{part}.png'), pixels)

def no_holes(folder):
    for t in range(1, 4): (folder/f'{t:04}_M.png').write_bytes(png(np.zeros((128, 128), np.uint8)))
    note = records.record_note(folder/'0000_M.png')
    (folder/'0000_M.png').write_bytes(encode_png(np.zeros((128, 128), np.uint8), note))

CLIP_DAMAGES = {
    'short clip': (cut_short, 'is missing'),
    'hole in the numbers': (shift, 'is missing'),
    'extra frame': (lambda folder: [shutil.copy(folder/f'0000_{part}.png', folder/f'0004_{part}.png') for part in 'CM'], 'does not belong'),
    'no first mask': (lambda folder: (folder/'0000_M.png').unlink(), 'is missing'),
    'no last picture': (lambda folder: (folder/'0003_C.png').unlink(), 'is missing'),
    'sizes differ': (lambda folder: all_smaller(folder, [2]), 'several sizes'),
    'all too small': (lambda folder: all_smaller(folder, [1, 2, 3]), 'several sizes'),
    'truncated frame': (frame(2, 'C', lambda data: data[:-100]), 'cut off'),
    'grey frame': (frame(1, 'C', other('L')), 'is grey'),
    'mask values': (frame(1, 'M', mask_of(lambda mask: mask // 2)), 'value'),
    'no holes': (no_holes, 'hole pixels'),
    'frames exchanged': (lambda folder: shutil.copy(folder/'0001_C.png', folder/'0002_C.png'), 'checksum is another'),
    'empty folder': (lambda folder: [path.unlink() for path in folder.iterdir()], 'is empty'),
    'no folder': (lambda folder: shutil.rmtree(folder), 'journal knows'),
    'copy of a stretch': (lambda folder: shutil.copytree(folder, folder.with_name(re.sub(r'_(\d+)_(\d+)$', lambda found: f'_{int(found[1]) + 40}_{found[2]}', folder.name))), 'is a copy of'),
    'text inside': (lambda folder: (folder/'Thumbs.db').touch(), 'does not belong'),
}


@pytest.mark.parametrize('kind', CLIP_DAMAGES)
def test_damaged_clips(films, tmp_path, kind):
    damage, says = CLIP_DAMAGES[kind]
    shutil.copytree(films/'train', tmp_path/'train')
    name = list_clip_records(tmp_path/'train')[2]
    damage(tmp_path/'train'/name)
    found = faults(tmp_path)
    assert any(says in fault.fault for fault in found), found
    assert all(name in str(fault) for fault in found)


def test_whole_records_have_no_fault(images, films):
    assert not faults(images) and not faults(films) and not faults(films/'train')


def test_records_without_a_journal(images, tmp_path):
    "What earlier versions made: the notes in the masks know what is missing."
    shutil.copytree(images/'train', tmp_path/'train')
    for line in (tmp_path/'train').glob('.*.json'): line.unlink()
    found = verify_records(tmp_path, progress=False)
    assert not found.faults and found.unlisted == found.records > 0 and not found.foreign
    name = list_records(tmp_path/'train')[0]
    for part in 'CM': (tmp_path/f'train/{name}_{part}.png').unlink()
    assert [fault.path.name for fault in faults(tmp_path)] == [name + '_{C,M}.png']


def as_iw3(folder, numbers, group='p_ZoeD_N_abaee5b1', parts='CM'):
    "Three mask values, no notes, numbers that count on."
    picture = np.random.default_rng(1).integers(0, 255, (64, 64, 3), np.uint8)
    mask = np.zeros((64, 64), np.uint8); mask[10:30, 10:30] = 255; mask[30:34, 10:30] = 127
    folder.mkdir(exist_ok=True, parents=True)
    for number in numbers:
        for part in parts: cv2.imwrite(str(folder/f'{group}_{number}_0_{part}.png'), {'C': picture, 'M': mask, 'O': mask}[part])

def photos_of(folder): return {(int(name.split('_')[-2]) + 1) // 2 for name in folder.names}


@pytest.mark.parametrize('group, parts', [('p_ZoeD_N_abaee5b1', 'CM'), ('image1_Any_B', 'CMO')])
def test_records_of_iw3(tmp_path, group, parts):
    "Older ones have no digits of a data set, but a third file."
    as_iw3(tmp_path/'train', range(1, 9), group, parts)
    found = verify_records(tmp_path, progress=False)
    assert not found.faults and found.foreign == 8 and not found.unlisted
    before = contents(tmp_path)
    assert [batch.sources for batch in data_status(tmp_path)] == [4]
    assert split_records(tmp_path, 2).records == 2
    judge, train = data_folders(tmp_path)
    assert len(photos_of(judge)) == 1 and len(photos_of(train)) == 3 and not photos_of(judge) & photos_of(train) and not faults(tmp_path)
    undo_split(tmp_path)
    assert contents(tmp_path) == before
    clean_records(tmp_path, group.split('_')[0])
    assert not contents(tmp_path)


def test_numbers_of_iw3_in_both_folders(tmp_path):
    "They count from 1 in each, so equal names are different photos; none is lost, none is called the same."
    as_iw3(tmp_path/'train', range(1, 9)); as_iw3(tmp_path/'eval', range(1, 5))
    assert not faults(tmp_path)
    before = contents(tmp_path)
    assert split_records(tmp_path, 2).records == 2
    judge, train = data_folders(tmp_path)
    assert {1, 2} < photos_of(judge) and {1, 2} < photos_of(train) and len(judge.names) == 6
    undo_split(tmp_path)
    assert contents(tmp_path) == before
    as_iw3(tmp_path/'eval', range(5, 9))
    with pytest.raises(FileNotFoundError, match='namesake in .*: give one batch another prefix'): split_records(tmp_path, 2)


def test_what_to_delete(images, tmp_path):
    "Paths that a shell understands, apart from what is only missing, and a count of both."
    shutil.copytree(images/'train', tmp_path/'train')
    names = list_records(tmp_path/'train')
    swap_pictures(tmp_path/'train', names[0]); remove('C', 'M')(tmp_path/'train', names[5]); remove('C')(tmp_path/'train', names[7])
    text = str(verify_records(tmp_path, progress=False))
    deleted, missing = text.split('missing:\n')
    [path] = re.findall(r'^  (\S+)', deleted, re.M)
    assert text.endswith(f'{len(names) - 1} records: 1 to be deleted, 2 missing') and deleted.startswith('to be deleted:\n') and {names[5] + '_{C,M}.png', names[7] + '_C.png'} <= {*re.findall(r'[^/\s]+png', missing)}
    subprocess.run(['bash', '-c', f'rm {path}'], check=True)
    assert not [*(tmp_path/'train').glob(f'{names[0]}_*')]


def test_one_photo_in_both(photos, tmp_path):
    "Photos of two commands: one photo is in train/ of the one and in eval/ of the other."
    for part in ('train', 'eval'): (tmp_path/'other'/part).mkdir(parents=True)
    shutil.copy(photos/'train/0.png', tmp_path/'other/eval/x.png')
    make(photos, tmp_path/'data')
    make(tmp_path/'other', tmp_path/'data')
    [fault] = faults(tmp_path/'data')
    source = RecordFolder(tmp_path/'data/eval').source(Path(str(fault).partition(' are of the same source as ')[2]).name.partition('_{C,M}')[0])
    assert str(fault.path) == f"{tmp_path/'data/train'}/{{,.}}*_{source}*" and 'keep it in one of the two folders' in fault.fault
    with pytest.raises(ValueError, match='if they show one photo, delete one of them'): split_records(tmp_path/'data', 8)
    assert not (tmp_path/'data/train/.split.json').exists()
    subprocess.run(['bash', '-c', f'rm {fault.path}'], check=True)
    assert not faults(tmp_path/'data') and split_records(tmp_path/'data', 8).records


def test_lost_lines_are_no_fault(photos, images, tmp_path):
    shutil.copytree(images, tmp_path/'data')
    next((tmp_path/'data/train').glob('.one_P*.json')).unlink()
    found = verify_records(tmp_path/'data', progress=False)
    assert not found.faults and found.unlisted == 4 and 'the same command again writes it' in str(found)
    make(photos, tmp_path/'data')
    assert not verify_records(tmp_path/'data', progress=False).unlisted


def test_verify_says_so_with_its_status(images, tmp_path):
    shutil.copytree(images, tmp_path/'data')
    assert run('inpaint_create_training_data', 'verify', '-o', tmp_path/'data').returncode == 0
    next((tmp_path/'data/train').glob('*_C.png')).unlink()
    done = run('inpaint_create_training_data', 'verify', '-o', tmp_path/'data')
    assert done.returncode == 1 and done.stderr.splitlines()[-1].startswith('error: ') and '_C.png is missing' in done.stdout


# A hundred thousand

def test_verify_holds_little_of_each_record(tmp_path, monkeypatch):
    "A note takes 3 KB of memory; what is compared later takes a tenth."
    options = crops.flat_options(crops.RecordOptions('one', 'Pseudo'))
    for number in range(500):
        source = f'{number:08x}'
        for sample in (0, 1):
            for part in 'CM': (tmp_path/f'one_Pseudo_{source}_1_{sample}_{part}.png').touch()
        records.write_journal(tmp_path, f'one_Pseudo_{source}', {'options': options, 'depth_model': 'Pseudo', 'source': source, 'records': {f'one_Pseudo_{source}_1_{sample}': 'whole' for sample in (0, 1)}})
    def look(folder, name):
        note = {'options': options, 'source': name.split('_')[2], 'kept': [[1, 0], [1, 1]], 'parameters': {f'parameter {number}': float(number) for number in range(30)}}
        return keeping.Checked([], json.loads(json.dumps(note)), 'whole')
    monkeypatch.setattr(keeping, 'check_image_record', look)
    assert not faults(tmp_path)
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        found = verify_records(tmp_path, progress=False, max_workers=1)
        most = tracemalloc.get_traced_memory()[1] - before
    finally: tracemalloc.stop()
    assert found.records == 1000 and most / 1000 < 2000, most / 1000


def interrupt(monkeypatch, room, name, after):
    "Ctrl-C when a function is called for the time after `after`."
    function, calls = getattr(room, name), []
    def call(*arguments):
        calls.append(1)
        if len(calls) > after: raise KeyboardInterrupt
        return function(*arguments)
    monkeypatch.setattr(room, name, call)


def test_interrupted_verify_says_what_it_saw(images, tmp_path, monkeypatch):
    shutil.copytree(images, tmp_path/'data')
    for part, kind in (('eval', 'C'), ('train', 'M')): (tmp_path/f'data/{part}'/f"{list_records(tmp_path/'data'/part)[0]}_{kind}.png").write_bytes(b'?')
    interrupt(monkeypatch, keeping, 'check_image_record', len(list_records(tmp_path/'data/eval')) + 10)
    with pytest.raises(KeyboardInterrupt) as stop: verify_records(tmp_path/'data', progress=False, max_workers=1)
    assert 'will begin anew' in str(stop.value) and str(stop.value).count('is no PNG file') == 2 and '2 to be deleted' in str(stop.value)


def test_interrupted_pack_leaves_the_old_one(images, tmp_path, monkeypatch):
    shutil.copytree(images/'train', tmp_path/'train')
    pack_records(tmp_path, progress=False)
    before = contents(tmp_path)
    interrupt(monkeypatch, operations, 'read_record', 5)
    with pytest.raises(KeyboardInterrupt, match='as it was before'): pack_records(tmp_path, progress=False)
    assert contents(tmp_path) == before


@pytest.mark.skipif(not os.path.exists('/dev/full'), reason='needs a device that is always full')
def test_a_full_disk_leaves_no_part_of_a_pack(images, tmp_path, monkeypatch):
    def full(path, mode):
        Path(path).touch()
        return open('/dev/full', mode)
    shutil.copytree(images/'train', tmp_path/'train')
    before = contents(tmp_path)
    monkeypatch.setattr(operations, 'open', full, raising=False)
    with pytest.raises(OSError, match='No space left'): pack_records(tmp_path, progress=False)
    assert contents(tmp_path) == before


def test_all_that_may_take_long_shows_how_far_it_is(images, tmp_path, monkeypatch, capsys):
    shutil.copytree(images/'train', tmp_path/'train')
    bars, tqdm = [], keeping.tqdm
    for room in (keeping, operations): monkeypatch.setattr(room, 'tqdm', lambda *things, **settings: bars.append(settings['desc']) or tqdm(*things, **settings))
    data_status(tmp_path)
    assert bars == ['journal of train'] and not capsys.readouterr().err  # it was quick
    pack_records(tmp_path); verify_records(tmp_path); clean_records(tmp_path, 'one')
    assert {*bars} == {'train', 'journal of train', 'pack of train', 'clean'}


def test_bar_is_not_drawn_for_each_photo(photos, images, tmp_path, monkeypatch, capsys):
    shutil.copytree(images, tmp_path/'data')
    monkeypatch.setattr(records, 'tqdm', partial(records.tqdm, mininterval=60))
    capsys.readouterr()
    assert make(photos, tmp_path/'data', progress=True).reused
    assert capsys.readouterr().err.count('train:') < 4


# Cleaning

def test_clean_touches_nothing_else(images, tmp_path):
    shutil.copytree(images, tmp_path/'data')
    for name in ('train/one.txt', 'train/one_Pseudo.png', 'one_Pseudo_00000000_1_0_C.png', 'train/.one_more_Pseudo_00000000_1_0_C.png.part'): (tmp_path/'data'/name).write_bytes(b'?')
    before = contents(tmp_path/'data')
    (tmp_path/'data/train/.one_Pseudo_00000000_1_0_C.png.part').touch()
    done = here('inpaint_create_training_data', 'clean', '--prefix', 'one', '-o', tmp_path/'data', '--yes')
    assert done.returncode == 0, done.stderr
    after = contents(tmp_path/'data')
    gone = {name for name in before if re.search(r'/\.?one_Pseudo_[0-9a-f]{8}', name)}
    assert after == {name: data for name, data in before.items() if name not in gone} and gone


def test_clean_takes_half_a_line(images, tmp_path):
    shutil.copytree(images, tmp_path/'data')
    line = next((tmp_path/'data/train').glob('.one_P*.json')).name
    for name in (line, line.replace('one_', 'one_more_')): (tmp_path/f'data/train/.{name}.part').touch()
    clean_records(tmp_path/'data', 'one')
    assert [path.name for path in (tmp_path/'data/train').glob('*.part')] == [f".{line.replace('one_', 'one_more_')}.part"]


def test_clean_asks(images, tmp_path):
    shutil.copytree(images, tmp_path/'data')
    before = contents(tmp_path/'data')
    done = here('inpaint_create_training_data', 'clean', '--prefix', 'one', '-o', tmp_path/'data')
    assert done.returncode == 1 and '--yes' in done.stderr and contents(tmp_path/'data') == before
    assert here('inpaint_create_training_data', 'clean', '-o', tmp_path/'data', '--yes').returncode == 2
    assert here('inpaint_create_training_data', 'clean', '--prefix', 'on', '-o', tmp_path/'data', '--yes').returncode == 1
    assert contents(tmp_path/'data') == before


def test_clean_clips_and_make_them_again(clips, films, tmp_path):
    shutil.copytree(films, tmp_path/'data')
    film(clips/'0', tmp_path/'data/train', 'film_b', seed=2)
    clean_records(tmp_path/'data', 'film')
    assert {name.split('_Pseudo')[0] for name in list_clip_records(tmp_path/'data/train')} == {'film_b'}
    film(clips, tmp_path/'data/train')
    clean_records(tmp_path/'data', 'film_b')
    assert contents(tmp_path/'data') == contents(films)


def test_stray_folder_is_no_clip(images, films, tmp_path):
    shutil.copytree(images, tmp_path/'data')
    (tmp_path/'data/train/thumbs').mkdir(); (tmp_path/'data/train/thumbs/1.jpg').touch()
    assert [fault.path.name for fault in faults(tmp_path/'data')] == ['thumbs']
    assert data_folders(tmp_path/'data')[1].names == list_records(tmp_path/'data/train')
    clean_records(tmp_path/'data', 'one')
    assert not [name for name in contents(tmp_path/'data') if re.search(r'/\.?one_Pseudo_', name)]
    shutil.copytree(films/'train', tmp_path/'data/train', dirs_exist_ok=True)
    with pytest.raises(ValueError, match='keep them in two folders'): data_folders(tmp_path/'data')


def test_clean_goes_on(films, images, tmp_path):
    "Beside what an interrupted run left, and where a record is a link."
    shutil.copytree(films, tmp_path/'data')
    first, second = list_clip_records(tmp_path/'data/train')[:2]
    shutil.copytree(tmp_path/'data/train'/first, tmp_path/f'data/train/.{first}.part')
    (tmp_path/'data/train'/second).rename(tmp_path/'elsewhere')
    (tmp_path/'data/train'/second).symlink_to(tmp_path/'elsewhere')
    clean_records(tmp_path/'data', 'film')
    assert not list((tmp_path/'data/train').iterdir()) and list((tmp_path/'elsewhere').iterdir())
    shutil.copytree(images/'train', tmp_path/'i/train')
    dangling = tmp_path/f"i/train/{list_records(tmp_path/'i/train')[0]}_C.png"
    dangling.unlink(); dangling.symlink_to('nowhere')
    for prefix in ('one', 'one_more'): clean_records(tmp_path/'i', prefix)
    assert not list((tmp_path/'i/train').iterdir())


@pytest.mark.parametrize('journal', [True, False])
def test_names_that_can_be_read_in_two_ways(tmp_path, journal):
    "photos + Distill_Any_S, or photos_Distill + Any_S."
    for number, (prefix, model) in enumerate([('photos', 'Distill_Any_S'), ('photos_Distill', 'Any_S')]):
        options, stem = {'prefix': prefix, 'model_type': model, 'size': 64, 'num_samples': 1}, f'photos_Distill_Any_S_0000000{number}'
        (tmp_path/'train').mkdir(exist_ok=True)
        mask = np.zeros((64, 64), bool); mask[:40] = True
        records.write_record(tmp_path/'train', f'{stem}_1_0', np.zeros((64, 64, 3), np.uint8), mask, {'options': options, 'source': f'0000000{number}', 'kept': [[1, 0]]})
        if journal: records.write_journal(tmp_path/'train', stem, {'options': options, 'records': {f'{stem}_1_0': ''}})
    assert [batch.records for batch in data_status(tmp_path, 'photos')] == [1]
    assert verify_records(tmp_path, 'photos', progress=False).records == 1
    clean_records(tmp_path, 'photos_Distill')
    assert list_records(tmp_path/'train') == ['photos_Distill_Any_S_00000000_1_0']
    assert len(list((tmp_path/'train').glob('.*.json'))) == journal


def test_status_reads_each_line_once(images, monkeypatch):
    read, lines = keeping.read_journal, []
    monkeypatch.setattr(keeping, 'read_journal', lambda folder, line: lines.append((folder, line)) or read(folder, line))
    assert len(data_status(images)) > 2 and len(lines) == len({*lines}) > 10


# Splitting

def sources(folder): return {folder.source(name) for name in folder.names}


def test_split_images(photos, images, tmp_path):
    shutil.copytree(images, tmp_path/'data')
    before = contents(tmp_path/'data')
    summary = split_records(tmp_path/'data', 12)
    judge, train = data_folders(tmp_path/'data')
    assert 0 < summary.records <= 12 and not sources(judge) & sources(train) and sources(train)
    assert {data for data in contents(tmp_path/'data').values()} >= set(before.values())
    assert make(photos, tmp_path/'data').made == 0 and not faults(tmp_path/'data')
    assert make(photos, tmp_path/'data', num_samples=3).made > 0
    judge, train = data_folders(tmp_path/'data')
    assert not sources(judge) & sources(train)
    undo_split(tmp_path/'data')
    make(photos, tmp_path/'whole', num_samples=3)
    ours = {name: data for name, data in contents(tmp_path/'data').items() if 'one_more' not in name}
    assert {name for name in ours if name.endswith('.png')} == {name for name in contents(tmp_path/'whole') if name.endswith('.png')}


def test_split_clips(clips, films, tmp_path):
    shutil.copytree(films, tmp_path/'data')
    before = contents(tmp_path/'data')
    done = here('inpaint_create_training_data', 'split', '-i', tmp_path/'data', '--num-eval', 5)
    assert done.returncode == 0, done.stderr
    judge, train = data_folders(tmp_path/'data')
    assert judge.video and sources(judge) and sources(train) and not sources(judge) & sources(train)
    assert film(clips, tmp_path/'data/train').made == 0
    assert here('inpaint_create_training_data', 'split', '-i', tmp_path/'data', '--undo').returncode == 0
    assert contents(tmp_path/'data') == before


def test_interrupted_split_goes_on(images, tmp_path, monkeypatch):
    shutil.copytree(images, tmp_path/'data'); shutil.copytree(images, tmp_path/'whole')
    split_records(tmp_path/'whole', 12)
    rename, left = os.rename, [3]
    def stop(*paths):
        if not left[0]: raise KeyboardInterrupt
        left[0] -= 1
        rename(*paths)
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(os, 'rename', stop)
        split_records(tmp_path/'data', 12)
    split_records(tmp_path/'data', 12)
    assert contents(tmp_path/'data') == contents(tmp_path/'whole')


@pytest.mark.parametrize('undo', [False, True])
def test_split_interrupted_before_the_journal(images, tmp_path, monkeypatch, undo):
    "All files of a source have moved, but not its line."
    shutil.copytree(images, tmp_path/'data'); shutil.copytree(images, tmp_path/'whole')
    work = (lambda folder: undo_split(folder)) if undo else (lambda folder: split_records(folder, 12))
    if undo: split_records(tmp_path/'data', 12)
    else: split_records(tmp_path/'whole', 12)
    rename = os.rename
    def stop(here, there):
        if Path(here).suffix == '.json': raise KeyboardInterrupt
        rename(here, there)
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(os, 'rename', stop)
        work(tmp_path/'data')
    work(tmp_path/'data')
    assert contents(tmp_path/'data') == contents(tmp_path/'whole') and not faults(tmp_path/'data')


def test_undo_leaves_lines_that_were_in_eval(images, tmp_path):
    shutil.copytree(images, tmp_path/'data')
    source = data_folders(tmp_path/'data')[1].source(list_records(tmp_path/'data/train')[0])
    (tmp_path/f'data/eval/.other_Pseudo_{source}.json').write_text('{"records": {}}')
    (tmp_path/'data/eval/other_Any_B_00000000_1_0_C.png').touch()
    before = contents(tmp_path/'data')
    split_records(tmp_path/'data', 24)
    assert source in records.read_journal(tmp_path/'data/train', 'split')['sources']
    undo_split(tmp_path/'data')
    assert contents(tmp_path/'data') == before


@pytest.mark.skipif(not os.access('/dev/shm', os.W_OK) or os.stat('/dev/shm').st_dev == os.stat('/tmp').st_dev, reason='needs a second disk')
def test_split_to_another_disk(images, tmp_path):
    import tempfile
    shutil.copytree(images/'train', tmp_path/'data/train')
    with tempfile.TemporaryDirectory(dir='/dev/shm') as folder:
        (tmp_path/'data/eval').symlink_to(folder)
        with pytest.raises(ValueError, match='two disks'): split_records(tmp_path/'data', 12)
    assert not (tmp_path/'data/train/.split.json').exists()


def test_nothing_to_split(films, images, tmp_path):
    with pytest.raises(ValueError, match='--num-eval'): split_records(shutil.copytree(images, tmp_path/'data'), 10 ** 6)
    with pytest.raises(FileNotFoundError, match='no folder'): split_records(tmp_path, 10)


def test_damaged_split_is_not_taken_for_none(images, tmp_path):
    shutil.copytree(images, tmp_path/'data')
    split_records(tmp_path/'data', 12)
    (tmp_path/'data/train/.split.json').write_text('{"num')
    before = contents(tmp_path/'data')
    for work in (lambda: split_records(tmp_path/'data', 12), lambda: undo_split(tmp_path/'data')):
        with pytest.raises(ValueError, match='split.json is damaged'): work()
    [fault] = faults(tmp_path/'data')
    assert fault.path.name == '.split.json' and fault.remedy == 'see' and contents(tmp_path/'data') == before


def test_undo_leaves_what_was_made_for_eval(photos, tmp_path):
    "A photo whose records live in eval/ since a split is an eval photo of the next batch."
    make(photos, tmp_path/'data')
    split_records(tmp_path/'data', 12)
    judge, source = data_folders(tmp_path/'data')[0], records.read_journal(tmp_path/'data/train', 'split')['sources'][0]
    [photo] = [json.loads((judge.path/f'.{line}.json').read_text())['name'] for line in judge.lines if line.endswith(source)]
    for part in ('train', 'eval'): (tmp_path/'other'/part).mkdir(parents=True)
    shutil.copy(photos/photo, tmp_path/'other/eval')
    assert make(tmp_path/'other', tmp_path/'data', 'two').made
    undo_split(tmp_path/'data')
    judge, train = data_folders(tmp_path/'data')
    assert {name.split('_')[0] for name in judge.names} == {'one', 'two'} and not [name for name in train.entries if 'two' in name]
    assert len([name for name in judge.entries if 'two_' in name]) >= 3


def test_clean_forgets_a_split(photos, tmp_path):
    make(photos, tmp_path/'data', 'one')
    split_records(tmp_path/'data', 8)
    make(photos, tmp_path/'data', 'two', num_samples=1)
    clean_records(tmp_path/'data', 'one')
    assert (tmp_path/'data/train/.split.json').exists()  # records of `two` were made where the split says
    clean_records(tmp_path/'data', 'two')
    assert not (tmp_path/'data/train/.split.json').exists()
    make(photos, tmp_path/'data', 'one')
    assert split_records(tmp_path/'data', 12).records > 0


def test_split_says_what_is_new(photos, tmp_path):
    shutil.copytree(photos, tmp_path/'photos')
    make(photos, tmp_path/'data')
    first = split_records(tmp_path/'data', 6)
    assert f'asked for 6, whole sources allow {first.records}' in str(first) and 0 < first.records < 6
    assert str(split_records(tmp_path/'data', 6)).startswith('split already, nothing left to move; now')
    save_scene(tmp_path/'photos/train/new.png', random_scene(50, size=(200, 260)).image)
    make(tmp_path/'photos', tmp_path/'data')
    assert '1 source came after the split' in str(split_records(tmp_path/'data', 6))
    undo_split(tmp_path/'data')
    assert split_records(tmp_path/'data', 6).new == 0


def test_interrupted_split_is_seen(images, tmp_path, monkeypatch):
    shutil.copytree(images, tmp_path/'data')
    rename, left = os.rename, [6]
    def stop(*paths):
        left[0] -= 1
        if not left[0]: raise KeyboardInterrupt
        rename(*paths)
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(os, 'rename', stop)
        split_records(tmp_path/'data', 12)
    assert any(fault.path.name == '.split.json' and 'give the split command again' in fault.fault for fault in faults(tmp_path/'data'))
    split_records(tmp_path/'data', 12)
    assert not faults(tmp_path/'data')


# A share of the work

def test_shards(photos, clips, images, films, tmp_path):
    for number in (1, 2, 3):
        make(photos, tmp_path/'images', shard=f'{number}/3')
        film(clips, tmp_path/'films/train', shard=f'{number}/3')
    assert contents(tmp_path/'images') == {name: data for name, data in contents(images).items() if 'one_more' not in name}
    assert contents(tmp_path/'films') == contents(films)


def test_each_shard_has_its_own(photos, tmp_path):
    counts = [make(photos, tmp_path/str(number), shard=f'{number}/3').photos for number in (1, 2, 3)]
    assert sum(counts) == 8 and min(counts) > 0


def test_shards_of_equal_sizes(tmp_path):
    files = [tmp_path/f'{number}.bmp' for number in range(100)]
    for number, file in enumerate(files): file.write_bytes(number.to_bytes(1, 'big') * 300)
    shutil.copy(files[0], files[1])
    shares = [records.share_of(records.share_keys(files), (place, 4)) for place in range(4)]
    assert sorted(sum(shares, [])) == sorted(files) and min(map(len, shares)) >= 24
    assert any({*files[:2]} <= {*share} for share in shares)


def test_a_share_of_broken_photos_is_an_error(tmp_path):
    for part in ('train', 'eval'): (tmp_path/'photos'/part).mkdir(parents=True)
    (tmp_path/'photos/train/broken.png').write_text('no picture')
    line = ['inpaint', '--dataset-dir', tmp_path/'photos', '-o', tmp_path/'out', '--prefix', 'p', '--model-type', 'Pseudo']
    done = here('inpaint_create_training_data', *line, '--shard', '1/1')
    assert done.returncode == 1 and 'no records' in done.stderr
    shares = [here('inpaint_create_training_data', *line, '--shard', f'{place}/2').returncode for place in (1, 2)]
    assert sorted(shares) == [0, 1]  # there is nothing in the other
    (tmp_path/'jobs.yml').write_text(f"[{{dataset-dir: [{tmp_path/'photos'}, {tmp_path/'photos'}], data-dir: {tmp_path/'out'}, prefix: p, model-type: Pseudo}}]")
    jobs = ['jobs', tmp_path/'jobs.yml', '--shard', '1/1']
    assert '0 jobs done, 2 failed' in here('inpaint_create_training_data', *jobs).stdout
    save_scene(tmp_path/'photos/eval/0.png', random_scene(0, size=(200, 260)).image)
    done = here('inpaint_create_training_data', *jobs)
    assert done.returncode == 3 and '2 jobs done, 0 failed' in done.stdout and '2 sources failed' in done.stdout


def torchrun(tmp_path, *line):
    (tmp_path/'program.py').write_text(f'import sys; sys.path.append({str(Path(__file__).parent)!r}); from making import small_line; sys.exit(small_line(sys.argv[1:]))')
    done = subprocess.run([Path(sys.executable).parent/'torchrun', '--standalone', '--nproc_per_node', '2', tmp_path/'program.py', *map(str, line)], env=ENV, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count('records: ') == 2
    return done


def test_torchrun(photos, images, tmp_path):
    "Two processes make what one makes; a damaged photo does not end the other process."
    shutil.copytree(photos, tmp_path/'photos')
    (tmp_path/'photos/train/broken.png').write_text('no picture')
    done = torchrun(tmp_path, 'inpaint', '--dataset-dir', tmp_path/'photos', '-o', tmp_path/'out', '--prefix', 'one', '--model-type', 'Pseudo', '--size', 128, '--divergence-level', 3)
    assert done.stdout.count('failed train/broken.png') == 1
    assert contents(tmp_path/'out') == {name: data for name, data in contents(images).items() if 'one_more' not in name}


@pytest.mark.parametrize('command', ['inpaint', pytest.param('video_inpaint', marks=pytest.mark.long)])
def test_network_in_parts(photos, clips, two_networks, tmp_path, command):
    "A network's records, of photos and of clips: three shards, and two processes, make what one process makes."
    options = dict(prefix='p', model_type='Any_S', depth_weights=two_networks[0], resolution=98, size=128, divergence_level=3)
    make, own = {'inpaint': (make_image_records, dict(dataset_dir=photos)),
                 'video_inpaint': (make_video_records, dict(dataset_dir=clips, seq=4, skip_interval=4))}[command]
    for place, shard in (('whole', None), *(('shards', f'{number}/3') for number in (1, 2, 3))): make(data_dir=tmp_path/place, shard=shard, progress=False, **own, **options)
    words = [word for name, value in (own | options).items() for word in (f"--{name.replace('_', '-')}", value)]
    line = command, *words, '-o', tmp_path/'processes'
    there, this = (dict(RANK=rank, LOCAL_RANK=rank, WORLD_SIZE='2', LOCAL_WORLD_SIZE='2') for rank in '10')
    other = Running(small_line, *line, env=there)
    with mock.patch.dict(os.environ, this): done = here('inpaint_create_training_data', *line)
    for one in (done, other.wait()): assert one.returncode == 0 and one.stdout.count('records: ') == 1, one
    whole = contents(tmp_path/'whole')
    assert len(whole) > 8 and contents(tmp_path/'shards') == whole and contents(tmp_path/'processes') == whole


# Jobs

def test_several_at_once(photos, clips, tmp_path):
    shutil.copytree(photos, tmp_path/'again')
    line = ['inpaint_create_training_data', 'inpaint', '--dataset-dir', photos, tmp_path/'nowhere', tmp_path/'again', '--prefix', 'p', '--model-type', 'Pseudo', '-o', tmp_path/'out', '--size', 128, '--num-samples', 1]
    done = here(*line)
    assert done.returncode == 1 and done.stderr.splitlines()[-1].startswith('error: 1 of 3 jobs failed') and '2 jobs done, 1 failed' in done.stdout
    before = contents(tmp_path/'out')
    done = here(*line)
    assert done.returncode == 1 and 'records: 0 made' in done.stdout.splitlines()[-1] and contents(tmp_path/'out') == before


def test_jobs_file(photos, clips, tmp_path):
    (tmp_path/'jobs.yml').write_text(f'''
defaults: {{size: 128, divergence-level: 3}}
jobs:
- {{command: inpaint, dataset-dir: {photos}, data-dir: {tmp_path/'i'}, prefix: a, model-type: Pseudo, num-samples: 1}}
- {{command: video_inpaint, dataset-dir: [{clips/'0'}, {tmp_path/'broken.mp4'}, {clips/'1'}], data-dir: {tmp_path/'v/train'}, prefix: b, model-type: Pseudo, seq: 4}}
''')
    (tmp_path/'broken.mp4').write_text('no clip')
    done = here('inpaint_create_training_data', 'jobs', tmp_path/'jobs.yml')
    assert done.returncode == 1 and '3 jobs done, 1 failed' in done.stdout and 'broken.mp4' in done.stderr
    assert list_records(tmp_path/'i/train') and len(list_clip_records(tmp_path/"v/train")) >= 2
    gone = list_records(tmp_path/'i/train')[0]
    (tmp_path/f'i/train/{gone}_M.png').unlink()
    before = contents(tmp_path/'v')
    done = here('inpaint_create_training_data', 'jobs', tmp_path/'jobs.yml')
    assert contents(tmp_path/'v') == before and (tmp_path/f'i/train/{gone}_M.png').exists()


def test_paths_begin_where_the_command_runs(photos, tmp_path):
    shutil.copytree(photos, tmp_path/'here/photos')
    (tmp_path/'jobs.yml').write_text('[{dataset-dir: photos, data-dir: out, prefix: p, model-type: Pseudo, size: 128, divergence-level: 3, num-samples: 1, eval-only: true}]')
    assert here('inpaint_create_training_data', 'jobs', '../jobs.yml', cwd=tmp_path/'here').returncode == 0
    assert list_records(tmp_path/'here/out/eval')


def test_too_little_hole_is_no_failure(photos, tmp_path, monkeypatch):
    monkeypatch.setattr(crops, 'LEAST_HOLE', 10 ** 9)
    for _ in range(2):
        found = run_jobs([('a', lambda: make(photos, tmp_path))], say=lambda text: None)
        assert not found.failed and 'a: 0 made, 0 reused; too little hole' in str(found) and '1 job done' in str(found)


def test_jobs_of_one_title():
    def fail(): raise ValueError('no')
    found = run_jobs([('a', lambda: records.RecordSummary(made=2)), ('a', lambda: records.RecordSummary(made=3)), ('a', fail), ('a', fail)], say=lambda text: None)
    assert str(found).endswith('2 jobs done, 2 failed; records: 5 made, 0 reused') and len(str(found).splitlines()) == 5


def test_titles_tell_jobs_apart(photos, tmp_path):
    (tmp_path/'jobs.yml').write_text(f"""[{', '.join(f"{{dataset-dir: {photos}, data-dir: {tmp_path/out}, prefix: p, model-type: Pseudo, size: 128, divergence-level: 3, num-samples: 1, eval-only: true}}" for out in 'ab')}]""")
    done = here('inpaint_create_training_data', 'jobs', tmp_path/'jobs.yml')
    assert done.returncode == 0 and f'== job 1: inpaint {photos} -o {tmp_path}/a ' in done.stdout and f'== job 2: inpaint {photos} -o {tmp_path}/b ' in done.stdout


@pytest.mark.parametrize('job, says', [({'model-type': []}, 'model-type is an empty list'), ({'command': ['inpaint']}, 'command must be one word'), ({'prefix': 7}, "prefix must be text, not 7"),
    ({'prefix': False}, 'put it in quotes'), ({'dataset-dir': ['a', 12]}, 'dataset-dir must be text, not 12')])
def test_values_that_yaml_takes_otherwise(job, says):
    with pytest.raises(ValueError, match=says): job_lines(job)


@pytest.mark.parametrize('text, says', [('a: [', 'is not YAML'), ('7', 'holds no jobs'), ('[]', 'holds no jobs'), ('[3]', 'job 1'), ('[{prefix: [a, b]}]', 'prefix has one value'),
    ('[{dataset-dir: x, data-dir: y, prefix: p, model-type: Pseudo, sise: 3}]', 'job 1'), ('[{dataset-dir: x, data-dir: y, prefix: p, model-type: Oak}]', "'Oak'"),
    ('[{command: split, data-dir: y}]', 'split'), ('default: {size: 128}\njobs: [{prefix: a}]', 'has default'), ('[{help: true, prefix: a}]', 'help is no option of a job'),
    ('[{i: x, o: y, prefix: p, model-type: Pseudo}]', 'write dataset-dir, not i'), ('[{dataset-dir: x, prefix: p, prefix: q}]', 'prefix is given twice'),
    ('[{dataset-dir: x, data-dir: y, data_dir: z}]', 'data_dir is given twice')])
def test_wrong_jobs(tmp_path, text, says):
    "Found before the first job begins."
    (tmp_path/'jobs.yml').write_text(text)
    done = here('inpaint_create_training_data', 'jobs', tmp_path/'jobs.yml', cwd=tmp_path)
    assert done.returncode == 2 and says in done.stderr and len(done.stderr.splitlines()) == 1, done.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ['jobs.yml']


# Packs

def same(ours, theirs, keys):
    assert ours.records == theirs.records and ours.pack and not theirs.pack
    for key in keys:
        for a, b in zip(ours[key], theirs[key]): assert torch.equal(a, b) if isinstance(a, torch.Tensor) else a == b


@pytest.mark.parametrize('training', [True, False])
def test_same_samples(images, films, tmp_path, training):
    shutil.copytree(images, tmp_path/'i'); shutil.copytree(films, tmp_path/'v')
    grey = tmp_path/f"i/train/{list_records(tmp_path/'i/train')[0]}_M.png"
    cv2.imwrite(str(grey), cv2.imread(str(grey), 0) // 2)  # a third value, as iw3 writes
    pack_records(tmp_path/'i', progress=False); pack_records(tmp_path/'v', 2, progress=False)
    keys = [(index, epoch, draw) for index in range(6) for epoch, draw in ((0, 0), (3, 7))]
    plain = [dataset_without_pack(InpaintDataset, tmp_path/'i/train', training, size=64), dataset_without_pack(VideoDataset, tmp_path/'v/train', training, size=64, frames=3)]
    same(InpaintDataset(tmp_path/'i/train', training, size=64), plain[0], keys)
    same(VideoDataset(tmp_path/'v/train', training, size=64, frames=3), plain[1], keys)


def dataset_without_pack(kind, folder, training, **options):
    (folder/'.pack.json').rename(folder/'.pack.away')
    try: return kind(folder, training, **options)
    finally: (folder/'.pack.away').rename(folder/'.pack.json')


def test_workers_of_the_loader(images, tmp_path):
    shutil.copytree(images/'train', tmp_path/'train')
    pack_records(tmp_path, progress=False)
    dataset = InpaintDataset(tmp_path/'train', size=64)
    for context in ('fork', METHOD):
        loader = torch.utils.data.DataLoader(dataset, batch_size=4, num_workers=2, multiprocessing_context=context)
        for batch, rows in zip(loader, range(0, 8, 4)): assert torch.equal(batch[0], torch.stack([dataset[row][0] for row in range(rows, rows + 4)]))


def test_only_the_pack(images, tmp_path):
    "The packed form alone, on the fast disk of another machine."
    shutil.copytree(images/'train', tmp_path/'train')
    pack_records(tmp_path, progress=False)
    before = InpaintDataset(tmp_path/'train', size=64)[3]
    for path in (tmp_path/'train').glob('*.png'): path.unlink()
    assert torch.equal(InpaintDataset(tmp_path/'train', size=64)[3][0], before[0])


def test_old_pack_is_not_used(images, tmp_path):
    shutil.copytree(images/'train', tmp_path/'train')
    pack_records(tmp_path, progress=False)
    name = list_records(tmp_path/'train')[0]
    for part in 'CM': (tmp_path/f'train/{name}_{part}.png').unlink()
    with pytest.warns(UserWarning, match='pack brings'): assert not InpaintDataset(tmp_path/'train', size=64).pack


def test_pack_of_other_pixels_is_not_used(images, films, tmp_path):
    "The same names, but written anew since."
    shutil.copytree(images/'train', tmp_path/'i/train'); shutil.copytree(films/'train', tmp_path/'v/train')
    pack_records(tmp_path/'i', progress=False); pack_records(tmp_path/'v', progress=False)
    names = list_records(tmp_path/'i/train')
    shutil.copy(tmp_path/f'i/train/{names[0]}_C.png', tmp_path/f'i/train/{names[1]}_C.png')
    clip = tmp_path/'v/train'/list_clip_records(tmp_path/'v/train')[0]
    shutil.copy(clip/'0001_C.png', clip/'0002_C.png')
    for kind, options in ((InpaintDataset, {'folder': tmp_path/'i/train'}), (VideoDataset, {'folder': tmp_path/'v/train', 'frames': 3})):
        with pytest.warns(UserWarning, match='pack brings'): assert not kind(**options, size=64).pack
    assert np.array_equal(*(datasets.read_record(tmp_path/'i/train', name)[0] for name in names[:2]))


def test_pack_hides_no_damage(images, tmp_path):
    shutil.copytree(images/'train', tmp_path/'train')
    pack_records(tmp_path, progress=False)
    (tmp_path/f"train/{list_records(tmp_path/'train')[0]}_C.png").unlink()
    with pytest.raises(FileNotFoundError, match='missing beside its mask'): InpaintDataset(tmp_path/'train', size=64)


def test_no_ghost_after_clean_and_split(images, tmp_path):
    shutil.copytree(images, tmp_path/'data')
    pack_records(tmp_path/'data', progress=False)
    split_records(tmp_path/'data', 12)
    assert not list((tmp_path/'data').rglob('.pack*'))
    pack_records(tmp_path/'data', progress=False)
    undo_split(tmp_path/'data')
    assert not list((tmp_path/'data').rglob('.pack*'))
    pack_records(tmp_path/'data', progress=False)
    for prefix in ('one', 'one_more'): clean_records(tmp_path/'data', prefix)
    assert not list((tmp_path/'data').rglob('.pack*'))
    with pytest.raises(FileNotFoundError, match='no records'): InpaintDataset(tmp_path/'data/train', size=64)


@pytest.mark.parametrize('damage', ['pixel', 'size', 'text', 'list', 'records', 'empty'])
def test_damaged_pack_is_found(films, tmp_path, damage):
    "A network would train on it without a word."
    shutil.copytree(films/'train', tmp_path/'train')
    pack_records(tmp_path, progress=False)
    assert not faults(tmp_path)
    pack, index = tmp_path/'train/.pack.npy', tmp_path/'train/.pack.json'
    content = json.loads(index.read_text())
    if damage == 'pixel': pack.write_bytes(flip_bit(pack.read_bytes()))
    elif damage == 'empty': pack.write_bytes(b'')
    elif damage == 'text': index.write_text('{')
    elif damage == 'list': index.write_text('[]')
    elif damage == 'records': index.write_text(json.dumps(content | {'records': 5}))
    else:
        content['records'][0][2:4] = [64, 256]
        index.write_text(json.dumps(content))
    [fault] = faults(tmp_path)
    assert fault.path.name == '.pack.{json,npy}' and 'pack again' in fault.fault
    subprocess.run(['bash', '-c', f'rm {fault.path}'], check=True)
    assert not faults(tmp_path)


def test_pack_alone_is_checked(images, tmp_path):
    shutil.copytree(images/'train', tmp_path/'train')
    pack_records(tmp_path, progress=False)
    for path in (tmp_path/'train').iterdir():
        if not path.name.startswith('.pack'): path.unlink()
    assert not faults(tmp_path)
    (tmp_path/'train/.pack.npy').write_bytes(flip_bit((tmp_path/'train/.pack.npy').read_bytes()))
    assert faults(tmp_path)


def test_nothing_to_pack(photos, tmp_path, monkeypatch):
    monkeypatch.setattr(crops, 'LEAST_HOLE', 10 ** 9)
    make(photos, tmp_path)
    assert str(pack_records(tmp_path, progress=False)).startswith('nothing to pack')


def test_pack_cut_off(images, tmp_path):
    shutil.copytree(images/'train', tmp_path/'train')
    pack_records(tmp_path, progress=False)
    pack = tmp_path/'train/.pack.npy'
    pack.write_bytes(pack.read_bytes()[:-1])
    with pytest.raises(ValueError, match='pack again'): InpaintDataset(tmp_path/'train', size=64)


def test_status(images, films):
    batches = data_status(images)
    assert {batch.label for batch in batches} == {'one_Pseudo', 'one_more_Pseudo'}
    assert sum(batch.records for batch in batches) == len(list(images.rglob('*_M.png')))
    done = here('inpaint_create_training_data', 'status', '-o', films, '--prefix', 'film')
    assert done.returncode == 0 and 'train/film_Pseudo' in done.stdout and 'depth by Pseudo' in done.stdout
    assert here('inpaint_create_training_data', 'status', '-o', films, '--prefix', 'fil').returncode == 1


# The guides' scripts

SEEDS = Path(__file__).parents[2]/'shared/seeds'
SCRIPTS = {'image': ('002_6d2ec41d0eaac945.txt', ['flickr1_Any_B', 'flickr2_ZoeD_Any_N']),
           'video': ('003_87161b987981372b.txt', ['shibuy1_Any_B', 'shibuy2_Any_L', 'shibuy3_ZoeD_Any_N', 'kamakura1_Any_B', 'kamakura2_Distill_Any_S', 'akamkura3_ZoeD_Any_N'])}


def work_through(words: list[str]) -> int:
    "Command lines from a file: a word in each line, an empty one after the last."
    lines = [line.split('\n') for line in Path(words[0]).read_text().removesuffix('\n\n').split('\n\n')]
    return max(cli.inpaint_create_training_data(line) for line in lines)


@pytest.mark.skipif(not SEEDS.exists(), reason='needs ../shared/seeds')
@pytest.mark.parametrize('kind', ['image', pytest.param('video', marks=pytest.mark.long)])
def test_scripts_of_the_guides(tmp_path, kind):
    "Word for word after the program's name, as bash cuts it in words, with random weights under the names of the networks."
    from standins import write_all
    guide, labels = SCRIPTS[kind]
    [script] = [block for block in re.findall(r'```bash\n(.*?)```', (SEEDS/guide).read_text(), re.S) if block.startswith('#!')]
    note = """note() { printf '%s\\n' "$@" '' >> lines; }\n"""
    (tmp_path/'batch.sh').write_text(note + script.replace('python create_training_data.py', 'note').replace(' /data/', f' {tmp_path}/sources/'))
    sources = tmp_path/'sources'
    for number in range(2): save_scene(sources/f'Flickr2K/{("train", "eval")[number]}/{number}.png', random_scene(number, size=(240, 320)).image)
    for name in ('shibuya', 'kamakura') * (kind == 'video'):
        with av.open(str(sources/f'{name}.mp4'), 'w') as file:
            stream = file.add_stream('mpeg4', rate=30, options={'qscale': '3'})
            stream.width, stream.height = 320, 240
            for scene in random_clip(len(name) + name.count('k'), 34, (240, 320)):
                file.mux(stream.encode(av.VideoFrame.from_ndarray(to_pixels(scene.image))))
            file.mux(stream.encode())
        (sources/'videos').mkdir(exist_ok=True)
        (sources/f'{name}.mp4').rename(sources/f'videos/{name}.webm')
    env = write_all(tmp_path/'standins', sorted({label.split('_', 1)[1] for label in labels})) | {'INPAINT_TRUST_REMOTE_CODE': '1'}
    subprocess.run(['bash', 'batch.sh'], cwd=tmp_path, check=True)
    done = run(work_through, tmp_path/'lines', cwd=tmp_path, env=env)
    assert done.returncode == 0, done.stderr
    folders = {'image': ['inpaint_v1/train', 'inpaint_v1/eval'], 'video': ['video_inpaint_v1/train']}[kind]
    names = [path.name for folder in folders for path in (tmp_path/'data'/folder).iterdir() if not path.name.startswith('.')]
    pattern = '|'.join(labels)
    assert all(re.fullmatch(rf'({pattern})_[0-9a-f]{{8}}_\d_\d' + ('_[CM].png' if kind == 'image' else ''), name) for name in names)
    assert {label for label in labels if any(name.startswith(label) for name in names)} == {*labels}
    assert not faults(tmp_path/'data'/folders[0].split('/')[0])


def test_clean_takes_what_a_dead_run_left(films, tmp_path):
    "Parts carry the name of their computer and process."
    shutil.copytree(films, tmp_path/'films')
    name = list_clip_records(tmp_path/'films/train')[0]
    for left in (f'.{name}.some-computer-123.part', f'.{name}.some-computer-123.old.part', f'.{name}.part'): (tmp_path/'films/train'/left).mkdir()
    assert clean_records(tmp_path/'films', 'film', agree=lambda _: True)
    assert not list((tmp_path/'films/train').iterdir())


def test_records_of_other_mask_steps_are_not_mixed(photos, clips, tmp_path, monkeypatch):
    "Nor is a folder gone on with by another version."
    now, refusal = records.MASK_STEPS, 'version {} of the mask steps, not {}: give another prefix'
    with monkeypatch.context() as then:
        then.setattr(records, 'MASK_STEPS', now + 1)
        made = make(photos, tmp_path/'later').made, film(clips/'0', tmp_path/'later films').made
        assert (make(photos, tmp_path/'later').reused, film(clips/'0', tmp_path/'later films').reused) == made
    with pytest.raises(ValueError, match=refusal.format(now + 1, now)): make(photos, tmp_path/'later')
    with pytest.raises(ValueError, match=refusal.format(now + 1, now)): film(clips/'0', tmp_path/'later films')
