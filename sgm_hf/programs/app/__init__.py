"""A page to try a model, and a Space of the Hub with it; needs gradio."""

from importlib.util import find_spec

if find_spec("gradio") is None:
    raise ModuleNotFoundError("the page needs gradio: pip install 'sgm_hf[app]'")

from sgm_hf.programs.app.page import TITLE, serve
from sgm_hf.programs.app.space import make_space

__all__ = ["TITLE", "make_space", "serve"]
