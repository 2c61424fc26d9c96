"""OpenTelemetry traces of what we do, if the standard variables ask for them; nothing is imported if they do not.

OTEL_TRACES_EXPORTER turns them on (`otlp`, `console`, or another exporter that is installed); where to, how much and under
which name is said by OTEL_EXPORTER_OTLP_ENDPOINT, OTEL_TRACES_SAMPLER, OTEL_SERVICE_NAME and the rest of the variables that
OpenTelemetry's own SDK reads. OTEL_SDK_DISABLED turns all off. Names follow the semantic conventions for generative AI.
"""

from __future__ import annotations

import functools
import logging
import os
from importlib.metadata import entry_points
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from opentelemetry.trace import Tracer, TracerProvider

_NAME = "deepeyes"
_EXPORTERS = "opentelemetry_traces_exporter"
_PROTOCOLS = {"http/protobuf": "otlp_proto_http", "grpc": "otlp_proto_grpc"}
_OFF = ("", "none")
_log = logging.getLogger(__name__)


def tracer() -> Tracer | None:
    """What spans are begun with; None where nobody wants any. Decided once a process."""
    return _from_environment()


@functools.cache
def _from_environment() -> Tracer | None:
    names = [name.strip() for name in os.environ.get("OTEL_TRACES_EXPORTER", "").split(",") if name.strip() not in _OFF]
    if not names or os.environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        return None
    try:
        from opentelemetry import trace
        from opentelemetry.sdk.trace import TracerProvider as SdkProvider
    except ImportError:
        _log.warning("OTEL_TRACES_EXPORTER is set, but nothing is traced: pip install 'deepeyes[otel]'")
        return None
    # A program that uses us may have set up its own, for which the variables were meant.
    provider = trace.get_tracer_provider()
    if not isinstance(provider, SdkProvider):
        provider = _provider(names)
        trace.set_tracer_provider(provider)
    return provider.get_tracer(_NAME)


def _provider(names: list[str]) -> TracerProvider:
    from opentelemetry.sdk.resources import SERVICE_NAME, Resource
    from opentelemetry.sdk.trace import TracerProvider as SdkProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    own = {} if os.environ.get("OTEL_SERVICE_NAME") else {SERVICE_NAME: _NAME}
    provider = SdkProvider(resource=Resource.create(own))  # ends with the process, and sends what it holds
    for name in names:
        found = list(entry_points(group=_EXPORTERS, name=_full_name(name)))
        if not found:
            there = ", ".join(sorted({"otlp", *entry_points(group=_EXPORTERS).names}))
            _log.warning("OTEL_TRACES_EXPORTER names %r, which is not installed; there are: %s", name, there)
            continue
        provider.add_span_processor(BatchSpanProcessor(found[0].load()()))
    return provider


def _full_name(name: str) -> str:
    if name != "otlp":
        return name
    asked = os.environ.get("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL") or os.environ.get("OTEL_EXPORTER_OTLP_PROTOCOL")
    return _PROTOCOLS.get(asked or "http/protobuf", name)
