"""Where each package lies in this repository; the metadata and the dependencies are in pyproject.toml.

`modeling/` and `datasets_scripts/` stand at the top of the repository and are installed as `sgm_hf.modeling` and
`sgm_hf.datasets_scripts`, so that no package of such a general name reaches site-packages.
"""

from setuptools import find_packages, setup

MAPPED = {"sgm_hf.modeling": "modeling", "sgm_hf.datasets_scripts": "datasets_scripts"}

setup(
    packages=find_packages(include=["sgm_hf", "sgm_hf.*"]) + list(MAPPED),
    package_dir=MAPPED,
    package_data={
        "sgm_hf": ["py.typed", "model_card_template.md", "studies/*.json"],
        "sgm_hf.metrics": ["multilabel_metrics/*", "calibration_metrics/*", "ranking_metrics/*"],
        "sgm_hf.datasets_scripts": ["cards/*.md"],
    },
)
