"""Endpoints that say which modules fit a task: doors to `compose.fit`, and to `compose.auditions` for the losses."""

from __future__ import annotations

from typing import Any

from drf_spectacular.utils import extend_schema, extend_schema_field
from rest_framework import serializers
from rest_framework.permissions import AllowAny
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from compose import auditions, fit
from compose.examples import parse_examples
from compose.models import Audition, Auditioned
from compose.serializers import ExamplesField
from registry.api_parts import only, person_of
from registry.authentication import SignedIn
from registry.base_models import base_model_called
from registry.models import BaseModel
from registry.serializers import AdapterSerializer, StrictSerializer
from web.api_schema import refusals

SHOWN = 20


class FitExamplesSerializer(StrictSerializer):
    base_model = serializers.CharField(help_text="By any of its names.")
    examples = ExamplesField(help_text="Rows, or text in one of the formats of a composition's examples.")
    limit = serializers.IntegerField(default=SHOWN, min_value=1, max_value=100)


class FitEntrySerializer(serializers.Serializer):
    module = AdapterSerializer(source="adapter")
    fit = serializers.FloatField(source="value", help_text="0 to 1: how much speaks for it.")
    parts = serializers.DictField(
        child=serializers.FloatField(),
        help_text="0 to 1 for each kind of evidence: answers, form, inputs, text, past.",
    )
    reasons = serializers.ListField(child=serializers.CharField())


class FitSerializer(serializers.Serializer):
    fitting = serializers.IntegerField(help_text="Modules that compose on this base model.")
    considered = serializers.IntegerField(help_text="How many of them were compared.")
    results = FitEntrySerializer(many=True, source="ranked")


class FitView(APIView):
    permission_classes = [AllowAny]
    takes_limited_tokens = True  # it changes nothing; a POST only since examples are too long for an address

    @extend_schema(
        operation_id="adapters_fit",
        request=FitExamplesSerializer,
        responses={200: FitSerializer, **refusals(400, 401, 404, 415)},
    )
    def post(self, request: Request) -> Response:
        """Which modules fit a task, best first, with the reasons for each. Nothing is run and nothing is kept."""
        only(request)
        given = FitExamplesSerializer(data=request.data)
        given.is_valid(raise_exception=True)
        base_model: BaseModel = base_model_called(given.validated_data["base_model"])
        fits = fit.rank_modules(
            examples=parse_examples(given.validated_data["examples"]),
            base_model=base_model,
            person=request.user,
            limit=given.validated_data["limit"],
        )
        return Response(FitSerializer(fits, context={"request": request}).data)


class NewAuditionSerializer(StrictSerializer):
    base_model = serializers.CharField(help_text="By any of its names.")
    examples = ExamplesField(help_text="Rows, or text in one of the formats of a composition's examples.")


class AuditionedSerializer(serializers.ModelSerializer):
    module = serializers.CharField(source="revision.adapter.full_name")
    revision = serializers.CharField(source="revision.commit")
    reasons = serializers.ListField(child=serializers.CharField())

    class Meta:
        model = Auditioned
        fields = ("module", "revision", "fit", "reasons", "loss", "problem")


class AuditionSerializer(serializers.ModelSerializer):
    """`results` come in the order of `fit` until `status` is `done` or `failed`, then by `loss`, the lowest first."""

    base_model = serializers.CharField(source="base_model.name")
    results = serializers.SerializerMethodField()

    class Meta:
        model = Audition
        fields = (
            "id", "status", "base_model", "fitting", "base_loss", "seconds", "error", "created_at", "results",
        )  # fmt: skip

    @extend_schema_field(AuditionedSerializer(many=True))
    def get_results(self, audition: Audition) -> Any:
        rows = auditions.modules_of(audition, self.context["request"].user)
        return AuditionedSerializer(rows, many=True).data


class AuditionList(APIView):
    permission_classes = [SignedIn]

    @extend_schema(
        operation_id="auditions_create",
        request=NewAuditionSerializer,
        responses={202: AuditionSerializer, **refusals(400, 401, 403, 404, 415, 429)},
    )
    def post(self, request: Request) -> Response:
        """Ask a free worker for the loss of every module that fits, each alone on the examples. Kept for a day."""
        only(request)
        given = NewAuditionSerializer(data=request.data)
        given.is_valid(raise_exception=True)
        audition = auditions.ask(
            person=person_of(request),
            base_model=base_model_called(given.validated_data["base_model"]),
            examples=parse_examples(given.validated_data["examples"]),
        )
        answer = Response(AuditionSerializer(audition, context={"request": request}).data, status=202)
        answer["Location"] = request.build_absolute_uri(f"{request.path}{audition.pk}/")
        return answer


class AuditionDetail(APIView):
    permission_classes = [SignedIn]

    @extend_schema(
        operation_id="auditions_read",
        responses={200: AuditionSerializer, **refusals(400, 401, 403, 404)},
    )
    def get(self, request: Request, id: str) -> Response:
        """One's own audition, with the losses that are there."""
        only(request)
        audition = auditions.seen_by(request.user, id)
        return Response(AuditionSerializer(audition, context={"request": request}).data)

    @extend_schema(operation_id="auditions_delete", responses={204: None, **refusals(400, 401, 403, 404)})
    def delete(self, request: Request, id: str) -> Response:
        """Remove the examples and their losses at once."""
        only(request)
        auditions.forget(auditions.seen_by(request.user, id))
        return Response(status=204)
