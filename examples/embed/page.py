"""A web page that searches: python3 page.py, with the package freshet installed and FRESHET_ADDR set, and then http://localhost:8000"""

import html
import http.server
import os
import sys
import urllib.parse

import freshet

PAGE = """<!doctype html><meta charset="utf-8"><title>Search by meaning</title>
<style>body {{ font: 16px/1.5 sans-serif; max-width: 46em; margin: 3em auto; padding: 0 1em }} input {{ font: inherit; width: 100%; padding: .4em }}</style>
<form><input name="q" value="{q}" placeholder="may I sell copies?" autofocus></form><ol>{hits}</ol>"""


class Page(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        query = urllib.parse.parse_qs(urllib.parse.urlsplit(self.path).query)
        q = query.get("q", [""])[0]
        hits = freshet.Client().call("embed.Search", q=q) if q else []
        items = "".join(f"<li>{html.escape(hit['text'])} <small>{hit['near']}</small>" for hit in hits)
        body = PAGE.format(q=html.escape(q), hits=items).encode()
        self.send_response(200)
        self.send_header("Content-Type", "text/html; charset=utf-8")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


if __name__ == "__main__":
    port = int(sys.argv[1]) if len(sys.argv) > 1 else 8000
    server = http.server.ThreadingHTTPServer((os.environ.get("LISTEN", "127.0.0.1"), port), Page)
    print(f"http://127.0.0.1:{server.server_port}", flush=True)
    server.serve_forever()
