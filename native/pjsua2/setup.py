"""Links compiled objects into the extension module and packs it. builder/wheel.py writes plan.json and runs this."""

import json
from pathlib import Path

from setuptools import Extension, setup

plan = json.loads(Path("plan.json").read_text())
setup(
    name="pjsua2",
    version=plan["version"],
    description="PJSIP's pjsua2 as Trunkline builds it: a gateway's limits, and audio that stays clear of the GIL",
    url="https://www.pjsip.org/",
    license="GPL-2.0-or-later AND Apache-2.0 AND BSD-3-Clause",
    license_files=["licences/*"],
    py_modules=["pjsua2"],
    ext_modules=[
        Extension(
            "_pjsua2",
            sources=[],
            extra_objects=plan["objects"],
            libraries=plan["libraries"],
            extra_link_args=plan["link"],
            language="c++",
        )
    ],
)
