import datetime

from google.protobuf import duration_pb2 as _duration_pb2
from google.protobuf import field_mask_pb2 as _field_mask_pb2
from google.protobuf import timestamp_pb2 as _timestamp_pb2
from google.rpc import status_pb2 as _status_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Source(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    SOURCE_UNSPECIFIED: _ClassVar[Source]
    SOURCE_L1: _ClassVar[Source]
    SOURCE_L2: _ClassVar[Source]
    SOURCE_ORIGIN: _ClassVar[Source]
    SOURCE_SHARED: _ClassVar[Source]
    SOURCE_STALE: _ClassVar[Source]
SOURCE_UNSPECIFIED: Source
SOURCE_L1: Source
SOURCE_L2: Source
SOURCE_ORIGIN: Source
SOURCE_SHARED: Source
SOURCE_STALE: Source

class Template(_message.Message):
    __slots__ = ("id", "name", "body", "version", "updated_at")
    ID_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    BODY_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    UPDATED_AT_FIELD_NUMBER: _ClassVar[int]
    id: int
    name: str
    body: str
    version: int
    updated_at: _timestamp_pb2.Timestamp
    def __init__(self, id: _Optional[int] = ..., name: _Optional[str] = ..., body: _Optional[str] = ..., version: _Optional[int] = ..., updated_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ...) -> None: ...

class NewTemplate(_message.Message):
    __slots__ = ("name", "body")
    NAME_FIELD_NUMBER: _ClassVar[int]
    BODY_FIELD_NUMBER: _ClassVar[int]
    name: str
    body: str
    def __init__(self, name: _Optional[str] = ..., body: _Optional[str] = ...) -> None: ...

class TemplateState(_message.Message):
    __slots__ = ("id", "version", "template")
    ID_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    TEMPLATE_FIELD_NUMBER: _ClassVar[int]
    id: int
    version: int
    template: Template
    def __init__(self, id: _Optional[int] = ..., version: _Optional[int] = ..., template: _Optional[_Union[Template, _Mapping]] = ...) -> None: ...

class GetTemplateDetailsRequest(_message.Message):
    __slots__ = ("id",)
    ID_FIELD_NUMBER: _ClassVar[int]
    id: int
    def __init__(self, id: _Optional[int] = ...) -> None: ...

class GetTemplateDetailsResponse(_message.Message):
    __slots__ = ("template", "source", "age")
    TEMPLATE_FIELD_NUMBER: _ClassVar[int]
    SOURCE_FIELD_NUMBER: _ClassVar[int]
    AGE_FIELD_NUMBER: _ClassVar[int]
    template: Template
    source: Source
    age: _duration_pb2.Duration
    def __init__(self, template: _Optional[_Union[Template, _Mapping]] = ..., source: _Optional[_Union[Source, str]] = ..., age: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ...) -> None: ...

class CreateTemplateRequest(_message.Message):
    __slots__ = ("template", "request_id")
    TEMPLATE_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    template: NewTemplate
    request_id: str
    def __init__(self, template: _Optional[_Union[NewTemplate, _Mapping]] = ..., request_id: _Optional[str] = ...) -> None: ...

class CreateTemplateResponse(_message.Message):
    __slots__ = ("template",)
    TEMPLATE_FIELD_NUMBER: _ClassVar[int]
    template: Template
    def __init__(self, template: _Optional[_Union[Template, _Mapping]] = ...) -> None: ...

class UpdateTemplateRequest(_message.Message):
    __slots__ = ("template", "update_mask", "expected_version", "request_id")
    TEMPLATE_FIELD_NUMBER: _ClassVar[int]
    UPDATE_MASK_FIELD_NUMBER: _ClassVar[int]
    EXPECTED_VERSION_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    template: Template
    update_mask: _field_mask_pb2.FieldMask
    expected_version: int
    request_id: str
    def __init__(self, template: _Optional[_Union[Template, _Mapping]] = ..., update_mask: _Optional[_Union[_field_mask_pb2.FieldMask, _Mapping]] = ..., expected_version: _Optional[int] = ..., request_id: _Optional[str] = ...) -> None: ...

class UpdateTemplateResponse(_message.Message):
    __slots__ = ("template",)
    TEMPLATE_FIELD_NUMBER: _ClassVar[int]
    template: Template
    def __init__(self, template: _Optional[_Union[Template, _Mapping]] = ...) -> None: ...

class DeleteTemplateRequest(_message.Message):
    __slots__ = ("id", "expected_version", "request_id")
    ID_FIELD_NUMBER: _ClassVar[int]
    EXPECTED_VERSION_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    id: int
    expected_version: int
    request_id: str
    def __init__(self, id: _Optional[int] = ..., expected_version: _Optional[int] = ..., request_id: _Optional[str] = ...) -> None: ...

class DeleteTemplateResponse(_message.Message):
    __slots__ = ("version",)
    VERSION_FIELD_NUMBER: _ClassVar[int]
    version: int
    def __init__(self, version: _Optional[int] = ...) -> None: ...

class WatchTemplatesRequest(_message.Message):
    __slots__ = ("ids",)
    IDS_FIELD_NUMBER: _ClassVar[int]
    ids: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, ids: _Optional[_Iterable[int]] = ...) -> None: ...

