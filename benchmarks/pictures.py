"""The README's pictures: the top of the demo's report, and a comment on a pull request.

    make pictures       (after make demo; needs Chromium; a few minutes, of which judging takes most)

Works in a copy of the demo. The report is made by `slm report`. For the comment, the demo's model is released as v1 there, and a pull
request is judged that would ship INT8 instead: `slm judge`, with that commit and the model as the pipeline has made it. Nothing is
trained. The Mermaid chart, which GitHub draws itself, is drawn by Mermaid from npm; without npm the picture leaves it out. The pages
load nothing from the network. Writes docs/images/report.png and docs/images/comment.png.

    --comment FILE      draws a comment that is there already; the report is drawn as the demo has it
"""

import argparse
import base64
import hashlib
import html
import io
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

from markdown_it import MarkdownIt
from PIL import Image, ImageChops, ImageDraw

from benchmarks.planted import world
from tests.bake import TEMPLATE

DEMO = TEMPLATE / "build" / "my-slm"
WORK = TEMPLATE / "build" / "pictures"
IMAGES = TEMPLATE / "docs" / "images"
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome", "msedge")
WIDTH, SCALE = 940, 1.06  # of the page, and pixels of the picture for one of the page's
TALLEST = 1250  # pixels of a picture; what is longer fades out
COLOURS = 256
MERMAID = "mermaid@11.12.0"
MERMAID_SHA512 = "ZudVx73BwrMJfCFmSSJT84y6u5brEoV8DOItdHomNLz32uBjNrelm7mg95X7g+C6UoQH/W6mBLGDEDv73JdxBg=="
# Of the report, all up to the ladder's charts.
TOP_OF_REPORT = "<style>#ladder ~ :not(#ladder + .grid) { display: none; } body { padding-bottom: 10px; }</style></head>"
MARKS = {
    emoji: f'<svg class="emoji" viewBox="0 0 20 20">{shape}</svg>'
    for emoji, shape in {
        "✅": '<rect width="20" height="20" rx="4" fill="#2da44e"/><path d="M4.5 10.5l4 4 7-9" fill="none" stroke="#fff" stroke-width="2.6"/>',
        "❌": '<path d="M3 3l14 14M17 3L3 17" fill="none" stroke="#dd2e44" stroke-width="4" stroke-linecap="round"/>',
    }.items()
}
POLICY = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline' file:"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--comment", type=Path, metavar="FILE")
    arguments = parser.parse_args()
    browser = find_browser()
    if not (DEMO / "reports" / "ladder.json").exists() or not list(DEMO.glob("dist/*/model")):
        sys.exit(f"error: {DEMO} is not finished; run `make demo` first")
    WORK.mkdir(parents=True, exist_ok=True)
    if arguments.comment:
        report, comment = DEMO / "reports" / "report.html", arguments.comment
    else:
        project = world.copy(DEMO, WORK / "project")
        report = make_report(project)
        comment = judge_int8(project)
    page = report.read_text(encoding="utf-8").replace("</head>", TOP_OF_REPORT, 1)
    picture(browser, page, IMAGES / "report.png")
    picture(browser, comment_page(comment.read_text(encoding="utf-8"), fetch_mermaid()), IMAGES / "comment.png")


def find_browser() -> str:
    for name in (os.environ.get("CHROMIUM"), *BROWSERS):
        found = shutil.which(name) if name else None
        if found:
            return found
    sys.exit(
        "error: no Chromium here, which draws the pictures: `sudo apt-get install chromium` (macOS: `brew install --cask chromium`), "
        "or say where a Chromium, Chrome or Edge is: `make pictures CHROMIUM=/path/to/it`"
    )


def make_report(project: Path) -> Path:
    """The page with the verdict on it, as a finished project has it."""
    world.must(project, "python", "-m", "slm", "gate")
    world.must(project, "python", "-m", "slm", "report")
    return Path(shutil.copyfile(project / "reports" / "report.html", WORK / "report.html"))


def judge_int8(project: Path) -> Path:
    """The comment on a pull request that ships INT8, where INT4 is released."""
    world.release(project)
    main_branch = world.must(project, "git", "branch", "--show-current").strip()
    base = world.must(project, "git", "rev-parse", "HEAD").strip()
    world.must(project, "git", "checkout", "--quiet", "-b", "int8")
    world.edit_params(project, package={"variant": "int8"})
    world.commit(project, "Ship INT8")
    head = world.must(project, "git", "rev-parse", "HEAD").strip()
    world.must(project, "git", "checkout", "--quiet", main_branch)
    shutil.rmtree(project / "verdict", ignore_errors=True)
    done = world.run(project, "python", "-m", "slm", "judge", "models/int8", "--base", base, "--head", head)
    comment = project / "verdict" / "comment.md"
    if not comment.exists():
        raise RuntimeError(f"slm judge in {project} exited {done.code} and wrote no comment:\n{done.log[-3000:]}")
    return Path(shutil.copyfile(comment, WORK / "comment.md"))


