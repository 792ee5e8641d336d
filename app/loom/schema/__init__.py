"""What the bytes of a message mean: descriptors from the backend or from files, and JSON made with them.

`reflection` and `files` get descriptor sets, `schema` makes them usable, `cache` keeps them, `transcoder` turns
messages into JSON and back, and `schemaless` shows what can be seen without any descriptor.
"""
