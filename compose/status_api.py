"""How the queue and the workers are doing, for everybody; and, with a token, what of it is yours."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from drf_spectacular.utils import extend_schema
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from compose import jobs, status_page
from registry.api_parts import only
from web.api_schema import refusals


class QueueSerializer(serializers.Serializer):
    base_model = serializers.CharField()
    waiting = serializers.IntegerField()
    running = serializers.IntegerField()
    oldest = serializers.DateTimeField(
        allow_null=True, help_text="When the one that waits longest was asked for."
    )


class ErrandsSerializer(serializers.Serializer):
    """Small things that a free worker does beside compositions."""

    kind = serializers.CharField(help_text="`try-outs` or `auditions`.")
    waiting = serializers.IntegerField()
    running = serializers.IntegerField()
    oldest = serializers.DateTimeField(
        allow_null=True, help_text="When the one that waits longest was asked for."
    )


class WorkerSerializer(serializers.Serializer):
    name = serializers.CharField()
    state = serializers.ChoiceField(choices=status_page.WORKER_STATES)
    heartbeat_at = serializers.DateTimeField(allow_null=True)
    warm = serializers.ListField(child=serializers.CharField(), help_text="Base models it has in memory.")
    busy_with = serializers.CharField(help_text="The base model it composes on now.")
    stage = serializers.CharField()
    done = serializers.IntegerField(help_text="Compositions it finished in the last 24 hours.")


class FailureSerializer(serializers.Serializer):
    """The reason is its owner's alone: it may quote their examples."""

    at = serializers.DateTimeField()
    base_model = serializers.CharField()
    stage = serializers.CharField()


class RoomSerializer(serializers.Serializer):
    """What you have in the queue, and how many more compositions you may ask for now."""

    waiting = serializers.IntegerField()
    running = serializers.IntegerField()
    places_left = serializers.IntegerField()
    may_wait = serializers.IntegerField()
    may_run = serializers.IntegerField()


class StatusSerializer(serializers.Serializer):
    headline = serializers.CharField()
    waiting = serializers.IntegerField()
    running = serializers.IntegerField()
    median_wait_s = serializers.FloatField(allow_null=True)
    median_run_s = serializers.FloatField(allow_null=True)
    waits_counted = serializers.IntegerField(
        help_text="Compositions behind the two medians; the second leaves out those that lost a worker on the way."
    )
    succeeded = serializers.IntegerField(help_text="In the last 24 hours, as the next two.")
    failed = serializers.IntegerField()
    cancelled = serializers.IntegerField()
    queues = QueueSerializer(many=True)
    errands = ErrandsSerializer(many=True)
    workers = WorkerSerializer(many=True)
    failures = FailureSerializer(many=True)
    yours = RoomSerializer(allow_null=True, help_text="null without a token.")


class SiteStatus(APIView):
    @extend_schema(
        tags=["status"],
        operation_id="status_read",
        summary="Queue, workers, waits and last failures",
        responses={200: StatusSerializer, **refusals(400, 401)},
    )
    def get(self, request: Request) -> Response:
        only(request)
        status = status_page.site_status()
        told: dict[str, Any] = asdict(status) | {
            "headline": status.headline,
            "waiting": status.waiting,
            "running": status.running,
            "failures": [
                {"at": at, "base_model": base_model, "stage": stage}
                for at, base_model, stage in status.failures
            ],
            "yours": jobs.room(request.user) if request.user.is_authenticated else None,
        }
        return Response(StatusSerializer(told).data)
