"""The page at `/`: files of `lorid/web/` as they are, without a build step and without other hosts.

    add_page(web)      # GET / and GET /web/...

The page holds nothing of the endpoint: it asks the same routes as everybody, with the token that
its user types. Its policy lets it load and ask this origin alone, and keeps it out of frames.
"""

from importlib.resources import files
from pathlib import Path

from fastapi import FastAPI
from starlette.responses import FileResponse, Response
from starlette.staticfiles import StaticFiles

FOLDER = "/web"
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


def add_page(web: FastAPI) -> None:
    """Serve the page and its files."""
    folder = Path(str(files("lorid"))) / "web"

    async def page() -> Response:
        headers = {"content-security-policy": POLICY}
        return FileResponse(folder / "index.html", media_type="text/html", headers=headers)

    web.add_api_route("/", page, methods=["GET"], include_in_schema=False)
    web.mount(FOLDER, StaticFiles(directory=folder))
