"""Install inpaint_nb: everything that can change is said in settings.ini, which nbdev reads too."""
from configparser import ConfigParser
from pathlib import Path
from shlex import split

from setuptools import find_packages, setup

here = Path(__file__).parent
parser = ConfigParser(delimiters=['='])
parser.read(here/'settings.ini', encoding='utf-8')
settings = parser['DEFAULT']
pythons = [f'3.{minor}' for minor in range(int(settings['min_python'].split('.')[1]), 14)]

setup(
    name=settings['lib_name'],
    version=settings['version'],
    description=settings['description'],
    long_description=(here/'README.md').read_text(encoding='utf-8') if (here/'README.md').exists() else '',
    long_description_content_type='text/markdown',
    author=settings['author'],
    author_email=settings['author_email'],
    url=settings['git_url'],
    license_expression='Apache-2.0',
    license_files=['LICENSE'],
    keywords=settings['keywords'].split(),
    classifiers=[
        'Development Status :: 3 - Alpha',
        'Intended Audience :: Developers',
        'Natural Language :: English',
        'Topic :: Scientific/Engineering :: Image Processing',
        *(f'Programming Language :: Python :: {version}' for version in pythons),
    ],
    packages=find_packages(include=['inpaint_nb*']),
    package_data={'inpaint_nb': ['py.typed', 'photos/*', 'weights/*.pth', 'weights/SOURCES.md']},
    python_requires=f">={settings['min_python']}",
    install_requires=split(settings['requirements']),
    extras_require={'dev': split(settings['dev_requirements']), 'heif': ['pillow-heif'],
                    'export': split(settings['export_requirements'])},
    entry_points={
        'console_scripts': settings['console_scripts'].split('\n'),
        'nbdev': [f"{settings['lib_name']}={settings['lib_path']}._modidx:d"],
    },
    zip_safe=False,
)
