"""Check the answers before anything is written. They are data: read as JSON, never run."""

import json
import keyword
import re
import sys
import unicodedata

# Jinja's tojson leaves no quote that could end this literal, and no < > & either.
ANSWERS = json.loads(r'''{{ cookiecutter | tojson }}''')

# Cookiecutter has made the folder by now and deletes it when this refuses: for `x/..` that is a folder of the user's own.
# So cookiecutter.json replaces an answer that is no slug by this name before there is a folder, and keeps it in `__project`.
if ANSWERS["project"] == "not_a_slug":
    ANSWERS["project"] = ANSWERS["__project"]

RESERVED = {"con", "prn", "aux", "nul", "pipeline", "slm", "tests", "task", "docs", "schemas", "bootstrap", *(f"{p}{n}" for p in ("com", "lpt") for n in range(1, 10))}


def refuse(name, remedy):
    value = ascii(ANSWERS[name])
    print(f"{name}: {value if len(value) <= 60 else value[:57] + '...'} cannot be used: {remedy}", file=sys.stderr)
    sys.exit(1)


for name in ("project_name", "description", "author"):
    text = ANSWERS[name]
    if not 1 <= len(text.strip()) <= 200:
        refuse(name, "write 1 to 200 characters")
    # Cc: control characters and newlines; Cf holds the marks that reverse the direction of text, Cs lone surrogates.
    hidden = [c for c in text if unicodedata.category(c) in ("Cc", "Cf", "Cs", "Zl", "Zp") and c != "\u200d"]
    if hidden:
        refuse(name, f"remove the invisible character U+{ord(hidden[0]):04X}")

slug = ANSWERS["project"]
if not re.fullmatch(r"[a-z][a-z0-9]*(-[a-z0-9]+)*", slug) or not 2 <= len(slug) <= 63:
    refuse("project", "write 2 to 63 small letters, digits and single hyphens, a letter first, such as my-slm")
if slug in RESERVED or slug in sys.stdlib_module_names or keyword.iskeyword(slug):
    refuse("project", "this name means something else to Python, Windows or the project; choose another")

if not re.fullmatch(r"[A-Za-z0-9](-?[A-Za-z0-9]){0,38}", ANSWERS["owner"]):
    refuse("owner", "write the GitHub login: up to 39 letters, digits and single hyphens")

if ANSWERS["base_model"] != "bundled" and not re.fullmatch(
    r"[A-Za-z0-9][A-Za-z0-9._-]{0,95}/[A-Za-z0-9][A-Za-z0-9._-]{0,95}@[0-9a-f]{40}", ANSWERS["base_model"]
):
    refuse("base_model", "write bundled, or owner/name@commit with the model's full commit of 40 hex digits")
