"""The live page: what the service does, second by second, and the actions by which its visitors make it do that.

`routes` is its HTTP face and `stream` the events' own response. `live` is the whole: while a `hub` has subscribers it
takes a `sample` each second of what the `meter` shows, adds those of `peers`, and has the `recorder` draw stampedes.
`controls` are the actions, which the `controller`, in the process that started the servers, carries out.
"""
