"""2D-to-3D conversion: networks for the holes of a second view. Six names to begin with stand here; each room has more"""

__version__ = "0.1.0"
__all__ = ['InpaintDataset', 'estimate_depth', 'fill', 'holes', 'load_model', 'stereo']

# Written by hand: nbdev changes only the version. Nothing heavy is imported before it is used.
import sys as _sys
from importlib import import_module as _import
from types import ModuleType as _Module

_ROOMS = {'InpaintDataset': 'datasets', 'estimate_depth': 'face', 'fill': 'face', 'holes': 'face',
          'load_model': 'models'}  # name: module that defines it


class _Stereo(_Module):
    "The module `inpaint_nb.stereo`, which can be called as well."
    def __call__(self, image, depth=None, *args, **kwargs):
        "Both eyes' views of a picture: see `inpaint_nb.face.make_views`."
        return _import('inpaint_nb.face').make_views(image, depth, *args, **kwargs)


class _Package(_Module):
    "The package: whoever imports its module `stereo`, it can be called afterwards."
    def __setattr__(self, name, value):
        if name == 'stereo' and type(value) is _Module: value.__class__ = _Stereo
        super().__setattr__(name, value)

    def __getattr__(self, name):
        if name == 'stereo': return _import('inpaint_nb.stereo')
        if name in _ROOMS: return getattr(_import(f'inpaint_nb.{_ROOMS[name]}'), name)
        raise AttributeError(f'module {self.__name__!r} has no attribute {name!r}')

    def __dir__(self): return sorted({*super().__dir__(), *__all__})


_sys.modules[__name__].__class__ = _Package
