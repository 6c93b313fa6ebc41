"""The page and the endpoint that say which modules fit a task: doors to `compose.fit`."""

from __future__ import annotations

from typing import Any

from django.conf import settings
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from drf_spectacular.utils import extend_schema
from rest_framework import serializers
from rest_framework.permissions import AllowAny
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from compose import fit
from compose.errors import FewShotProblem
from compose.examples import parse_examples
from compose.forms import as_lines, base_models
from compose.serializers import ExamplesField
from registry.base_models import base_model_called
from registry.models import BaseModel
from registry.serializers import AdapterSerializer, StrictSerializer
from web.api_schema import refusals

PICKED = 8  # of the best, ticked for composing
SHOWN = 20


def fit_page(request: HttpRequest) -> HttpResponse:
    """Paste examples, choose a base model, and see which modules fit and why. Nothing is kept."""
    known = list(base_models())
    text = request.POST.get("examples_text", "")
    context: dict[str, Any] = {
        "section": "modules",
        "base_models": known,
        "base_name": request.POST.get("base_model") or request.GET.get("base", ""),
        "text": text,
        "limits": settings,
        "picked": PICKED,
    }
    if request.method != "POST":
        return render(request, "compose/fit.html", context)
    base_model = next((row for row in known if row.name == context["base_name"]), None)
    if base_model is None:
        context["base_problem"] = "Choose a base model of this list."
    try:
        examples = parse_examples(text)
    except FewShotProblem as problem:
        context["problems"] = problem.problems
    if "problems" in context or base_model is None:
        return render(request, "compose/fit.html", context, status=422)
    context["fits"] = fit.rank_modules(
        examples=examples, base_model=base_model, person=request.user, limit=SHOWN
    )
    context["examples"] = examples
    context["lines"] = as_lines(examples)
    return render(request, "compose/fit.html", context)


class FitRequestSerializer(StrictSerializer):
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
        operation_id="modules_that_fit",
        request=FitRequestSerializer,
        responses={200: FitSerializer, **refusals(400, 401, 404, 415)},
    )
    def post(self, request: Request) -> Response:
        """Which modules fit a task, best first, with the reasons for each. Nothing is run and nothing is kept."""
        given = FitRequestSerializer(data=request.data)
        given.is_valid(raise_exception=True)
        base_model: BaseModel = base_model_called(given.validated_data["base_model"])
        fits = fit.rank_modules(
            examples=parse_examples(given.validated_data["examples"]),
            base_model=base_model,
            person=request.user,
            limit=given.validated_data["limit"],
        )
        return Response(FitSerializer(fits, context={"request": request}).data)
