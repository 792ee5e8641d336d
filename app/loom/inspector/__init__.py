"""The Web Inspector: what was recorded, over HTTP, for a page and for programs.

`guard` decides who may ask, `views` turns records into JSON, `stats` counts by method, `replays` makes calls again,
`app` has the routes, and `static` is the page. Nothing here holds up a call: what takes long is done in a thread.
"""
