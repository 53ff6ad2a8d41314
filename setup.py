"""Packaging of sgm_hf: the metadata, the dependencies, and where each package lies in this repository.

`modeling/` and `datasets_scripts/` stand at the top of the repository and are installed as `sgm_hf.modeling` and
`sgm_hf.datasets_scripts`, so that no package of such a general name reaches site-packages.
"""

from pathlib import Path

from setuptools import find_packages, setup

# Every bound is a release the tests were run with; CONTRIBUTING.md, "Dependency ranges", says how to move one.
RUNTIME = [
    "torch==2.13.0",
    "transformers==5.23.0",
    "tokenizers>=0.23.1,<=0.23.3",
    "datasets>=4.0.0,<=5.2.0",
    "accelerate>=1.10.0,<=1.15.0",
    "evaluate>=0.4.3,<=0.4.6",
    "huggingface_hub>=1.31.0,<=2.4.0",
    "safetensors==0.8.0",
    "filelock>=4.0.0,<=4.2.11",
    "jinja2>=3.1.2,<=3.1.6",
    "numpy>=2.0.2,<=2.4.6",
    "pyarrow>=21.0.0,<=26.0.1",
    "tqdm>=4.66.3,<=4.70.1",
]
FIGURES = ["matplotlib>=3.11,<3.12"]
APP = ["gradio>=6.31,<6.32"]
DEVELOPMENT = [
    *APP,
    *FIGURES,
    "build>=1.6,<1.7",
    "coverage>=7.17,<7.18",
    "hypothesis>=6.170,<6.171",
    "mutmut>=3.8,<3.9",
    "mypy>=2.4,<2.5",
    "optuna>=5.0,<5.1",
    "parameterized>=0.9,<0.10",
    "pytest>=9.2,<9.3",
    "pytest-xdist>=3.8,<3.9",
    "ruff>=0.17.5,<0.18",
    "scikit-learn>=1.9,<1.10",
    "selenium>=4.51,<4.52",
    "setuptools>=84.2,<84.3",
]
MAPPED = {"sgm_hf.modeling": "modeling", "sgm_hf.datasets_scripts": "datasets_scripts"}

setup(
    name="sgm_hf",
    version="0.1.0",
    description="Multi-label text classification by sequence generation (SGM) on Hugging Face libraries",
    long_description=Path(__file__).with_name("README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    author="The sgm_hf authors",
    license="Apache-2.0",
    license_files=["LICENSE"],
    keywords=["multi-label classification", "text classification", "sequence generation", "transformers"],
    classifiers=[
        "Development Status :: 3 - Alpha",
        "Intended Audience :: Science/Research",
        "Programming Language :: Python :: 3.11",
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
        "Typing :: Typed",
    ],
    python_requires=">=3.11,<3.12",
    packages=find_packages(include=["sgm_hf", "sgm_hf.*"]) + list(MAPPED),
    package_dir=MAPPED,
    package_data={
        "sgm_hf": ["py.typed", "model_card_template.md"],
        "sgm_hf.metrics": ["multilabel_metrics/*"],
        "sgm_hf.datasets_scripts": ["cards/*.md"],
    },
    install_requires=RUNTIME,
    extras_require={"app": APP, "dev": DEVELOPMENT, "figures": FIGURES},
)
