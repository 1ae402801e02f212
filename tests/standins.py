"""Weights for every depth network by name: the real architectures and file layouts, but tiny and random.

    python tests/standins.py FOLDER [NAME ...]

writes FOLDER/hf, which serves as HF_HOME (set HF_HUB_OFFLINE=1 as well), FOLDER/torch, which serves as TORCH_HOME, and FOLDER/weights, which serves as --depth-weights."""
import shutil
import sys
import tempfile
from copy import deepcopy
from functools import cache
from pathlib import Path

import torch

from inpaint_nb.depth_models import DEPTH_MODELS, HubWeights, TorchHub
from inpaint_nb.depth_networks import ProNetwork, ZoeNetwork
from inpaint_nb.scenes import random_scene

NETWORKS = [name for name, info in DEPTH_MODELS.items() if info.weights]
SOURCES = {name: DEPTH_MODELS[name].source for name in NETWORKS}


def randomise(network, seed=0):
    "Random numbers in all tensors, of sizes that neither die out nor explode on their way."
    generator = torch.Generator().manual_seed(seed)
    for name, values in network.named_parameters():
        size = 3 if 'position' in name else 1.4 / values[0].numel() ** .5 if values.ndim > 1 else 0
        if size: values.data = torch.randn(values.shape, generator=generator) * size
    for layer in network.modules():
        if isinstance(layer, torch.nn.ConvTranspose2d): layer.weight.data[:] = layer.weight.data.mean((2, 3), keepdim=True)
    return network


@torch.no_grad()
def with_steps(network, before, after, size):
    "Set two layers with a ReLU between them so that they make terraces, for smooth depth opens no holes."
    values = []
    watch = before.register_forward_hook(lambda layer, given, result: values.append(result[0, :, ::3, ::3].flatten(1)))
    network.eval()((random_scene(3, (size, size)).image - .5) / .3)
    watch.remove()
    middle, spread = values[0][::2].median(1).values, values[0][::2].std(1)
    before.weight[1::2] = before.weight[::2] = before.weight[::2] * (4 / spread).view(-1, 1, 1, 1)
    before.bias[::2] = -middle * 4 / spread
    before.bias[1::2] = before.bias[::2] - 1
    after.weight[:, 1::2] = -after.weight[:, ::2]


@cache
def any_network(metric=False, metres=20, second=True):
    from transformers import DepthAnythingConfig, DepthAnythingForDepthEstimation, Dinov2Config
    backbone = Dinov2Config(hidden_size=64, num_hidden_layers=8, num_attention_heads=1, mlp_ratio=2, image_size=518, patch_size=14,
                            out_indices=[2, 4, 6, 8] if second else [5, 6, 7, 8], reshape_hidden_states=False)
    config = DepthAnythingConfig(backbone_config=backbone, reassemble_hidden_size=64, neck_hidden_sizes=[8, 16, 16, 16], fusion_hidden_size=8, head_hidden_size=8,
                                 depth_estimation_type='metric' if metric else 'relative', max_depth=metres if metric else 1)
    network = randomise(DepthAnythingForDepthEstimation(config))
    with_steps(network, network.head.conv2, network.head.conv3, 392)
    if not metric: network.head.conv3.bias.data.fill_(4)  # the last ReLU cuts below zero
    return network


@cache
def zoe_network(both=False):
    from transformers import BeitConfig, ZoeDepthConfig, ZoeDepthForDepthEstimation
    backbone = BeitConfig(hidden_size=32, num_hidden_layers=4, num_attention_heads=2, intermediate_size=64, image_size=384, patch_size=16, use_relative_position_bias=True,
                          reshape_hidden_states=False, out_features=['stage1', 'stage2', 'stage3', 'stage4'])
    heads = [dict(name='nyu', n_bins=8, min_depth=.001, max_depth=10.), dict(name='kitti', n_bins=8, min_depth=.001, max_depth=80.)]
    chooser = dict(num_patch_transformer_layers=4, patch_transformer_hidden_size=128, patch_transformer_intermediate_size=32, patch_transformer_num_attention_heads=2)
    config = ZoeDepthConfig(backbone_config=backbone, neck_hidden_sizes=[8, 8, 16, 16], fusion_hidden_size=16, num_relative_features=8, bottleneck_features=16,
                            num_attractors=[4, 2, 2, 1], bin_embedding_dim=8, bin_configurations=heads if both else heads[:1], **(chooser if both else {}))
    network = randomise(ZoeDepthForDepthEstimation(config))
    last = network.metric_head.conditional_log_binomial
    for head in last.values() if both else [last]: head.mlp[2].weight.data *= 20
    return network


