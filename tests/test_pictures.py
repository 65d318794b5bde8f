"""The README's pictures: what the comment's page holds, and what is said where no browser is."""

from pathlib import Path

import pytest
from PIL import Image

from benchmarks import pictures

COMMENT = """\
## ❌ Refused

> [!WARNING]
> **Loosened.** By:
> - <code>a&#46;b</code>

| a | b |
| --- | ---: |
| 1 | 2 |

```mermaid
xychart-beta
  title "<b>"
```
"""


def test_comment_is_rendered_as_github_does(tmp_path: Path):
    page = pictures.comment_page(COMMENT, None)
    assert '<div class="alert warning"><p class="title">Warning</p><p><strong>Loosened.</strong>' in page
    assert "<table>" in page and '<svg class="emoji"' in page
    assert "[!WARNING]" not in page and "xychart" not in page and "<script" not in page
    charted = pictures.comment_page(COMMENT, tmp_path / "mermaid.min.js")
    assert "title &quot;&lt;b&gt;&quot;" in charted and "http" not in charted.replace("http-equiv", "")


def test_long_picture_fades_and_short_one_is_cut():
    image = Image.new("RGB", (20, 2000), "white")
    image.paste("black", (0, 0, 10, 300))
    assert pictures.shorten(image).size == (20, 316)
    image.paste("black", (0, 0, 10, 1900))
    long = pictures.shorten(image)
    assert long.size == (20, pictures.TALLEST)
    assert long.getpixel((0, 0)) == (0, 0, 0) and long.getpixel((0, pictures.TALLEST - 1)) == (255, 255, 255)


def test_missing_browser_is_said_with_the_remedy(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CHROMIUM", raising=False)
    with pytest.raises(SystemExit, match="apt-get install chromium"):
        pictures.find_browser()
