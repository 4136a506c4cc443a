"""A process of its own in which snippets of Python run against a HubServer.

huggingface_hub reads its environment when it is imported, so one process serves one server and one setting;
it is started once, for importing torch takes seconds.
"""

import contextlib
import io
import json
import os
import subprocess
import sys
import time
import traceback
from dataclasses import dataclass
from pathlib import Path

TESTS = Path(__file__).parent


@dataclass(frozen=True)
class Answer:
    """value: what the snippet left in `result`; error: class and message of what it raised, else None."""

    value: object
    output: str
    error: str | None


class HubClient:
    """run("result = 1 + x", x=2).value == 3. Names given are the snippet's; nothing else is kept."""

    def __init__(self, url: str, home: Path, token: str | None = None, **environment: str) -> None:
        clean = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
        settings = {
            "HF_ENDPOINT": url,
            "HF_HOME": str(home),
            "HF_HUB_DISABLE_XET": "1",
            "HF_HUB_DISABLE_PROGRESS_BARS": "1",
            "HF_HUB_ETAG_TIMEOUT": "5",
            "NO_PROXY": "127.0.0.1,localhost",
            "PYTHONPATH": os.pathsep.join([str(TESTS), str(TESTS.parent)]),
            **({"HF_TOKEN": token} if token else {}),
            **environment,
        }
        self.environment = clean | settings
        command = [sys.executable, str(Path(__file__))]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        self.process = subprocess.Popen(command, env=self.environment, cwd=TESTS.parent, **pipes)
        self._ask("import visaudio.hub", {})  # takes seconds: not waited for until the first run
        self.is_warm = False

    def _ask(self, code: str, names: dict) -> None:
        self.process.stdin.write(json.dumps([code, names], default=str) + "\n")
        self.process.stdin.flush()

    def run(self, code: str, **names) -> Answer:
        if not self.is_warm:
            self.is_warm = bool(self.process.stdout.readline())
        self._ask(code, names)
        line = self.process.stdout.readline()
        assert line, "the client's process has died"
        return Answer(*json.loads(line))

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        self.process.stdin.close()
        self.process.stdout.close()


def serve() -> None:
    """Snippets as lines of JSON in, answers as lines of JSON out."""
    answers = sys.stdout
    sleep = time.sleep
    time.sleep = lambda seconds: sleep(min(seconds, 0.01))  # huggingface_hub waits between its tries
    for line in sys.stdin:
        code, names = json.loads(line)
        said, error = io.StringIO(), None
        scope = {"result": None, "Path": Path, "os": os, **names}
        with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
            try:
                exec(compile(code, "snippet", "exec"), scope)
            except (Exception, SystemExit) as raised:
                error = f"{type(raised).__name__}: {raised}"
                if type(raised).__name__ != "UserError":
                    traceback.print_exc()
        answers.write(json.dumps([scope["result"], said.getvalue(), error], default=str) + "\n")
        answers.flush()


if __name__ == "__main__":
    serve()
