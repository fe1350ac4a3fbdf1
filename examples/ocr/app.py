"""Reads the text of scanned pages. Deploy it with: freshet deploy examples/ocr/app.py"""

import io
import subprocess
import textwrap

import freshet

freshet.app("ocr", image="dockerfile:Dockerfile", cpu=1000, memory=512, timeout=120, env={"OMP_THREAD_LIMIT": "1"})


@freshet.function(scale=(0, 8), retries=1)
def read(page: bytes):
    """A page as PNG, JPEG or TIFF in, its text out."""
    done = subprocess.run(["tesseract", "stdin", "stdout", "-l", "eng"], input=page, capture_output=True, check=False)
    if done.returncode != 0:
        raise freshet.InputError(f"tesseract does not read this page: {done.stderr.decode(errors='replace').strip()}")
    return done.stdout.decode()


@freshet.function(scale=(0, 2))
def render(text: str):
    """A page for those who have no scanner."""
    from PIL import Image, ImageDraw, ImageFont

    font = ImageFont.truetype("/usr/share/fonts/truetype/dejavu/DejaVuSans.ttf", 28)
    lines = [line for part in text.splitlines() for line in textwrap.wrap(part, 80) or [""]]
    page = Image.new("L", (1400, 100 + 42 * len(lines)), 255)
    ImageDraw.Draw(page).multiline_text((60, 50), "\n".join(lines), font=font, fill=0, spacing=10)
    out = io.BytesIO()
    page.save(out, "PNG")
    return freshet.Body(out.getvalue(), "image/png")
