"""REST over reports to the moderators: doors to `moderation`. What they do about it stays with their page."""

from __future__ import annotations

from drf_spectacular.utils import OpenApiResponse, extend_schema
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from registry import moderation
from registry.api import MOVED, OneAdapter
from registry.api_parts import only, person_of
from registry.models import Report
from registry.rights import require_whole_account, visible_adapter
from registry.search import visible_task
from registry.serializers import StrictSerializer
from web.addresses import client_address
from web.api_schema import refusals

REPORTED = {204: OpenApiResponse(description="It waits for a moderator.")}


class NewReportSerializer(StrictSerializer):
    reason = serializers.ChoiceField(
        choices=Report.Reason.choices,
        help_text=" ".join(f"{reason.value}: {reason.label}." for reason in Report.Reason),
    )
    text = serializers.CharField(
        required=False,
        allow_blank=True,
        default="",
        help_text="What you saw, and where; needed with the reason `other`.",
    )


class AdapterReport(OneAdapter):
    takes_limited_tokens = True  # to be told 404 for what they do not see; they report nothing

    @extend_schema(
        operation_id="adapters_report",
        request=NewReportSerializer,
        responses={**REPORTED, **MOVED, **refusals(400, 401, 403, 404, 409, 415)},
    )
    def post(self, request: Request, namespace: str, name: str) -> Response:
        """Tell the moderators that an adapter should not be here."""
        only(request)
        found = visible_adapter(request.user, namespace, name)
        require_whole_account(person_of(request))
        return _report(request, found)


class TaskReport(APIView):
    @extend_schema(
        operation_id="tasks_report",
        request=NewReportSerializer,
        responses={**REPORTED, **refusals(400, 401, 403, 404, 409, 415)},
    )
    def post(self, request: Request, slug: str) -> Response:
        """Tell the moderators that a task should not be here."""
        only(request)
        return _report(request, visible_task(request.user, slug))


def _report(request: Request, subject: moderation.Subject) -> Response:
    form = NewReportSerializer(data=request.data)
    form.is_valid(raise_exception=True)
    moderation.report(
        subject,
        reporter=person_of(request),
        address=client_address(request._request),
        **form.validated_data,
    )
    return Response(status=204)
