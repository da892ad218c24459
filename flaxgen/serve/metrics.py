"""What a server counts of itself, for Prometheus. No label comes from what a client sends."""

import time
from collections.abc import Callable
from typing import Any

import jax
import prometheus_client as prometheus

REGISTRY = prometheus.CollectorRegistry()
prometheus.ProcessCollector(registry=REGISTRY)  # resident memory, open files, processor seconds

SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120)

REQUESTS = prometheus.Counter("flaxgen_requests", "Requests answered", ["route", "status"], registry=REGISTRY)
REFUSALS = prometheus.Counter("flaxgen_refusals", "Requests refused, by the code of the error", ["code"], registry=REGISTRY)
DISCONNECTS = prometheus.Counter("flaxgen_disconnects", "Clients that left before their answer was whole", registry=REGISTRY)
READ = prometheus.Counter("flaxgen_tokens_read", "Tokens of prompts and of texts", registry=REGISTRY)
DRAWN = prometheus.Counter("flaxgen_tokens_drawn", "Tokens written", registry=REGISTRY)
REQUEST_SECONDS = prometheus.Histogram(
    "flaxgen_request_seconds", "From a request's head to its last byte", ["route"], buckets=SECONDS, registry=REGISTRY
)
FIRST_TOKEN_SECONDS = prometheus.Histogram(
    "flaxgen_first_token_seconds", "From submission to the first token", buckets=SECONDS, registry=REGISTRY
)
QUEUE_SECONDS = prometheus.Histogram(
    "flaxgen_queue_seconds", "Spent waiting for a slot, or for the model's thread", ["task"], buckets=SECONDS, registry=REGISTRY
)
COMPILATIONS = prometheus.Counter("flaxgen_compilations", "Programs compiled, or loaded from the cache of compiled ones", registry=REGISTRY)
SLOTS = prometheus.Gauge("flaxgen_slots", "Texts that can be written at once", registry=REGISTRY)
RUNNING = prometheus.Gauge("flaxgen_rows_running", "Texts that are being written", registry=REGISTRY)
WAITING = prometheus.Gauge("flaxgen_waiting", "Texts, or requests of other tasks, that wait for their turn", ["task"], registry=REGISTRY)


def _heard(name: str, *_: Any, **__: Any) -> None:
    if name.endswith("/backend_compile_duration"):
        COMPILATIONS.inc()


jax.monitoring.register_event_duration_secs_listener(_heard)


def compilations() -> int:
    """Programs that this process has compiled, or loaded from the cache, since this module was imported."""
    (family,) = COMPILATIONS.collect()
    return int(next(sample.value for sample in family.samples if sample.name.endswith("_total")))


def waited(task: str, begin: Callable[[], Any]) -> Callable[[], Any]:
    """The function, which tells when it is called how long that took to come."""
    start = time.monotonic()

    def told() -> Any:
        QUEUE_SECONDS.labels(task).observe(time.monotonic() - start)
        return begin()

    return told


def answered(route: str, status: int, seconds: float, *, code: str | None = None, left: bool = False) -> None:
    """Counts a request.

    route: as it stands in the program. code: of the error, where it was refused. left: its client did not wait for all of the answer.
    """
    REQUESTS.labels(route, str(status)).inc()
    REQUEST_SECONDS.labels(route).observe(seconds)
    if code is not None:
        REFUSALS.labels(code).inc()
    if left:
        DISCONNECTS.inc()


def text(models: Any) -> bytes:
    """All of it as Prometheus reads it. models: of the server, None before they are there."""
    if models is not None:
        lanes = {part.task: part.lane for part in models if part is not models.completions}
        if models.completions is not None:
            texts, lanes["scoring"] = models.completions.texts, models.completions.scoring
            SLOTS.set(texts.slots)
            RUNNING.set(texts.running)
            WAITING.labels("completions").set(texts.waiting)
        for task, lane in lanes.items():
            WAITING.labels(task).set(max(lane.waiting - 1, 0))  # one of them runs
    return prometheus.generate_latest(REGISTRY)