@cache
def pro_network():
    from transformers import DepthProConfig, DepthProForDepthEstimation
    encoder = dict(model_type='dinov2', hidden_size=32, num_hidden_layers=2, num_attention_heads=2, mlp_ratio=2, image_size=384, patch_size=16)
    config = DepthProConfig(fusion_hidden_size=16, patch_size=384, intermediate_hook_ids=[1, 0], intermediate_feature_dims=[16, 16], scaled_images_feature_dims=[16, 16, 16],
                            image_model_config=dict(encoder), patch_model_config=dict(encoder), fov_model_config=dict(encoder), use_fov_model=True)
    network = randomise(DepthProForDepthEstimation(config))
    with_steps(network, network.head.layers[-4], network.head.layers[-2], 1536)
    network.head.layers[-2].bias.data.fill_(4)
    network.fov_model.head.layers[-1].bias.data.fill_(50)
    return network


def _maker(name):
    "Which function makes the tiny network behind a name, and what it wants."
    row = DEPTH_MODELS[name]
    if issubclass(row.model, ZoeNetwork): return zoe_network, (row.heads == 2,)
    if issubclass(row.model, ProNetwork): return pro_network, ()
    return any_network, (row.is_metric, 80 if row.place == 'roads' else 20, row.version != 1)


def network_of(name):
    "A tiny network of the architecture behind a name."
    make, given = _maker(name)
    return deepcopy(make(*given))


@cache
def saved(make, given):
    "The files of a tiny network."
    from transformers.utils import logging
    logging.disable_progress_bar()
    with tempfile.TemporaryDirectory() as folder:
        make(*given).save_pretrained(folder)
        return {file.name: file.read_bytes() for file in Path(folder).iterdir()}


def original_names(state):
    "Tensors of Depth Anything as the original program calls them (written out here once more, to check the map of `inpaint_nb.depth_models`)."
    result = {}
    for name, values in state.items():
        part = name.split('.')
        if name.startswith('backbone.embeddings'):
            new = 'pretrained.' + {'cls_token': 'cls_token', 'mask_token': 'mask_token', 'position_embeddings': 'pos_embed', 'patch_embeddings': f'patch_embed.proj.{part[-1]}'}[part[2]]
        elif name.startswith('backbone.layernorm'): new = f'pretrained.norm.{part[-1]}'
        elif name.startswith('backbone.encoder'):
            block = f'pretrained.blocks.{part[3]}'
            if 'attention.attention' in name:
                if part[6] != 'query': continue
                new, values = f'{block}.attn.qkv.{part[-1]}', torch.cat([state[name.replace('query', third)] for third in ('query', 'key', 'value')])
            elif 'attention.output' in name: new = f'{block}.attn.proj.{part[-1]}'
            elif 'layer_scale' in name: new = f'{block}.ls{part[4][-1]}.gamma'
            else: new = '.'.join([block, *part[4:]])
        elif name.startswith('neck.reassemble'): new = f"depth_head.{dict(projection='projects', resize='resize_layers')[part[4]]}.{part[3]}.{part[-1]}"
        elif name.startswith('neck.convs'): new = f'depth_head.scratch.layer{int(part[2]) + 1}_rn.{part[-1]}'
        elif name.startswith('neck.fusion'):
            unit = 'out_conv' if part[4] == 'projection' else f'resConfUnit{part[4][-1]}.conv{part[5][-1]}'
            new = f'depth_head.scratch.refinenet{4 - int(part[3])}.{unit}.{part[-1]}'
        else: new = f"depth_head.scratch.{dict(conv1='output_conv1', conv2='output_conv2.0', conv3='output_conv2.2')[part[1]]}.{part[-1]}"
        result[new] = values.contiguous()
    return result


def write_weights(name, folder):
    "The files of one name as its repository holds them; for the original layout one file."
    from safetensors.torch import load, save_file
    folder, source, files = Path(folder), SOURCES[name], saved(*_maker(name))
    folder.mkdir(parents=True, exist_ok=True)
    if len(source.files) > 1:
        for file, data in files.items(): (folder/file).write_bytes(data)
        return folder
    file = folder/source.files[0]
    file.parent.mkdir(parents=True, exist_ok=True)
    save_file(original_names(load(files['model.safetensors'])), file)
    return folder


def write_cache(home, names=NETWORKS):
    "A folder for HF_HOME in which the weights of these names seem to have been downloaded."
    for name in names:
        if not isinstance(SOURCES[name], HubWeights): continue
        top = Path(home)/'hub'/f"models--{SOURCES[name].repository.replace('/', '--')}"
        commit = f'{0:040x}'
        if (top/'snapshots'/commit).exists(): continue
        write_weights(name, top/'snapshots'/commit)
        (top/'refs').mkdir()
        (top/'refs'/'main').write_text(commit)


ZOE_ANY = '''
import torch
from os import path

class Core(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.prep = lambda images: 1 / 0

class Tiny(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.core, self.first, self.last = Core(), torch.nn.Conv2d(3, 8, 14, 14), torch.nn.Conv2d(8, 1, 1)
    def forward(self, images):
        assert images.shape[-2] % 14 == images.shape[-1] % 14 == 0
        coarse = self.last(self.first(self.core.prep(images)).tanh())
        terrain = torch.randn(coarse.shape[-2:], generator=torch.Generator().manual_seed(0))
        coarse = (2 * coarse + terrain).sigmoid() * 10
        return {'metric_depth': torch.nn.functional.interpolate(coarse, images.shape[-2:], mode='nearest')}

def DepthAnythingMetricDepth(model_type='indoor', remove_prep=True):
    network = Tiny()
    network.load_state_dict(torch.load(path.join(torch.hub.get_dir(), 'checkpoints', f'depth_anything_metric_depth_{model_type}.pt'), weights_only=True))
    return network
'''