class WatchTemplatesResponse(_message.Message):
    __slots__ = ("state", "versions_skipped")
    STATE_FIELD_NUMBER: _ClassVar[int]
    VERSIONS_SKIPPED_FIELD_NUMBER: _ClassVar[int]
    state: TemplateState
    versions_skipped: int
    def __init__(self, state: _Optional[_Union[TemplateState, _Mapping]] = ..., versions_skipped: _Optional[int] = ...) -> None: ...

class ImportTemplatesRequest(_message.Message):
    __slots__ = ("templates", "request_id")
    TEMPLATES_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    templates: _containers.RepeatedCompositeFieldContainer[NewTemplate]
    request_id: str
    def __init__(self, templates: _Optional[_Iterable[_Union[NewTemplate, _Mapping]]] = ..., request_id: _Optional[str] = ...) -> None: ...

class ImportTemplatesResponse(_message.Message):
    __slots__ = ("imported", "bytes", "first_id", "last_id")
    IMPORTED_FIELD_NUMBER: _ClassVar[int]
    BYTES_FIELD_NUMBER: _ClassVar[int]
    FIRST_ID_FIELD_NUMBER: _ClassVar[int]
    LAST_ID_FIELD_NUMBER: _ClassVar[int]
    imported: int
    bytes: int
    first_id: int
    last_id: int
    def __init__(self, imported: _Optional[int] = ..., bytes: _Optional[int] = ..., first_id: _Optional[int] = ..., last_id: _Optional[int] = ...) -> None: ...

class SyncTemplatesRequest(_message.Message):
    __slots__ = ("tag", "get", "subscribe", "unsubscribe")
    class Get(_message.Message):
        __slots__ = ("id",)
        ID_FIELD_NUMBER: _ClassVar[int]
        id: int
        def __init__(self, id: _Optional[int] = ...) -> None: ...
    class Subscribe(_message.Message):
        __slots__ = ("ids",)
        IDS_FIELD_NUMBER: _ClassVar[int]
        ids: _containers.RepeatedScalarFieldContainer[int]
        def __init__(self, ids: _Optional[_Iterable[int]] = ...) -> None: ...
    class Unsubscribe(_message.Message):
        __slots__ = ("ids",)
        IDS_FIELD_NUMBER: _ClassVar[int]
        ids: _containers.RepeatedScalarFieldContainer[int]
        def __init__(self, ids: _Optional[_Iterable[int]] = ...) -> None: ...
    TAG_FIELD_NUMBER: _ClassVar[int]
    GET_FIELD_NUMBER: _ClassVar[int]
    SUBSCRIBE_FIELD_NUMBER: _ClassVar[int]
    UNSUBSCRIBE_FIELD_NUMBER: _ClassVar[int]
    tag: int
    get: SyncTemplatesRequest.Get
    subscribe: SyncTemplatesRequest.Subscribe
    unsubscribe: SyncTemplatesRequest.Unsubscribe
    def __init__(self, tag: _Optional[int] = ..., get: _Optional[_Union[SyncTemplatesRequest.Get, _Mapping]] = ..., subscribe: _Optional[_Union[SyncTemplatesRequest.Subscribe, _Mapping]] = ..., unsubscribe: _Optional[_Union[SyncTemplatesRequest.Unsubscribe, _Mapping]] = ...) -> None: ...

class SyncTemplatesResponse(_message.Message):
    __slots__ = ("tag", "state", "done", "error")
    class Done(_message.Message):
        __slots__ = ()
        def __init__(self) -> None: ...
    TAG_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    DONE_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    tag: int
    state: WatchTemplatesResponse
    done: SyncTemplatesResponse.Done
    error: _status_pb2.Status
    def __init__(self, tag: _Optional[int] = ..., state: _Optional[_Union[WatchTemplatesResponse, _Mapping]] = ..., done: _Optional[_Union[SyncTemplatesResponse.Done, _Mapping]] = ..., error: _Optional[_Union[_status_pb2.Status, _Mapping]] = ...) -> None: ...
