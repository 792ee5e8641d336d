"""The Compose stack of this checkout, driven by docker's own command line: started for one user, broken, and removed.

`docker` runs the command, and says in one line why it can't; `ports` finds free ones; `stack` is the stack, `server`
one of its containers that can be broken. The counterpart of `app.embedded`.
"""
