"""Installation."""

import re
from pathlib import Path

from setuptools import find_packages, setup

TENSORSTORE = "tensorstore>=0.1.60"
ZARR = ['zarr>=3.0; python_version >= "3.11"', 'zarr>=2.18,<3; python_version < "3.11"']
VIEW = ["matplotlib>=3.9", "neuroglancer>=2.40"]
QUEUE = ["task-queue>=2.14"]
SERVE = ["safetensors>=0.4", "onnx>=1.16", "onnxscript>=0.2"]
DETECT = ["sqlalchemy>=2.0"]
TIFF = ["imagecodecs>=2024.1"]
DOWNLOAD = ["pooch>=1.8"]

EXTRAS = {
    "view": VIEW,
    "queue": QUEUE,
    "ray": ["ray[train]>=2.60"],
    "zarr": [*ZARR, TENSORSTORE],
    "tiff": TIFF,
    "serve": SERVE,
    "detect": DETECT,
    "download": DOWNLOAD,
    "dev": [
        *(*VIEW, *QUEUE, *ZARR, TENSORSTORE, *TIFF, *SERVE, *DETECT, *DOWNLOAD),
        "pytest>=8",
        "pytest-xdist>=3.6",
        "hypothesis>=6.100",
        "ruff>=0.6",
        "mypy>=1.11",
        "tensorboard>=2.17",
        "scikit-image>=0.24",
        'waterz>=0.10; python_version >= "3.11"',
        "moto[server,s3,sqs]>=5",
        "psycopg[binary]>=3.1",
        "playwright>=1.45",
        "types-PyYAML",
        "uv>=0.5",
        "bioimageio.spec>=0.5.14",
    ],
}
"""One extra per feature. The environment that runs the tests has all of them but ray."""

setup(
    name="deepem",
    version=re.search(r'__version__ = "(.+)"', (Path(__file__).parent / "deepem/__init__.py").read_text())[1],
    description="Iteration-based multi-task training and stitched inference for volume electron microscopy",
    long_description=Path(__file__).with_name("README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="MIT",
    packages=find_packages(include=["deepem", "deepem.*"]),
    package_data={"deepem.tools": ["topics/*.txt", "page/*", "published.json"]},
    python_requires=">=3.10",
    install_requires=[
        "torch>=2.10",
        "numpy>=2.0",
        "scipy>=1.13",
        "h5py>=3.11",
        "tensorboardX>=2.6",
        "cloud-volume>=12",
        "tifffile>=2024.5",
        "tqdm>=4.66",
        "opencv-python-headless>=4.10,<5",
        "connected-components-3d>=3.18",
        "bioimage-cpp>=0.10",
        "edt>=3.0",
        "fastremap>=1.15",
        "pyyaml>=6.0",
        "jinja2>=3.1",
    ],
    extras_require=EXTRAS,
    entry_points={
        "console_scripts": [
            "deepem = deepem.__main__:main",
            "deepem-train = deepem.train.run:main",
            "deepem-forward = deepem.test.forward:main",
        ]
    },
)