VIDEO = '''
import torch
from os import path

class Tiny(torch.nn.Module):
    "Depth in bundles of four frames."
    def __init__(self):
        super().__init__()
        self.first, self.last = torch.nn.Conv2d(3, 8, 14, 14), torch.nn.Conv2d(8, 1, 1)
    def reset_state(self): self.held = []
    def infer(self, image, use_amp=True):
        self.held.append(self.held[-1] if image is None else image)
        if len(self.held) < 4: return None
        frames, self.held = torch.stack(self.held), self.held[-1:] if image is None else []
        coarse = self.last(self.first(frames).tanh())
        coarse = (coarse + torch.randn(coarse.shape[-2:], generator=torch.Generator().manual_seed(0))).sigmoid()
        return list(torch.nn.functional.interpolate(coarse, frames.shape[-2:], mode='nearest')[:, 0])

def VideoDepthAnythingOnline(encoder, device='cpu'):
    network = Tiny()
    network.load_state_dict(torch.load(path.join(torch.hub.get_dir(), 'checkpoints', f'video_depth_anything_{encoder}.pth'), weights_only=True))
    return network
'''


MONO = '''
import torch
from os import path
from safetensors.torch import load_file

class Tiny(torch.nn.Module):
    "Distances of one view of each place, the top row is sky."
    def __init__(self):
        super().__init__()
        self.first, self.last = torch.nn.Conv2d(3, 8, 14, 14), torch.nn.Conv2d(8, 1, 1)
    def forward(self, views):
        assert views.ndim == 5 and views.shape[1] == 1 and views.shape[-2] % 14 == views.shape[-1] % 14 == 0
        coarse = self.last(self.first(views[:, 0]).tanh())
        terrain = torch.randn(coarse.shape[-2:], generator=torch.Generator().manual_seed(0))
        distance = torch.nn.functional.interpolate((2 * coarse + terrain).sigmoid() * 40 + 5, views.shape[-2:], mode='nearest')
        sky = torch.zeros_like(distance)
        sky[..., :14, :] = 1
        return {'depth': distance, 'sky': sky}

def load_model(model_name):
    network = Tiny()
    state = load_file(path.join(torch.hub.get_dir(), 'checkpoints', f'{model_name}.safetensors'))
    network.load_state_dict({name.removeprefix('model.'): values for name, values in state.items()})
    return network
'''

PROGRAMS = dict(DepthAnythingMetricDepth=ZOE_ANY, VideoDepthAnythingOnline=VIDEO, load_model=MONO)


def write_torch_hub(hub, names=NETWORKS):
    "A folder for torch.hub (TORCH_HOME/hub) in which the programs and weights of these names seem to have been downloaded; the programs are stand-ins too."
    from safetensors.torch import save_file
    for name in names:
        source = SOURCES[name]
        if not isinstance(source, TorchHub): continue
        for folder in (source.program, 'checkpoints'): (Path(hub)/folder).mkdir(parents=True, exist_ok=True)
        (Path(hub)/source.program/'hubconf.py').write_text(PROGRAMS[source.entry])
        network = randomise(torch.nn.ModuleDict(dict(first=torch.nn.Conv2d(3, 8, 14, 14), last=torch.nn.Conv2d(8, 1, 1))))
        file = Path(hub)/'checkpoints'/source.checkpoint
        if file.suffix == '.safetensors': save_file({f'model.{key}': values for key, values in network.state_dict().items()}, file)
        else: torch.save(network.state_dict(), file)


def write_all(folder, names=NETWORKS):
    "Everything, in all three forms; the environment that finds it."
    folder = Path(folder)
    write_cache(folder/'hf', names)
    write_torch_hub(folder/'torch'/'hub', names)
    for name in names:
        if not isinstance(SOURCES[name], HubWeights): write_torch_hub(folder/'weights'/name, [name])
        elif not (folder/'weights'/name).exists():
            cached = folder/'hf'/'hub'/f"models--{SOURCES[name].repository.replace('/', '--')}"/'snapshots'/f'{0:040x}'
            shutil.copytree(cached/Path(SOURCES[name].files[0]).parent, folder/'weights'/name)
    return dict(HF_HOME=str(folder/'hf'), HF_HUB_OFFLINE='1', TORCH_HOME=str(folder/'torch'))


if __name__ == '__main__':
    environment = write_all(sys.argv[1], sys.argv[2:] or NETWORKS)
    print(' '.join(f'{name}={value}' for name, value in environment.items()))
