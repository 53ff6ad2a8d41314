"""Hosted inference: what an Inference Endpoint runs of a repository.

The platform imports this file alone, so it imports none of its neighbours. It calls `EndpointHandler(folder)(request)`
with the repository's folder and the JSON of each request:

    {"inputs": "Cocoa shipments rose.", "parameters": {"top_k": 3}}

`inputs` is a text or a list of texts; the answer is that of the pipeline, `[{"label": "cocoa", "score": 0.98}]` or a
list of such lists. Of a model that reads images, each text is an image file in Base64, or a `data:` URL of one.
"""

import base64
from typing import Any

from transformers import pipeline

# Requests come from strangers, and generate() has arguments that fetch and run code: only these pass. Texts are always
# cut at the tokenizer's length.
PARAMETERS = (
    *("top_k", "return_attention"),
    *("num_beams", "set_decoding", "label_threshold", "min_labels", "max_labels"),
    *("allowed_labels", "forbidden_labels", "required_labels", "label_hierarchy"),
    *("lexical_weight", "hypothesis_temperature", "label_calibration", "lexical_bias", "lexical_share"),
)
MAX_BEAMS = 64


class EndpointHandler:
    """Answers requests with the repository's pipeline.

    Args:
        path: Folder of the repository.
    """

    def __init__(self, path: str = ""):
        # The code trusted is this repository's, as this file is.
        self.classifier = pipeline("multi-label-generation", model=path, trust_remote_code=True)

    def __call__(self, data: dict[str, Any]) -> list[Any]:
        """Answer a request.

        Args:
            data: `inputs`, a text or a list of texts (images in Base64, if the model reads images), and optionally
                `parameters`, some of `PARAMETERS`.

        Returns:
            The labels of the text with their scores, or a list of such lists; plain values that JSON can hold.

        Raises:
            TypeError: If a text is not a string, or the parameters are no dictionary.
            ValueError: If there are no inputs, a parameter is unknown or out of its range, or an image cannot be read.
        """
        if "inputs" not in data:
            raise ValueError(f'The request has the keys {sorted(data)}; expected "inputs", a text or a list of texts.')
        inputs, parameters = data["inputs"], data.get("parameters") or {}
        if not isinstance(inputs, str | list):
            raise TypeError(f"inputs is of type {type(inputs).__name__}; expected a text or a list of texts.")
        if not isinstance(parameters, dict):
            raise TypeError(f"parameters is of type {type(parameters).__name__}; expected values by name.")
        unknown = sorted(set(parameters) - set(PARAMETERS))
        if unknown:
            raise ValueError(f"Unknown parameters {unknown}; expected some of {', '.join(PARAMETERS)}.")
        num_beams = parameters.get("num_beams", 1)
        if not isinstance(num_beams, int) or not 1 <= num_beams <= MAX_BEAMS:
            raise ValueError(f"num_beams is {num_beams!r}; expected 1 to {MAX_BEAMS}.")
        if self.classifier.reads_images:
            inputs = data_url(inputs) if isinstance(inputs, str) else list(map(data_url, inputs))
        return self.classifier(inputs, **parameters)


def data_url(encoded: Any) -> str:
    """The `data:` URL of an image in Base64: of a path or an address the pipeline would open the file for a stranger.

    Raises:
        ValueError: If it is not in Base64.
    """
    content = str(encoded).partition(",")[2] if str(encoded).startswith("data:") else str(encoded)
    try:
        base64.b64decode(content, validate=True)
    except ValueError as error:
        raise ValueError(f"{encoded!r:.80} is no image file in Base64: {error}") from error
    return f"data:image/any;base64,{content}"
