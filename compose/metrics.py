"""Figures about compositions and workers for Prometheus, read from the database when they are asked for."""

from __future__ import annotations

from collections.abc import Iterator

from django.db.models import Count, Min
from django.http import Http404, HttpRequest, HttpResponse
from django.utils import timezone
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest, multiprocess
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from compose import errands, jobs, status_page
from compose.models import Composition
from web.metrics import may_read

Status = Composition.Status


def metrics(request: HttpRequest) -> HttpResponse:
    """All figures in Prometheus' text format, for whoever has METRICS_TOKEN."""
    if not may_read(request):
        raise Http404
    registry = CollectorRegistry()
    multiprocess.MultiProcessCollector(registry)
    registry.register(_Compositions())
    return HttpResponse(generate_latest(registry), content_type=CONTENT_TYPE_LATEST)


class _Compositions(Collector):
    def collect(self) -> Iterator[Metric]:
        yield from _queue()
        yield _errands()
        yield _ended()
        yield from _workers()

    def describe(self) -> list[Metric]:
        return []


def _queue() -> Iterator[Metric]:
    queue = GaugeMetricFamily(
        "lora_compositions", "Compositions that wait or run.", labels=["status", "base_model"]
    )
    rows = (
        Composition.objects.filter(status__in=[Status.QUEUED, Status.RUNNING])
        .values_list("status", "base_model__name")
        .annotate(count=Count("pk"))
        .order_by()
    )
    for status, base_model, count in rows:
        queue.add_metric([status, base_model], count)
    yield queue
    oldest = Composition.objects.filter(status=Status.QUEUED).aggregate(oldest=Min("created_at"))["oldest"]
    waited_s = (timezone.now() - oldest).total_seconds() if oldest else 0.0
    yield GaugeMetricFamily("lora_oldest_waiting_seconds", "How long the oldest has waited.", value=waited_s)


def _errands() -> Metric:
    found = GaugeMetricFamily("lora_errands", "Errands that wait or run.", labels=["kind", "status"])
    for line in errands.lines():
        found.add_metric([line.kind, "waiting"], line.waiting)
        found.add_metric([line.kind, "running"], line.running)
    return found


def _ended() -> Metric:
    ended = CounterMetricFamily("lora_compositions_ended", "Compositions that ended.", labels=["status"])
    for status, count in jobs.ended().items():
        ended.add_metric([status], count)
    return ended


def _workers() -> Iterator[Metric]:
    workers = GaugeMetricFamily("lora_workers", "Workers of compositions.", labels=["state"])
    found = [worker.state for worker in status_page.all_workers()]
    for state in status_page.WORKER_STATES:
        workers.add_metric([state], found.count(state))
    yield workers
