"""What a file of functions is, read without running it."""

import os
import sys
import tempfile
import textwrap
import unittest
from typing import Any

from freshet import _deploy, _read


class Described(unittest.TestCase):
    def setUp(self) -> None:
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.dir = os.path.realpath(folder.name)
        os.mkdir(os.path.join(self.dir, ".git"))  # nothing above counts

    def write(self, **files: str) -> None:
        for name, text in files.items():
            path = os.path.join(self.dir, name) + ".py"
            os.makedirs(os.path.dirname(path), exist_ok=True)
            with open(path, "w") as file:
                file.write(textwrap.dedent(text))

    def describe(self, name: str = "app.py") -> dict[str, Any]:
        return _deploy.describe(os.path.join(self.dir, name))

    def wrong(self, says: str, name: str = "app.py") -> None:
        with self.assertRaises(_read.Wrong) as caught:
            self.describe(name)
        self.assertIn(says, str(caught.exception))

    def shipped(self, name: str = "app.py") -> list[str]:
        return [file["name"] for file in self.describe(name)["files"]]

    def test_settings_are_read(self) -> None:
        self.write(
            app="""
            import freshet as f
            from freshet import function as deployed
            import torch  # not here
            HOUR = 60 * 60
            f.app("demo", image="python:3", cpu=500)

            @f.function(timeout=HOUR / 2, retries={"max": 2, "initial": 0.5}, scale=(1, 3), env={"A": "b"}, snapshot=False)
            def one(): ...

            @deployed(
                name="second", image="other", allow=["10.0.0.0/8"], mounts={"/data": "/srv"}, secrets=["db", "hf:HF_TOKEN"],
                python="/opt/python", volumes={"/models": "models:ro", "/out": "results"}, args=("-O",),
            )
            class Two: ...

            @f.function
            async def three(): ...

            def not_deployed(): ...
            """
        )
        manifest = self.describe()["manifest"]
        self.assertEqual(manifest["app"], "demo")
        one, two, three = manifest["functions"]
        self.assertEqual(
            one,
            {
                "app": "demo",
                "name": "one",
                "image": "python:3",
                "handler": {"type": "python", "entry": "app:one"},
                "snapshot": {"enabled": False},
                "resources": {"cpu": 500},
                "timeout": "1800s",
                "retries": {"max": 2, "initial": "0.5s"},
                "scaling": {"min": 1, "max": 3},
                "env": {"A": "b"},
            },
        )
        self.assertEqual((two["name"], two["image"], two["command"], two["args"]), ("second", "other", "/opt/python", ["-O"]))
        self.assertEqual(two["network"], {"egress": True, "allow": ["10.0.0.0/8"]})
        self.assertEqual(two["volume"], [{"name": "models", "target": "/models", "readonly": True}, {"name": "results", "target": "/out"}])
        self.assertEqual(two["secrets"], ["db", "hf:HF_TOKEN"])
        self.assertEqual(two["mount"], [{"source": "/srv", "target": "/data", "readonly": True}])
        self.assertEqual(three["handler"]["entry"], "app:three")

    def test_short_forms(self) -> None:
        for setting, (field, want) in {
            "gpu=2": ("resources", {"gpus": 2}),
            "gpu='h100'": ("resources", {"gpus": 1, "gpu_kinds": ["h100"]}),
            "cpu=1, gpu=(2, 'h100', 'a100')": ("resources", {"cpu": 1, "gpus": 2, "gpu_kinds": ["h100", "a100"]}),
            "rate=0.5": ("rate", {"per_second": 0.5}),
            "web=True": ("web", {"enabled": True}),
            "web={'public': True}": ("web", {"enabled": True, "public": True}),
            "snapshot={'gpu': True}": ("snapshot", {"enabled": True, "gpu": True}),
            "schedule='0 9 * * *'": ("schedule", [{"cron": "0 9 * * *"}]),
            "schedule={'every': 60, 'input': {'a': 'b'}}": ("schedule", [{"every": "60s", "input": '{"a": "b"}'}]),
            "writable=64": ("writable", {"size": 64}),
            "ulimit={'nofile': 1024}": ("ulimit", [{"nofile": "1024"}]),
            "egress=False, allow=['1.1.1.1/32']": ("network", {"egress": True, "allow": ["1.1.1.1/32"]}),
            "scratch={'/t': 0}, mounts={'/d': '/s'}": (
                "mount",
                [{"type": "tmpfs", "target": "/t"}, {"source": "/s", "target": "/d", "readonly": True}],
            ),
        }.items():
            self.write(app=f"import freshet\n@freshet.function({setting})\ndef f(): ...\n")
            with self.subTest(setting):
                self.assertEqual(self.describe()["manifest"]["functions"][0][field], want)

    def test_what_is_wrong_is_said_with_its_line(self) -> None:
        for decorator, says in {
            "@freshet.function(timeout=f())": "app.py:2: f(): write a plain value",
            "@freshet.function(concurrency='2')": "concurrency = '2': write a whole number",
            "@freshet.function(concurency=2)": "there is no such setting",
            "@freshet.function(scale=3)": "write a dict",
            "@freshet.function('name')": "settings have names",
            "@freshet.function(cpu=1 / 0)": "division by zero",
            "@freshet.function(args=['x' * 10 ** 9])": "write a plain value",
            "@freshet.function(retries=True)": "write a dict",
            "@freshet.function(retries={'most': 1})": "app.py:2: f: retries = {'most': 1}: most: there is no such field",
            "@freshet.function(scale={'min': '1'})": "scale = {'min': '1'}: min: write a whole number",
            "@freshet.function(schedule=[{'every': 60}, {'cron': 9}])": "1: cron: write a text",
            "@freshet.function(gpu=(2, 100))": "write a number of GPUs",
            "@freshet.function(timeout='soon')": "app.py:2: f: timeout = 'soon': write a number of seconds, or a text such as",
            "@freshet.function(env={'A': 1})": "A: write a text",
        }.items():
            self.write(app=f"import freshet\n{decorator}\ndef f(): ...\n")
            with self.subTest(decorator):
                self.wrong(says)
        self.write(app="import freshet\ndef f(): ...\n")
        self.wrong("has no functions")
        self.write(app="import freshet\nfreshet.app(name)\n")
        self.wrong("app.py:2")
        self.write(**{"my-app": "import freshet\n@freshet.function\ndef f(): ...\n"})
        self.wrong("rename the file", "my-app.py")

    def test_local_modules_are_shipped(self) -> None:
        files = {
            "app": "import freshet, helper, json\nfrom pkg.sub import deep\n@freshet.function\ndef f():\n    import late\n",
            "helper": "import indirect",
            "indirect": "import app",
            "late": "",
            "unused": "",
            "pkg/__init__": "",
            "pkg/sub/__init__": "from . import sibling",
            "pkg/sub/deep": "import only_in_package",
            "pkg/sub/sibling": "",
            "only_in_package": "",
            "space/module": "",
            "pkg/__pycache__/x": "",
        }
        self.write(**files)
        self.assertEqual(
            self.shipped(),
            [
                "app.py",
                "helper.py",
                "indirect.py",
                "late.py",
                "only_in_package.py",
                "pkg/__init__.py",
                "pkg/sub/__init__.py",
                "pkg/sub/deep.py",
                "pkg/sub/sibling.py",
            ],
        )
        self.write(app="import freshet\nimport space.module\nfreshet.app('a', include=['data'])\n@freshet.function\ndef f(): ...\n")
        self.wrong("'data' names no file")
        self.write(**{"data/table": ""})
        self.assertEqual(self.shipped(), ["app.py", "data/table.py", "space/module.py"])

    def test_a_file_in_a_package_keeps_its_name(self) -> None:
        self.write(**{"pkg/__init__": "", "pkg/app": "import freshet\n@freshet.function\ndef f(): ...\n", "pkg/other": ""})
        described = self.describe("pkg/app.py")
        self.assertEqual(described["manifest"]["functions"][0]["handler"]["entry"], "pkg.app:f")
        self.assertEqual([file["name"] for file in described["files"]], ["pkg/__init__.py", "pkg/app.py", "pkg/other.py"])

    def test_settings_beside_the_file(self) -> None:
        self.write(app="def f(): ...\n", more="class C: ...\n")
        with open(os.path.join(self.dir, "pyproject.toml"), "w") as file:
            file.write(
                '[tool.freshet]\nname = "beside"\nimage = "python:3"\n[tool.freshet.functions.f]\nentry = "app:f"\nconcurrency = 3\n'
            )
            file.write('[tool.freshet.functions.C]\nentry = "more:C"\n')
        if sys.version_info < (3, 11):
            self.wrong("takes Python 3.11")
            return
        described = self.describe()
        f, c = described["manifest"]["functions"]
        self.assertEqual((f["app"], f["image"], f["concurrency"], f["handler"]["entry"]), ("beside", "python:3", 3, "app:f"))
        self.assertEqual(c["handler"]["entry"], "more:C")
        self.assertEqual(self.shipped(), ["app.py", "more.py"])
