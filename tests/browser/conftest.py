# Copyright: (c) 2026, trafficshift.istio maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A headless Chromium of Debian's, and reports for it to show."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from ansible_collections.trafficshift.istio.plugins.plugin_utils._report import paths, write
from results import RESULTS
from selenium import webdriver

CHROMIUM, DRIVER = Path("/usr/bin/chromium"), Path("/usr/bin/chromedriver")
OPTIONS = (
    "--headless=new",
    "--no-sandbox",  # which root has no use of
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--hide-scrollbars",
)


@pytest.fixture(scope="session")
def chromium() -> Path:
    """The browser, installed if it is missing."""
    if not (CHROMIUM.exists() and DRIVER.exists()):
        subprocess.run(
            [
                "sh",
                "-ec",
                "apt-get -q update; apt-get -q -y --no-install-recommends install chromium chromium-driver",
            ],
            env={**os.environ, "DEBIAN_FRONTEND": "noninteractive"},
            check=True,
        )
    return CHROMIUM


@pytest.fixture(scope="session")
def browser(chromium: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[webdriver.Chrome]:
    options = webdriver.ChromeOptions()
    options.binary_location = str(chromium)
    for option in (*OPTIONS, f"--user-data-dir={tmp_path_factory.mktemp('chromium')}"):
        options.add_argument(option)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(str(DRIVER)))
    yield driver
    driver.quit()


@pytest.fixture(scope="session")
def reports(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The addresses of the pages by result."""
    directory = str(tmp_path_factory.mktemp("reports"))
    for name, result in RESULTS.items():
        write(directory, name, result)
    return {name: Path(paths(directory, name)["html"]).as_uri() for name in RESULTS}