def fetch_mermaid() -> Path | None:
    """Mermaid as one script, taken from npm once; None where there is no npm."""
    script = WORK / "mermaid.min.js"
    if script.exists():
        return script
    npm = shutil.which("npm")
    if npm is None:
        print("note: no npm here, so that the comment is drawn without its chart")
        return None
    with tempfile.TemporaryDirectory() as scratch:
        subprocess.run([npm, "pack", "--silent", "--pack-destination", scratch, MERMAID], check=True, stdout=subprocess.DEVNULL)
        (archive,) = Path(scratch).glob("*.tgz")
        content = archive.read_bytes()
    if base64.b64encode(hashlib.sha512(content).digest()).decode() != MERMAID_SHA512:
        sys.exit(f"error: {MERMAID} from npm is not the file that this script names; nothing of it was run")
    with tarfile.open(fileobj=io.BytesIO(content)) as tar:
        member = tar.extractfile("package/dist/mermaid.min.js")
        assert member is not None
        script.write_bytes(member.read())
    return script


def comment_page(text: str, mermaid: Path | None) -> str:
    """The comment in the frame that GitHub puts around it. In comments, GitHub keeps the ends of lines."""
    markdown = MarkdownIt("commonmark", {"html": True, "breaks": True}).enable(["table", "strikethrough"])
    charts = mermaid is not None

    def fence(tokens, index, options, env) -> str:
        token = tokens[index]
        if token.info.strip() != "mermaid":
            return f"<pre><code>{html.escape(token.content)}</code></pre>"
        return f'<div class="mermaid">{html.escape(token.content)}</div>' if charts else ""

    markdown.renderer.rules["fence"] = fence
    # A machine without a font of emoji draws boxes in their place.
    for emoji, mark in MARKS.items():
        text = text.replace(emoji, mark)
    body = re.sub(
        r"<blockquote>\s*<p>\[!(NOTE|TIP|IMPORTANT|WARNING|CAUTION)\](?:<br />)?\s*(.*?)</blockquote>",
        lambda m: f'<div class="alert {m[1].lower()}"><p class="title">{m[1].title()}</p><p>{m[2]}</div>',
        markdown.render(text),
        flags=re.DOTALL,
    )
    script = f'<script src="{mermaid.as_uri()}"></script><script>{DRAW_CHARTS}</script>' if mermaid else ""
    style = Path(__file__).with_suffix(".css").read_text(encoding="utf-8")
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><meta http-equiv="Content-Security-Policy" content="{POLICY}">'
        f'<style>{style}</style></head><body><div class="comment"><header><b>github-actions</b><span>bot</span> commented</header>'
        f'<div class="body">{body}</div></div>{script}</body></html>'
    )


DRAW_CHARTS = "mermaid.initialize({startOnLoad: true, theme: 'default', xyChart: {width: 640, height: 280}});"


def picture(browser: str, page: str, target: Path) -> None:
    """A page as a small PNG: cut where the page ends, few colours."""
    with tempfile.TemporaryDirectory(dir=WORK) as scratch:
        source, shot = Path(scratch) / "page.html", Path(scratch) / "page.png"
        source.write_text(page, encoding="utf-8")
        command = [
            *(browser, "--headless", "--disable-gpu", "--hide-scrollbars", "--no-first-run", f"--user-data-dir={scratch}/profile"),
            *(["--no-sandbox"] if hasattr(os, "geteuid") and os.geteuid() == 0 else []),
            *("--host-resolver-rules=MAP * ~NOTFOUND", "--disable-background-networking", "--disable-component-update"),
            *("--font-render-hinting=none", "--disable-lcd-text", "--virtual-time-budget=10000"),
            *(f"--force-device-scale-factor={SCALE}", f"--window-size={WIDTH},4000", f"--screenshot={shot}", source.as_uri()),
        ]
        done = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False, timeout=120)
        if not shot.exists():
            sys.exit(f"error: {browser} drew nothing: {done.stderr[-1000:]}")
        with Image.open(shot) as image:
            drawn = image.convert("RGB")
    drawn = shorten(drawn)
    target.parent.mkdir(parents=True, exist_ok=True)
    drawn.quantize(COLOURS, Image.Quantize.MAXCOVERAGE, kmeans=2, dither=Image.Dither.NONE).save(target, optimize=True)
    print(f"{target.relative_to(TEMPLATE)}: {drawn.width}x{drawn.height} pixels, {target.stat().st_size / 1000:.0f} kB")


def shorten(image: Image.Image) -> Image.Image:
    """Without the empty rest of the window; what is longer than TALLEST fades into the page's colour."""
    background = Image.new("RGB", image.size, image.getpixel((0, image.height - 1)))
    drawn = ImageChops.difference(image, background).getbbox()
    if drawn is None:
        raise RuntimeError("the browser drew an empty page")
    end = drawn[3]
    if end + 16 <= TALLEST:
        return image.crop((0, 0, image.width, end + 16))
    fade = Image.new("L", (image.width, TALLEST), 0)
    brush, length = ImageDraw.Draw(fade), 110
    for i in range(length):
        brush.line([(0, TALLEST - length + i), (image.width, TALLEST - length + i)], fill=255 * (i + 1) // length)
    box = (0, 0, image.width, TALLEST)
    return Image.composite(background.crop(box), image.crop(box), fade)


if __name__ == "__main__":
    main()
