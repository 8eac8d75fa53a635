"""Packages and extras. A Jetson installs `.[edge,export,jetson]`, never torch; exact versions are in constraints/."""

from __future__ import annotations

import re
from pathlib import Path

from setuptools import find_packages, setup

PACKAGES = ["wire", "edge_runtime", "familial", "export", "calibration", "cloud_bridge", "firmware_configs"]
# The one place of the version is wire/__init__.py: read, not imported, since nothing is installed yet.
VERSION = re.search(r'__version__ = "([^"]+)"', Path(__file__).with_name("wire").joinpath("__init__.py").read_text())

WIRE = [
    "numpy>=1.26",  # 1.26 on a device, where JetPack was compiled against NumPy 1
    "protobuf>=7.36,<7.37",  # the generated code refuses a runtime older than its compiler
    "cryptography>=44",
    "tomli>=2; python_version < '3.11'",
]
EDGE = [
    "onnxruntime>=1.23",
    "paho-mqtt>=2.1,<3",
]
CAMERA = ["opencv-python-headless>=4.10"]  # not on a Jetson: JetPack's own OpenCV knows its cameras
JETSON = ["pycuda>=2024.1"]  # compiled on the device; TensorRT's Python package comes with JetPack
EXPORT = [
    "onnx>=1.18",
    "onnxruntime>=1.23",
    "onnxscript>=0.7; python_version >= '3.11'",  # tracing only, which a device never does
]
# Engine files for desktop GPUs, made without any; also how CI sees that NVIDIA's parser takes our graphs.
_LINUX = "; sys_platform == 'linux' and platform_machine == 'x86_64'"
RTX = [f"tensorrt-rtx-cu13-{part}==1.7.1.116{_LINUX}" for part in ("libs", "bindings")]
CLIENT = ["httpx>=0.28,<1"]  # cloud_bridge/client.py
CLOUD = [
    "torch==2.13.0",
    "transformers==5.23.*",
    "safetensors>=0.6",
    "paho-mqtt>=2.1,<3",
    "amqtt==0.12.*",  # the demo's embedded broker
    "SQLAlchemy>=2.1,<3",
    "alembic>=1.20,<2",
    "psycopg[binary]>=3.3,<4",  # only where [store] url names PostgreSQL
    "pyarrow>=26",  # exports
    "fastapi>=0.165",  # this and the next two: the API
    "uvicorn>=0.54",
    "sse-starlette>=3.7,<4",
    "segno>=1.6,<2",  # QR codes of the page for visitors
    "prometheus_client>=0.26,<1",  # GET /metrics
    *CLIENT,  # webhooks
]
OTEL = ["opentelemetry-sdk>=1.45,<2", "opentelemetry-exporter-otlp-proto-http>=1.45,<2"]  # [telemetry] otlp
RAY = ["ray[serve]>=2.60,<3"]  # the cloud member on several machines
TRAIN = [
    "torch==2.13.0",
    "transformers==5.23.*",
    "safetensors>=0.6",
    "mpmath>=1.3",
    "scipy>=1.15",
    "onnxruntime>=1.23",  # runs the person network on clips
    "peft>=0.21,<1",  # LoRA of adopted bases
    *CAMERA,
]
DEPLOY = [
    "helm-python-sdk>=0.2.2,<1",  # Helm's own SDK: lints and renders the chart without a program `helm`
    "kubernetes-validate>=1.37",  # carries Kubernetes' schemas
]
TEST = [
    *CLIENT,
    *OTEL,
    "pytest>=9",
    "pytest-timeout>=2.4",
    "pytest-xdist>=3.8",
    "hypothesis>=6",
    "schemathesis>=4.32,<5",  # requests of every operation of the API's OpenAPI document
    "mpmath>=1.3",
    "opendp>=0.14",  # a second sampler, compared with ours
    "dp-accounting>=0.6",  # a second accountant, compared with the certificate
    "grpcio-tools==1.85.*",  # carries the protobuf compiler the committed code came from
    "psutil>=7",
    "playwright==1.65.*",  # drives Chromium, which the distribution has
    "axe-playwright-python>=0.1.8",  # carries axe-core: accessibility
    "cyclonedx-python-lib>=11,<12",  # this and the next: the schema of bills of materials
    "jsonschema>=4.26",
    "PyYAML>=6",  # reads what lies under deploy/
    "ruff==0.17.*",
    "mypy==2.4.*",
    "types-protobuf>=7.35",
    "tomli>=2",  # not run here: the types of what Python 3.10 reads configuration with
]

setup(
    name="veilsight",
    version=VERSION[1],  # type: ignore[index]  # a missing version must stop the build
    description="A camera that says what happens and limits, by a stated number, who it can be about.",
    license="Apache-2.0",
    license_files=["LICENSE", "NOTICE"],
    python_requires=">=3.10",
    # One directory on the path: a package made after the install is importable without installing again.
    package_dir={"": "."},
    packages=find_packages(include=[pattern for name in PACKAGES for pattern in (name, f"{name}.*")]),
    package_data={
        "wire.protocol": ["*.proto", "*.pyi"],
        "firmware_configs": ["flash.sh.in", "packages/**/*"],
        "cloud_bridge.web": ["static/*"],
    },
    install_requires=WIRE,
    extras_require={
        "edge": EDGE,
        "camera": CAMERA,
        "jetson": JETSON,
        "export": EXPORT,
        "rtx": RTX,
        "cloud": CLOUD,
        "client": CLIENT,
        "otel": OTEL,
        "ray": RAY,
        "train": TRAIN,
        "tensorboard": ["tensorboard>=2.20"],  # the curve of a training as TensorBoard shows it
        "deploy": DEPLOY,
        "test": TEST,
    },
)
