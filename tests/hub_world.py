"""One Hub on loopback for all tests of a session, and the processes that ask it: `world` in conftest.py."""

from hub_client import HubClient
from hub_server import HubServer
from published import publish

TOKEN = "hf_aVerySecretToken"

# what most snippets begin with; digest: of all weights in memory, in an order that says nothing of files
COMMON = """
import hashlib
from visaudio import hub
def digest(components):
    found = hashlib.sha256()
    for part in components.parts:
        for name, value in sorted(getattr(components, part).state_dict().items()):
            found.update(name.encode() + value.numpy().tobytes())
    return found.hexdigest()
"""


class World:
    """One Hub, whoever asks it, and all that was ever said."""

    def __init__(self, root):
        self.root, self.said, self.clients = root, [], {}
        self.hub = HubServer(TOKEN)
        publish(self.hub)

    def client(self, kind="online"):
        if kind not in self.clients:
            more = {"HF_HUB_OFFLINE": "1"} if kind == "offline" else {}
            self.clients[kind] = HubClient(self.hub.url, self.root / "home", TOKEN, **more)
        return self.clients[kind]

    def run(self, code, kind="online", **names):
        names = {"more": {}, "cache": self.root / "cache", **names}
        answer = self.client(kind).run(code, **names)
        self.said.append(f"{answer.output} {answer.error} {answer.value}")
        return answer

    def right(self, code, kind="online", **names):
        answer = self.run(code, kind, **names)
        assert answer.error is None, answer.error + answer.output
        return answer.value

    def wrong(self, code, kind="online", **names):
        """The one line of a UserError."""
        answer = self.run(code, kind, **names)
        assert answer.error and answer.error.startswith("UserError: "), answer
        assert "\n" not in answer.error and "Traceback" not in answer.output
        return answer.error.removeprefix("UserError: ")

    def close(self):
        for client in self.clients.values():
            client.close()
        self.hub.close()
