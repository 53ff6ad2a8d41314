"""The tests' end of client.py: starts it, and calls its functions."""

import json
import os
import subprocess
from pathlib import Path
from typing import Any


class ClientError(Exception):
    """What a client's call raised: types and messages, outermost first."""


class Client:
    """A process that runs the functions of client.py.

    Args:
        python: Its interpreter.
        hub: Address of the Hub.
        home: Folder of its caches.
        token: Its token; none for a stranger.
    """

    def __init__(self, python: str, hub: str, home: Path, token: str | None):
        hidden = ("HF_", "TRANSFORMERS_", "HUGGING", "PYTHONPATH")
        environment = {name: value for name, value in os.environ.items() if not name.startswith(hidden)}
        environment |= {
            **{"HF_ENDPOINT": hub, "HF_HOME": str(home), "HF_HUB_DISABLE_XET": "1", "OMP_NUM_THREADS": "1"},
            **{"HF_HUB_DISABLE_TELEMETRY": "1", "HF_HUB_DISABLE_PROGRESS_BARS": "1", "TQDM_DISABLE": "1"},
            **{"NO_PROXY": "127.0.0.1", "CUDA_VISIBLE_DEVICES": ""},
            **({"HF_TOKEN": token} if token else {}),
        }
        home.mkdir(parents=True, exist_ok=True)
        self.environment = environment
        self.log = home / "stderr.txt"
        self.process = subprocess.Popen(
            [python, str(Path(__file__).with_name("client.py"))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.log.open("w"),
            text=True,
            env=environment,
            cwd=home,
        )

    def call(self, function: str, **arguments: Any) -> Any:
        """Run a function of client.py there.

        Raises:
            ClientError: If it raised.
        """
        self.process.stdin.write(json.dumps({"function": function, "arguments": arguments}) + "\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        assert line, f"the client died:\n{self.log.read_text()[-3000:]}"
        answer = json.loads(line)
        if "error" in answer:
            raise ClientError(answer["error"])
        return answer["result"]

    def close(self) -> None:
        """End the process."""
        self.process.stdin.close()
        self.process.wait(timeout=60)
